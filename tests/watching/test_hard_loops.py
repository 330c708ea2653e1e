"""Loops that fooled an earlier version of the watch."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest
import tiny_pipelines as tiny
import torch
import watched_loops as loops
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradscope
from gradscope.errors import GradscopeError, GradscopeWarning

LABELS = loops.LABELS


def watch(path, call, **given):
    with gradscope.watch(path, **given) as watched:
        result = call(watched)
    return watched, result


def gradients(path):
    return gradscope.open(path)["gradient"].values[0, 0, 0, 0]


def equal(path, used):
    np.testing.assert_array_equal(gradients(path), torch.stack(used, 1).numpy())


def log_p(logits, labels=LABELS):
    return logits.log_softmax(dim=1)[range(len(labels)), labels].sum()


class Small:
    """U-Net, classifier and a scheduler; `loop` runs the steps that a test writes."""

    def __init__(self, scheduler=None, steps=5):
        self.unet, self.guide = loops.unet(), loops.classifier()
        self.scheduler = scheduler or DDPMScheduler(num_train_timesteps=200)
        self.steps, self.used = steps, []
        self.given = {"denoiser": self.unet, "guide": self.guide, "scheduler": self.scheduler}

    def gradient(self, x, labels=LABELS, to_guide=lambda x: x):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            return torch.autograd.grad(log_p(self.guide(to_guide(at)), labels), at)[0]

    def loop(self, step, seed=5):
        """``step(x, t, generator)`` gives the next x."""
        x, generator = loops.start(seed=seed)
        self.scheduler.set_timesteps(self.steps)
        x = x * self.scheduler.init_noise_sigma
        with torch.no_grad():
            for t in self.scheduler.timesteps:
                x = step(x, t, generator)
        return x

    def plain(self, x, t, generator):
        """The gradient at x_t, added to the scheduler's step."""
        self.used.append(self.gradient(x))
        stepped = self.scheduler.step(self.unet(x, t).sample, t, x, generator=generator)
        return stepped.prev_sample + 0.1 * self.used[-1]


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler])
def test_a_copy_of_the_scheduler_inside_the_loop_is_its_own(tmp_path, kind):
    def run(path):
        pipe, call = tiny.stable_diffusion(kind(**tiny.BETAS))

        def look_ahead(pipe, i, t, values):
            other = copy.deepcopy(pipe.scheduler)
            if i == 1:
                other.step(torch.zeros_like(values["latents"]), pipe.scheduler.timesteps[i + 1], values["latents"])
            return values

        if path is None:
            return call(callback_on_step_end=look_ahead)
        return watch(path, lambda watched: call(callback_on_step_end=look_ahead), pipe=pipe)[1]

    assert torch.equal(run(None), run(tmp_path / "w.zarr"))


class WithState(DDIMScheduler):
    """A scheduler whose step changes a mapping, an array and a generator of its own, and NumPy's global one."""

    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.memory, self.count = {"last": None}, np.zeros(1)
        self.own = torch.Generator().manual_seed(3)

    def step(self, model_output, timestep, sample, **kwargs):
        made = super().step(model_output, timestep, sample, **kwargs)
        self.count += 1
        last = self.memory["last"]
        self.memory["last"] = made.prev_sample
        made.prev_sample = made.prev_sample + 0.1 * self.count[0] * torch.randn(sample.shape, generator=self.own)
        made.prev_sample = made.prev_sample + 0.01 * np.random.rand()  # noqa: NPY002
        made.prev_sample = made.prev_sample + (0 if last is None else 0.1 * last)
        return made


def test_a_scheduler_with_state_of_its_own_is_not_disturbed(tmp_path):
    def run(path):
        np.random.seed(0)  # noqa: NPY002
        loop = loops.GuidedDiffusion(ddim=True)
        scheduler = WithState(num_train_timesteps=200, clip_sample=False)
        scheduler.set_timesteps(6)

        def call(watched):
            x = loops.start()[0]
            for t in scheduler.timesteps:
                with torch.no_grad():
                    eps = loop.unet(x, t).sample
                    x = scheduler.step(eps - loop.cond_fn(x, t.expand(4), LABELS), t, x).prev_sample
            return x

        if path is None:
            return call(None)
        return watch(path, call, denoiser=loop.unet, guide=loop.guide, scheduler=scheduler)[1]

    assert torch.equal(run(None), run(tmp_path / "w.zarr"))


def test_models_and_schedulers_can_be_copied_and_saved_inside_the_watch(tmp_path):
    small = Small()
    with gradscope.watch(tmp_path / "w.zarr", **small.given):
        other = copy.deepcopy(small.unet)
        torch.save(small.unet, tmp_path / "unet.pt")
        again = pickle.loads(pickle.dumps(small.scheduler))
        small.loop(small.plain)
    assert other(torch.zeros(1, 3, 8, 8), 1).sample.shape == (1, 3, 8, 8)
    again.set_timesteps(3)
    assert again.step(torch.zeros(1, 3, 8, 8), again.timesteps[0], torch.zeros(1, 3, 8, 8)).prev_sample is not None
    equal(tmp_path / "w.zarr", small.used)


def test_a_watch_is_entered_once(tmp_path):
    small = Small()
    watched, _ = watch(tmp_path / "w.zarr", lambda watched: small.loop(small.plain), **small.given)
    with pytest.raises(GradscopeError, match="a watch is entered once"):
        watched.__enter__()
    for bad in (DDPMScheduler, 3):
        with pytest.raises(GradscopeError, match="scheduler: takes the object"):
            gradscope.watch(tmp_path / "x.zarr", **(small.given | {"scheduler": bad}))


def test_warnings_as_errors_do_not_break_the_loop(tmp_path):
    small = Small()

    def run():
        with gradscope.watch(tmp_path / "w.zarr", **(small.given | {"timesteps": [3.0, 2.0]})):
            small.result = small.loop(small.plain)

    with warnings.catch_warnings():
        warnings.simplefilter("error", GradscopeWarning)
        with pytest.raises(GradscopeWarning, match="is not one of the schedule's 2"):
            run()
    assert small.result.shape == (4, 3, 8, 8)


@pytest.mark.parametrize("order", ["guide first", "forward first, gradient last"])
def test_a_guide_before_the_denoiser_whose_input_is_scaled(tmp_path, order):
    small = Small(EulerDiscreteScheduler())

    def step(x, t, generator):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            value = log_p(small.guide(at))
            if order == "guide first":
                small.used.append(torch.autograd.grad(value, at)[0])
            with torch.no_grad():
                eps = small.unet(small.scheduler.scale_model_input(x, t), t).sample
            if order != "guide first":
                small.used.append(torch.autograd.grad(value, at)[0])
        return small.scheduler.step(eps, t, x).prev_sample + 0.1 * small.used[-1]

    watched, _ = watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    assert watched.problems == []
    equal(tmp_path / "w.zarr", small.used)
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds["classifier_input"].values.tolist() == ["x_t"]
    assert ds["label"].values.tolist() == LABELS.tolist()
    assert ds.attrs["status"] == "complete"


@pytest.mark.parametrize("guide_first", [True, False])
def test_the_update_is_that_of_its_own_gradient(tmp_path, guide_first):
    """Also where guide and stabiliser come before the denoiser, so that its call of the step before is the last one."""
    small, factors = Small(), iter(range(1, 9))

    def call(watched):
        def step(x, t, generator):
            if not guide_first:
                eps = small.unet(x, t).sample
            small.used.append(small.gradient(x))
            update = next(factors) * small.used[-1]
            watched.update(update)
            if guide_first:
                eps = small.unet(x, t).sample
            return small.scheduler.step(eps, t, x, generator=generator).prev_sample + 0.1 * update

        watched.final(small.loop(step))

    watched, _ = watch(tmp_path / "w.zarr", call, **small.given)
    assert watched.problems == []
    equal(tmp_path / "w.zarr", small.used)
    ds = gradscope.open(tmp_path / "w.zarr")
    expected = torch.stack([k * g for k, g in enumerate(small.used, 1)], 1)
    np.testing.assert_array_equal(ds["update"].values[0, 0, 0, 0], expected)
    assert (ds["shift_direction_cosine"] > 0.999).all()


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("look_first", [True, False])
def test_the_denoiser_looks_at_another_x_too(tmp_path, guided, look_first):
    """The other prediction is no classifier-free guidance, and x0-hat and shift are those of x_t."""
    small = Small()

    def step(x, t, generator):
        if look_first:
            small.unet(x + 0.1, t)
        eps = small.unet(x, t).sample
        if not look_first:
            small.unet(x + 0.1, t)
        if not guided:
            return small.scheduler.step(eps, t, x, generator=generator).prev_sample
        small.used.append(small.gradient(x))
        return small.scheduler.step(eps, t, x, generator=generator).prev_sample + 0.1 * small.used[-1]

    if not guided:
        with pytest.warns(GradscopeWarning, match="never ran inside the watch"):
            watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
        assert not (tmp_path / "w.zarr").exists()
        return
    watch(tmp_path / "w.zarr", lambda watched: watched.final(small.loop(step)), **small.given)
    ds = gradscope.open(tmp_path / "w.zarr")
    equal(tmp_path / "w.zarr", small.used)
    assert (ds["shift_direction_cosine"] > 0.999).all()
    x, t = torch.as_tensor(ds["x_t"].values[0, 0, 0, 0, :, 2].copy()), small.scheduler.timesteps[2]
    with torch.no_grad():
        expected = small.scheduler.step(small.unet(x, t).sample, t, x).pred_original_sample
    np.testing.assert_allclose(ds["pred_original_sample"].values[0, 0, 0, 0, :, 2], expected, rtol=1e-4, atol=1e-4)


def test_two_backward_passes_sum_up_in_grad(tmp_path):
    small = Small()

    def step(x, t, generator):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            log_p(small.guide(at)).backward()
            (-at.square().sum()).backward()
        small.used.append(at.grad.clone())
        eps = small.unet(x, t).sample
        return small.scheduler.step(eps, t, x, generator=generator).prev_sample + 0.1 * at.grad

    watched, _ = watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    assert watched.problems == []
    equal(tmp_path / "w.zarr", small.used)


def test_several_gradients_at_one_point_are_told(tmp_path):
    small = Small()

    def step(x, t, generator):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            first = torch.autograd.grad(log_p(small.guide(at)), at)[0]
            second = torch.autograd.grad(-at.square().sum(), at)[0]
        return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample + first + second

    with pytest.warns(GradscopeWarning, match="several gradients at the same point in a step"):
        watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("step_first", [True, False])
def test_gradient_checkpointing(tmp_path, reentrant, step_first):
    small = Small()

    def step(x, t, generator):
        a = small.scheduler.alphas_cumprod[t]
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            eps = checkpoint(lambda z: small.unet(z, t).sample, at, use_reentrant=reentrant)
            value = log_p(small.guide((at - (1 - a).sqrt() * eps) / a.sqrt()))
            if not step_first:
                small.used.append(torch.autograd.grad(value, at)[0] if not reentrant else _backward(value, at))
            stepped = small.scheduler.step(eps.detach(), t, x, generator=generator).prev_sample
            if step_first:
                small.used.append(torch.autograd.grad(value, at)[0] if not reentrant else _backward(value, at))
        return stepped + 0.1 * small.used[-1]

    watched, _ = watch(tmp_path / "w.zarr", lambda watched: watched.final(small.loop(step)), **small.given)
    assert watched.problems == []
    equal(tmp_path / "w.zarr", small.used)
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds["classifier_input"].values.tolist() == ["x0"]
    assert "repeated" not in json.loads(ds.attrs["seen"])


def _backward(value, at):
    value.backward()
    return at.grad.clone()


def test_x_t_that_is_no_leaf(tmp_path):
    small = Small(steps=4)

    def step(x, t, generator):
        a = small.scheduler.alphas_cumprod[t]
        with torch.enable_grad():
            root = x.detach().requires_grad_()
            x_t = root * 1.0
            eps = small.unet(x_t, t).sample
            x_0 = (x_t - (1 - a).sqrt() * eps) / a.sqrt()
            small.used.append(torch.autograd.grad(log_p(small.guide(x_0)), x_t)[0])
        return small.scheduler.step(eps.detach(), t, x, generator=generator).prev_sample + 0.1 * small.used[-1]

    watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    equal(tmp_path / "w.zarr", small.used)
    assert gradscope.open(tmp_path / "w.zarr")["classifier_input"].values.tolist() == ["x0"]


@pytest.mark.parametrize("to_guide", [lambda x: x / 2 + 0.5, lambda x: x.clamp(-3, 3).float()])
def test_preprocessing_before_the_guide_is_guidance_at_x_t(tmp_path, to_guide):
    small = Small()

    def step(x, t, generator):
        small.used.append(small.gradient(x, to_guide=to_guide))
        return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample

    watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    equal(tmp_path / "w.zarr", small.used)
    assert gradscope.open(tmp_path / "w.zarr")["classifier_input"].values.tolist() == ["x_t"]


def test_x0_detached_is_told_from_preprocessing(tmp_path):
    small = Small(DDPMScheduler(num_train_timesteps=200, clip_sample=False))

    def step(x, t, generator):
        a = small.scheduler.alphas_cumprod[t]
        eps = small.unet(x, t).sample
        small.used.append(small.gradient(x, to_guide=lambda x: (x - (1 - a).sqrt() * eps) / a.sqrt()))
        return small.scheduler.step(eps, t, x, generator=generator).prev_sample

    watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    equal(tmp_path / "w.zarr", small.used)
    assert gradscope.open(tmp_path / "w.zarr")["classifier_input"].values.tolist() == ["x0_detached"]


@pytest.mark.parametrize("clamp", [True, False])
def test_mpgd_with_a_clamp_is_a_gradient_at_x0(tmp_path, clamp):
    loop = loops.DPS()

    def call(watched):
        x, generator = loops.start()
        for t in loop.scheduler.timesteps:
            a = loop.scheduler.alphas_cumprod[t]
            with torch.no_grad():
                eps = loop.unet(x, t).sample
            x_0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
            z = (x_0.clamp(-1, 1) if clamp else x_0).detach().requires_grad_()
            moved = x_0 + torch.autograd.grad(loop.guide(z).sum(), z)[0]
            x = loop.scheduler.step((x - a.sqrt() * moved) / (1 - a).sqrt(), t, x, generator=generator).prev_sample
        return x

    watch(tmp_path / "w.zarr", call, **loop.watched)
    assert gradscope.open(tmp_path / "w.zarr")["classifier_input"].values.tolist() == ["at_x0"]


def test_logits_are_those_of_the_call_that_was_differentiated(tmp_path):
    small = Small()

    def step(x, t, generator):
        small.used.append(small.gradient(x))
        small.gradient(3 * x + 1, labels=LABELS.flip(0))  # at another point, later
        return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample

    watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    ds = gradscope.open(tmp_path / "w.zarr")
    equal(tmp_path / "w.zarr", small.used)
    assert ds["label"].values.tolist() == LABELS.tolist()
    with torch.no_grad():
        expected = small.guide(torch.as_tensor(ds["x_t"].values[0, 0, 0, 0, :, 1].copy())).log_softmax(1)
    np.testing.assert_allclose(ds["log_prob"].values[0, 0, 0, 0, :, 1], expected[range(4), LABELS], rtol=1e-5)
    assert "further gradients" in json.loads(ds.attrs["unseen"])


def test_a_guide_that_sees_more_rows_than_the_batch(tmp_path):
    """Cutouts, or Monte Carlo draws."""
    small = Small()

    def step(x, t, generator):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            many = torch.cat([at, at.flip(3), at + 0.1])
            small.used.append(torch.autograd.grad(log_p(small.guide(many), LABELS.repeat(3)), at)[0])
        return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample

    watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds.sizes["sample"] == 4
    equal(tmp_path / "w.zarr", small.used)


@pytest.mark.parametrize("objective", ["regression", "entropy", "smoothed"])
def test_outputs_that_are_no_logits_give_no_labels_and_no_sign(tmp_path, objective):
    small = Small()

    def value(out):
        if objective == "regression":
            return (out - 1).square().sum()
        if objective == "entropy":
            return torch.special.entr(out.softmax(dim=1)).sum()
        return (out.log_softmax(dim=1)[:, :2]).sum()  # either of two classes

    def step(x, t, generator):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            small.used.append(torch.autograd.grad(value(small.guide(at)), at)[0])
        return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample

    watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    equal(tmp_path / "w.zarr", small.used)
    assert (gradscope.open(tmp_path / "w.zarr")["label"] == -1).all()


def test_labels_of_each_batch_and_of_each_cell(tmp_path):
    small = Small()
    other = LABELS.flip(0)

    def step_for(labels):
        def step(x, t, generator):
            small.used.append(small.gradient(x, labels))
            return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample

        return step

    def call(watched):
        for name in ("a", "b"):
            with watched.cell(classifier=name):
                for labels in (LABELS, other) if name == "a" else (other,):
                    watched.labels(labels)
                    small.loop(step_for(labels))

    watched, _ = watch(tmp_path / "w.zarr", call, **small.given)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds["label"].values.tolist() == [*LABELS.tolist(), *other.tolist()]
    written = (ds["written"] > 0).all("timestep").values[:, 0, 0, 0]
    assert written.tolist() == [[True] * 8, [False] * 4 + [True] * 4]
    for labels, rows in ((LABELS, slice(0, 4)), (other, slice(4, 8))):
        x = torch.as_tensor(ds["x_t"].values[0, 0, 0, 0, rows, 4].copy())
        with torch.no_grad():
            expected = small.guide(x).log_softmax(1)[range(4), labels]
        np.testing.assert_allclose(ds["log_prob"].values[0, 0, 0, 0, rows, 4], expected, rtol=1e-5)


def test_one_logit_is_a_classifier_where_labels_are_given(tmp_path):
    small, labels = Small(), torch.tensor([1, 0, 1, 1])
    small.guide = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))

    def step(x, t, generator):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            loss = nn.functional.binary_cross_entropy_with_logits(
                small.guide(at)[:, 0], labels.float(), reduction="sum"
            )
            small.used.append(torch.autograd.grad(-loss, at)[0])
        return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample

    given = small.given | {"guide": small.guide}
    watch(tmp_path / "a.zarr", lambda watched: small.loop(step), **given, labels=labels)
    ds = gradscope.open(tmp_path / "a.zarr")
    equal(tmp_path / "a.zarr", small.used)
    assert ds.attrs["guidance_kind"] == "classifier"
    with torch.no_grad():
        z = small.guide(torch.as_tensor(ds["x_t"].values[0, 0, 0, 0, :, 2].copy()))[:, 0]
    expected = nn.functional.logsigmoid(torch.where(labels == 1, z, -z))
    np.testing.assert_allclose(ds["log_prob"].values[0, 0, 0, 0, :, 2], expected, rtol=1e-5)
    watch(tmp_path / "b.zarr", lambda watched: small.loop(step), **given)
    assert gradscope.open(tmp_path / "b.zarr").attrs["guidance_kind"] == "energy"


@pytest.mark.parametrize("settings", [{}, {"use_original_formulation": True}, {"guidance_rescale": 0.7}])
def test_guiders_of_diffusers(tmp_path, settings):
    """The guider's original formulation counts from 0: its scale is w - 1."""
    from diffusers.guiders import ClassifierFreeGuidance

    pipe, _ = tiny.stable_diffusion(DDIMScheduler(clip_sample=False, **tiny.BETAS))
    guider = ClassifierFreeGuidance(guidance_scale=4.0, **settings)
    text = torch.randn(2, 2, 5, 16, generator=torch.Generator().manual_seed(0))

    def call(watched):
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        pipe.scheduler.set_timesteps(4)
        for i, t in enumerate(pipe.scheduler.timesteps):
            guider.set_state(step=i, num_inference_steps=4, timestep=t)
            with torch.no_grad():
                conditional, unconditional = (pipe.unet(x, t, each).sample for each in text)
            guided = guider.forward(conditional, unconditional)
            x = pipe.scheduler.step(getattr(guided, "pred", guided), t, x).prev_sample

    watched, _ = watch(tmp_path / "w.zarr", call, denoiser=pipe.unet, scheduler=pipe.scheduler)
    assert watched.problems == []
    expected = 5.0 if "use_original_formulation" in settings else 4.0
    np.testing.assert_allclose(gradscope.open(tmp_path / "w.zarr")["guidance_weight"], expected, rtol=1e-4)


def test_labels_that_do_not_fit(tmp_path):
    small = Small()
    for bad, got in [([0.5, 1.0], "float32"), ("cat", "'cat'"), (torch.eye(4), "shape"), (3, "shape")]:
        with pytest.raises(GradscopeError, match=f"labels: one whole number for each sample, got .*{got}"):
            gradscope.watch(tmp_path / "w.zarr", **small.given, labels=bad)
    with pytest.warns(GradscopeWarning, match="labels: got 2 for a batch of 4"):
        watch(tmp_path / "w.zarr", lambda watched: small.loop(small.plain), **small.given, labels=[0, 1])
    equal(tmp_path / "w.zarr", small.used)


@pytest.mark.parametrize("final", [torch.zeros(8, 3, 8, 8), torch.zeros(4, 8, 8, 3), np.zeros((4, 3, 8, 8)), None])
def test_final_samples_that_do_not_fit_lose_nothing(tmp_path, final):
    small = Small()

    def call(watched):
        small.loop(small.plain)
        watched.final(final)

    with pytest.warns(
        GradscopeWarning, match=r"final: takes the batch's final samples, a tensor of shape \(4, 3, 8, 8\)"
    ):
        watch(tmp_path / "w.zarr", call, **small.given)
    equal(tmp_path / "w.zarr", small.used)
    ds = gradscope.open(tmp_path / "w.zarr")
    assert np.isnan(ds["image"]).all()
    assert (ds["written"] == 3).all()


def test_without_final_samples_none_are_made_up(tmp_path):
    for steps in (1, 4):
        small = Small(steps=steps)
        path = tmp_path / f"{steps}.zarr"
        watch(path, lambda watched, small=small: small.loop(small.plain), **small.given)
        ds = gradscope.open(path)
        assert np.isnan(ds["image"]).all()
        if "shift_direction_cosine" in ds:
            assert np.isnan(ds["shift_direction_cosine"].isel(timestep=-1)).all()


def test_batches_of_one_step_with_final_samples(tmp_path):
    small = Small(steps=1)

    def call(watched):
        for seed in (1, 2, 3):
            small.finals = [*getattr(small, "finals", []), small.loop(small.plain, seed)]
            watched.final(small.finals[-1])

    watched, _ = watch(tmp_path / "w.zarr", call, **small.given)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    np.testing.assert_array_equal(ds["image"].values[0, 0, 0, 0], torch.cat(small.finals))


def test_repetitions_with_a_scheduler_that_is_never_stepped(tmp_path):
    loop = loops.Recurrence(repeats=3)

    def call(watched):
        samples, used = loop()
        watched.final(samples)
        return used

    own = DDPMScheduler(num_train_timesteps=200)  # another object than the loop's
    own.set_timesteps(4)
    given = {"denoiser": loop.dps.unet, "guide": loop.dps.guide, "scheduler": own, "repeats": 3}
    _, used = watch(tmp_path / "w.zarr", call, **given)
    ds = gradscope.open(tmp_path / "w.zarr")
    expected = torch.stack(used, 1).unflatten(1, (4, 3)).numpy()
    np.testing.assert_array_equal(ds["gradient"].values[0, 0, 0, 0], expected)
    assert "image" not in json.loads(ds.attrs["unseen"])
    assert np.isnan(ds["clipped_fraction"]).all()  # whether the loop clamps is not known


def test_other_sigmas_for_the_next_batch_do_not_change_the_last_step_of_this_one(tmp_path):
    small = Small(EulerDiscreteScheduler(use_karras_sigmas=False))

    def step(x, t, generator):
        eps = small.unet(small.scheduler.scale_model_input(x, t), t).sample
        small.used.append(small.gradient(x))
        stepped = small.scheduler.step(eps, t, x, generator=generator)
        small.x_0 = [*getattr(small, "x_0", []), stepped.pred_original_sample]
        return stepped.prev_sample

    def call(watched):
        small.loop(step)
        times = small.scheduler.timesteps
        small.scheduler.set_timesteps(sigmas=np.linspace(9, 0.5, 5).tolist())
        small.scheduler.timesteps = times
        small.unet(loops.start()[0], times[0])

    watch(tmp_path / "w.zarr", call, **small.given)
    ds = gradscope.open(tmp_path / "w.zarr")
    expected = torch.stack(small.x_0, 1)
    np.testing.assert_allclose(ds["pred_original_sample"].values[0, 0, 0, 0], expected, rtol=1e-4, atol=1e-3)


def test_a_batch_of_equal_noise_is_no_doubled_batch(tmp_path):
    small = Small()

    def step(x, t, generator):
        if t == small.scheduler.timesteps[0]:
            x = x[:1].repeat(4, 1, 1, 1)
        return small.plain(x, t, generator)

    watched, _ = watch(tmp_path / "w.zarr", lambda watched: small.loop(step), **small.given)
    assert watched.problems == []
    equal(tmp_path / "w.zarr", small.used)


@pytest.mark.parametrize("other", [4, 5])
def test_a_run_without_guidance_may_have_another_schedule(tmp_path, other):
    """Nothing is stored of it, so the store has the schedule of the guided run."""
    small = Small(steps=other)

    def unguided(x, t, generator):
        return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample

    def call(watched):
        small.loop(unguided)
        small.steps = 8
        small.loop(small.plain)

    watched, _ = watch(tmp_path / "w.zarr", call, **small.given)
    assert watched.problems == []
    equal(tmp_path / "w.zarr", small.used)
    np.testing.assert_array_equal(gradscope.open(tmp_path / "w.zarr")["timestep"], small.scheduler.timesteps)


def test_looking_at_the_prediction_after_the_loop_loses_nothing(tmp_path):
    small = Small()

    def call(watched):
        x = small.loop(small.plain)
        with torch.no_grad():
            small.unet(x, small.scheduler.timesteps[-1])
            small.guide(x)

    watch(tmp_path / "w.zarr", call, **small.given)
    equal(tmp_path / "w.zarr", small.used)


def test_an_unknown_time_after_the_loop_loses_nothing(tmp_path):
    small = Small()

    def call(watched):
        x = small.loop(small.plain)
        with torch.no_grad():
            small.unet(x, 7)

    with pytest.warns(GradscopeWarning, match="timestep 7 is not one of the schedule's 5"):
        watch(tmp_path / "w.zarr", call, **small.given)
    equal(tmp_path / "w.zarr", small.used)


def test_scales_of_each_sample_and_of_each_run(tmp_path):
    pipe, _ = tiny.stable_diffusion(DDIMScheduler(clip_sample=False, **tiny.BETAS))
    scales = torch.tensor([1.5, 3.0, 8.0])[:, None, None, None]
    text = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0))

    def run(w):
        x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        pipe.scheduler.set_timesteps(4)
        for t in pipe.scheduler.timesteps:
            with torch.no_grad():
                u, c = (pipe.unet(x, t, each).sample for each in text)
            x = pipe.scheduler.step(u + w * (c - u), t, x).prev_sample

    def call(watched):
        run(scales)
        run(6.0)

    watched, _ = watch(tmp_path / "w.zarr", call, denoiser=pipe.unet, scheduler=pipe.scheduler)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr").isel(classifier=0, classifier_input=0, stabilizer=0)
    assert ds["guidance_scale"].values.tolist() == [3.0, 6.0]
    each = ds["guidance_weight"].sel(guidance_scale=3.0).isel(timestep=0)
    np.testing.assert_allclose(each, scales.flatten(), rtol=1e-4)
    np.testing.assert_allclose(ds["guidance_weight"].sel(guidance_scale=6.0), 6.0, rtol=1e-4)


@pytest.mark.parametrize("steps", [200, 400])
def test_rescaled_timesteps_of_guided_diffusion(tmp_path, steps):
    """The models get times that are mapped to 1,000."""
    loop = loops.GuidedDiffusion()
    loop.process.original_num_steps, loop.process.rescale_timesteps = steps, True
    unet, factor = loop.unet, 1000 / steps

    def call(watched):
        x = loops.start()[0]
        for i in reversed(range(6)):
            t = torch.full((4,), loop.process.timestep_map[i]).float() * factor
            with torch.no_grad():
                eps = unet(x, t).sample
            gradient = loop.cond_fn(x, t, LABELS)
            x = 0.9 * x - 0.1 * eps + 0.1 * gradient

    watched, _ = watch(tmp_path / "w.zarr", call, **loop.watched)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds.attrs["status"] == "complete"
    np.testing.assert_allclose(ds["alphas_cumprod"], loop.process.alphas_cumprod[::-1], rtol=1e-6)


def test_a_guide_that_the_loop_does_not_call_is_named(tmp_path):
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def __call__(self, x):
            return self.inner(x)

    small = Small()
    wrapper, inner = Wrapper(small.guide), small.guide
    small.guide = lambda x: inner(x)
    with pytest.warns(GradscopeWarning, match="guide: Wrapper never ran inside the watch"):
        watch(tmp_path / "w.zarr", lambda watched: small.loop(small.plain), **(small.given | {"guide": wrapper}))


def test_a_stabiliser_that_is_not_told_is_what_the_advice_asks_for(tmp_path):
    small = Small()

    def step(x, t, generator):
        gradient = small.gradient(x)
        turned = gradient.flip(3) * 5
        return small.scheduler.step(small.unet(x, t).sample, t, x, generator=generator).prev_sample + turned

    watch(tmp_path / "w.zarr", lambda watched: watched.final(small.loop(step)), **small.given)
    findings = gradscope.signatures(gradscope.open(tmp_path / "w.zarr"))
    advice = findings[findings["signature"] == "misdirected"]["advice"].iloc[0]
    assert "watched.update(u)" in advice
