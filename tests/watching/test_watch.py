"""Cells, batches and bad input; wrapped modules; what a watch leaves behind."""

import gc
import json
import os
import warnings
import weakref

import numpy as np
import pytest
import torch
import watched_loops as loops
from torch import nn

import gradscope
from gradscope.errors import GradscopeError, GradscopeWarning
from probes import Norm, Tensor


def gradients_of(path, **place):
    return gradscope.open(path)["gradient"].sel(place).values


@pytest.mark.slow
def test_several_batches_are_blocks_also_a_shorter_and_a_longer_one(tmp_path):
    loop = loops.Plain()
    seen = []
    with gradscope.watch(tmp_path / "w.zarr", **loop.watched) as watched:
        for labels in (loops.LABELS, loops.LABELS[:3], loops.LABELS.repeat(2)[:7]):
            samples, gradients = loop(labels, seed=len(labels))
            watched.final(samples)
            seen.append(torch.stack(gradients, 1).numpy())
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    recorded = ds["gradient"].values[0, 0, 0, 0]
    np.testing.assert_array_equal(recorded[:4], seen[0])
    np.testing.assert_array_equal(recorded[4:7], seen[1])
    np.testing.assert_array_equal(
        recorded[8:15], seen[2]
    )  # the next block begins at a multiple of the first one's size
    assert np.isnan(recorded[7]).all()
    assert (ds["written"] > 0).values[0, 0, 0, 0].all(axis=1).tolist() == [True] * 7 + [False] + [True] * 7
    assert gradscope.verify(tmp_path / "w.zarr").findings == ()


def test_cells_one_after_the_other(tmp_path):
    with gradscope.watch(tmp_path / "w.zarr", **(loop := loops.Plain()).watched) as watched:
        seen = {}
        for scale in (0.5, 3.0):
            loop.scale = scale
            with watched.cell(guidance_scale=scale, method="mine"):
                samples, gradients = loop()
                watched.final(samples)
            seen[scale] = torch.stack(gradients, 1).numpy()
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds["guidance_scale"].values.tolist() == [0.5, 3.0]
    assert ds["method"].values.tolist() == ["mine"]
    assert ds.attrs["status"] == "complete"
    for scale, expected in seen.items():
        np.testing.assert_array_equal(gradients_of(tmp_path / "w.zarr", guidance_scale=scale)[0, 0, 0, 0], expected)


@torch.no_grad()
def in_turn(loop, watched, names, steps=60):
    """Several samplers advance step by step in turn, each in its own cell."""
    process = loops.Process(steps)
    states = {name: loops.start(seed=i)[0] for i, name in enumerate(names)}
    seen = {name: [] for name in names}
    for i in reversed(range(steps)):
        t = torch.full((4,), process.timestep_map[i])
        for name in names:
            with watched.cell(classifier=name):
                x = states[name]
                loop.unet(x, t)
                gradient = loop.cond_fn(x, t, loops.LABELS)
                seen[name].append(gradient)
                states[name] = 0.99 * x + 0.1 * gradient
    return {name: torch.stack(found, 1).numpy() for name, found in seen.items()}


@pytest.mark.slow
@pytest.mark.parametrize("cells", [1, 8])
def test_interleaved_cells_lose_nothing(tmp_path, cells):
    loop, names = loops.GuidedDiffusion(steps=60), [f"guide {i}" for i in range(cells)]
    with gradscope.watch(tmp_path / "w.zarr", **loop.watched) as watched:
        seen = in_turn(loop, watched, names)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    assert (ds["written"] == 3).all()
    for name in names:
        np.testing.assert_array_equal(ds["gradient"].sel(classifier=name).values[0, 0, 0], seen[name])


def test_a_cell_inside_another(tmp_path):
    outer, inner = loops.Plain(), loops.Plain(scale=0.1)
    inner.unet, inner.guide, inner.scheduler = outer.unet, outer.guide, outer.scheduler
    taken = {}
    step = outer.unet.forward

    def nested(*args, **kwargs):
        if not taken:  # in the middle of the outer loop's first step, another loop runs
            taken["inner"] = None
            timesteps = outer.scheduler.timesteps
            with watched.cell(classifier="inner"):
                taken["inner"] = torch.stack(inner(seed=9)[1], 1).numpy()
            outer.scheduler.timesteps = timesteps
        return step(*args, **kwargs)

    with gradscope.watch(tmp_path / "w.zarr", **outer.watched, classifier="outer") as watched:
        first = loops.Plain.__call__
        samples, gradients = first(outer)
        outer.unet.forward = nested
        again = torch.stack(first(outer, seed=6)[1], 1).numpy()
    ds = gradscope.open(tmp_path / "w.zarr")
    np.testing.assert_array_equal(
        ds["gradient"].sel(classifier="outer").values[0, 0, 0], np.concatenate([torch.stack(gradients, 1), again])
    )
    np.testing.assert_array_equal(ds["gradient"].sel(classifier="inner").values[0, 0, 0, :4], taken["inner"])
    assert samples is not None


def test_a_misspelt_dimension_of_a_cell_is_named(tmp_path):
    loop = loops.Plain(steps=2)
    with gradscope.watch(tmp_path / "w.zarr", **loop.watched) as watched:
        with watched.cell(method="a"):
            loop()
            loop()
        with pytest.raises(GradscopeError, match="no dimension 'methd'; did you mean 'method'"):
            watched.cell(methd="b").__enter__()
    assert watched.problems == []


def test_calls_of_the_user(tmp_path):
    """Labels, the update after a stabiliser, and the final samples."""
    loop = loops.GuidedDiffusion()
    cond_fn = loop.cond_fn

    def stabilised(x, t, y):
        gradient = cond_fn(x, t, y)
        watched.update(0.5 * gradient)
        return gradient

    loop.cond_fn = stabilised
    with gradscope.watch(tmp_path / "w.zarr", **loop.watched, classes=["a", "b", "c", "d"]) as watched:
        watched.labels(loops.LABELS)
        samples, gradients = loop()
        watched.final(samples)
    ds = gradscope.open(tmp_path / "w.zarr")
    expected = torch.stack(gradients, 1).numpy()
    np.testing.assert_array_equal(ds["update"].values[0, 0, 0, 0], 0.5 * expected)
    np.testing.assert_allclose(ds["update_gradient_cosine"], 1, rtol=1e-6)
    assert ds["stabilizer"].values.tolist() == ["own"]
    assert ds.attrs["classes"] == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(ds["image"].values[0, 0, 0, 0], samples)


def test_a_guidance_interval_leaves_the_other_steps_unwritten(tmp_path):
    loop = loops.GuidedDiffusion(steps=8)
    cond_fn = loop.cond_fn
    loop.cond_fn = lambda x, t, y: cond_fn(x, t, y) if 30 < int(t[0]) < 160 else torch.zeros_like(x)
    with gradscope.watch(tmp_path / "w.zarr", **loop.watched) as watched:
        loop()
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    inside = (ds["timestep"] > 30) & (ds["timestep"] < 160)
    assert ((ds["written"] > 0) == inside).all()
    assert ds.attrs["status"] == "partial"
    assert "took none at" in json.loads(ds.attrs["unseen"])["gradient"]
    assert gradscope.verify(tmp_path / "w.zarr").findings == ()
    assert gradscope.report(ds) is not None


def test_the_guide_may_be_asked_before_the_denoiser_and_more_than_once(tmp_path):
    loop = loops.GuidedDiffusion()
    seen = []

    @torch.no_grad()
    def guide_first():
        x = loops.start()[0]
        for i in reversed(range(6)):
            t = torch.full((4,), loop.process.timestep_map[i])
            loop.cond_fn(2 * x, t, loops.LABELS)  # at another point
            loop.cond_fn(x, t, loops.LABELS.flip(0))  # counted, not kept
            seen.append(loop.cond_fn(x, t, loops.LABELS))
            loop.guide(x, t)  # only asked
            x = 0.9 * x - 0.1 * loop.unet(x, t).sample + 0.1 * seen[-1]
        return x

    with gradscope.watch(tmp_path / "w.zarr", **loop.watched) as watched:
        guide_first()
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    np.testing.assert_array_equal(ds["gradient"].values[0, 0, 0, 0], torch.stack(seen, 1))
    assert ds["label"].values.tolist() == loops.LABELS.tolist()
    assert ds["classifier_input"].values.tolist() == ["x_t"]


class Cast(nn.Module):
    """A denoiser that the loop calls in another type."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t):
        return self.inner(x.float(), t)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", ["compiled", "parallel", "cast"])
def test_wrapped_modules(tmp_path, wrap):
    def make():
        loop = loops.Plain()
        if wrap == "compiled":
            loop.unet = torch.compile(loop.unet, backend="eager")
            loop.guide = torch.compile(loop.guide, backend="eager")
        elif wrap == "parallel":
            loop.unet, loop.guide = nn.DataParallel(loop.unet), nn.DataParallel(loop.guide)
        else:
            loop.unet = Cast(loop.unet)
        return loop

    plain, expected = make()()
    loop = make()
    path = tmp_path / "w.zarr"
    with gradscope.watch(path, denoiser=loop.unet, guide=loop.guide, scheduler=loop.scheduler) as watched:
        samples, _ = loop()
    assert torch.equal(plain, samples)
    assert watched.problems == []
    np.testing.assert_array_equal(gradients_of(path)[0, 0, 0, 0], torch.stack(expected, 1))


def test_a_module_that_never_runs_is_named(tmp_path):
    loop = loops.Plain()
    watching = gradscope.watch(
        tmp_path / "w.zarr", denoiser=nn.Linear(1, 1), guide=loop.guide, scheduler=loop.scheduler
    )

    def run():
        with watching:
            loop()

    with pytest.warns(GradscopeWarning, match="denoiser: Linear never ran inside the watch"):
        run()
    assert not (tmp_path / "w.zarr").exists()


def test_arguments_are_checked_before_the_loop(tmp_path):
    loop = loops.Plain()
    (tmp_path / "there.zarr").mkdir()
    for path, given, why in [
        ("a", {"denoiser": None}, "denoiser: give the module"),
        ("a", {"denoiser": lambda x, t: x}, "denoiser: takes the torch.nn.Module that the loop calls, got function"),
        ("a", {"guide": lambda x: x}, "guide: takes the torch.nn.Module"),
        ("a", {"prediction_type": "epsilom"}, "did you mean 'epsilon'"),
        ("a", {"scheduler": None}, "steps: the number of the loop's steps is not known"),
        ("a", {"steps": 0}, "steps: must be a whole number of at least 1"),
        ("a", {"probes": ["nroms"]}, "unknown probe 'nroms'"),
        ("a", {"probes": [Norm]}, "takes a probe, got the class Norm"),
        ("there.zarr", {}, "there.zarr exists"),
    ]:
        with pytest.raises(GradscopeError, match=why):
            gradscope.watch(tmp_path / path, **(loop.watched | given))
    with pytest.raises(GradscopeError, match="pipe: object has none of unet, transformer"):
        gradscope.watch(tmp_path / "a", object())


def run_watched(path, loop, call, **further):
    with gradscope.watch(path, **(loop.watched | further)) as watched:
        result = call()
    return watched, result


@pytest.mark.parametrize(
    ("further", "change", "why"),
    [
        ({"timesteps": [5.0, 4.0]}, None, "timestep 165 is not one of the schedule's 2"),
        ({"scheduler": None, "steps": 3}, None, "more than steps=3"),
        ({}, "shape", "has samples of shape"),
        ({}, "schedule", "the schedule changed"),
    ],
)
def test_what_goes_wrong_is_told_at_once_and_the_loop_goes_on(tmp_path, further, change, why):
    loop = loops.Plain()
    plain, _ = loops.Plain()()

    def call():
        samples, _ = loop()
        if change == "shape":
            x = torch.randn(4, 3, 16, 16, requires_grad=True)
            torch.autograd.grad(loop.unet(x, 165).sample.sum(), x)
        if change == "schedule":
            loop.steps = 4
            loop()
        return samples

    with pytest.warns(GradscopeWarning, match=why):
        watched, samples = run_watched(tmp_path / "w.zarr", loop, call, **further)
    assert torch.equal(plain, samples)
    assert any(why in problem for problem in watched.problems)


def test_an_energy_that_gives_one_number_for_the_batch_is_watched_without_its_value(tmp_path):
    class Whole(nn.Module):
        def forward(self, x_0):
            return -x_0.square().mean()

    loop = loops.DPS()
    loop.guide = Whole()
    loop.watched["guide"] = loop.guide
    watched, (_, gradients) = run_watched(tmp_path / "w.zarr", loop, loop)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    np.testing.assert_array_equal(ds["gradient"].values[0, 0, 0, 0], torch.stack(gradients, 1))
    assert ds.attrs["guidance_kind"] == "energy"
    assert "energy" not in ds


def test_a_full_disk_ends_the_watch_not_the_loop(tmp_path, monkeypatch):
    loop = loops.Plain(steps=12)
    plain, _ = loops.Plain(steps=12)()
    replace, count = os.replace, 0

    def failing(source, target):
        nonlocal count
        count += "gradient/c" in str(target)
        if count:
            raise OSError(28, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.warns(GradscopeWarning, match="could not be written: No space left on device"):
        _, (samples, _) = run_watched(tmp_path / "w.zarr", loop, loop)
    assert torch.equal(plain, samples)


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_an_exception_passes_and_nothing_stays_hooked(tmp_path, error):
    loop = loops.Plain()
    forward, calls = loop.unet.forward, []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return forward(*args, **kwargs)

    loop.unet.forward = failing
    with pytest.raises(type(error)):
        run_watched(tmp_path / "w.zarr", loop, loop)
    assert not any(m._forward_hooks or m._forward_pre_hooks for g in (loop.unet, loop.guide) for m in g.modules())
    assert "step" not in loop.scheduler.__dict__
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds.attrs["status"] == "interrupted"
    assert (ds["written"] > 0).values[0, 0, 0, 0, :, :3].all()


@pytest.mark.slow
def test_a_watch_keeps_no_tensor_of_past_steps(tmp_path):
    """Of 30 steps, only the tensors of the last two are alive."""
    loop = loops.Plain(through_x0=True, steps=30)
    alive, most = [], 0

    def note(module, args, kwargs):
        nonlocal most
        alive.append(weakref.ref(args[0]))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))

    with gradscope.watch(tmp_path / "w.zarr", **loop.watched) as watched:
        loop.unet.register_forward_pre_hook(note, with_kwargs=True)
        loop()
    assert watched.problems == []
    assert most <= 3
    assert sum(len(trail.record.facts) > 0 for trail in watched._trails.values()) == 1


def test_probes_by_name_and_by_object(tmp_path):
    loop = loops.GuidedDiffusion()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradscopeWarning)
        run_watched(tmp_path / "a.zarr", loop, loop, probes=["norms", Tensor("x_t")])
    ds = gradscope.open(tmp_path / "a.zarr")
    assert {"gradient_norm", "x_t"} <= {*ds}
    assert "gradient" not in ds
    with pytest.warns(GradscopeWarning, match="probe EffectiveStrength is left out: the loop did not show shift"):
        run_watched(tmp_path / "b.zarr", loop, loop, probes=["norms", "strength"])


def test_what_is_missing_is_named_by_the_analysis_that_needs_it(tmp_path):
    loop = loops.GuidedDiffusion()
    run_watched(tmp_path / "w.zarr", loop, loop)
    ds = gradscope.open(tmp_path / "w.zarr")
    untested = gradscope.report(ds).untested
    assert "the loop calls no scheduler.step that is watched" in untested["misdirected"]
    assert json.loads(ds.attrs["unseen"]).keys() == {"shift", "image"}
    loop = loops.RealTimeChunking()
    run_watched(tmp_path / "e.zarr", loop, loop)
    untested = gradscope.report(gradscope.open(tmp_path / "e.zarr")).untested
    assert "the guide is an energy, which has no logits" in untested["vanishing"]
    assert "the range of timesteps is not known" in untested["unstable"]


@pytest.mark.slow
def test_cells_that_the_loop_never_visits_count_as_no_test(tmp_path):
    loop = loops.Plain()
    with gradscope.watch(tmp_path / "w.zarr", **loop.watched) as watched:
        for name, through_x0 in (("a", False), ("b", True)):
            loop.through_x0 = through_x0
            with watched.cell(classifier=name):
                loop()
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds["written"].shape[:2] == (2, 2)
    report = gradscope.report(ds)
    alone = gradscope.report(ds.isel(classifier=[0], classifier_input=[0]))
    assert report.tests == 2 * alone.tests


def test_the_strength_of_any_scheduler_is_relative_to_the_ddpm_posterior(tmp_path):
    """Heun steps in sigma, x_t = x_0 + sigma epsilon: the posterior's sd is s sqrt(1 - s^2 / t^2) from t to s."""
    from diffusers import EulerDiscreteScheduler
    from tiny_pipelines import BETAS, stable_diffusion

    pipe, run = stable_diffusion(EulerDiscreteScheduler(**BETAS))
    with gradscope.watch(tmp_path / "w.zarr", pipe):
        run()
    ds = gradscope.open(tmp_path / "w.zarr")
    t = pipe.scheduler.sigmas.double().numpy()
    np.testing.assert_allclose(ds["noise"], t[:-1], rtol=1e-6)
    np.testing.assert_allclose(ds["sigma"], t[1:] * np.sqrt(1 - (t[1:] / t[:-1]) ** 2), rtol=1e-5)
    assert np.isfinite(ds["effective_strength"].isel(timestep=slice(5))).all()
