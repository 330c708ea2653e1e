"""Predictions of one step, compared with autograd of a density, definitions and diffusers' schedulers."""

import itertools
import math

import pytest
import torch
from diffusers import DDPMScheduler

from gradscope.stabilizers.classifier_free import Predictions

LEVELS = [(0.6, 0.8), (1.0, 5.0), (0.3, 0.7), (0.9, 0.1)]
TYPES = ("epsilon", "sample", "v_prediction", "flow_prediction")


def outputs(x_t, x_0, signal, noise):
    """The prediction of x_0 in every type, by their definitions."""
    epsilon = (x_t - signal * x_0) / noise
    return {
        "epsilon": epsilon,
        "sample": x_0,
        "v_prediction": signal * epsilon - noise * x_0,
        "flow_prediction": epsilon - x_0,
    }


def drawn(shape=(3, 2, 4), dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


@pytest.mark.parametrize(("signal", "noise"), LEVELS)
@pytest.mark.parametrize("kind", TYPES)
def test_gradient_is_that_of_the_log_probability_of_the_condition(kind, signal, noise):
    """Two classes of Gaussian points, whose best predictions are known: x0-hat = (x_t + noise^2 score) / signal."""
    means, deviations = torch.tensor([-1.0, 2.0]).double(), torch.tensor([0.5, 1.5]).double()
    x_t = drawn((5, 1))[0].requires_grad_()
    spread = (signal**2 * deviations**2 + noise**2).sqrt()
    log_p = torch.distributions.Normal(signal * means, spread).log_prob(x_t) + math.log(0.5)
    probability = log_p[:, 1] - log_p.logsumexp(1)
    (wanted,) = torch.autograd.grad(probability.sum(), x_t, retain_graph=True)
    x_0 = []
    for density in (log_p[:, 1], log_p.logsumexp(1)):
        (score,) = torch.autograd.grad(density.sum(), x_t, retain_graph=True)
        x_0.append((x_t.detach() + noise**2 * score) / signal)
    c, u = (outputs(x_t.detach(), one, signal, noise)[kind] for one in x_0)
    got = Predictions(c, u, 2.0, signal, noise, prediction_type=kind).gradient
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("signal", "noise"), LEVELS)
@pytest.mark.parametrize(("source", "target"), list(itertools.product(TYPES, TYPES)))
def test_conversion_follows_the_definitions(source, target, signal, noise):
    x_t, *x_0 = drawn()
    c, u = (outputs(x_t, one, signal, noise) for one in x_0)
    got = Predictions(c[source], u[source], 2.0, signal, noise, 4, source).to(target, x_t)
    torch.testing.assert_close(got.conditional, c[target], rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(got.unconditional, u[target], rtol=1e-10, atol=1e-11)
    assert (got.prediction_type, got.step, got.guidance_scale) == (target, 4, 2.0)


def test_v_is_that_of_diffusers():
    scheduler = DDPMScheduler()
    x_0, epsilon, _ = drawn()
    t = torch.tensor(400)
    x_t, v = scheduler.add_noise(x_0, epsilon, t), scheduler.get_velocity(x_0, epsilon, t)
    share = float(scheduler.alphas_cumprod[t])
    at = Predictions(epsilon, x_0 * 0, 2.0, share**0.5, (1 - share) ** 0.5)
    torch.testing.assert_close(at.to("v_prediction", x_t).conditional, v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["sample", "v_prediction", "flow_prediction"])
def test_pure_noise_has_x_0_and_no_gradient(kind):
    """At signal 0: x_t is epsilon, so a flow is x_t - x_0, and v is -x_0."""
    x_t, c, u = drawn()
    native = {"sample": lambda x: x, "v_prediction": lambda x: -x, "flow_prediction": lambda x: x_t - x}[kind]
    at = Predictions(native(c), native(u), 2.0, 0.0, 1.0, prediction_type=kind)
    torch.testing.assert_close(at.to("sample", x_t).conditional, c)
    torch.testing.assert_close(at.to("sample", x_t).unconditional, u)
    assert at.sigma == math.inf
    with pytest.raises(ValueError, match="at signal 0 a difference of predictions has no gradient"):
        _ = at.gradient
    with pytest.raises(ValueError, match="at signal 0 a prediction of epsilon does not determine"):
        Predictions(c, u, 2.0, 0.0, 1.0).to(kind, x_t)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unconditional": torch.zeros(3)}, r"must have one shape, got \(3, 2, 4\) and \(3,\)"),
        ({"guidance_scale": 0.0}, "guidance_scale must be finite and not 0, got 0.0"),
        ({"guidance_scale": math.nan}, "guidance_scale must be finite and not 0, got nan"),
        ({"signal": -0.1}, "signal must be finite and 0 or above, got -0.1"),
        ({"signal": math.inf}, "signal must be finite and 0 or above, got inf"),
        ({"noise": 0.0}, "noise must be finite and above 0, got 0.0"),
        ({"step": -1}, "step must be 0 or above, got -1"),
        ({"prediction_type": "v"}, "prediction_type must be one of epsilon, sample, .* got 'v'"),
    ],
)
def test_what_is_out_of_range_is_named(change, message):
    _, c, u = drawn()
    good = {"conditional": c, "unconditional": u, "guidance_scale": 2.0, "signal": 0.6, "noise": 0.8}
    with pytest.raises(ValueError, match=message):
        Predictions(**{**good, **change})
