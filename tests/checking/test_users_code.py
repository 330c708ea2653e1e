"""Code as users have it: large batches of black boxes, kinks, saturated samples, and arguments that do not fit."""

import numpy as np
import pytest
import torch
from torch import nn

import gradscope
from gradscope.checking.loop import _of_most
from gradscope.checking.modules import modules_of
from gradscope.errors import GradscopeError


def model(seed=0, activation=nn.SiLU, sharpness=1.0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), activation(), nn.Flatten(), nn.Linear(8 * 64, 5)).eval()
    with torch.no_grad():
        net[-1].weight.mul_(sharpness)
    return net


def log_prob(net, labels):
    return lambda x, t: net(x).log_softmax(1).gather(1, labels[: len(x), None])[:, 0]


def gradient(energy):
    def cond_fn(x, t):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(energy(x, t).sum(), x)[0]

    return cond_fn


def samples(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 5


BOXES = {
    "float64": lambda energy: lambda x, t: energy(x, t).detach(),
    "float32": lambda energy: lambda x, t: energy(x.float(), t).detach().numpy().astype(np.float32),
}


@pytest.mark.parametrize("box", BOXES)
def test_one_wrong_sample_of_64_is_seen_by_a_black_box(box):
    x, y = samples(64)
    energy = log_prob(model(), y)

    def one_turned(x, t):
        found = gradient(energy)(x, t)
        found[17] *= -1
        return found

    assert not gradscope.check(one_turned, BOXES[box](energy), x, 1).right
    assert gradscope.check(gradient(energy), BOXES[box](energy), x, 1).right


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("box", BOXES)
def test_kinks_in_a_large_batch_raise_no_alarm(box, seed):
    x, y = samples(64, seed + 100)
    energy = log_prob(model(seed, nn.ReLU), y)
    found = gradscope.check(gradient(energy), BOXES[box](energy), x, 1)
    assert found.right
    # What kinks may explain is said, if a sample deviates.
    assert bool(found.remarks) == (found.evidence["deviation"] > found.evidence["allowed"]) or box == "float32"


def test_a_module_that_is_reached_by_a_long_way_first_is_found_by_the_short_one():
    net = nn.Flatten()

    def energy(x, t):
        return net(x)

    def wrapped(function):
        return lambda x, t: function(x, t)

    assert modules_of([wrapped(wrapped(wrapped(wrapped(energy)))), energy]) == [net]


def test_samples_with_a_gradient_of_zero_are_named():
    x, y = samples(4)
    energy = log_prob(model(), y)
    keep = torch.tensor([1.0, 0, 0, 0])[:, None, None, None]
    found = gradscope.check(lambda x, t: keep * gradient(energy)(x, t), energy, x, 1)
    assert (found.verdict, found.cause) == ("zero", "samples 1, 2, 3")


def test_a_saturated_sample_excuses_no_large_gradient():
    net, (x, _) = model(sharpness=1000.0), samples(4)
    y = net(x).argmax(1)
    y[1:] = (y[1:] + 1) % 5  # only sample 0 is certain
    energy = log_prob(net, y)

    def neighbour_s(x, t):
        found = gradient(energy)(x, t)
        return torch.cat([found[1:2], found[1:]])

    assert gradscope.check(gradient(energy), energy, x, 1).right
    assert not gradscope.check(neighbour_s, energy, x, 1).right


def test_a_tiny_wrong_gradient_of_a_black_box_is_not_called_right():
    x, y = samples(4)
    energy = log_prob(model(), y)
    small = BOXES["float64"](lambda x, t: 1e-12 * energy(x, t))
    assert gradscope.check(lambda x, t: 2e-12 * gradient(energy)(x, t), small, x, 1).verdict == "undecided"
    assert gradscope.check(lambda x, t: torch.zeros_like(x), lambda x, t: torch.zeros(4), x, 1).verdict == "flat"


def test_a_loop_is_named_by_what_most_steps_show():
    from gradscope.checking.checked import Checked

    strays = [(float(t), Checked("not_the_gradient")) for t in range(4)]
    assert _of_most([*strays, (4.0, Checked("scaled", "1/2"))]).verdict == "not_the_gradient"
    assert _of_most([*strays[:2], (3.0, Checked("scaled", "1/2")), (4.0, Checked("scaled", "1/2"))]).verdict == "scaled"


X, Y = samples(4)
ENERGY = log_prob(model(), Y)


def wrong(x, t):
    return gradient(ENERGY)(x, t) ** 2


@pytest.mark.parametrize("t", [None, [100] * 4, "100", {"t": 1}, np.array([1, 2, 3, 4])])
def test_a_timestep_of_any_form_is_passed_on(t):
    scheduler = ddpm()
    found = gradscope.check(wrong, ENERGY, X, t, scheduler=scheduler, denoiser=nn.Identity(), guide=nn.Identity())
    assert not found.right


def ddpm():
    from diffusers import DDPMScheduler

    return DDPMScheduler()


ADAM = gradscope.stabilizers.Adam()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scheduler": "ddim"}, "scheduler: takes an object with alphas_cumprod"),
        ({"prediction_type": "eps"}, "prediction_type: got 'eps'"),
        ({"alphas_cumprod": [9.0, -5.0]}, "alphas_cumprod: takes numbers in"),
        ({"alphas_cumprod": "x"}, "alphas_cumprod: takes numbers in"),
        ({"previous": (None, 1)}, "previous: takes"),
        ({"guidance_scale": float("nan")}, "guidance_scale: takes a finite number"),
        ({"guidance_scale": float("inf")}, "guidance_scale: takes a finite number"),
        ({"stabilizer": ADAM, "state": 3}, "state: takes what Adam"),
        ({"stabilizer": ADAM, "state": ADAM.init(X[:1])}, "state: takes what Adam"),
    ],
)
def test_arguments_that_do_not_fit_are_named(given, words):
    with pytest.raises(GradscopeError, match=words):
        gradscope.check(wrong, ENERGY, X, 1, **given)


def test_labels_beyond_the_guide_s_classes_are_named():
    net = model()
    found = gradscope.check(wrong, log_prob(net, Y), X, 1, guide=net, labels=[0, 1, 99, 2])
    assert "labels: got 99, and the guide has 5 classes" in found.needs.values()


@pytest.mark.parametrize("made", [["a"] * 4, np.array([None] * 4)])
def test_an_energy_without_numbers_is_named(made):
    with pytest.raises(GradscopeError, match="energy: it must return one number for each sample"):
        gradscope.check(wrong, lambda x, t: made, X, 1)


def test_a_loop_s_arguments_are_named():
    net, scheduler = nn.Identity(), ddpm()
    with pytest.raises(GradscopeError, match="loop: takes a function"):
        gradscope.check_loop(None, ENERGY, denoiser=net, scheduler=scheduler)
    with pytest.raises(GradscopeError, match="energy: takes a function"):
        gradscope.check_loop(lambda: None, None, denoiser=net, scheduler=scheduler)
    with pytest.raises(GradscopeError, match="timesteps: .* give timesteps=, alphas_cumprod= or scheduler="):
        gradscope.check_loop(lambda: None, ENERGY, denoiser=net)


@pytest.mark.parametrize("raises", [False, True])
def test_code_that_freezes_a_module_leaves_it_as_it_was(raises):
    net = model()
    energy = log_prob(net, Y)

    def cond_fn(x, t):
        net.requires_grad_(False)
        if raises:
            raise ValueError
        return gradient(energy)(x, t)

    if raises:
        with pytest.raises(GradscopeError):
            gradscope.check(cond_fn, energy, X, 1)
    else:
        assert gradscope.check(cond_fn, energy, X, 1).right
    assert all(p.requires_grad for p in net.parameters())
