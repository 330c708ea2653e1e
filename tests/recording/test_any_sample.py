"""Recorded runs of samples that are not images: the shipped presets, scaled down, and samples of one's own."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

import gradscope
from gradscope.analysis.signatures import find
from gradscope.auditing.run import run_audit
from gradscope.config import AuditConfig, RunConfig, check, load
from gradscope.errors import GradscopeError
from gradscope.evaluation.evaluate import evaluate_store
from gradscope.evaluation.evaluators import load_evaluators
from gradscope.models.classifiers import load_classifier
from gradscope.models.diffusion import load_denoiser
from gradscope.models.mixture import Denoiser, Mixture, NoiseAware, denoiser_of, scheduler
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.reporting.report import report
from gradscope.verification.verify import verify
from probes import Cosine, Norm, Tensor

CPU = torch.device("cpu")
PRESETS = {
    "points": {"axis": 2}, "trajectories": {"horizon": 32, "action": 2}, "signals": {"channel": 1, "time": 64},
}  # fmt: skip
FEW = ["sampling.samples=6", "sampling.batch_size=4", "sampling.num_inference_steps=8", "guidance.guidance_scale=[0.3]"]


def record(name, folder, *overrides):
    """Record a preset and judge its samples, as `gradscope record` does."""
    run = prepare(load(RunConfig, f"{name}.yaml", list(overrides)), "cpu", str(folder / f"{name}.zarr"))
    path, said = record_run(run).path, []
    ds = gradscope.open(path)
    evaluate_store(path, load_evaluators(ds, (), CPU, said.append), CPU, said.append)
    return path, said


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_recorded_judged_and_sound(name, tmp_path):
    path, said = record(name, tmp_path, *FEW)
    ds = xr.open_zarr(path)
    sizes = PRESETS[name]
    assert ds["gradient"].dims[-len(sizes) - 1 :] == ("timestep", *sizes)
    assert {dim: ds.sizes[dim] for dim in sizes} == sizes
    assert (ds["written"] == 3).all()
    image = ds["image"].sel(classifier="exact", classifier_input="x_t", stabilizer="none", guidance_scale=0.3)
    assert image.shape == (6, *sizes.values())
    assert (ds["reference_cosine"].sel(classifier="exact", classifier_input="x_t") > 0.999).all()
    assert verify(path).sound
    assert json.loads(ds.attrs["evaluation"])["also_guides"] == {}
    shape = tuple(sizes.values())
    assert said == [
        f"no distances, no coverage: they compare with real images, and the store holds samples of shape {shape}"
    ]
    assert not [text for text in report(gradscope.open(path)).remarks if "real images" in text]


@pytest.mark.slow
def test_a_preset_runs_with_a_solver_in_sigma(tmp_path):
    path, _ = record("points", tmp_path, *FEW, "sampling.scheduler=euler")
    ds = gradscope.open(path)
    assert (ds["reference_cosine"].sel(classifier="exact", classifier_input="x_t") > 0.999).all()
    assert verify(path).sound


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cell", "signatures"),
    [
        ("points", ("clean", "x0"), {"ineffective", "undone", "misaligned"}),
        ("trajectories", ("clean", "x_t"), {"ineffective"}),
        ("trajectories", ("waypoint", "x_t"), {"sparse"}),
        ("signals", ("clean", "x_t"), {"adversarial", "high_frequency"}),
    ],
)
def test_a_preset_shows_its_finding(name, cell, signatures, tmp_path):
    path, _ = record(name, tmp_path)
    ds = gradscope.open(path)
    found = [f for f in find(ds) if (f.cell["classifier"], f.cell["classifier_input"]) == cell]
    assert signatures <= {f.signature for f in found}
    alarmed = {f.cell["classifier"] for f in find(ds) if f.severity == "alarm" and f.cell["classifier_input"] == "x_t"}
    assert "exact" not in alarmed
    judged = ds["judge_accuracy"].sel(guidance_scale=0.3, stabilizer="none")
    assert judged.sel(classifier="exact", classifier_input="x_t") > 0.85


OTHERS = {"point sets": ((5, 2), ("point", "axis")), "frames": ((3, 4, 8, 8), ())}


def own(shape):
    return Mixture(torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(0)), 0.3)


def frames():
    return denoiser_of(own((3, 4, 8, 8)))


def of_frames():
    return NoiseAware(own((3, 4, 8, 8)), scheduler().alphas_cumprod)


class OfVideos(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv3d(3, 2, 3)

    def forward(self, x):
        return self.convolution(x).mean(dim=(2, 3, 4))


def of_videos():
    return OfVideos()


@pytest.mark.parametrize("kind", OTHERS)
def test_point_sets_and_frames_are_recorded_from_python(kind, tmp_path):
    shape, names = OTHERS[kind]
    data, noise = own(shape), scheduler()
    guidance = gradscope.ClassifierGuidance(NoiseAware(data, noise.alphas_cumprod), guidance_scale=0.3)
    sampler = gradscope.GuidedSampler(Denoiser(data, noise.alphas_cumprod), noise, guidance)
    probes = [Tensor("gradient"), Norm("gradient"), Cosine("gradient")]
    with gradscope.record(sampler, tmp_path / "a.zarr", probes, sample_dims=names) as recorder:
        made = recorder.sample([0, 1, 0], 4)
    ds = xr.open_zarr(tmp_path / "a.zarr")
    dims = names or ("channel", "frame", "height", "width")
    assert ds["image"].dims[-len(dims) :] == dims
    np.testing.assert_array_equal(ds["image"].values.reshape(3, *shape), made.numpy())
    g = ds["gradient"].values.reshape(3, 4, -1)
    np.testing.assert_allclose(
        ds["gradient_norm"].values.reshape(3, 4), np.linalg.norm(g.astype(np.float64), axis=2), rtol=1e-5
    )
    assert verify(tmp_path / "a.zarr").sound


def test_models_with_weights_of_five_dimensions_are_loaded():
    """Torch has no layout with channels last for them."""
    unet = load_denoiser(f"{__name__}:frames").unet
    x = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(unet(x, 500), frames()[0](x, 500))
    for make in ("of_frames", "of_videos"):
        found = load_classifier(f"{__name__}:{make}", "classifiers.a", (3, 4, 8, 8))
        assert found.num_classes == 2


def test_what_takes_images_alone_says_so(tmp_path):
    config = {"timm": "resnet18", "num_classes": 2}
    spec = check(RunConfig, minimal({"a": config}), "test").classifiers["a"]
    with pytest.raises(
        GradscopeError, match=r"^classifiers\.a\.timm: resnet18 takes images .* makes samples of shape \(2,\)"
    ):
        load_classifier(spec, "classifiers.a", (2,))
    with pytest.raises(GradscopeError, match=r"trained on images of 3 x 32 x 32 .* makes samples of shape \(16, 2\)"):
        load_classifier("zoo:sportballs32/robust", "classifiers.a", (16, 2))
    with pytest.raises(GradscopeError, match=r"does not take samples of shape \(16, 2\), as the denoiser makes them"):
        load_classifier(nn.Linear(3, 2), "classifiers.a", (16, 2))
    audit = {
        "classifiers": {"a": "gradscope.models.examples.points:clean"},
        "denoiser": "gradscope.models.examples.points:denoiser", "data": {"name": "sportballs", "size": 32},
    }  # fmt: skip
    with pytest.raises(
        GradscopeError, match=r"^denoiser: an audit noises images, but .* makes samples of shape \(2,\)"
    ):
        run_audit(check(AuditConfig, audit, "test"), "cpu")


@pytest.mark.slow
def test_distances_of_other_samples_are_refused(tmp_path):
    path, _ = record("points", tmp_path, *FEW, "classifiers={exact: gradscope.models.examples.points:exact}")
    ds = gradscope.open(path)
    message = r"^evaluation\.extractor: distances compare with real images, but the store holds samples of shape \(2,\)"
    with pytest.raises(GradscopeError, match=message):
        load_evaluators(ds, ["evaluation.extractor=zoo:sportballs32/extractor"], CPU, print)
    with pytest.raises(GradscopeError, match=message):
        gradscope.evaluate(path, extractor="zoo:sportballs32/extractor")


@pytest.mark.slow
def test_a_judge_without_weights_is_independent_unless_it_is_named_like_a_guide(tmp_path):
    """All models without weights have the same hash."""
    of = "gradscope.models.examples.trajectories:"
    path, said = record("trajectories", tmp_path, *FEW, f"classifiers={{waypoint: '{of}waypoint'}}")
    assert not [text for text in said if "independent" in text]
    path, said = record("trajectories", tmp_path / "b", *FEW, f"classifiers={{waypoint: '{of}judge'}}")
    assert [text for text in said if "not independent" in text]


def test_a_probe_that_needs_pixels_is_refused_before_recording(tmp_path):
    run = prepare(load(RunConfig, "points.yaml", [*FEW, "probes=[spectrum]"]), "cpu", str(tmp_path / "a.zarr"))
    with pytest.raises(
        GradscopeError, match=r"spectrum: samples of shape \(2,\) have no height and width; name the axes"
    ):
        record_run(run)
    assert not (tmp_path / "a.zarr").exists()


def minimal(classifiers):
    return {
        "denoiser": "gradscope.models.examples.points:denoiser", "classifiers": classifiers,
        "guidance": {"guidance_scale": [0.3]}, "recording": {"path": "a.zarr"},
    }  # fmt: skip


def test_images_are_still_recorded_with_channels_last():
    made = load_denoiser(f"{__name__}:small_unet").unet
    assert made.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def small_unet():
    options = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return UNet2DModel(sample_size=8, **options, **blocks), DDPMScheduler()
