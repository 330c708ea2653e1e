"""The mixtures of the oracle, and the exact gradient on them."""

import numpy as np
import pytest
import torch

from gradscope.errors import GradscopeError
from gradscope.models.mixture import Mixture
from gradscope.oracle.mixtures import SHAPES, make


@pytest.mark.parametrize("classes", [2, 4, 10])
@pytest.mark.parametrize("overlap", ["separated", "overlapping"])
@pytest.mark.parametrize("kind", SHAPES)
def test_means_are_as_far_apart_as_the_name_says(kind, overlap, classes):
    mixture = make(f"{kind}-{overlap}-{classes}", seed=3)
    means = mixture.means.flatten(1).numpy()
    assert means.shape == (2 * classes, np.prod(SHAPES[kind]))
    gaps = [
        np.linalg.norm(means[i] - means[j]) / mixture.std
        for i in range(len(means))
        for j in range(len(means))
        if i // 2 != j // 2
    ]
    if overlap == "separated":
        assert min(gaps) > 8 - 1e-9
        assert mixture.std <= 0.2
    else:
        assert min(gaps) == pytest.approx(3)
        assert mixture.std <= 0.3
    assert 0.2 < np.sqrt(np.mean(means**2)) < 1.1


def test_the_seed_makes_the_mixture():
    first, again, other = (make("vectors-separated-4", seed).means for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_have_a_background_that_says_nothing():
    means = make("images-separated-4").means
    corner = means[:, :, :6, :6]
    assert torch.equal(corner, corner[:1].expand_as(corner))
    assert (means[:, :, 16, 16].std(dim=0) > 0.1).all()


@pytest.mark.parametrize(
    "name",
    ["points", "points-separated", "points-separated-1", "points-separated-11", "lines-separated-4", "points-near-4"],
)
def test_an_unknown_name_is_refused(name):
    with pytest.raises(GradscopeError, match=r"mixtures: got .* kind \(points, vectors, images\)"):
        make(name)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("share", [1e-4, 0.3, 0.99])
def test_the_exact_gradient_is_that_of_the_log_probability(kind, share):
    mixture = make(f"{kind}-overlapping-4")
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([0, 1, 2, 3, 3])
    clean = mixture.draw(torch.tensor([0, 2, 2, 1, 3]), generator)
    x = share**0.5 * clean + (1 - share) ** 0.5 * torch.randn(clean.shape, generator=generator)
    # by densities of each component, written out
    at = x.double().requires_grad_()
    variance = share * mixture.std**2 + 1 - share
    gaps = (at[:, None] - share**0.5 * mixture.means).flatten(2).square().sum(dim=2)
    density = torch.exp(-(gaps - gaps.amin(dim=1, keepdim=True)) / (2 * variance)).unflatten(1, (4, 2)).sum(dim=2)
    log_p = (density[torch.arange(5), label] / density.sum(dim=1)).log().sum()
    (wanted,) = torch.autograd.grad(log_p, at)
    torch.testing.assert_close(mixture.gradient(x, label, share), wanted, rtol=1e-9, atol=1e-12)


def test_the_gradient_holds_for_a_full_covariance_and_in_float32():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator)
    mixture = Mixture(torch.randn(3, 2, 5, generator=generator), root @ root.T / 5)
    x, label = torch.randn(4, 5, generator=generator, requires_grad=True), torch.tensor([0, 1, 2, 0])
    log_p = mixture.logits(x, 0.6).log_softmax(dim=1).gather(1, label[:, None]).sum()
    torch.testing.assert_close(mixture.gradient(x, label, 0.6).detach(), torch.autograd.grad(log_p, x)[0])


def test_the_gradient_of_a_sure_class_does_not_round_to_zero():
    """Two numbers at -1 and 1: log p(1|x) = -log(1 + exp(-2 x / v)), its slope 2/v exp(-2 x / v) for large x / v."""
    mixture = Mixture(torch.tensor([[[-1.0]], [[1.0]]], dtype=torch.float64), 0.1)
    slope = mixture.gradient(torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([1]), 1.0)
    assert float(slope) == pytest.approx(2 / 0.01 * np.exp(-200), rel=1e-9)
    far = mixture.gradient(torch.tensor([[9.0]], dtype=torch.float64), torch.tensor([1]), 1.0)
    assert float(far) == pytest.approx(2 / 0.01 * np.exp(-300), rel=1e-9)  # as guidance counts it


def test_wide_agrees_with_the_plain_mixture():
    wide = make("vectors-overlapping-4")
    plain = Mixture(wide.means.unflatten(0, (4, 2)), wide.std)
    x = torch.randn(6, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(wide.logits(x, 0.5), plain.logits(x, 0.5), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(wide.epsilon(x, 0.5), plain.epsilon(x, 0.5), rtol=1e-12, atol=1e-12)
