from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from safetensors.torch import load_file
from scipy.stats import binomtest, kstest
from small_models import UNET

from gradscope.config import DenoiserEvaluation, TrainClassifierConfig, TrainDenoiserConfig, check
from gradscope.data import datasets, sportballs
from gradscope.errors import GradscopeError
from gradscope.evaluation import cards as evaluation
from gradscope.models import cards, training
from gradscope.models.classifiers import build_classifier, load_classifier
from probes.timed import ask, takes_timestep

CPU = torch.device("cpu")
DATA = {"name": "sportballs", "size": 8, "samples": 50, "seed": 3}
STEPS = {"steps": 6, "batch_size": 4, "warmup_steps": 2, "checkpoint_every": 2, "ema_decay": 0.7, "seed": 1}
OPTIONS = {"channels": [8, 8, 8, 8], "stem_width": 8, "stem_type": ""}


def classifier(folder, **changes) -> TrainClassifierConfig:
    content = {"data": DATA, "timm": "resnet10t", "options": OPTIONS, "training": STEPS, "output": str(folder / "mine")}
    return TrainClassifierConfig.model_validate(content | changes)


def denoiser(folder, **changes) -> TrainDenoiserConfig:
    content = {"data": DATA, "unet": UNET, "training": STEPS, "output": str(folder / "mine")}
    return TrainDenoiserConfig.model_validate(content | changes)


def train(config, overwrite=False) -> Path:
    kind = training.train_denoiser if isinstance(config, TrainDenoiserConfig) else training.train_classifier
    return kind(config, CPU, overwrite)


def adversarial(folder, **changes) -> TrainClassifierConfig:
    return classifier(folder, adversarial={"radius": 0.3, "steps": 2}, **changes)


def noise_aware(folder, **changes) -> TrainClassifierConfig:
    return classifier(folder, train_on="x_t", takes_timestep=True, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Uninterrupted trainings of every kind, by the function that makes their configuration."""
    kinds = (classifier, adversarial, noise_aware, denoiser)
    made = {make: train(make(tmp_path_factory.mktemp("trained"))) for make in kinds}
    return {make: load_file(path.with_suffix(".safetensors")) for make, path in made.items()}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class Interrupted(Exception):
    pass


def interrupt(monkeypatch, config, step: int) -> None:
    """Train, and fail at the beginning of a step, after the checkpoint of an earlier one."""
    seed = training._step_seed

    def failing(base, i):
        if i == step:
            raise Interrupted
        return seed(base, i)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step_seed", failing)
        with pytest.raises(Interrupted):
            train(config)


@pytest.mark.slow
@pytest.mark.parametrize("make", [classifier, adversarial, noise_aware, denoiser])
@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_training_ends_bit_identical(tmp_path, monkeypatch, trained, make, step):
    config = make(tmp_path)
    interrupt(monkeypatch, config, step)
    saved = torch.load(tmp_path / "mine.checkpoint.pt", weights_only=True)
    assert saved["step"] == step - step % 2
    assert not (tmp_path / "mine.yaml").exists()
    seen = []
    loss_seed = training._step_seed
    monkeypatch.setattr(training, "_step_seed", lambda base, i: (seen.append(i), loss_seed(base, i))[1])
    path = train(config)
    assert seen == list(range(saved["step"], 6))
    assert equal(load_file(path.with_suffix(".safetensors")), trained[make])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.safetensors", "mine.yaml"]


def test_seeds_make_a_difference(tmp_path, trained):
    path = train(classifier(tmp_path, training=STEPS | {"seed": 2}))
    assert not equal(load_file(path.with_suffix(".safetensors")), trained[classifier])


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, monkeypatch, trained):
    interrupt(monkeypatch, classifier(tmp_path), 3)
    before = (tmp_path / "mine.checkpoint.pt").read_bytes()
    other = classifier(tmp_path, training=STEPS | {"learning_rate": 0.1})
    with pytest.raises(GradscopeError, match=r"^output: .*mine\.checkpoint\.pt is of another configuration"):
        train(other)
    assert (tmp_path / "mine.checkpoint.pt").read_bytes() == before
    path = train(classifier(tmp_path), overwrite=True)  # anew, not resumed
    assert equal(load_file(path.with_suffix(".safetensors")), trained[classifier])


def test_existing_output_is_kept_unless_told_otherwise(tmp_path, trained):
    config = classifier(tmp_path)
    for name in ("mine.yaml", "mine.safetensors"):
        (tmp_path / name).write_text("precious")
    with pytest.raises(
        GradscopeError, match=r"^output: .*mine\.yaml exists; choose another output; or start .*overwrite=True"
    ):
        train(config)
    assert {file.read_text() for file in tmp_path.iterdir()} == {"precious"}
    path = train(config, overwrite=True)
    assert equal(load_file(path.with_suffix(".safetensors")), trained[classifier])


def reference(config: TrainClassifierConfig) -> tuple[dict, dict]:
    """Train by plain torch; EMA of every parameter and buffer, written out. Gives the model's state and the EMA's.

    In the same layout: AdamW turns the rounding of tiny gradients into whole steps.
    """
    settings = config.training
    torch.manual_seed(settings.seed)
    model = build_classifier(config.timm, 4, 3, config.options).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, settings.steps)
    average: dict[str, torch.Tensor] = {}
    for step in range(settings.steps):
        index = np.random.default_rng([settings.seed, step]).integers(config.data.samples, size=settings.batch_size)
        drawn = sportballs.factors(config.data.seed, index)
        images = torch.from_numpy(sportballs.render(drawn, config.data.size)) * 2 - 1
        images = images.to(memory_format=torch.channels_last)
        loss = torch.nn.functional.cross_entropy(model(images), torch.from_numpy(drawn.label))
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        for p in model.parameters():
            p.grad *= min(1.0, 1.0 / (float(norm) + 1e-6))
        optimizer.step()
        schedule.step()
        for name, value in model.state_dict().items():
            old, decay = average.get(name, value), min(settings.ema_decay, (1 + step) / (10 + step))
            average[name] = decay * old.double() + (1 - decay) * value.double()
    return model.state_dict(), average


def test_what_is_written_is_the_moving_average_of_weights_and_buffers(tmp_path):
    config = classifier(tmp_path, training=STEPS | {"learning_rate": 0.02, "steps": 12, "ema_decay": 0.4})
    last, average = reference(config)
    written = load_file(train(config).with_suffix(".safetensors"))
    assert written.keys() == average.keys()
    for name, value in written.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[name], rtol=2e-3, atol=1e-4, msg=name)
    for name in ("conv1.weight", "bn1.running_mean"):
        assert (written[name].float() - last[name]).abs().max() > 5e-4, name


def test_the_layout_is_the_fast_one(tmp_path, monkeypatch):
    seen = []
    forward = torch.nn.Conv2d.forward

    def noting(self, x):
        seen.extend(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (x, self.weight))
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", noting)
    train(classifier(tmp_path))
    assert seen
    assert all(seen)


def test_an_adversarial_training_is_one_on_attacked_images(tmp_path, monkeypatch, trained):
    """With the attack as the identity it is the training on clean images; with the attack it is another."""
    seen = []

    def identity(model, images, labels, config):
        seen.append((len(images), config.radius, config.norm, config.steps))
        return images

    assert not equal(trained[adversarial], trained[classifier])
    monkeypatch.setattr(training, "attacked", identity)
    path = train(adversarial(tmp_path))
    assert equal(load_file(path.with_suffix(".safetensors")), trained[classifier])
    assert seen == [(4, 0.3, "l2", 2)] * 6
    wanted = {"radius": 0.3, "norm": "l2", "steps": 2, "step_size": None}
    assert cards.read(path).architecture["adversarial"] == wanted


def test_a_noise_aware_classifier_sees_the_timestep_of_its_images(tmp_path, monkeypatch):
    """The last input channel holds t / T, of the very t that noised the image."""
    seen, drawn = [], []
    original = training.noised

    def noting(*arguments):
        made = original(*arguments)
        drawn.append(made)
        return made

    monkeypatch.setattr(training, "noised", noting)
    config = noise_aware(tmp_path, scheduler={"num_train_timesteps": 250}, timesteps=[10, 200])
    hook = torch.nn.Conv2d.forward

    def first_layer(self, x):
        if x.shape[1] == 4:
            seen.append(x.detach().clone())
        return hook(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", first_layer)
    path = train(config)
    assert len(seen) == len(drawn) == 6
    for x, (x_t, _, t) in zip(seen, drawn, strict=True):
        assert torch.equal(x[:, :3], x_t)
        torch.testing.assert_close(x[:, 3], (t / 250).view(-1, 1, 1).expand(-1, 8, 8))
    module = load_classifier(str(path), "mine", (3, 8, 8)).module
    assert takes_timestep(module)
    seen.clear()
    with torch.no_grad():
        ask(module, torch.zeros(2, 3, 8, 8), 125)
    assert (seen[0][:, 3] == 0.5).all()
    assert cards.read(path).architecture["num_train_timesteps"] == 250


def test_a_noise_aware_classifier_is_measured_at_the_timesteps_of_x_t(tmp_path, held_out, monkeypatch):
    path = train(noise_aware(tmp_path))
    asked, original = [], evaluation.ask
    monkeypatch.setattr(evaluation, "ask", lambda module, x, t: (asked.append(t), original(module, x, t))[1])
    evaluation.measure_classifier(path, CPU)
    clean, noisy = torch.cat(asked[::2]), torch.cat(asked[1::2])
    assert (len(clean), len(noisy)) == (90, 90)
    assert (clean == 0).all()
    assert 400 < float(noisy.float().mean()) < 600


def test_the_card_says_what_the_weights_are(tmp_path):
    config = classifier(tmp_path, train_on="x_t", scheduler={"beta_end": 0.03}, timesteps=[0, 300])
    card = cards.read(train(config))
    assert card.kind == "classifier"
    process = {"scheduler": {"beta_end": 0.03}, "timesteps": [0, 300]}
    assert card.architecture == {"timm": "resnet10t", "options": OPTIONS, **process}
    assert card.classes == ["baseball", "basketball", "soccer ball", "volleyball"]
    assert (card.data, card.seed, card.steps, card.batch_size) == (config.data, 1, 6, 4)
    assert card.train_on == "x_t"
    assert card.versions["torch"] == torch.__version__.partition("+")[0]
    assert card.duration >= 0
    assert card.sha256 == cards.file_hash(tmp_path / "mine.safetensors")


@pytest.fixture
def held_out(monkeypatch):
    """Few held-out images, in batches that do not divide them."""
    monkeypatch.setattr(evaluation, "_HELD_OUT", 90)
    monkeypatch.setattr(evaluation, "_BATCH", 32)
    monkeypatch.setattr("gradscope.evaluation.real._BATCH", 32)
    index = np.random.default_rng(0).permutation(datasets.HELD_OUT)[:90]
    drawn = sportballs.factors(DATA["seed"], DATA["samples"] + index)
    return torch.from_numpy(sportballs.render(drawn, DATA["size"])) * 2 - 1, torch.from_numpy(drawn.label)


def float16(path, model):
    """The model with the weights that lie on the disk."""
    stored = load_file(path.with_suffix(".safetensors"))
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    return model.eval()


def test_a_classifiers_metrics_are_of_its_float16_weights(tmp_path, held_out):
    config = classifier(tmp_path, training=STEPS | {"steps": 30, "learning_rate": 0.01})
    path = train(config)
    metrics = evaluation.measure_classifier(path, CPU).metrics
    images, labels = held_out
    model = float16(path, build_classifier("resnet10t", 4, 3, OPTIONS))
    with torch.no_grad():
        right = int((model(images).argmax(dim=1) == labels).sum())
    assert 0 < right < 90
    interval = binomtest(right, 90).proportion_ci(0.95, method="wilson")
    clean = metrics["accuracy_clean"]
    assert (clean.n, clean.value) == (90, pytest.approx(right / 90, abs=1e-5))
    assert clean.interval == pytest.approx([interval.low, interval.high], abs=1e-5)
    # x_t is drawn anew: the same share within five standard errors of many draws
    torch.manual_seed(5)
    a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[torch.randint(1000, (40, 90))].view(40, 90, 1, 1, 1)
    x_t = a.sqrt() * images + (1 - a).sqrt() * torch.randn(40, *images.shape)
    with torch.no_grad():
        share = float((model(x_t.flatten(0, 1)).argmax(dim=1).view(40, 90) == labels).float().mean())
    assert abs(metrics["accuracy_x_t"].value - share) < 5 * (share * (1 - share) / 90) ** 0.5
    assert metrics["accuracy_x_t"].n == 90
    assert cards.read(path).metrics == metrics


def test_a_denoisers_loss_is_of_its_float16_weights(tmp_path, held_out):
    path = train(denoiser(tmp_path))
    loss = evaluation.measure_denoiser(path, None, CPU).metrics["loss"]
    unet = float16(path, UNet2DModel(sample_size=8, **UNET))
    images, _ = held_out
    torch.manual_seed(5)
    losses = []
    for _ in range(20):
        t, noise = torch.randint(1000, (90,)), torch.randn_like(images)
        a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1)
        with torch.no_grad():
            given = unet(a.sqrt() * images + (1 - a).sqrt() * noise, t).sample
        losses.append((given - noise).square().mean(dim=(1, 2, 3)))
    losses = torch.cat(losses).double()
    error = float(losses.std()) / 90**0.5
    assert abs(loss.value - float(losses.mean())) < 5 * error
    assert loss.n == 90
    low, high = loss.interval
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.3)
    assert (low + high) / 2 == pytest.approx(loss.value, abs=1e-5)


def test_a_denoisers_samples_are_measured(tmp_path, held_out):
    judge = train(classifier(tmp_path, output=str(tmp_path / "judge")))
    path = train(denoiser(tmp_path))
    settings = DenoiserEvaluation(judge=str(judge), extractor=str(judge), samples=40, num_inference_steps=3)
    metrics = evaluation.measure_denoiser(path, settings, CPU).metrics
    unet = float16(path, UNet2DModel(sample_size=8, **UNET))
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(3)
    generator = torch.Generator().manual_seed(0)
    samples = []
    for n in (32, 8):
        x = torch.randn(n, 3, 8, 8, generator=generator)
        for t in scheduler.timesteps:
            with torch.no_grad():
                x = scheduler.step(unet(x, t).sample, t, x, generator=generator).prev_sample
        samples.append(x)
    x = torch.cat(samples)
    model = float16(judge, build_classifier("resnet10t", 4, 3, OPTIONS))
    with torch.no_grad():
        counts = np.bincount(model(x).argmax(dim=1), minlength=4)
    shares = [metrics[f"share_{name}"].value for name in sportballs.CLASSES]
    assert shares == pytest.approx(counts / 40, abs=1e-5)
    assert metrics["mean_pixel"].value == pytest.approx(float(x.mean()), abs=1e-4)
    assert metrics["mean_pixel_data"].value == pytest.approx(float(held_out[0].mean()), abs=1e-4)
    assert metrics["fd_judge"].value > metrics["fd_judge_floor"].value > 0
    assert (metrics["fd_judge"].n, metrics["fd_judge_floor"].n) == (40, 40)


def test_an_evaluation_that_cannot_be_made_is_refused_before_the_training(tmp_path, held_out):
    settings = {"judge": "zoo:no/judge", "extractor": "zoo:no/judge", "samples": 46}
    with pytest.raises(GradscopeError, match=r"^evaluation\.samples: got 46; at most 45, half of the held-out images"):
        evaluation.check_evaluation(denoiser(tmp_path, evaluation=settings), CPU)
    with pytest.raises(GradscopeError, match=r"^evaluation\.judge: no 'zoo:no/judge' in the zoo"):
        evaluation.check_evaluation(denoiser(tmp_path, evaluation=settings | {"samples": 45}), CPU)
    evaluation.check_evaluation(denoiser(tmp_path), CPU)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_target_of_each_prediction_type(prediction_type):
    scheduler = DDPMScheduler(prediction_type=prediction_type)
    x_0, noise, t = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2), torch.tensor([0, 300, 700, 999])
    a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1)
    wanted = {"epsilon": noise, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * x_0, "sample": x_0}
    torch.testing.assert_close(training.target(scheduler, x_0, noise, t), wanted[prediction_type])


@pytest.mark.parametrize(("timesteps", "first", "end"), [(None, 0, 1000), ([100, 300], 100, 300)])
def test_x_t_is_the_forward_process_with_t_uniform(timesteps, first, end):
    scheduler, x_0 = DDPMScheduler(), torch.rand(20_000, 1, 1, 2) * 2 - 1
    torch.manual_seed(0)
    x_t, noise, t = training.noised(scheduler, x_0, timesteps)
    assert (int(t.min()), int(t.max())) == (first, end - 1)
    a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(x_t, a.sqrt() * x_0 + (1 - a).sqrt() * noise)
    assert kstest(noise.flatten(), "norm").pvalue > 1e-3
    assert kstest((t + torch.rand(20_000) - first) / (end - first), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(t, noise[:, 0, 0, 0].abs())[0, 1]) < 0.03


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path, held_out):
    """A ball's class shows in its colour: a few steps suffice to beat chance by far."""
    path = train(classifier(tmp_path, training=STEPS | {"steps": 60, "batch_size": 32, "learning_rate": 0.01}))
    assert evaluation.measure_classifier(path, CPU).metrics["accuracy_clean"].value > 0.5


@pytest.mark.slow
def test_a_short_training_has_a_moving_average_too(tmp_path, held_out):
    """At the default decay, 0.999: 250 steps of it would keep 78 % of the untrained weights."""
    settings = {"steps": 250, "batch_size": 16, "learning_rate": 0.01, "warmup_steps": 20}
    path = train(classifier(tmp_path, training=settings, data=DATA | {"samples": 20_000}))
    assert evaluation.measure_classifier(path, CPU).metrics["accuracy_clean"].value > 0.9


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (classifier, {"timm": "resnet10x"}, r"^timm: timm has no model 'resnet10x'; did you mean .*resnet10t"),
        (classifier, {"options": {"chanels": [8]}}, r"^timm: timm cannot build 'resnet10t'"),
        (classifier, {"scheduler": {"beta": 1}}, r"^scheduler: diffusers refused these arguments: .*'beta'"),
        (denoiser, {"scheduler": {"beta_schedule": "linar"}}, r"^scheduler: diffusers refused these arguments: linar"),
        (
            classifier,
            {"timesteps": [5, 1001]},
            r"^timesteps: first and end with 0 <= first < end <= 1000, got \[5, 1001\]",
        ),
        (classifier, {"calibrate": [0, 1001]}, r"^calibrate: first and end with 0 <= first < end <= 1000, got"),
        (denoiser, {"unet": {"layers": 1}}, r"^unet: diffusers refused these arguments: .*'layers'"),
        (
            denoiser,
            {"scheduler": {"prediction_type": "v"}},
            r"^scheduler\.prediction_type: got 'v'; one of: epsilon, v",
        ),
        (denoiser, {"data": {"name": "balls"}}, r"^data\.name: unknown data set 'balls'; did you mean 'sportballs'"),
    ],
)
def test_wrong_settings_name_the_key_and_write_nothing(tmp_path, make, changes, message):
    with pytest.raises(GradscopeError, match=message):
        train(make(tmp_path, **changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"takes_timestep": True}, r"takes_timestep: clean images have no timestep; set train_on: x_t"),
        ({"adversarial": {"radius": 1.0}, "train_on": "x_t"}, r"adversarial: images are moved, not x_t; set train_on:"),
        ({"adversarial": {"radius": 0.0}}, r"adversarial\.radius: .*greater than 0"),
        ({"adversarial": {"radius": 1.0, "norm": "l1"}}, r"adversarial\.norm: "),
        ({"calibrate": True}, r"calibrate: "),
    ],
)
def test_keys_of_a_training_that_do_not_fit_are_named(tmp_path, changes, message):
    content = {"data": DATA, "timm": "resnet10t", "training": STEPS, "output": str(tmp_path / "mine")}
    with pytest.raises(GradscopeError, match=message):
        check(TrainClassifierConfig, content | changes, "train.yaml")


def test_a_save_that_fails_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / "mine.checkpoint.pt"
    training._replace(path, {"step": 1})

    def torn(content, file):
        Path(file).write_bytes(b"half of i")
        raise OSError

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="^$"):
        training._replace(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}
