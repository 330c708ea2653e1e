"""A recording takes the passes that its steps need, and one step before it for each classifier and input."""

import pytest
from passes import Counted, Passes
from small_run import assert_same_recording, config

import gradscope
import gradscope.recording.run as recording_run
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.recording.units import Unit

STEPS, BLOCKS, SAMPLES = 3, 2, 4
NONE = Passes(0, 0)
DENOISED = {"x_t": Passes(1, 0), "x0": Passes(1, 1), "x0_detached": Passes(1, 0)}
INPUTS = list(DENOISED)
SETTINGS = {
    "classifiers": {"robust": "small_run:robust", "other": "small_run:another_judge"},
    "judge": "none",
    "stabilizers": {"none": {}, "adam": {}},
    "probes": ["gradient", "norms"],
    "sampling": {"num_inference_steps": STEPS, "samples": SAMPLES, "batch_size": SAMPLES // BLOCKS},
    "recording": {"codec": "auto", "tensor_samples": 3},
}


def counted(path, **changes):
    """The passes of one recording by model."""
    run = prepare(config(path, **SETTINGS | changes), "cpu")
    models = {"denoiser": run.denoiser.unet} | {name: guide.module for name, guide in run.guides.items()}
    for classifier in run.references.values():
        models["reference"] = classifier.module
    found = {name: Counted(model, SAMPLES // BLOCKS) for name, model in models.items()}
    record_run(run)
    return {name: models.passes for name, models in found.items()}


def total(parts):
    return sum(parts, NONE)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["ddpm", "heun"])
def test_cells_that_guide_take_their_own_passes(tmp_path, scheduler):
    sampling = SETTINGS["sampling"] | {"scheduler": scheduler}
    guidance = {"classifier_input": INPUTS, "guidance_scale": [0.4]}
    made = counted(tmp_path / "a.zarr", sampling=sampling, guidance=guidance)
    steps = BLOCKS * (2 * STEPS - 1 if scheduler == "heun" else STEPS)
    cells, guides = 2, 2  # of one guide and input: the stabilisers
    assert made["denoiser"] == total(DENOISED.values()) * guides * (cells * steps + 1)
    assert made["robust"] == made["other"] == Passes(1, 1) * len(INPUTS) * (cells * steps + 1)


PROBED = ["norms", {"reference": {"classifier": "small_run:robust_by_another_name"}}, {"snr": {"draws": 2}}]


@pytest.mark.slow
def test_cells_at_scale_0_share_them(tmp_path):
    """Denoiser: once a step forward, and back for each guide at x0. Guides: once for each input. So do the probes."""
    guidance = {"classifier_input": INPUTS, "guidance_scale": [0]}
    made = counted(tmp_path / "a.zarr", guidance=guidance, probes=PROBED)
    steps, guides, draws = BLOCKS * STEPS, 2, 2
    objectives = (DENOISED["x0"] + DENOISED["x0_detached"]) * guides * draws
    alone = (total(DENOISED.values()) * guides) + objectives  # the first step of each before the recording
    assert made["denoiser"] == (Passes(1, guides) + objectives) * steps + alone
    assert made["robust"] == made["other"] == Passes(1, 1) * len(INPUTS) * (1 + draws) * (steps + 1)
    assert made["reference"] == Passes(1, 1) * len(INPUTS) * guides * (steps + 1)


@pytest.mark.slow
def test_what_probes_share_has_the_bits_of_cells_alone(tmp_path, monkeypatch):
    guidance = {"classifier_input": ["x0"], "guidance_scale": [0]}
    own = {"guidance": guidance, "classifiers": {"robust": "small_run:robust"}, "probes": [*PROBED, "cosines"]}
    made = {name: config(tmp_path / name, **SETTINGS | own) for name in "ab"}
    record_run(prepare(made["a"], "cpu"))
    monkeypatch.setattr(recording_run, "units", lambda left, *_: [Unit((cell,), block) for cell, block in left])
    record_run(prepare(made["b"], "cpu"))
    assert_same_recording(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("method", "kind", "denoised", "asked"),
    [
        ({"universal": {"steps": 3}}, "x0", Passes(1, 1), Passes(3, 3)),
        ({"tfg": {"rho": 0.0, "mu": 0.5, "steps": 2}}, "x0", Passes(1, 0), Passes(2, 2)),
        ({"lgd": {"draws": 3}}, "x0_detached", Passes(1, 0), Passes(3, 3)),
        ("mpgd", "x0_detached", Passes(1, 0), Passes(1, 1)),
    ],
)
def test_methods_share_the_denoisers_forward_pass(tmp_path, method, kind, denoised, asked):
    guidance = {"classifier_input": [kind], "guidance_scale": [0], "method": method}
    made = counted(tmp_path / "a.zarr", guidance=guidance, sampling=SETTINGS["sampling"] | {"scheduler": "ddim"})
    steps, guides = BLOCKS * STEPS, 2
    assert made["denoiser"] == Passes(1, denoised.backward * guides) * steps + denoised * guides
    assert made["robust"] == made["other"] == asked * (steps + 1)


def test_the_probe_layers_sees_each_cell_alone(tmp_path):
    guidance = {"classifier_input": ["x0"], "guidance_scale": [0]}
    probes = ["norms", {"layers": {"names": ["classifier.linear"]}}]
    made = counted(tmp_path / "a.zarr", guidance=guidance, probes=probes)
    guides, stabilizers = 2, 2
    assert made["denoiser"] == Passes(1, 1) * guides * (BLOCKS * STEPS * stabilizers + 1)


@pytest.mark.parametrize("codec", ["auto", "none"])
def test_recording_from_python_takes_no_further_pass(tmp_path, unet, scheduler, classifier, codec):
    """One cell needs no step before the recording, but for the choice of a codec."""
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, "x0", guidance_scale=0.4))
    found = [Counted(model, 2) for model in (unet, classifier)]
    with gradscope.record(sampler, tmp_path / "a.zarr", ["norms"], codec=codec) as recorder:
        recorder.sample([0, 1], STEPS)
    assert [models.passes for models in found] == [Passes(1, 1) * (STEPS + (codec == "auto"))] * 2
