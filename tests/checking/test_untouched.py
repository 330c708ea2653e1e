"""Modules of the user are as before, whatever happens."""

import copy
from contextlib import suppress

import pytest
import torch
from planted import Problem, derivative
from torch import nn

import gradscope


def state(module):
    """All that a check may have changed."""
    return {
        "weights": {k: (v.clone(), v.dtype, v.data_ptr()) for k, v in module.state_dict(keep_vars=False).items()},
        "modes": [part.training for part in module.modules()],
        "required": [p.requires_grad for p in module.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "hooks": [
            (len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
            for part in module.modules()
        ],
    }


def same(one, other):
    for key in ("modes", "required", "hooks"):
        assert one[key] == other[key], key
    for (a, kind, place), (b, other_kind, other_place) in zip(
        one["weights"].values(), other["weights"].values(), strict=True
    ):
        assert torch.equal(a, b)
        assert (kind, place) == (other_kind, other_place)
    for a, b in zip(one["grads"], other["grads"], strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


class Net(nn.Module):
    """A network with batch statistics, in training mode."""

    def __init__(self, fails=0):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
        self.seen = nn.BatchNorm1d(3)
        self.calls, self.fails = 0, fails

    def forward(self, x):
        self.calls += 1
        if self.calls == self.fails:
            raise RuntimeError("out of luck")
        with torch.no_grad():
            self.seen(self.body(x))  # moves running statistics
        return self.body(x)


@pytest.mark.parametrize("fails", [0, 1, 2, 3, 5, 9, 20, 60])
def test_modules_are_unchanged_also_after_exceptions(fails):
    net = Net(fails)
    net.body[0].weight.grad = torch.ones(8, 2)
    net.body[2].bias.requires_grad_(False)
    before, shadow = state(net), torch.random.get_rng_state()

    def energy(x, t):
        return net(x).log_softmax(dim=1)[:, 1]

    def cond_fn(x, t):
        x = x.detach().requires_grad_()
        (-energy(x, t)).sum().backward()  # adds to the weights' gradients
        torch.randn(3)
        return x.grad

    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    with suppress(gradscope.GradscopeError):
        gradscope.check(cond_fn, energy, x, 3, guide=net, labels=[1, 1, 1, 1])
    assert net.calls >= min(fails, 20)
    same(before, state(net))
    assert torch.equal(shadow, torch.random.get_rng_state())


def test_modules_that_were_found_in_closures_are_unchanged():
    problem = Problem()
    before = [state(problem.denoiser), state(problem.guide)]
    for cond_fn, _, _ in list(problem.faults().values())[:4]:
        gradscope.check(cond_fn, problem.energy, problem.x, problem.t, **problem.known)
        gradscope.check(cond_fn, problem.energy, problem.x, problem.t)
    same(before[0], state(problem.denoiser))
    same(before[1], state(problem.guide))
    assert problem.x.dtype == torch.float32


def test_the_arguments_are_unchanged():
    problem = Problem()
    x, t = problem.x.clone(), torch.full((4,), problem.t)
    kept = copy.deepcopy((x, t))

    def cond_fn(x, t):
        g = problem.right(x, int(t[0]))
        x.zero_()
        t.zero_()
        return g

    def energy(x, t):
        return problem.energy(x, int(t[0]))

    assert gradscope.check(cond_fn, energy, x, t).right
    assert torch.equal(x, kept[0])
    assert torch.equal(t, kept[1])


def test_cond_fn_by_backward_and_no_grad_around_are_fine():
    problem = Problem(kind="points")

    def cond_fn(x, t):
        x = x.detach().requires_grad_()
        problem.energy(x, t).sum().backward()
        return x.grad

    with torch.no_grad():
        assert gradscope.check(cond_fn, problem.energy, problem.x, problem.t).right
        assert gradscope.check(derivative(problem.energy), problem.energy, problem.x, problem.t).right
