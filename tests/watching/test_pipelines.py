"""Diffusers pipelines with classifier-free guidance: the implied gradient, its scale, and the same samples."""

import copy
import json

import numpy as np
import pytest
import tiny_pipelines as tiny
import torch
import watched_loops
from diffusers import DDIMScheduler, FlowMatchHeunDiscreteScheduler

import gradscope

pytestmark = pytest.mark.filterwarnings("ignore:.*is outdated", "ignore:.*has not set the configuration")
SCHEDULERS = {
    "DDIM": ("DDIMScheduler", {"clip_sample": False}),
    "DDPM": ("DDPMScheduler", {"clip_sample": False}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "Euler, Karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "KDPM2": ("KDPM2DiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "PNDM": ("PNDMScheduler", {}),
    "DPM++": ("DPMSolverMultistepScheduler", {}),
    "DPM++ SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ single": ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
}


def recorded(path, pipe, run, **settings):
    """The same samples with and without, and nothing left on the instances."""
    torch.manual_seed(0)  # DiT's pipeline gives its scheduler no generator
    plain = run(**settings)
    torch.manual_seed(0)
    before = dict(pipe.scheduler.__dict__)
    with gradscope.watch(path, pipe) as watched:
        seen = run(**settings)
    assert torch.equal(plain, seen)
    assert before.keys() == pipe.scheduler.__dict__.keys()
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert not any(m._forward_hooks or m._forward_pre_hooks for module in modules for m in module.modules())
    return watched, plain


def one_cell(path):
    ds = gradscope.open(path)
    return ds.isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "prediction_type"),
    [*((name, "epsilon") for name in SCHEDULERS), *((name, "v_prediction") for name in ("DDIM", "Euler", "UniPC"))],
)
def test_stable_diffusion_with_every_scheduler(tmp_path, name, prediction_type):
    kind, settings = SCHEDULERS[name]
    scheduler = tiny.scheduler_of(kind, prediction_type=prediction_type, **tiny.BETAS, **settings)
    pipe, run = tiny.stable_diffusion(scheduler)
    watched, latents = recorded(tmp_path / "w.zarr", pipe, run)
    assert watched.problems == []
    ds = one_cell(tmp_path / "w.zarr")
    assert ds.attrs["status"] == "complete"
    assert ds.attrs["guidance_kind"] == "classifier_free"
    assert ds.attrs["latent"] == 1
    assert ds["classifier"] == "condition"
    np.testing.assert_allclose(ds["guidance_weight"], 5.0, rtol=1e-4)
    assert (ds["shift_direction_cosine"] > 0.9999).all()  # steps are affine in the prediction
    np.testing.assert_array_equal(ds["image"], latents)
    assert gradscope.verify(tmp_path / "w.zarr").findings == ()
    parts = np.hypot(ds["gradient_parallel_norm"], ds["gradient_perpendicular_norm"])
    np.testing.assert_allclose(parts, ds["gradient_norm"], rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_rescaled_guidance_and_eta(tmp_path, eta, rescale):
    pipe, run = tiny.stable_diffusion(DDIMScheduler(clip_sample=False, **tiny.BETAS))
    watched, _ = recorded(tmp_path / "w.zarr", pipe, run, eta=eta, guidance_rescale=rescale)
    assert watched.problems == []
    np.testing.assert_allclose(one_cell(tmp_path / "w.zarr")["guidance_weight"], 5.0, rtol=1e-4)


@pytest.mark.parametrize("name", ["dit", "sd3", "flux", "lumina2"])
def test_transformers(tmp_path, name):
    pipe, run = getattr(tiny, name)()
    watched, _ = recorded(tmp_path / "w.zarr", pipe, run)
    assert watched.problems == []
    ds = one_cell(tmp_path / "w.zarr")
    np.testing.assert_allclose(ds["guidance_weight"], 4.0, rtol=1e-4)
    cosine = ds["shift_direction_cosine"].values
    assert (cosine[np.isfinite(cosine)] > 0.9999).all()
    assert "latent" in ds.dims
    assert "height" not in ds.dims or "channel" not in ds.dims  # latents are no picture
    if name != "dit":  # pure noise tells nothing of the condition
        assert (ds["gradient_norm"].isel(timestep=0) == 0).all()
    assert gradscope.verify(tmp_path / "w.zarr").findings == ()


OTHERS = [
    *[("dit", name) for name in ("DDPM", "DPM++", "DPM++ SDE", "UniPC", "PNDM")],
    *[("sd3", name) for name in ("flow Heun", "flow UniPC", "flow DPM++")],
]


@pytest.mark.parametrize(("pipeline", "name"), OTHERS)
def test_transformers_with_other_schedulers(tmp_path, pipeline, name):
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    made = {
        "flow Heun": lambda: FlowMatchHeunDiscreteScheduler(),
        "flow UniPC": lambda: tiny.scheduler_of("UniPCMultistepScheduler", **flow),
        "flow DPM++": lambda: tiny.scheduler_of("DPMSolverMultistepScheduler", **flow),
    }.get(name, lambda: tiny.scheduler_of(SCHEDULERS[name][0], **SCHEDULERS[name][1]))
    pipe, run = getattr(tiny, pipeline)(made())
    watched, _ = recorded(tmp_path / "w.zarr", pipe, run)
    assert watched.problems == []
    ds = one_cell(tmp_path / "w.zarr")
    assert ds.attrs["status"] == "complete"
    np.testing.assert_allclose(ds["guidance_weight"], 4.0, rtol=1e-4)
    cosine = ds["shift_direction_cosine"].values
    assert (cosine[np.isfinite(cosine)] > 0.999).all()


def test_the_implied_gradient_is_that_of_the_predictions(tmp_path):
    """By hand, from the U-Net's own outputs: -(eps_c - eps_u) / noise."""
    pipe, run = tiny.stable_diffusion(DDIMScheduler(clip_sample=False, **tiny.BETAS))
    recorded(tmp_path / "w.zarr", pipe, run)
    seen = []
    with pipe.unet.register_forward_hook(lambda module, args, output: seen.append(output[0].clone())):
        run()
    ds = one_cell(tmp_path / "w.zarr")
    assert len(seen) == ds.sizes["timestep"] == 6
    for i, output in enumerate(seen):
        unconditional, conditional = output.double().chunk(2)
        a = float(pipe.scheduler.alphas_cumprod[int(ds["timestep"][i])])
        expected = -(conditional - unconditional) / (1 - a) ** 0.5
        np.testing.assert_allclose(ds["gradient"].values[:, i], expected, rtol=1e-5, atol=1e-7)
        change = (conditional - unconditional).flatten(1).norm(dim=1) / unconditional.flatten(1).norm(dim=1)
        np.testing.assert_allclose(ds["prediction_change"].values[:, i], change, rtol=1e-5)


def test_half_precision_is_fitted_with_its_tolerance_and_named(tmp_path, monkeypatch):
    pipe, run = tiny.sd3()
    pipe.to(torch.bfloat16)
    wide = tiny.noise
    monkeypatch.setattr(tiny, "noise", lambda seed, *shape: wide(seed, *shape).bfloat16())
    watched, _ = recorded(tmp_path / "w.zarr", pipe, run)
    assert watched.problems == []
    ds = one_cell(tmp_path / "w.zarr")
    np.testing.assert_allclose(ds["guidance_weight"], 4.0, rtol=1e-2)
    assert ds.attrs["sample_dtype"] in ("bfloat16", "float32")


def test_a_combination_that_is_not_linear_is_refused_by_name(tmp_path):
    pipe, run = tiny.lumina2(cfg_normalization=True)
    with pytest.warns(gradscope.errors.GradscopeWarning, match="no sum of the denoiser's two: relative residual"):
        watched, _ = recorded(tmp_path / "w.zarr", pipe, run)
    assert len(watched.problems) == 1
    assert not (tmp_path / "w.zarr").exists()


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_scale_without_an_unconditional_pass_gives_no_gradient_not_a_zero_one(tmp_path, scale):
    pipe, run = tiny.stable_diffusion()
    with pytest.warns(gradscope.errors.GradscopeWarning, match="needs a scale above 1"):
        recorded(tmp_path / "w.zarr", pipe, run, guidance_scale=scale)
    assert not (tmp_path / "w.zarr").exists()


@pytest.mark.slow
def test_a_callback_that_changes_latents_and_one_that_interrupts(tmp_path):
    pipe, run = tiny.stable_diffusion(DDIMScheduler(clip_sample=False, **tiny.BETAS))

    def change(pipe, i, t, values):
        return {"latents": values["latents"] * 0.9}

    def interrupt(pipe, i, t, values):
        pipe._interrupt = i == 2
        return values

    watched, _ = recorded(tmp_path / "a.zarr", pipe, run, callback_on_step_end=change)
    assert watched.problems == []
    ds = one_cell(tmp_path / "a.zarr")
    assert ds.attrs["status"] == "complete"
    assert (ds["shift_direction_cosine"].isel(timestep=slice(5)) < 0.9).any()  # the callback moved the latents, too
    assert "image" in json.loads(ds.attrs["unseen"])
    watched, _ = recorded(tmp_path / "b.zarr", pipe, run, callback_on_step_end=interrupt)
    ds = one_cell(tmp_path / "b.zarr")
    assert ds.attrs["status"] == "partial"
    assert ((ds["written"] > 0).values == [True, True, True, False, False, False]).all()
    assert gradscope.verify(tmp_path / "b.zarr").findings == ()


def test_a_replaced_scheduler_is_told(tmp_path):
    pipe, run = tiny.stable_diffusion()

    def replace_and_run():
        with gradscope.watch(tmp_path / "w.zarr", pipe):
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
            run()

    with pytest.warns(gradscope.errors.GradscopeWarning, match="was it replaced or copied inside the watch"):
        replace_and_run()


@pytest.mark.slow
def test_two_runs_are_two_blocks_and_two_prompts_two_cells(tmp_path):
    pipe, run = tiny.stable_diffusion(DDIMScheduler(clip_sample=False, **tiny.BETAS))
    with gradscope.watch(tmp_path / "w.zarr", pipe) as watched:
        for scale in (5.0, 2.0):
            with watched.cell(guidance_scale=scale, classifier="a prompt"):
                run(guidance_scale=scale)
                run(guidance_scale=scale)
    ds = gradscope.open(tmp_path / "w.zarr").isel(classifier=0, classifier_input=0, stabilizer=0)
    assert ds.sizes["sample"] == 4
    assert ds["guidance_scale"].values.tolist() == [5.0, 2.0]
    assert (ds["written"] == 3).all()
    np.testing.assert_allclose(ds["guidance_weight"].sel(guidance_scale=2.0), 2.0, rtol=1e-4)
    np.testing.assert_array_equal(ds["gradient"][:, :2], ds["gradient"][:, 2:])  # the same noise twice


def test_an_exception_in_the_pipeline_leaves_nothing_behind(tmp_path):
    pipe, run = tiny.stable_diffusion()

    def fail(pipe, i, t, values):
        if i == 3:
            raise RuntimeError("stop here")
        return values

    with pytest.raises(RuntimeError, match="stop here"), gradscope.watch(tmp_path / "w.zarr", pipe):
        run(callback_on_step_end=fail)
    assert "step" not in pipe.scheduler.__dict__
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.unet.modules())
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds.attrs["status"] == "interrupted"
    assert (ds["written"] > 0).any("timestep").all()


def test_watches_may_be_nested(tmp_path):
    pipe, run = tiny.stable_diffusion()
    plain = run()
    with gradscope.watch(tmp_path / "a.zarr", pipe), gradscope.watch(tmp_path / "b.zarr", pipe):
        seen = run()
    assert torch.equal(plain, seen)
    assert "step" not in pipe.scheduler.__dict__
    a, b = one_cell(tmp_path / "a.zarr"), one_cell(tmp_path / "b.zarr")
    np.testing.assert_array_equal(a["gradient"], b["gradient"])


def test_a_copy_of_the_scheduler_works_and_is_not_watched(tmp_path):
    pipe, run = tiny.stable_diffusion()
    with gradscope.watch(tmp_path / "w.zarr", pipe):
        run()
        other = copy.deepcopy(pipe.scheduler)
    other.set_timesteps(3)
    assert other.step(torch.zeros(1, 4, 8, 8), other.timesteps[0], torch.zeros(1, 4, 8, 8)).prev_sample is not None


def test_an_unconditional_pipeline_has_no_gradient(tmp_path):
    pipe, run = tiny.ddpm(watched_loops.unet())
    with pytest.warns(gradscope.errors.GradscopeWarning, match="no gradient was seen in 4 evaluations"):
        recorded(tmp_path / "w.zarr", pipe, run)
    assert not (tmp_path / "w.zarr").exists()


def test_the_report_speaks_of_predictions_not_of_classifiers(tmp_path):
    pipe, run = tiny.stable_diffusion()
    recorded(tmp_path / "w.zarr", pipe, run)
    ds = gradscope.open(tmp_path / "w.zarr")
    for advice in gradscope.signatures(ds)["advice"]:
        assert "classifier trained" not in advice
        assert "logits" not in advice
    assert gradscope.report(ds) is not None
