"""The planted faults are faults, and the correct loops are correct: shown by plain autograd and finite differences."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gradscope.checking.history import FAULTS, LOOPS
from gradscope.errors import GradscopeError

CELLS = [(fault.name, loop) for fault in FAULTS.values() for loop in fault.loops]
PLACE = 7


def derivative(f, x):
    """Gradient of the sum of f by autograd."""
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        return torch.autograd.grad(f(z).sum(), z)[0]


def central(f, x, h=1e-5):
    """Gradient of each sample's f by central differences, one element after the other."""
    found = torch.zeros_like(x)
    for place in range(x[0].numel()):
        move = torch.zeros_like(x)
        move.flatten(1)[:, place] = h
        found.flatten(1)[:, place] = (f(x + move) - f(x - move)) / (2 * h)
    return found


def unit(x):
    return x / x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def square(t):
    betas = torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64)
    return float(torch.prod(1 - betas[: int(t) + 1]))


def x_0_of(loop, x, t, *, detached=False):
    """x0-hat by the textbook."""
    output = loop.denoiser(x, t)
    output = output.detach() if detached else output
    a = square(t)
    if loop.prediction == "flow":
        return x - t / 1000 * output
    if loop.prediction == "sample":
        x_0 = output
    elif loop.prediction == "epsilon":
        x_0 = (x - (1 - a) ** 0.5 * output) / a**0.5
    else:
        x_0 = a**0.5 * x - (1 - a) ** 0.5 * output
    return x_0.clamp(-1, 1) if loop.clamp else x_0


def energy_of(loop, x, t, *, labels=None, range_=lambda x: x, logit=False, seen=None):
    """The declared energy, written again."""
    labels = loop.labels if labels is None else labels
    name = loop.name
    seen = seen if seen is not None else x_0_of(loop, x, t) if name in ("posterior", "chunking") else x
    seen = range_(seen)
    if name == "posterior":
        difference = torch.einsum("mk,nk->nm", loop.guide.operator, seen.flatten(1)) - loop.guide.measured
        return -0.5 * (difference**2).sum(dim=1) / loop.guide.std**2
    if name == "chunking":
        return -0.5 * (loop.guide.weights * (seen - loop.guide.plan) ** 2).sum(dim=(1, 2))
    out = loop.guide(seen, t)
    chosen = torch.stack([row[int(label)] for row, label in zip(out, labels, strict=True)])
    return chosen if name == "planner" or logit else chosen - out.logsumexp(dim=1)


def mean_of(loop, x, t):
    """The mean of the next sample: the step of diffusers' scheduler without the noise that it drew."""
    x_0 = x_0_of(loop, x, t)
    output = x_0 if loop.prediction == "sample" else loop.denoiser(x, t)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    drawn = loop.scheduler.step(output, t, x, generator=torch.Generator().manual_seed(0)).prev_sample
    return drawn - float(loop.scheduler._get_variance(t)) ** 0.5 * noise


def sigma_of(loop, t):
    if loop.name in ("classifier", "planner"):
        return float(loop.scheduler._get_variance(t)) ** 0.5
    return t / 1000 if loop.name == "chunking" else (1 - square(t)) ** 0.5


def adam(gradients):
    """The last update of torch.optim.Adam, with learning rate 1, over these gradients."""
    parameter = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = torch.optim.Adam([parameter], lr=1.0)
    for gradient in gradients:
        before = parameter.detach().clone()
        parameter.grad = -gradient
        optimizer.step()
    return parameter.detach() - before


def gradients_of(loop):
    """The exact gradients at the samples that the loop visits, up to PLACE."""
    visited = [place for _, place in zip(range(PLACE + 1), loop.walk(), strict=False)]
    return [derivative(lambda z, t=t: energy_of(loop, z, t), x) for x, t in visited]


def made(fault, name, **more):
    settings = FAULTS[fault].settings if fault else {}
    return LOOPS[name](fault, **settings | more)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", LOOPS)
def test_the_gradient_of_a_correct_loop_is_exact(name, seed):
    loop = LOOPS[name](seed=seed, n=2)
    for index in (0, 5, loop.steps - 1):
        x, t = loop.at(index)
        found = loop.cond_fn(x, t)
        torch.testing.assert_close(loop.energy(x, t), energy_of(loop, x, t))
        torch.testing.assert_close(found, central(lambda z, t=t: energy_of(loop, z, t), x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize(
    "settings",
    [
        *({"n": 1}, {"n": 8}, {"clamp": False}, {"dtype": torch.float32}, {"steps": 30}),
        *({"prediction": "v"}, {"prediction": "sample"}, {"faint": True}, {"stabilized": True}),
    ],
    ids=str,
)
def test_and_so_it_is_when_varied(name, settings):
    if "prediction" in settings and name in ("chunking", "classifier_free"):
        pytest.skip("a flow predicts its velocity; the mixture epsilon")
    loop = LOOPS[name](seed=2, **settings)
    x, t = loop.at(PLACE)
    expected = derivative(lambda z: energy_of(loop, z, t), x)
    if loop.stabilized:
        expected = unit(adam(gradients_of(loop)))
    accuracy = {} if loop.dtype == torch.float32 else {"rtol": 1e-6, "atol": 1e-13}
    torch.testing.assert_close(loop.cond_fn(x, t), expected, **accuracy)


@pytest.mark.parametrize("name", LOOPS)
def test_the_next_sample_is_that_of_the_scheduler_shifted_by_the_gradient(name):
    loop = LOOPS[name](seed=3)
    x, t = loop.at(PLACE)
    mean, noise = loop.unguided(x, t)
    if name == "chunking":
        loop.scheduler._step_index = None
        torch.testing.assert_close(
            mean, loop.scheduler.step(loop.denoiser(x, t), torch.tensor(t), x).prev_sample, rtol=1e-5, atol=1e-5
        )
    else:
        torch.testing.assert_close(mean, mean_of(loop, x, t), rtol=1e-5, atol=1e-6)
        assert abs(float(noise.std()) - float(loop.scheduler._get_variance(t)) ** 0.5) < 0.1
    weight = float(loop.scheduler._get_variance(t)) if name in ("classifier", "planner") else loop.weight(t)
    shift = loop.step(x, t) - mean - noise
    expected = loop.scale * weight * derivative(lambda z: energy_of(loop, z, t), x)
    rows = slice(1, None) if name == "planner" else slice(None)  # the first state is given
    torch.testing.assert_close(shift[:, rows], expected[:, rows], rtol=1e-5, atol=1e-8)


def test_guidance_in_epsilon_shifts_as_a_step_from_the_guided_epsilon_does():
    """The weight of the loops that guide epsilon: the scheduler's step from epsilon - noise * gradient."""
    for name in ("posterior", "classifier_free"):
        loop = LOOPS[name](seed=4, clamp=False)
        x, t = loop.at(PLACE)
        gradient = derivative(lambda z, loop=loop, t=t: energy_of(loop, z, t), x)
        stepped = [
            loop.scheduler.step(output, t, x, generator=torch.Generator().manual_seed(0)).prev_sample
            for output in (
                loop.denoiser(x, t),
                loop.denoiser(x, t) - (1 - square(t)) ** 0.5 * loop.scale * gradient,
            )
        ]
        torch.testing.assert_close(
            loop.scale * loop.weight(t) * gradient, stepped[1] - stepped[0], rtol=1e-5, atol=1e-7
        )


def expected_of(fault, loop, x, t) -> Tensor:
    """What the faulty code gives, worked out by hand from the loop's models."""
    exact = derivative(lambda z: energy_of(loop, z, t), x)
    a, place = square(t), loop.timesteps.index(t)

    def at(point=x, t=t, **more):
        return derivative(lambda z: energy_of(loop, z, t, **more), point)

    def with_x_0(x_0, with_respect_to):
        return torch.autograd.grad(energy_of(loop, x, t, seen=x_0).sum(), with_respect_to)[0]

    if fault == "at_x0":
        x_0 = x_0_of(loop, x, t).detach().requires_grad_()
        return with_x_0(x_0, x_0)
    if fault == "jacobian":
        z = x.clone().requires_grad_()
        return with_x_0(x_0_of(loop, z, t, detached=True), z)
    if fault == "noise_first":
        return at(mean_of(loop, x, t) + loop.noises[float(t)] * float(loop.scheduler._get_variance(t)) ** 0.5)
    if fault == "order":
        return adam([unit(gradient) for gradient in gradients_of(loop)])
    if fault == "clamped_twice":
        gain = (1 - a) / a**0.5 * loop.scale
        x_0 = x_0_of(loop, x, t)
        return ((x_0 + gain * exact).clamp(-1, 1) - x_0) / gain
    if fault == "at_mean":
        return at(mean_of(loop, x, t))
    if fault == "unconditional":
        return torch.zeros_like(x)
    return {
        "stale": lambda: at([x for _, (x, _) in zip(range(PLACE), loop.walk(), strict=False)][-1]),
        "sign": lambda: -exact,
        "swapped": lambda: -exact,
        "doubled": lambda: 2 * exact,
        "batch_mean": lambda: exact / loop.n,
        "not_squared": lambda: derivative(lambda z: -(-2 * energy_of(loop, z, t)).sqrt(), x),
        "image_range": lambda: at(range_=lambda seen: seen / 2 + 0.5),
        "index": lambda: at(t=type(t)(loop.steps - 1 - place)),
        "off_by_one": lambda: at(t=loop.timesteps[place + 1]),
        "label": lambda: at(labels=(loop.labels + 1) % loop.classes),
        "logit": lambda: at(logit=True),
        "normalised": lambda: unit(exact),
        "sigma": lambda: sigma_of(loop, t) * exact,
        "variance": lambda: sigma_of(loop, t) ** 2 * exact,
        "signal": lambda: exact / a**0.5,
        "one_more": lambda: exact * (loop.scale + 1) / loop.scale,
        "float16": lambda: torch.from_numpy(exact.numpy().astype("float16").astype("float64")),
    }[fault]()


@pytest.mark.parametrize(("fault", "name"), CELLS)
def test_a_planted_fault_is_the_one_that_it_says(fault, name):
    loop = made(fault, name, seed=5)
    x, t = loop.at(PLACE)
    found = loop.pushed(x, t) if FAULTS[fault].in_the_shift else loop.cond_fn(x, t)
    right = derivative(lambda z: energy_of(loop, z, t), x)
    if loop.stabilized:
        right = unit(adam(gradients_of(loop)))
        loop.at(PLACE)
    wrong = expected_of(fault, loop, x, t)
    torch.testing.assert_close(found, wrong, rtol=1e-5, atol=1e-7 * float(wrong.abs().max()))
    difference = (found - right).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)
    assert float(difference.mean()) > (0.001 if fault == "float16" else 0.03)


@pytest.mark.parametrize(("fault", "name"), CELLS)
def test_a_planted_fault_leaves_the_declared_energy_and_the_models_alone(fault, name):
    loop, right = made(fault, name, seed=6), made(None, name, seed=6, **FAULTS[fault].settings)
    x, t = right.at(PLACE)
    assert torch.equal(loop.energy(x, t), right.energy(x, t))
    assert all(torch.equal(mine, its) for mine, its in zip(loop.unguided(x, t), right.unguided(x, t), strict=True))
    assert not torch.equal(loop(), right())


def test_twelve_faults_and_more_are_planted_in_each_loop():
    for name in LOOPS:
        assert sum(loop == name for _, loop in CELLS) >= 12


@pytest.mark.parametrize("fault", ["swaped", "swapped"])
def test_a_fault_that_a_loop_does_not_have_is_refused(fault):
    with pytest.raises(GradscopeError, match=f"fault: the loop classifier has no '{fault}'.*one of: at_mean"):
        LOOPS["classifier"](fault)


def story_of(fault):
    """The section of the page about a fault."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "wrong-gradients.md").read_text(encoding="utf-8")
    return page.partition(f"{{ #{fault} }}")[2].partition("\n#")[0]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_the_page_tells_the_story_of_each_fault(fault):
    """Its symptom, the line, the verdict that is expected, and each thread where it was seen."""
    story = story_of(fault.name)
    for part in ("*Symptom.*", "```diff", "\n- ", "*Cause.*", f"*Verdict.* `{fault.verdict}`"):
        assert part in story
    threads = [] if fault.seen.startswith("a habit") else re.findall(r"([\w-]+) (?:PR )?(\d+)", fault.seen)
    for repository, number in threads:
        assert re.search(rf"github\.com/[\w-]+/{repository}[\w-]*/(issues|pull)/{number}\)", story), repository
