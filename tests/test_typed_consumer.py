"""A user's typed program runs; `make lint` has mypy check it strictly, against what py.typed promises."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import typed_consumer
from small_models import LinearClassifier

from gradscope import ClassifierGuidance, GuidedSampler

ROOT = Path(__file__).parent.parent


def test_it_records_with_our_sampler(tmp_path, unet, scheduler):
    ds = typed_consumer.record_with_our_sampler(unet, scheduler, LinearClassifier(), tmp_path / "a.zarr", [0, 1, 2])
    gradient = ds["gradient"].squeeze().transpose("timestep", "sample", ...).values
    norms = np.sqrt((gradient.reshape(4, 3, -1).astype(float) ** 2).sum(axis=-1)).mean(axis=1)
    assert ds.attrs["norms"] == pytest.approx(norms.tolist(), rel=1e-6)
    found, untested = typed_consumer.findings(ds)
    assert {"signature", "evidence"} <= set(found.columns)
    assert "vanishing" in untested
    assert typed_consumer.is_refused(tmp_path / "b.zarr")


def test_it_records_a_grid(tmp_path, unet, scheduler):
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(LinearClassifier(), guidance_scale=0.4))
    ds = typed_consumer.record_a_grid(sampler, LinearClassifier(), tmp_path / "a.zarr", [0, 1])
    assert ds["judge_accuracy"].shape == (1, 2, 2, 1)
    assert ds.attrs["done"] == pytest.approx([k / 12 for k in range(1, 13)])


def test_it_records_a_loop_of_its_own(tmp_path):
    gradients = torch.randn(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ds = typed_consumer.record_a_loop_of_my_own(gradients, tmp_path / "a.zarr")
    wanted = gradients.flatten(2).norm(dim=2).T.numpy()
    np.testing.assert_allclose(ds["gradient_norm"].squeeze().transpose("sample", "timestep").values, wanted, rtol=1e-6)


def test_every_package_of_the_wheel_says_that_it_is_typed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert [name for name in packages["packages"] if not (ROOT / name / "py.typed").is_file()] == []
