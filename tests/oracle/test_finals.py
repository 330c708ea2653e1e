"""Scores of final samples: against closed forms and exact draws."""

import numpy as np
import pytest
import torch

from gradscope.oracle.finals import coverage, finals, floor, kl_score
from gradscope.oracle.mixtures import Wide, make


def two_lines(std=0.5):
    """Points of two classes; the components of each lie two apart in x, the classes four in y."""
    means = [[[-1.0, 0], [1, 0]], [[-1, 4], [1, 4]]]
    return Wide(torch.tensor(means, dtype=torch.float64), std)


@pytest.mark.parametrize(
    "name", ["points-separated-4", "points-overlapping-10", "vectors-overlapping-4", "images-separated-2"]
)
def test_exact_draws_have_no_divergence(name):
    mixture = make(name)
    label = torch.arange(600) % mixture.classes
    found = finals(mixture, mixture.draw(label, torch.Generator().manual_seed(1)), label)
    value, low, high = kl_score(found.divergence)
    assert low - 0.05 < 0 < high + 0.05
    assert abs(value) < 0.15
    assert coverage(found.component[None], label.numpy(), 2)[0] > 0.85


@pytest.mark.slow
def test_the_divergence_of_a_shifted_normal_is_known():
    """One component twice: N(shift, s^2) against N(0, s^2) has KL |shift|^2 / (2 s^2)."""
    means = torch.tensor([[[0.0, 0], [1e-9, 0]], [[0, 9], [1e-9, 9]]], dtype=torch.float64)
    mixture = Wide(means, 0.5)
    label = torch.zeros(4000, dtype=torch.long)
    samples = torch.tensor([0.3, 0.4]) + 0.5 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    value, low, high = kl_score(finals(mixture, samples, label).divergence)
    assert value == pytest.approx(0.5**2 / (2 * 0.5**2), abs=0.06)
    assert low < 0.5 < high


def test_the_divergence_of_one_component_of_two_is_log_two():
    """All samples in one of two components far apart."""
    mixture = two_lines(std=0.1)
    label = torch.zeros(3000, dtype=torch.long)
    samples = torch.tensor([1.0, 0]) + 0.1 * torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    found = finals(mixture, samples, label)
    assert kl_score(found.divergence)[0] == pytest.approx(np.log(2), abs=0.06)
    assert coverage(found.component[None], label.numpy(), 2)[0] == 0.5


def test_accuracy_is_that_of_the_nearest_class():
    mixture = two_lines()
    samples = torch.tensor([[0.0, 1.9], [0, 2.1], [5, -3], [0, 9]])
    assert finals(mixture, samples, torch.tensor([0, 0, 0, 1])).right.tolist() == [True, False, True, True]


def test_too_few_samples_of_a_target_have_no_divergence():
    mixture = two_lines()
    label = torch.tensor([0, 0, 0, 1])
    assert np.isnan(finals(mixture, mixture.draw(label, torch.Generator()), label).divergence).all()


def test_coverage_counts_what_is_in_its_own_class_only():
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert coverage(np.array([[0, 0, 1, 1, 2, 2, 3, 3]]), label, 2)[0] == 1
    assert coverage(np.array([[0, 0, 0, 0, 2, 2, 3, 3]]), label, 2)[0] == 0.75
    assert coverage(np.array([[2, 2, 3, 3, 0, 0, 1, 1]]), label, 2)[0] == 0
    both = coverage(np.array([[0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 2, 2, 2, 2]]), label, 2)
    assert both[0] == 0.75
    assert both[1] <= both[0] <= both[2]


def test_the_floor_is_that_of_exact_draws():
    mixture = make("points-overlapping-2")
    label = torch.arange(64) % 2
    found = floor(mixture, label, seed=5, sets=20)
    draws = mixture.draw(torch.arange(4000) % 2, torch.Generator().manual_seed(9))
    bayes = float((mixture.logits(draws, 1.0).argmax(dim=1) == torch.arange(4000) % 2).double().mean())
    assert found.accuracy[0] == pytest.approx(bayes, abs=0.03)
    assert found.kl[1] < 0 < found.kl[2]
    assert found == floor(mixture, label, seed=5, sets=20)
