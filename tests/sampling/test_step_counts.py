"""What is called unstable does not depend on the number of steps: the shipped guides, in the real sampler."""

import pytest

import gradscope
from gradscope.analysis.signatures import find, untested
from gradscope.config import RunConfig, load
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

NOISY = ("non_robust", "x_t")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [8, 30, 100])
def test_the_non_robust_guide_at_x_t_alone_is_unstable(steps, tmp_path):
    """Cosines of successive gradients called robust / x_t unstable at 5 steps, and nothing at 100 and more."""
    settings = [
        f"sampling={{num_inference_steps: {steps}, samples: 16, batch_size: 16}}",
        f"guidance.guidance_scale=[{15 / steps}]",
        "stabilizers={none: {}}",
        "probes=[cosines]",
        "judge=none",
        f"recording.path={tmp_path / 'run.zarr'}",
    ]
    record_run(prepare(load(RunConfig, "both.yaml", settings), "cpu"))
    ds = gradscope.open(tmp_path / "run.zarr")
    unstable = {(f.classifier, f.classifier_input) for f in find(ds) if f.signature == "unstable"}
    assert unstable == (set() if steps == 8 else {NOISY})
    assert ("unstable" in untested(ds)) == (steps == 8)
