import pytest
import torch

from gradscope import stabilizers
from gradscope.errors import GradscopeError
from gradscope.stabilizers import EMA, METHODS, Adam, Identity, build

STEPS = 50


def gradients(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(2, 3, 4, 4, generator=generator) for _ in range(STEPS)]


def updates(stabilizer, sequence):
    state = stabilizer.init(torch.zeros_like(sequence[0]))
    out = []
    for gradient in sequence:
        update, state = stabilizer.update(gradient, state)
        out.append(update)
    return out


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize(("betas", "eps"), [((0.9, 0.999), 1e-8), ((0.0, 0.8), 1e-4), ((0.5, 0.9), 1e-3)])
def test_adam_is_the_step_of_torch_optim(betas, eps, scale):
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=1.0, betas=betas, eps=eps, maximize=True)
    sequence = gradients(scale)
    for gradient, update in zip(sequence, updates(Adam(betas=betas, eps=eps), sequence), strict=True):
        x.grad = gradient.clone()
        with torch.no_grad():
            x.zero_()
        optimizer.step()
        torch.testing.assert_close(update, x.detach(), rtol=2e-5, atol=1e-6)


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
        cosine = torch.nn.functional.cosine_similarity(plain.flatten(1), corrected.flatten(1))
        torch.testing.assert_close(cosine, torch.ones(2))


def test_identity_gives_the_gradient():
    sequence = gradients()
    assert all(u is g for u, g in zip(updates(Identity(), sequence), sequence, strict=True))


@pytest.mark.parametrize("stabilizer", [Identity(), EMA(), Adam()])
def test_update_changes_neither_gradient_nor_state(stabilizer):
    gradient = torch.randn(2, 3, 4, 4)
    kept = gradient.clone()
    state = stabilizer.init(gradient)
    first, _ = stabilizer.update(gradient, state)
    second, _ = stabilizer.update(gradient, state)
    assert torch.equal(gradient, kept)
    assert torch.equal(first, second)


def test_settings_by_name():
    assert build("adam", {"betas": [0.5, 0.9], "eps": 1e-4}) == Adam((0.5, 0.9), 1e-4)
    assert build("mine", {"method": "ema", "beta": 0.5}) == EMA(0.5)
    assert build("adam_paper", {}) == Adam((0.9, 0.999), 1e-8, bias_correction=True)
    assert build("adam_followup", {}) == Adam((0.9, 0.999), 1e-4, bias_correction=False)
    assert build("none", {}) == Identity()
    assert set(METHODS) <= {*dir(stabilizers), "none", "ema", "adam"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adm", {}, r"stabilizers.adm: unknown stabilizer 'adm'; did you mean 'adam'\? one of: none, ema, adam"),
        ("adam", {"beta": 0.9}, r"stabilizers.adam.beta: adam has no such setting; did you mean 'betas'\?"),
        ("adam", {"betas": [0.9, 1.5]}, r"stabilizers.adam: betas must be two numbers in \[0, 1\), got \[0.9, 1.5\]"),
        ("adam", {"betas": 0.9}, "stabilizers.adam.betas: must be a valid tuple, got 0.9"),
        ("adam", {"eps": 0.0}, "stabilizers.adam: eps must be above 0, got 0.0"),
        ("ema", {"beta": -0.1}, r"stabilizers.ema: beta must lie in \[0, 1\), got -0.1"),
        ("ema", {"beta": "high"}, "stabilizers.ema.beta: must be a valid number, .* got 'high'"),
        ("none", {"beta": 0.9}, "stabilizers.none.beta: none has no such setting; it has none"),
        ("adam_paper", {"eps": 1.0}, "adam_paper is a preset without settings, got eps"),
    ],
)
def test_bad_settings_name_the_key(name, settings, message):
    with pytest.raises(GradscopeError, match=message):
        build(name, settings)
