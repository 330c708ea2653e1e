"""Stabilisers, noise and clamps between the gradient and the push."""

import pytest
import torch
from planted import derivative
from torch import nn

import gradscope
from gradscope.errors import GradscopeError
from gradscope.stabilizers import EMA, Adam


def energy(x, t):
    return -(x.flatten(1).sin().sum(dim=1) - 0.3).square() - 0.1 * x.flatten(1).square().sum(dim=1)


def samples(n=5, *shape, seed=0):
    return torch.randn(n, *(shape or (3, 4)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x):
    return x / x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


class Stabilized:
    """A cond_fn that holds memory of one earlier gradient."""

    def __init__(self, stabilizer, wrong=""):
        self.stabilizer, self.wrong = stabilizer, wrong
        self.state = stabilizer.init(samples())
        _, self.state = stabilizer.update(derivative(energy)(samples(seed=1), 0), self.state)

    def __call__(self, x, t):
        g = derivative(energy)(x, t)
        if self.wrong == "none":
            return unit(g)
        state = self.stabilizer.init(x) if self.wrong == "forgets" else self.state
        update, _ = self.stabilizer.update(unit(g) if self.wrong == "before" else g, state)
        return update if self.wrong == "before" else unit(update)


def checked(cond_fn, x=None, **further):
    return gradscope.check(
        cond_fn, energy, samples() if x is None else x, 10,
        **{"normalize": "l2", "stabilizer": cond_fn.stabilizer, "state": cond_fn.state} | further,
    )  # fmt: skip


@pytest.mark.parametrize("stabilizer", [Adam(), Adam(bias_correction=False), EMA()])
def test_a_declared_stabiliser_is_right(stabilizer):
    found = checked(Stabilized(stabilizer))
    assert found.verdict == "right", str(found)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [("before", "normalisation before the stabiliser"), ("none", "no stabiliser"), ("forgets", "state is lost")],
)
def test_another_order_is_named(wrong, cause):
    found = checked(Stabilized(Adam(), wrong))
    assert found.verdict == "order", str(found)
    assert cause in found.cause


def test_a_stabiliser_that_was_not_declared_is_not_the_gradient():
    found = checked(Stabilized(Adam()), stabilizer=None, state=None)
    assert not found.right
    assert "stabilizer=" in found.needs["order"]


def test_a_fault_before_the_stabiliser_is_still_named():
    class Late(Stabilized):
        def __call__(self, x, t):
            return super().__call__((x + 1) / 2, t)

    assert checked(Late(Adam())).cause.startswith("(x + 1) / 2")


def test_a_stabiliser_that_is_none_is_refused():
    with pytest.raises(GradscopeError, match=r"stabilizer: takes one of gradscope\.stabilizers, got str"):
        checked(Stabilized(Adam()), stabilizer="adam")


def test_a_stabiliser_needs_the_elements_of_the_gradient():
    """Finite differences along a few directions do not give them."""
    cond_fn = Stabilized(EMA())
    large = samples(2, 4, 12)
    cond_fn.state = cond_fn.stabilizer.init(large)
    with pytest.raises(GradscopeError, match="stabilizer: it acts on elements"):
        gradscope.check(
            lambda x, t: unit(derivative(energy)(x, t)), lambda x, t: energy(x.detach(), t).numpy(), large, 10,
            stabilizer=cond_fn.stabilizer, state=cond_fn.state,
        )  # fmt: skip


def test_a_point_that_only_the_code_knows_is_shown():
    """Its displacement is measured at the guide's input."""

    class Guide(nn.Module):
        def forward(self, x):
            return energy(x, 0)

    guide, x = Guide(), samples()
    moved = 0.5 * samples(seed=2)
    found = gradscope.check(
        lambda x, t: derivative(lambda z, t: guide(z))(x + moved, t), lambda x, t: guide(x), x, 10, guide=guide
    )
    size = float(moved.square().mean().sqrt())
    assert (found.verdict, found.cause) == ("at_another_point", f"the guide gets x_t displaced by rms {size:.4g}")


def test_float16_is_named_where_it_loses_the_gradient_and_right_where_it_does_not():
    for factor, verdict in ((1e-7, "float16_underflow"), (1.0, "right")):
        faint = lambda x, t, factor=factor: factor * energy(x, t)  # noqa: E731
        found = gradscope.check(lambda x, t, f=faint: derivative(f)(x, t).half().to(x), faint, samples(), 10)
        assert found.verdict == verdict, str(found)
