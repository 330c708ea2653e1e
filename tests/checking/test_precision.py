"""Rounding, float16, saturation, flat energies and black boxes do not count as wrong formulas."""

import numpy as np
import pytest
import torch
from planted import SHAPES, Problem, derivative
from torch import nn

import gradscope
from gradscope.checking.calls import computes_in_half
from gradscope.checking.history.loop import normalized
from gradscope.stabilizers import Adam

BLACK_BOX = {
    "sign": "wrong_sign",
    "doubled": "doubled",
    "batch mean": "batch_mean",
    "probability": "probability",
    "normalised": "normalized",
    "off by one": "wrong_timestep",
    "reversed rows": "rows_permuted",
    "detached": "not_the_gradient",
}
"""Faults that show without models, and one that does not."""


def without_graph(energy, as_array):
    """The energy as a black box."""

    def values(x, t):
        with torch.no_grad():
            found = energy(x, t)
        return found.numpy() if as_array else found

    return values


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("as_array", [False, True])
def test_a_black_box_is_enough(kind, as_array):
    problem = Problem(seed=3, kind=kind, t=400)
    energy = without_graph(problem.energy, as_array)
    faults = problem.faults()
    for name, verdict in BLACK_BOX.items():
        found = gradscope.check(faults[name][0], energy, problem.x, problem.t)
        assert found.verdict == verdict, f"{name}: {found}"
        assert "finite differences in float64" in found.evidence["reference"]
    found = gradscope.check(problem.right, energy, problem.x, problem.t)
    assert found.right
    assert found.confidence == ("medium" if kind == "image" else "high")


def test_a_black_box_in_float32_says_how_sure_it_is():
    problem = Problem(kind="points", t=400)

    def energy(x, t):
        return problem.energy(x.float(), t).detach().numpy().astype(np.float32)

    found = gradscope.check(problem.right, energy, problem.x, problem.t)
    assert found.right
    assert 1e-4 < found.evidence["allowed"] < 0.3
    assert gradscope.check(lambda x, t: 2 * problem.right(x, t), energy, problem.x, problem.t).verdict == "doubled"


def test_an_energy_that_detaches_is_differentiated_by_differences():
    problem = Problem(kind="points")

    def energy(x, t):
        return problem.log_prob(problem.guide(problem.x_0(x, t, problem.denoiser(x, t).detach())))

    found = gradscope.check(problem.right, energy, problem.x, problem.t)
    assert found.right
    assert found.evidence["reference"].startswith("finite differences")
    assert gradscope.check(derivative(energy), energy, problem.x, problem.t, denoiser=problem.denoiser).verdict in (
        "jacobian_missing",
        "not_the_gradient",
    )


def test_float16_underflow():
    problem = Problem(seed=2)
    scale = 1e-7

    def energy(x, t):
        return scale * problem.energy(x, t)

    found = gradscope.check(lambda x, t: derivative(energy)(x, t).half().float(), energy, problem.x, problem.t)
    assert found.verdict == "float16_underflow", str(found)


@pytest.mark.parametrize("scale", [1e-7, 3e-7, 1e-6])
def test_small_differences_of_float32_numbers_are_not_called_float16(scale):
    """They are multiples of 2^-24, as the least numbers of float16 are."""
    problem = Problem(seed=2)

    def energy(x, t):
        return scale * problem.energy(x, t)

    def difference(x, t):
        base = torch.full_like(x, 0.75)
        return (base + derivative(energy)(x, t)) - base

    claim = difference(problem.x, problem.t)
    assert torch.equal(claim.half().float(), claim)
    found = gradscope.check(difference, energy, problem.x, problem.t)
    assert found.verdict == "saturated", str(found)


def test_a_zero_in_float32_is_not_called_float16_however_small_the_gradient():
    problem = Problem(seed=2)

    def energy(x, t):
        return 1e-12 * problem.energy(x, t)

    assert gradscope.check(lambda x, t: torch.zeros_like(x), energy, problem.x, problem.t).verdict == "zero"
    found = gradscope.check(lambda x, t: derivative(energy)(x, t).half().float(), energy, problem.x, problem.t)
    assert found.verdict == "float16_underflow"


def half_by_type(guide, x):
    return guide.half()(x.half()).float()


def half_by_autocast(guide, x):
    with torch.autocast("cpu", torch.bfloat16):
        return guide(x).float()


@pytest.mark.parametrize("half", [half_by_type, half_by_autocast])
def test_a_guide_in_half_precision_is_seen(half):
    guide = nn.Linear(2, 3)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))

    def cond_fn(x, t):
        x = x.requires_grad_(True)
        return torch.autograd.grad(half(guide, x).log_softmax(dim=1)[:, 0].sum(), x)[0]

    assert computes_in_half(cond_fn, x, 10)
    assert not computes_in_half(lambda x, t: derivative(lambda x, t: guide.float()(x)[:, 0])(x, t), x, 10)


def test_float16_without_underflow_is_right():
    problem = Problem(seed=2)
    found = gradscope.check(lambda x, t: problem.right(x, t).half(), problem.energy, problem.x, problem.t)
    assert found.right, str(found)


def certain(gap):
    """A linear classifier of points that is certain by exp(-gap)."""
    guide = nn.Linear(2, 3)
    with torch.no_grad():
        guide.weight.copy_(torch.tensor([[1.0, 0.5], [-0.3, 0.2], [0.1, -1.0]]))
        guide.bias.copy_(torch.tensor([gap, 0.0, 0.0]))
    return guide


def test_saturation_is_not_a_wrong_formula():
    guide = certain(19.0)

    def energy(x, t):
        return guide(x).log_softmax(dim=1)[:, 0]

    x = 0.1 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    found = gradscope.check(derivative(energy), energy, x, 10)
    assert found.verdict == "saturated", str(found)
    assert not found.right
    guide = certain(3.0)
    assert gradscope.check(derivative(energy), energy, x, 10).right


def test_a_zero_gradient_of_a_flat_energy_is_flat():
    found = gradscope.check(lambda x, t: torch.zeros_like(x), lambda x, t: (0 * x).sum(dim=1) - 1, torch.ones(3, 2), 10)
    assert (found.verdict, found.right, found.confidence) == ("flat", True, "none")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 3, 200])
def test_types_and_batches(dtype, n):
    problem = Problem(kind="trajectory", n=n, seed=n)
    problem.denoiser.to(dtype)
    problem.guide.to(dtype)
    x = problem.x.to(dtype)
    assert gradscope.check(problem.right, problem.energy, x, problem.t).right
    assert gradscope.check(lambda x, t: -problem.right(x, t), problem.energy, x, problem.t).verdict == "wrong_sign"


def test_timesteps_of_each_sample():
    problem = Problem(kind="points", n=5)
    alphas = problem.alphas

    def energy(x, t):
        return -(x / alphas[t].sqrt()[:, None]).square().sum(dim=1)

    t = torch.tensor([10, 200, 300, 40, 900])
    assert gradscope.check(derivative(energy), energy, problem.x, t, scheduler=problem.scheduler).right
    found = gradscope.check(lambda x, t: 2 * derivative(energy)(x, t), energy, problem.x, t)
    assert found.verdict == "doubled"


def test_kinks_are_no_fault():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

    def energy(x, t):
        return net(x.clamp(-1, 1)).log_softmax(dim=1)[:, 0]

    for seed in range(30):
        x = torch.randn(16, 2, generator=torch.Generator().manual_seed(seed))
        found = gradscope.check(derivative(energy), without_graph(energy, seed % 2 == 0), x, 10, seed=seed)
        assert found.right, str(found)


@pytest.mark.parametrize(
    ("told", "applied"),
    [
        ("order", lambda g, state: Adam().update(normalized(g), state)[0]),
        ("sign_only", lambda g, state: g.sign()),
    ],
)
def test_a_fault_is_named_though_a_sample_loses_its_gradient_in_rounding(told, applied):
    """(1 + g) - 1 is coarse in float32, where g is faint: in float64 the same code shows the fault in every sample."""
    faint = torch.tensor([1.0, 3e-6, 2.0, 1.5])[:, None]
    x, first = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(0))
    _, state = Adam().update(faint * first, Adam().init(x))

    def energy(x, t):
        return (faint.to(x) * (1 + x.sin() / 2 + x.square())).sum(dim=1)

    def cond_fn(x, t):
        gradient = faint.to(x) * (x.cos() / 2 + 2 * x)
        return applied((1 + gradient) - 1, state)

    found = gradscope.check(cond_fn, energy, x, 0, normalize="l2", stabilizer=Adam(), state=state)
    assert found.verdict == told, str(found)
