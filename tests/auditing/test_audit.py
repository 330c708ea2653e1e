import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler
from rich.console import Console
from scipy.stats import norm
from small_models import LinearClassifier
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from gradscope.auditing.audit import audit
from gradscope.cli.display.audit import audit_tables, audit_verdicts
from gradscope.errors import GradscopeError

SHAPE = (3, 8, 8)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 3])
BETAS = np.linspace(1e-4, 0.02, 1000)
ABAR = np.cumprod(1 - BETAS)
TIMES = [999, 666, 333, 0]


@pytest.fixture
def images():
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.fixture
def bright():
    """48 images of two classes, one bright in the first half of its pixels and one in the second."""
    labels = torch.arange(48) % 2
    images = -torch.ones(48, 1, 8, 8)
    images[labels == 0, :, :4] = 1
    images[labels == 1, :, 4:] = 1
    return images, labels


class Halves(nn.Module):
    """Logits of each half's mean, right with probability Phi(2 sqrt(abar) / sqrt((1 - abar) 2 / 32)) on `bright`."""

    def forward(self, x):
        return 4 * torch.stack([x[:, :, :4].mean(dim=(1, 2, 3)), x[:, :, 4:].mean(dim=(1, 2, 3))], dim=1)


class Wiggly(Halves):
    """As right as `Halves`, with a gradient of pseudo-random signs that says nothing of the image."""

    def forward(self, x):
        wiggle = torch.sin(1e5 * x.double()).flatten(1).sum(dim=1).float()
        return super().forward(x).detach() + torch.stack([wiggle, -wiggle], dim=1) * 1e-6


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([1.0, 0.0]).repeat(len(x), 1) + 0 * x.flatten(1).sum(dim=1, keepdim=True)


class Scaled(nn.Module):
    """A denoiser that predicts epsilon = 0.95 x_t."""

    def forward(self, x, t):
        return 0.95 * x


def noises(n: int, seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(2, *SHAPE, generator=generator) for _ in range(n)]).double().numpy()


def gradients(
    classifier: LinearClassifier, x_0: np.ndarray, noise: np.ndarray, t: int, a: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Closed form for a linear classifier of c x_t: c (W_y - sum_k p_k W_k), and p."""
    weight = classifier.linear.weight.detach().double().numpy()
    bias = classifier.linear.bias.detach().double().numpy()
    x_t = np.sqrt(ABAR[t]) * x_0 + np.sqrt(1 - ABAR[t]) * noise
    c = 1.0 if a is None else (1 - np.sqrt(1 - ABAR[t]) * a) / np.sqrt(ABAR[t])
    logits = c * x_t.reshape(len(x_0), -1) @ weight.T + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return c * (weight[LABELS.numpy()] - p @ weight), p


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([u @ v / (np.linalg.norm(u) * np.linalg.norm(v)) for u, v in zip(a, b, strict=True)])


@pytest.mark.parametrize(("kind", "factor"), [("x_t", None), ("x0", 0.95)])
def test_a_linear_classifier_has_gradients_in_closed_form(classifier, images, kind, factor):
    classifiers = {"mine": classifier, "other": LinearClassifier(gain=0.5)}
    scheduler = DDPMScheduler(clip_sample=False)
    ds = audit(classifiers, images, LABELS, unet=Scaled(), scheduler=scheduler, timesteps=4, batch_size=3, seed=2)
    assert ds.timestep.values.tolist() == TIMES
    assert ds.classifier_input.values.tolist() == ["x_t", "x0"]
    np.testing.assert_allclose(ds.alphas_cumprod, ABAR[TIMES], rtol=1e-4)
    np.testing.assert_array_equal(ds.label, LABELS)
    noise, x_0 = noises(7, seed=2), images.double().numpy()
    for name, module in classifiers.items():
        found = ds.sel(classifier=name, classifier_input=kind)
        previous = None
        for k, t in enumerate(TIMES):
            row = found.isel(timestep=k)
            g, p = gradients(module, x_0, noise[:, 0], t, factor)
            other, _ = gradients(module, x_0, noise[:, 1], t, factor)
            length = np.linalg.norm(g, axis=1)
            sigma = np.sqrt(BETAS[t] * (1 - ABAR[t - 1]) / (1 - ABAR[t])) if t else 0
            np.testing.assert_allclose(row.gradient_norm, length, rtol=1e-3)
            np.testing.assert_allclose(row.leverage, length * sigma * np.sqrt(192), rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(row.noise_cosine, cosine(g, other), atol=1e-4)
            expected = np.full(7, np.nan) if previous is None else cosine(g, previous)
            np.testing.assert_allclose(row.gradient_cosine, expected, atol=1e-4)
            np.testing.assert_array_equal(row.predicted_class, p.argmax(axis=1))
            np.testing.assert_allclose(row.confidence, p.max(axis=1), rtol=1e-4)
            np.testing.assert_allclose(row.log_prob, np.log(p[range(7), LABELS.numpy()]), rtol=1e-3, atol=1e-4)
            assert (row.zero_fraction == 0).all()
            assert (row.finite_fraction == 1).all()
            previous = g


def test_the_noise_depends_neither_on_the_batch_nor_on_what_else_is_audited(classifier, images):
    alone = audit({"mine": classifier}, images, LABELS, timesteps=3, batch_size=7)
    beside = audit({"other": Halves(), "mine": classifier}, images, LABELS % 2, timesteps=3, batch_size=2)
    np.testing.assert_array_equal(alone.predicted_class[0], beside.predicted_class[1])
    other_seed = audit({"mine": classifier}, images, LABELS, timesteps=3, seed=1)
    assert (alone.gradient_norm != other_seed.gradient_norm).any()


def test_accuracy_and_calibration_are_counted(classifier, images):
    many, labels = images.repeat(20, 1, 1, 1), LABELS.repeat(20)
    ds = audit({"mine": classifier}, many, labels, timesteps=3).isel(classifier=0, classifier_input=0)
    z = 1.959964
    for k in range(3):
        row = ds.isel(timestep=k)
        right, confidence = (row.predicted_class == labels.numpy()).values, row.confidence.values.astype(float)
        share = right.mean()
        assert float(row.accuracy) == pytest.approx(share)
        middle, half = share + z**2 / 280, z * np.sqrt(share * (1 - share) / 140 + z**2 / (4 * 140**2))
        bounds = np.array([middle - half, middle + half]) / (1 + z**2 / 140)
        np.testing.assert_allclose(row.accuracy_interval, bounds, atol=1e-5)
        error = 0.0
        for b in range(15):
            inside = (confidence >= b / 15) & (confidence < (b + 1) / 15)
            if inside.any():
                error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        assert error > 0.01
        assert float(row.calibration_error) == pytest.approx(error, abs=1e-5)


def test_the_calibration_error_is_that_of_all_classes_probabilities(classifier, images):
    ds = audit({"mine": classifier}, images, LABELS, timesteps=2)
    x = np.sqrt(ABAR[0]) * images.numpy() + np.sqrt(1 - ABAR[0]) * noises(7, seed=0)[:, 0]
    with torch.no_grad():
        p = classifier(torch.from_numpy(x).float()).softmax(dim=1)
    expected = multiclass_calibration_error(p, LABELS, num_classes=4, n_bins=15, norm="l1")
    assert float(ds.calibration_error[0, 0, -1]) == pytest.approx(float(expected), abs=1e-5)


def test_the_noise_cosines_interval_is_the_bootstraps(bright):
    ds = audit({"mine": Halves()}, *bright, timesteps=2, seed=3)
    assert float(ds.noise_cosine[0, 0, 1].min()) == pytest.approx(1)  # linear in two classes: one direction
    ds = audit({"mine": Wiggly()}, *bright, timesteps=2, seed=3)
    values = ds.noise_cosine[0, 0, 1].values
    low, high = ds.noise_cosine_interval[0, 0, 1].values
    spread = values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * spread, abs=0.3 * spread)
    assert high == pytest.approx(values.mean() + 1.96 * spread, abs=0.3 * spread)


def test_where_each_kind_of_classifier_can_guide(bright):
    ds = audit({"halves": Halves(), "constant": Constant(), "wiggly": Wiggly()}, *bright, timesteps=6)
    can = ds.can_guide.isel(classifier_input=0)
    assert float(ds.chance) == 0.5
    abar = ABAR[can.timestep.values]
    accuracy = norm.cdf(2 * np.sqrt(abar) / np.sqrt((1 - abar) * 2 / 32))
    found = ds.accuracy_interval.sel(classifier="halves", classifier_input="x_t")
    assert ((found[:, 0] < accuracy) & (accuracy <= found[:, 1] + 1e-9)).all()
    assert (accuracy[:2] < 0.7).all()
    assert (accuracy[2:] > 0.8).all()
    assert can.sel(classifier="halves").values.tolist() == [False, False, True, True, True, True]
    assert not can.sel(classifier=["constant", "wiggly"]).any()
    assert (ds.accuracy.sel(classifier="wiggly") == ds.accuracy.sel(classifier="halves")).all()
    constant = ds.sel(classifier="constant", classifier_input="x_t")
    assert (constant.accuracy == 0.5).all()
    assert (constant.zero_fraction == 1).all()
    assert constant.noise_cosine.isnull().all()
    assert (constant.noise_cosine_interval == 0).all()
    low, high = found.values[1]
    halves, none, wiggly = audit_verdicts(ds)
    assert halves == (
        f"halves at x_t: can guide for t <= 599; not for t >= 799: at 799 the accuracy [{low:.2f}, {high:.2f}] "
        "includes chance 0.50"
    )
    assert none == (
        "constant at x_t: can guide at no audited timestep; 0 <= t <= 999: at 0 the accuracy [0.36, 0.64] includes "
        "chance 0.50"
    )
    low, high = ds.noise_cosine_interval.values[2, 0, -1]
    assert wiggly == (
        "wiggly at x_t: can guide at no audited timestep; 0 <= t <= 999: at 0 the cosine of two noises' gradients "
        f"[{low:.3f}, {high:.3f}] includes 0"
    )


def test_imbalance_is_no_skill(bright):
    images, _ = bright
    labels = (torch.arange(48) % 8 == 0).long()  # 42 of class 0, which a constant answer gets
    ds = audit({"constant": Constant()}, images, labels, timesteps=2)
    assert float(ds.chance) == pytest.approx(42 / 48)
    assert (ds.accuracy == ds.chance).all()
    assert not ds.can_guide.any()


def hand_made(can: list[bool]) -> xr.Dataset:
    """Ascending timesteps 0, 10, ... as a dataset of one classifier, descending; its accuracy is below chance."""
    n = len(can)
    low = np.where(can, 0.9, 0.1)[::-1]
    cell = ("classifier", "classifier_input", "timestep")
    return xr.Dataset(
        {
            "can_guide": (cell, np.array(can)[None, None, ::-1]),
            "accuracy_interval": ((*cell, "bound"), np.stack([low, low + 0.1], axis=-1)[None, None]),
            "noise_cosine_interval": ((*cell, "bound"), np.full((1, 1, n, 2), 0.5)),
            "chance": 0.5,
        },
        {"classifier": ["mine"], "classifier_input": ["x0"], "timestep": np.arange(n)[::-1] * 10},
    )


@pytest.mark.parametrize(
    ("can", "words"),
    [
        ([True] * 3, "can guide at all 3 audited timesteps"),
        ([False, True, True, False, False],
         "can guide for 10 <= t <= 20; not for t = 0: at 0 the accuracy [0.10, 0.20] is below chance 0.50; "
         "t >= 30: at 30 the accuracy [0.10, 0.20] is below chance 0.50"),
        ([True, True, False, True, True],
         "can guide for t <= 10 and t >= 30; not for t = 20: at 20 the accuracy [0.10, 0.20] is below chance 0.50"),
    ],
)  # fmt: skip
def test_ranges_in_words(can, words):
    assert audit_verdicts(hand_made(can)) == [f"mine at x0: {words}"]


def printed(ds: xr.Dataset) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        for table in audit_tables(ds):
            console.print(table)
    return captured.get()


def test_the_tables_have_every_timestep_and_fit_80_columns(bright):
    ds = audit({"halves": Halves(), "constant": Constant()}, *bright, timesteps=3)
    text = printed(ds)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["999"], ["499"], ["0"])]
    assert [row[0] for row in rows] == ["999", "499", "0"] * 2
    assert rows[2][1] == "1.00"
    assert rows[0][9] == "-"  # no larger timestep
    assert [row[12] for row in rows] == ["no", "yes", "yes", "no", "no", "no"]
    assert [row[13] for row in rows[3:]] == ["1.00"] * 3  # zeros
    assert "N = 48 held-out images, fewer than 64: take the verdicts as provisional; chance 0.50." in " ".join(
        text.split()
    )


def test_what_is_not_finite_is_seen_and_never_averaged(bright):
    images, labels = bright

    class Broken(Halves):
        def forward(self, x):
            return super().forward(x) + torch.where(torch.arange(len(x))[:, None] == 3, torch.nan, 0)

    whole = audit({"broken": Broken()}, images, labels, timesteps=2, batch_size=48)
    ds = whole.isel(classifier=0, classifier_input=0)
    assert ds.predicted_class.sel(timestep=0).values.tolist()[3] == -1
    assert ds.finite_fraction.isel(sample=3).values.tolist() == [0, 0]
    assert float(ds.finite_fraction.sum()) == 2 * 47
    for name in ("confidence", "log_prob", "gradient_norm", "noise_cosine", "leverage"):
        assert np.isnan(ds[name]).sum("sample").values.tolist() == [1, 1]
    assert float(ds.accuracy.sel(timestep=0)) == pytest.approx(47 / 48)
    assert np.isnan(ds.calibration_error).all()
    text = printed(whole)
    assert "not finite" in text
    assert [line.split()[-1] for line in text.splitlines() if line.split()[0] in ("999", "0")] == ["1", "1"]


def test_classifiers_are_put_into_evaluation_mode(images):
    model = nn.Sequential(nn.Dropout(0.9), LinearClassifier()).train()
    first, second = (audit({"mine": model}, images, LABELS, timesteps=2) for _ in range(2))
    xr.testing.assert_equal(first, second)
    assert not model.training


def test_every_training_timestep_can_be_audited_however_the_scheduler_spaces_its_steps(classifier, images):
    expected = audit({"mine": classifier}, images, LABELS, timesteps=4)
    for scheduler in (
        DDPMScheduler(timestep_spacing="trailing"),
        DDIMScheduler(steps_offset=1, set_alpha_to_one=False),
    ):
        xr.testing.assert_allclose(
            audit({"mine": classifier}, images, LABELS, scheduler=scheduler, timesteps=4), expected
        )
    short = audit({"mine": classifier}, images, LABELS, scheduler=DDPMScheduler(num_train_timesteps=5), timesteps=5)
    assert short.timestep.values.tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": 1}, "timesteps: must be from 2 to the scheduler's 1000, got 1"),
        ({"timesteps": 1001}, "timesteps: must be from 2 to the scheduler's 1000, got 1001"),
        (
            {"scheduler": EDMEulerScheduler()},
            "scheduler: ddpm runs noise by alphas_cumprod, but the denoiser comes with",
        ),
    ],
)
def test_what_cannot_be_audited_is_refused(classifier, images, options, message):
    with pytest.raises(GradscopeError, match=f"^{message}"):
        audit({"mine": classifier}, images, LABELS, **options)


def test_too_few_images_and_labels_that_are_no_class_are_refused(classifier, images):
    with pytest.raises(GradscopeError, match=r"^samples: an audit needs at least 2 images, got 1$"):
        audit({"mine": classifier}, images[:1], LABELS[:1])
    with pytest.raises(GradscopeError, match=r"^labels: the classifier has classes 0 to 3, got 7$"):
        audit({"mine": classifier}, images, LABELS + 4)


def test_every_variable_says_what_it_is(classifier, images):
    ds = audit({"mine": classifier}, images, LABELS, timesteps=2)
    for variable in ds.data_vars.values():
        assert set(variable.attrs) == {"long_name", "units", "equation"}
    for coordinate in ds.coords.values():
        assert set(coordinate.attrs) == {"long_name", "units"}


def test_progress_is_told(classifier, images):
    seen = []
    audit(
        {"a": classifier, "b": classifier}, images, LABELS, timesteps=2, batch_size=4, on_step=lambda *s: seen.append(s)
    )
    assert seen == [(k, 8) for k in range(1, 9)]
