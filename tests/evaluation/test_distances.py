import numpy as np
import pytest
import timm
import torch
from scipy.linalg import sqrtm
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.evaluation.distances import Features, frechet_distance

SHAPE = (3, 1, 2)


class Pixels(nn.Module):
    """A classifier in timm's manner whose features are the pixels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward_features(self, x):
        return x

    def forward_head(self, x, pre_logits=False):
        assert pre_logits
        return x.flatten(1)


@pytest.fixture
def extractor():
    return Features(Pixels(), SHAPE)


def gaussian(n: int, seed: int, mean: float, mix: float) -> torch.Tensor:
    """Correlated Gaussian images with non-zero mean."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 6)) @ (np.eye(6) + mix * rng.normal(size=(6, 6))) + mean
    return torch.from_numpy(values.reshape(n, *SHAPE)).float()


def closed_form(a: torch.Tensor, b: torch.Tensor) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))."""
    a, b = a.flatten(1).double().numpy(), b.flatten(1).double().numpy()
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(s_a @ s_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a + s_b - 2 * root.real))


@pytest.mark.parametrize(("mean", "mix"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-1.0, 1.0)])
def test_frechet_distance_is_the_closed_form(extractor, mean, mix):
    real, fake = gaussian(300, 0, 0.2, 0.3), gaussian(200, 1, mean, mix)
    wanted = closed_form(real, fake)
    assert frechet_distance(extractor, real.split(64), fake.split(7)) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert wanted > 0.01


def test_identical_sets_have_distance_zero_and_a_shift_its_square(extractor):
    real = gaussian(100, 0, 0.0, 0.3)
    assert frechet_distance(extractor, [real], real.split(11)) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(extractor, [real], [real + 0.5]) == pytest.approx(6 * 0.25, rel=1e-3)


def test_features_are_those_that_the_last_layer_sees():
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=4, channels=[8, 8, 8, 8], stem_width=8, stem_type="")
    features = Features(model, (3, 32, 32))
    images = torch.rand(5, 3, 32, 32)
    assert features.num_features == 8
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(model.fc(features(images)), model(images))


def test_what_is_no_timm_classifier_is_refused():
    with pytest.raises(GradscopeError, match=r"^evaluation\.extractor: an extractor is a timm classifier"):
        Features(nn.Linear(2, 2), SHAPE)
