"""Probes that differentiate the objective, compared with closed forms and with NumPy."""

import numpy as np
import pytest
import torch
from small_models import LinearClassifier

from probes import Attribution, GradientSNR, GuidedStep, ReferenceCosine

N, SHAPE = 5, (3, 8, 8)
LABEL = torch.tensor([0, 1, 2, 3, 0])


def images(seed):
    return torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(seed))


class Seen:
    """An objective that keeps the images that it was evaluated at."""

    def __init__(self, objective):
        self.objective, self.images = objective, []

    def __call__(self, x, label):
        self.images.append(x.detach().double().numpy().reshape(len(x), -1))
        return self.objective(x, label)


def step(objective=None, index=0, **fields):
    defaults = {"x_t": images(0), "gradient": images(1), "label": LABEL, "pred_original_sample": images(2).clamp(-1, 1)}
    return GuidedStep(step=index, timestep=500, alphas_cumprod=0.36, objective=objective, **(defaults | fields))


def measured(probe, guided_step):
    state = torch.get_rng_state()
    values, _ = probe.measure(guided_step, probe.init())
    assert torch.equal(torch.get_rng_state(), state)
    return {name: value.double().numpy() for name, value in values.items()}


# Reference


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_reference_cosine_of_a_linear_classifier_is_closed_form(scale):
    """Its gradient is W[y] - sum_k p_k W[k]."""
    torch.manual_seed(0)
    classifier = LinearClassifier(gain=3.0)
    guided = step(gradient=images(1) * scale)
    weight = classifier.linear.weight.detach().double().numpy()
    p = classifier(guided.x_t).double().softmax(dim=1).detach().numpy()
    reference = weight[LABEL] - p @ weight
    g = guided.gradient.double().numpy().reshape(N, -1)
    expected = (g * reference).sum(1) / np.sqrt((g**2).sum(1) * (reference**2).sum(1))
    got = measured(ReferenceCosine(classifier), guided)["reference_cosine"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_agrees_with_itself_and_not_with_its_opposite():
    torch.manual_seed(0)
    classifier = LinearClassifier().train()
    x = images(0).requires_grad_()
    (g,) = torch.autograd.grad(classifier(x).log_softmax(dim=1).gather(1, LABEL[:, None]).sum(), x)
    g[1], g[2], g[3, 0, 0, 0] = -g[1], 0, torch.nan
    got = measured(ReferenceCosine(classifier), step(gradient=g))["reference_cosine"]
    np.testing.assert_allclose(got, [1, -1, np.nan, np.nan, 1], rtol=1e-5)
    assert not classifier.training
    assert all(p.grad is None for p in classifier.parameters())


# Signal to noise


def quadratic(x, label):
    return -x.flatten(1).square().sum(dim=1) / 2


@pytest.mark.parametrize("scale", [1.0, 1e-22])
def test_snr_is_recomputed_from_the_gradients_at_the_noised_images(scale):
    seen = Seen(lambda x, label: scale * quadratic(x, label))
    guided = step(seen)
    got = measured(GradientSNR(draws=6, seed=3), guided)["gradient_snr"]
    assert len(seen.images) == 6
    x_0 = guided.pred_original_sample.double().numpy().reshape(N, -1)
    for i in range(N):
        gradients = np.array([-scale * x[i] for x in seen.images])
        mean, covariance = gradients.mean(axis=0), np.cov(gradients.T)
        assert got[i] == pytest.approx(mean @ mean / (np.trace(covariance) / 6), rel=1e-4)
    noise = (np.array(seen.images) - 0.6 * x_0) / 0.8
    assert abs(noise.mean()) < 0.05
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.abs(np.corrcoef(noise.reshape(6 * N, -1)) - np.eye(6 * N)).max() < 0.35


def test_snr_of_noise_and_of_signal_has_its_expectation():
    """With the gradient m + sqrt(1 - a) noise, the expectation is 1 + K |m|^2 / (d (1 - a))."""
    x_0 = images(2).clamp(-1, 1)
    for m, expected in ((0.0, 1.0), (0.5, 1 + 8 * 0.25 / 0.64)):

        def objective(x, label, m=m):
            return (x - 0.6 * x_0 + m).flatten(1).square().sum(dim=1) / 2

        steps = [step(objective, index, pred_original_sample=x_0) for index in range(40)]
        got = np.concatenate([measured(GradientSNR(draws=8), s)["gradient_snr"] for s in steps])
        standard_error = got.std() / np.sqrt(len(got))
        assert standard_error < 0.02 * expected
        # A ratio's expectation is above the ratio of expectations by about 2 / ((K - 1) d).
        assert got.mean() == pytest.approx(expected * (1 + 2 / (7 * 192)), abs=4 * standard_error)


def test_snr_depends_on_seed_and_step_alone():
    def run(seed, index):
        return measured(GradientSNR(draws=2, seed=seed), step(quadratic, index))["gradient_snr"]

    np.testing.assert_array_equal(run(0, 0), run(0, 0))
    assert not np.allclose(run(0, 0), run(1, 0))
    assert not np.allclose(run(0, 0), run(0, 1))


def test_snr_is_infinite_where_all_draws_agree_and_undefined_for_zero_gradients():
    def objective(x, label):
        return x.flatten(1).sum(dim=1) * torch.tensor([1.0, 2.0, 0.0, torch.nan, 1.0])

    got = measured(GradientSNR(draws=3), step(objective))["gradient_snr"]
    np.testing.assert_array_equal(got, [np.inf, np.inf, np.nan, np.nan, np.inf])


# Attribution

CURVATURE = torch.linspace(0.5, 2.0, 192)


def bowl(x, label):
    return -(CURVATURE * x.flatten(1).square()).sum(dim=1) / 2


def bowl_step(scale=1.0, layout=torch.contiguous_format):
    x = images(0).contiguous(memory_format=layout)
    seen = Seen(lambda x, label: scale * bowl(x, label))
    gradient = scale * -(CURVATURE * x.flatten(1)).view(x.shape)
    return seen, step(seen, x_t=x, gradient=gradient.contiguous(memory_format=layout))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scale", [1.0, 1e-25])
def test_attribution_of_a_quadratic_objective_is_closed_form(scale, layout):
    """With f = -sum a x^2 / 2: gradients differ by a u, and the gradient misses a second-order term sum a u^2 / 2."""
    a = CURVATURE.double().numpy()
    seen, guided = bowl_step(scale, layout)
    got = measured(Attribution(draws=4, radius=0.05), guided)
    x_t = guided.x_t.double().numpy().reshape(N, -1)
    moved = np.array([u for u in (x - x_t for x in seen.images) if np.abs(u).max() > 0])
    assert len(moved) == 8
    cube, normal = moved[:4], moved[4:]
    changes = np.linalg.norm(a * cube, axis=-1) / np.linalg.norm(a * x_t, axis=-1)
    np.testing.assert_allclose(got["sensitivity_max"], changes.max(axis=0), rtol=1e-4)
    if scale == 1:
        missed = (a * normal**2).sum(axis=-1) / 2
        np.testing.assert_allclose(got["infidelity"], (missed**2).mean(axis=0), rtol=0.02)
    assert np.abs(cube).max() == pytest.approx(0.05, abs=1e-4)
    assert cube.std() == pytest.approx(0.05 / np.sqrt(3), rel=0.03)
    assert normal.std() == pytest.approx(0.05, rel=0.03)
    assert np.abs(np.corrcoef(moved.reshape(8 * N, -1)) - np.eye(8 * N)).max() < 0.35


def test_a_linear_objective_is_explained_by_its_gradient():
    guided = step(lambda x, label: x.flatten(1).sum(dim=1), gradient=torch.ones(N, *SHAPE))
    got = measured(Attribution(), guided)
    np.testing.assert_array_equal(got["sensitivity_max"], np.zeros(N))
    np.testing.assert_allclose(got["infidelity"], np.zeros(N), atol=1e-9)
    wrong = measured(Attribution(draws=200, radius=0.1), step(guided.objective, gradient=2 * guided.gradient))
    assert wrong["infidelity"].mean() == pytest.approx(192 * 0.1**2, rel=0.1)  # the variance of sum(u)


def test_relative_sensitivity_is_undefined_for_zero_gradients():
    def objective(x, label):
        return bowl(x, label) * torch.tensor([1.0, 0.0, torch.nan, 1.0, 1.0])

    got = measured(Attribution(), step(objective))["sensitivity_max"]
    np.testing.assert_array_equal(np.isnan(got), [False, True, True, False, False])


def test_attribution_is_reproducible():
    first, second = (measured(Attribution(), bowl_step()[1]) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientSNR(draws=1), "draws must be at least 2, got 1"),
        (lambda: GradientSNR(seed=-1), "seed must be at least 0, got -1"),
        (lambda: Attribution(draws=0), "draws must be at least 1, got 0"),
        (lambda: Attribution(radius=0), "radius must be finite and above 0, got 0"),
        (lambda: Attribution(radius=float("nan")), "radius must be finite and above 0, got nan"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
