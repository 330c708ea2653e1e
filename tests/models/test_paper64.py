"""The configurations of 64 px, rehearsed: two steps of every training, and two steps of the run with what they made."""

from pathlib import Path

import pytest
import torch

import gradscope
from gradscope.cli import record_workflow
from gradscope.config import TrainClassifierConfig, TrainDenoiserConfig, load
from gradscope.evaluation import cards as evaluation
from gradscope.models import training

CONFIGS = Path(__file__).parent.parent.parent / "runs" / "train" / "paper64"
SMALL = ["training.steps=2", "training.batch_size=2", "training.warmup_steps=0"]
CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_models_train_and_the_run_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "_HELD_OUT", 8)
    for name in ("judge", "extractor", "robust", "non_robust"):
        config = load(TrainClassifierConfig, str(CONFIGS / f"{name}.yaml"), SMALL)
        evaluation.measure_classifier(training.train_classifier(config, CPU), CPU)
    smaller = [*SMALL, "evaluation.samples=4", "evaluation.num_inference_steps=2"]
    denoiser = load(TrainDenoiserConfig, str(CONFIGS / "ddpm.yaml"), smaller)
    evaluation.check_evaluation(denoiser, CPU)
    path = training.train_denoiser(denoiser, CPU)
    card = evaluation.measure_denoiser(path, denoiser.evaluation, CPU)
    assert path == Path("runs/models/paper64/ddpm.yaml")
    assert card.metrics["mean_pixel"].n == 4
    few = ["sampling.samples=2", "sampling.num_inference_steps=2", "guidance.classifier_input=[x_t]"]
    record_workflow.run(record_workflow.Request("paper64.yaml", None, "a.zarr", few, "cpu", False, False, None, None))
    ds = gradscope.open("a.zarr")
    assert ds["stabilizer"].values.tolist() == ["none", "adam_paper", "adam_followup", "ema_0.9"]
    assert ds["timestep"].values.tolist() == [200, 0]  # of 400
    assert ds["image"].shape[-2:] == (64, 64)
