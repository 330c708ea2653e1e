"""Loops that are watched: right ones are right, and what only a loop can show is named."""

import re

import docs_names
import pytest
import torch
from documentation import ROOT, blocks
from watched_loops import DPS, LABELS, GuidedDiffusion, Plain

import gradscope


def log_prob(logits):
    return logits.log_softmax(dim=1).gather(1, LABELS[:, None])[:, 0]


def declared(loop):
    """What each style of loop is to ascend."""
    if isinstance(loop, GuidedDiffusion):
        return lambda x, t: log_prob(loop.guide(x, t))

    def x_0(x, t):
        a = loop.scheduler.alphas_cumprod[t]
        return (x - (1 - a) ** 0.5 * loop.unet(x, t).sample) / a**0.5

    if isinstance(loop, DPS):
        return lambda x, t: loop.guide(x_0(x, t))
    if loop.through_x0:
        return lambda x, t: log_prob(loop.guide(x_0(x, t).clamp(-1, 1)))
    return lambda x, t: log_prob(loop.guide(x))


def check(loop, energy=None, **settings):
    labels = None if isinstance(loop, DPS) else LABELS
    return gradscope.check_loop(
        loop, energy or declared(loop), labels=labels, steps=settings.pop("steps", 3), **loop.watched, **settings
    )


RIGHT = {
    "at x_t": Plain,
    "through x0-hat": lambda: Plain(through_x0=True),
    "guided-diffusion": GuidedDiffusion,
    "loss": lambda: GuidedDiffusion(minimize=True),
    "backward": lambda: GuidedDiffusion(backward=True),
    "DPS": DPS,
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_loops(name):
    loop = RIGHT[name]()
    alone, watched = loop()[0], []

    def kept():
        watched.append(loop()[0])

    found = gradscope.check_loop(
        kept, declared(loop), labels=None if isinstance(loop, DPS) else LABELS, steps=3, **loop.watched
    )
    assert found.right, str(found)
    assert torch.equal(alone, watched[0])  # the loop is as before
    assert len(found.steps) == 3


class Faulty(Plain):
    """The plain loop with one thing changed."""

    def __init__(self, fault, **settings):
        super().__init__(**settings)
        self.fault = fault

    @torch.no_grad()
    def __call__(self, labels=LABELS, seed=5):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(4, 3, 8, 8, generator=generator)
        self.scheduler.set_timesteps(self.steps)
        earlier, total = x, torch.zeros_like(x)
        for i, t in enumerate(self.scheduler.timesteps):
            stepped = self.scheduler.step(self.unet(x, t).sample, t, x, generator=generator)
            at = {"stale": earlier, "noise first": stepped.prev_sample}.get(self.fault, x)
            with torch.enable_grad():
                at = at.detach().requires_grad_()
                value = log_prob(self.guide(at))
                if self.fault == "wrong label":
                    value = self.guide(at).log_softmax(dim=1)[:, 1]
                if self.fault == "wrong label once" and i == 2:
                    value = self.guide(at).log_softmax(dim=1).flip(1).gather(1, LABELS[:, None])[:, 0]
                if self.fault == "mean":
                    value = value / len(x)
                gradient = torch.autograd.grad(value.sum(), at)[0]
            earlier, total = x, 0.9 * total + gradient
            unit = gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
            shift = {
                "sign": -gradient,
                "momentum": total,
                "doubled": 2 * gradient,
                "normalised": unit,
                "flipped": gradient.flip(3),
                "turned once": -gradient if i == 2 else gradient,
            }.get(self.fault, gradient)
            x = stepped.prev_sample + 0.15 * shift
            if self.fault == "clamped":
                x = x.clamp(-0.3, 0.3)
        return x


@pytest.mark.parametrize(
    ("fault", "verdict", "settings"),
    [
        ("none", "right", {"factor": 0.15}),
        ("stale", "stale_x", {}),
        ("noise first", "noise_before_gradient", {}),
        ("wrong label", "wrong_target", {}),
        ("mean", "batch_mean", {}),
        ("sign", "wrong_sign", {}),
        ("flipped", "shift_misdirected", {}),
        ("clamped", "shift_misdirected", {}),
        ("doubled", "doubled", {"factor": 0.15}),
        ("doubled", "right", {}),
        ("normalised", "normalized", {}),
        ("normalised", "right", {"normalize": "l2"}),
        ("none", "not_normalized", {"normalize": "l2"}),
        ("momentum", "shift_misdirected", {}),
        ("wrong label once", "wrong_target", {"steps": 6}),
        ("turned once", "shift_misdirected", {}),
    ],
)
def test_faults_that_only_a_loop_shows(fault, verdict, settings):
    found = check(Faulty(fault), **settings)
    assert found.verdict == verdict, str(found)


def test_order_of_stabiliser_and_normalisation():
    adam = gradscope.stabilizers.Adam()

    class Ordered(Plain):
        first = "stabiliser"

        def __call__(self, labels=LABELS, seed=5):
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(4, 3, 8, 8, generator=generator)
            self.scheduler.set_timesteps(self.steps)
            state = adam.init(x)
            for t in self.scheduler.timesteps:
                with torch.no_grad():
                    stepped = self.scheduler.step(self.unet(x, t).sample, t, x, generator=generator)
                at = x.detach().requires_grad_()
                gradient = torch.autograd.grad(log_prob(self.guide(at)).sum(), at)[0]
                if self.first != "stabiliser":
                    gradient = gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
                update, state = adam.update(gradient, state)
                if self.first == "stabiliser":
                    update = update / update.flatten(1).norm(dim=1)[:, None, None, None]
                x = stepped.prev_sample + update
            return x

    loop = Ordered(steps=8)
    assert check(loop, stabilizer=adam, normalize="l2").right
    loop.first = "normalisation"
    loop_found = check(loop, stabilizer=adam, normalize="l2")
    assert not loop_found.right, str(loop_found)


def test_a_loop_without_a_gradient():
    loop = Plain()
    with pytest.raises(gradscope.GradscopeError, match="loop: "):
        gradscope.check_loop(lambda: loop.unet(torch.zeros(1, 3, 8, 8), 3), declared(loop), **loop.watched)
    with pytest.raises(ZeroDivisionError):
        gradscope.check_loop(lambda: 1 / 0, declared(loop), **loop.watched)
    assert not loop.unet._forward_hooks
    assert "step" not in vars(loop.scheduler)


def test_the_page_says_what_its_examples_give():
    """Each `found.verdict` of the page, with the verdict in its comment."""
    names, said = docs_names.names(), []
    for block in blocks(ROOT / "docs" / "how-to" / "is-my-gradient-right.md", "python"):
        exec(compile(block, "page", "exec"), names)
        for wanted in re.findall(r'^found\.verdict  # "(\w+)"', block, re.M):
            said.append((names["found"].verdict, wanted))
    assert [found for found, _ in said] == ["batch_mean", "at_x0", "wrong_sign"]
    assert all(found == wanted for found, wanted in said)
