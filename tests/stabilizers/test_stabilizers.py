import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from gradscope import stabilizers
from gradscope.errors import GradscopeError
from gradscope.stabilizers import (
    EMA,
    METHODS,
    AdaGrad,
    Adam,
    AMSGrad,
    Clipping,
    Identity,
    Lion,
    NAdam,
    Nesterov,
    RMSProp,
    build,
)
from probes.numerics import unit

STEPS = 50


def gradients(scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(2, 3, 4, 4, generator=generator).to(dtype) for _ in range(STEPS)]


def updates(stabilizer, sequence):
    state = stabilizer.init(torch.zeros_like(sequence[0]))
    out = []
    for gradient in sequence:
        update, state = stabilizer.update(gradient, state)
        out.append(update)
    return out


def optimizer_steps(kind, settings, sequence):
    """What a torch optimiser adds to parameters that are 0 before each step, learning rate 1, uphill."""
    x = torch.zeros_like(sequence[0], requires_grad=True)
    optimizer = kind([x], lr=1.0, maximize=True, **settings)
    for gradient in sequence:
        x.grad = gradient.clone()
        with torch.no_grad():
            x.zero_()
        optimizer.step()
        yield x.detach().clone()


TORCH = [
    (Adam(), torch.optim.Adam, {}),
    (Adam((0.0, 0.8), 1e-4), torch.optim.Adam, {"betas": (0.0, 0.8), "eps": 1e-4}),
    (Adam((0.5, 0.9), 1e-3), torch.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-3}),
    (Nesterov(), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (Nesterov(0.5), torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
    (RMSProp(), torch.optim.Adam, {"betas": (0.0, 0.999)}),
    (RMSProp(0.8, 1e-4), torch.optim.Adam, {"betas": (0.0, 0.8), "eps": 1e-4}),
    (RMSProp(bias_correction=False), torch.optim.RMSprop, {"alpha": 0.999}),
    (RMSProp(0.8, 1e-4, bias_correction=False), torch.optim.RMSprop, {"alpha": 0.8, "eps": 1e-4}),
    (AdaGrad(), torch.optim.Adagrad, {}),
    (AdaGrad(1e-3), torch.optim.Adagrad, {"eps": 1e-3}),
    (AMSGrad(), torch.optim.Adam, {"amsgrad": True}),
    (AMSGrad((0.5, 0.6), 1e-4), torch.optim.Adam, {"amsgrad": True, "betas": (0.5, 0.6), "eps": 1e-4}),
    (NAdam(), torch.optim.NAdam, {}),
    (NAdam((0.5, 0.9), 1e-4, 0.1), torch.optim.NAdam, {"betas": (0.5, 0.9), "eps": 1e-4, "momentum_decay": 0.1}),
]


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize(("stabilizer", "kind", "settings"), TORCH)
def test_update_is_the_step_of_torch_optim(stabilizer, kind, settings, scale):
    sequence = gradients(scale)
    expected = optimizer_steps(kind, settings, sequence)
    for update, step in zip(updates(stabilizer, sequence), expected, strict=True):
        torch.testing.assert_close(update, step, rtol=2e-5, atol=1e-6 * float(step.abs().max()))


@pytest.mark.parametrize("beta2", [0.6, 0.999])
def test_rmsprop_is_adam_without_momentum(beta2):
    sequence = gradients()
    for bias_correction in (False, True):
        adam = updates(Adam((0.0, beta2), 1e-6, bias_correction), sequence)
        assert all(map(torch.equal, updates(RMSProp(beta2, 1e-6, bias_correction), sequence), adam))


def test_amsgrad_without_bias_correction_is_the_papers_algorithm():
    """Algorithm 2 of arXiv 1904.09237, in float64 by hand; gradients that shrink, so that the maximum counts."""
    sequence = [gradient.double() / (k + 1) for k, gradient in enumerate(gradients())]
    m = v = largest = np.zeros((2, 3, 4, 4))
    for gradient, update in zip(sequence, updates(AMSGrad((0.9, 0.9), bias_correction=False), sequence), strict=True):
        m = 0.9 * m + 0.1 * gradient.numpy()
        v = 0.9 * v + 0.1 * gradient.numpy() ** 2
        largest = np.maximum(largest, v)
        np.testing.assert_allclose(update, m / (np.sqrt(largest) + 1e-8), rtol=1e-10)
    assert (largest > 2 * v).mean() > 0.9


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.5, 0.8)])
def test_lion_is_the_sign_of_the_interpolation(betas, scale):
    """Algorithm 2 of arXiv 2302.06675, in float64 by hand."""
    sequence = gradients(scale, torch.float64)
    m = np.zeros((2, 3, 4, 4))
    for gradient, update in zip(sequence, updates(Lion(betas), sequence), strict=True):
        g = gradient.numpy()
        np.testing.assert_array_equal(update, np.sign(betas[0] * m + (1 - betas[0]) * g))
        m = betas[1] * m + (1 - betas[1]) * g


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-42, 1e30])
def test_clipping_bounds_the_norm_of_each_sample(scale):
    """By hand in float64; gradients of 1e-30 have squares, those of 1e-42 values, below float32's normal range."""
    gradient = gradients(scale)[0]
    gradient[1] *= 3
    lengths = [math.sqrt(sum(float(g) ** 2 for g in sample.flatten())) for sample in gradient]
    bound = lengths[0] * 1.5
    assert lengths[0] < bound < lengths[1]
    update, _ = Clipping(bound).update(gradient, None)
    assert torch.equal(update[0], gradient[0])
    least = 1.5e-45
    torch.testing.assert_close(update[1].double(), gradient[1].double() * bound / lengths[1], rtol=1e-6, atol=least)
    assert torch.equal(Clipping(lengths[1]).update(gradient, None)[0], gradient)


@pytest.mark.parametrize("max_norm", [1e-6, 1.0, 1e6])
def test_clipping_has_the_direction_of_none(max_norm):
    for gradient, update in zip(gradients(), updates(Clipping(max_norm), gradients()), strict=True):
        torch.testing.assert_close(unit(update), unit(gradient), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stabilizer", [Adam(), RMSProp(), AdaGrad(), AMSGrad(), NAdam(), Lion()])
def test_the_first_direction_of_the_adaptive_methods_is_the_sign(stabilizer):
    first = gradients()[0]
    torch.testing.assert_close(unit(updates(stabilizer, [first])[0]), unit(first.sign()))


@pytest.mark.parametrize("stabilizer", [Nesterov(0.0), EMA(0.0), Clipping(1e9)])
def test_settings_that_stabilise_nothing_give_the_gradient(stabilizer):
    sequence = gradients()
    assert all(map(torch.equal, updates(stabilizer, sequence), sequence))


def test_adam_without_bias_correction_is_the_plain_recursion():
    """Settings of the follow-up (arXiv 2507.00687), in float64 by hand."""
    m = v = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    sequence = gradients()
    for gradient, update in zip(sequence, updates(Adam(eps=1e-4, bias_correction=False), sequence), strict=True):
        m = 0.9 * m + 0.1 * gradient.double()
        v = 0.999 * v + 0.001 * gradient.double() ** 2
        torch.testing.assert_close(update.double(), m / (v.sqrt() + 1e-4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99])
def test_ema_is_the_closed_form_sum(beta, bias_correction):
    sequence = gradients()
    got = updates(EMA(beta, bias_correction), sequence)
    for k in (1, 2, 10, STEPS):
        weights = [(1 - beta) * beta ** (k - 1 - i) for i in range(k)]
        expected = sum(w * g.double() for w, g in zip(weights, sequence, strict=False))
        if bias_correction:
            expected = expected / sum(weights)
        torch.testing.assert_close(got[k - 1].double(), expected, rtol=1e-5, atol=1e-6)


def test_ema_and_its_bias_corrected_form_have_the_same_direction():
    sequence = gradients()
    for plain, corrected in zip(updates(EMA(0.9), sequence), updates(EMA(0.9, True), sequence), strict=True):
        cosine = cosine_similarity(plain.flatten(1), corrected.flatten(1))
        torch.testing.assert_close(cosine, torch.ones(2))


def test_identity_gives_the_gradient():
    sequence = gradients()
    assert all(u is g for u, g in zip(updates(Identity(), sequence), sequence, strict=True))


def copied(state):
    """The state with its tensors copied, whatever it is made of."""
    if isinstance(state, tuple):
        return tuple(copied(part) for part in state)
    return state.clone() if isinstance(state, torch.Tensor) else state


def equal(a, b):
    if isinstance(a, tuple):
        return all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("method", METHODS)
def test_update_changes_neither_gradient_nor_state(method):
    stabilizer = METHODS[method]()
    first, second = gradients()[:2]
    _, state = stabilizer.update(first, stabilizer.init(first))
    kept, kept_state = second.clone(), copied(state)
    update, _ = stabilizer.update(second, state)
    again, _ = stabilizer.update(second, state)
    assert torch.equal(second, kept)
    assert equal(state, kept_state)
    assert torch.equal(update, again)


@pytest.mark.parametrize("method", METHODS)
def test_a_state_in_float32_takes_a_gradient_in_float64(method):
    """As where a loop in float32 is checked in float64."""
    stabilizer = METHODS[method]()
    first, second = gradients()[:2]
    _, state = stabilizer.update(first, stabilizer.init(first))
    update, _ = stabilizer.update(second.double(), state)
    narrow, _ = stabilizer.update(second, state)
    assert update.dtype == torch.float64
    torch.testing.assert_close(update.float(), narrow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_zero_gradients_give_finite_updates(method):
    """At the start, where averages are zero, and in between, where the sampler puts 0 for what is not finite."""
    zero = torch.zeros(2, 3, 4, 4)
    got = updates(METHODS[method](), [zero, zero, *gradients()[:3], zero, *gradients(1e-42)[:3], zero])
    assert all(torch.isfinite(update).all() for update in got)
    assert not got[0].any()
    assert not got[1].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("method", METHODS)
def test_a_sample_that_is_not_finite_leaves_the_others_alone(method, bad):
    sequence = gradients()[:5]
    spoilt = [gradient.clone() for gradient in sequence]
    spoilt[2][0, 1, 2, 3] = bad
    clean, got = (updates(METHODS[method](), s) for s in (sequence, spoilt))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(clean, got, strict=True))


def test_settings_by_name():
    assert build("adam", {"betas": [0.5, 0.9], "eps": 1e-4}) == Adam((0.5, 0.9), 1e-4)
    assert build("mine", {"method": "ema", "beta": 0.5}) == EMA(0.5)
    assert build("adam_paper", {}) == Adam((0.9, 0.999), 1e-8, bias_correction=True)
    assert build("adam_followup", {}) == Adam((0.9, 0.999), 1e-4, bias_correction=False)
    assert build("none", {}) == Identity()


@pytest.mark.parametrize("method", METHODS)
def test_each_method_runs_by_its_name_alone(method):
    assert build(method, {}) == METHODS[method]()
    assert METHODS[method].__name__ in stabilizers.__all__


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "adm",
            {},
            r"stabilizers.adm: unknown stabilizer 'adm'; did you mean 'adam'\? one of: none, ema, adam, ",
        ),
        ("adam", {"beta": 0.9}, r"stabilizers.adam.beta: adam has no such setting; did you mean 'betas'\?"),
        ("adam", {"betas": [0.9, 1.5]}, r"stabilizers.adam.betas: must be two numbers in \[0, 1\), got \[0.9, 1.5\]"),
        ("adam", {"betas": 0.9}, "stabilizers.adam.betas: must be a valid tuple, got 0.9"),
        ("adam", {"eps": 0.0}, r"stabilizers.adam.eps: must be .* above 0 in float32 \(at least 1.2e-38\), got 0.0"),
        ("adam", {"eps": 1e-50}, "stabilizers.adam.eps: must be .* got 1e-50"),
        ("ema", {"beta": -0.1}, r"stabilizers.ema.beta: must lie in \[0, 1\), got -0.1"),
        ("ema", {"beta": "high"}, "stabilizers.ema.beta: must be a valid number, got 'high'"),
        ("nesterov", {"momentum": 1.0}, r"stabilizers.nesterov.momentum: must lie in \[0, 1\), got 1.0"),
        ("nesterov", {"beta": 0.9}, "stabilizers.nesterov.beta: nesterov has no such setting; one of: momentum"),
        ("rmsprop", {"beta2": 1.0}, r"stabilizers.rmsprop.beta2: must lie in \[0, 1\), got 1.0"),
        ("rmsprop", {"eps": -1.0}, "stabilizers.rmsprop.eps: must be finite and above 0"),
        ("rmsprop", {"betas": [0, 0.9]}, r"stabilizers.rmsprop.betas: rmsprop has no such .* did you mean 'beta2'\?"),
        ("adagrad", {"eps": 0}, "stabilizers.adagrad.eps: must be finite and above 0"),
        ("amsgrad", {"betas": [0.9]}, r"stabilizers.amsgrad.betas"),
        ("amsgrad", {"betas": [0.9, 2.0]}, r"stabilizers.amsgrad.betas: must be two numbers in \[0, 1\)"),
        ("nadam", {"betas": [-1.0, 0.9]}, r"stabilizers.nadam.betas: must be two numbers in \[0, 1\)"),
        ("nadam", {"eps": float("inf")}, "stabilizers.nadam.eps: must be finite"),
        ("nadam", {"momentum_decay": -1.0}, "stabilizers.nadam.momentum_decay: must be 0 or above, got -1.0"),
        ("lion", {"betas": [0.9, 1.0]}, r"stabilizers.lion.betas: must be two numbers in \[0, 1\), got \[0.9, 1.0\]"),
        ("lion", {"weight_decay": 0.1}, "stabilizers.lion.weight_decay: lion has no such setting; one of: betas"),
        ("clipping", {"max_norm": 0.0}, "stabilizers.clipping.max_norm: must be finite and above 0, got 0.0"),
        ("clipping", {"max_norm": float("nan")}, "stabilizers.clipping.max_norm: must be finite and above 0, got nan"),
        ("clipping", {"max_norm": "one"}, "stabilizers.clipping.max_norm: must be a valid number, got 'one'"),
        ("none", {"beta": 0.9}, "stabilizers.none.beta: none has no such setting; it has none"),
        ("adam_paper", {"eps": 1.0}, "adam_paper is a preset without settings, got eps"),
    ],
)
def test_bad_settings_name_the_key(name, settings, message):
    with pytest.raises(GradscopeError, match=message):
        build(name, settings)


@pytest.mark.parametrize("kind", [Adam, AMSGrad])
@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (3, 5), (1, 7, 2)])
def test_a_floor_at_the_samples_rms(kind, bias_correction, shape):
    """By numpy, sample by sample."""
    rng = np.random.default_rng(0)
    sequence = rng.normal(size=(6, *shape)) * np.exp(3 * rng.normal(size=shape))
    got = updates(kind(eps="rms", bias_correction=bias_correction), [torch.from_numpy(g) for g in sequence])
    for i in range(shape[0]):
        m, v, largest = np.zeros(shape[1:]), np.zeros(shape[1:]), np.zeros(shape[1:])
        for k, gradient in enumerate(sequence[:, i], 1):
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            largest = np.maximum(largest, v) if kind is AMSGrad else v
            m_hat = m / (1 - 0.9**k) if bias_correction else m
            root = np.sqrt(largest / (1 - 0.999**k) if bias_correction else largest)
            np.testing.assert_allclose(got[k - 1][i], m_hat / (root + np.sqrt(np.mean(root**2))), rtol=1e-9)


def test_a_floor_at_the_rms_ignores_the_gradients_scale():
    reference = updates(Adam(eps="rms"), gradients(dtype=torch.float64))
    for scale in (1e-15, 1e-6, 1e6):
        for a, b in zip(updates(Adam(eps="rms"), gradients(scale, torch.float64)), reference, strict=True):
            torch.testing.assert_close(a, b)
    zero = torch.zeros(2, 3, 4, 4)
    got = updates(Adam(eps="rms"), [zero, *gradients(1e-42)[:3], zero, *gradients()[:2]])
    assert all(torch.isfinite(update).all() for update in got)
    assert not got[0].any()


def test_a_floor_at_the_rms_by_name():
    assert build("adam_rms", {}) == Adam(eps="rms")
    assert build("mine", {"method": "amsgrad", "eps": "rms"}) == AMSGrad(eps="rms")
    for bad in ("rm", "1e-8", ""):
        with pytest.raises(GradscopeError, match=r"stabilizers.adam.eps: must be a valid number or 'rms', got '"):
            build("adam", {"eps": bad})
    with pytest.raises(GradscopeError, match=r"stabilizers.rmsprop.eps: must be a valid number"):
        build("rmsprop", {"eps": "rms"})
