"""Scores of cells: what must be exact is, and closed forms are met."""

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import OracleConfig
from gradscope.oracle.cell import control, guided
from gradscope.oracle.finals import floor, kl_score
from gradscope.oracle.guides import GUIDES, Scaled
from gradscope.oracle.methods import load_method_at, load_stabilizers
from gradscope.oracle.mixtures import SHAPES
from gradscope.oracle.place import Place
from gradscope.oracle.scores import along_t, errors
from gradscope.stabilizers import Identity


def place_of(name="points-overlapping-2", **settings):
    plain = {"mixtures": [name], "guides": ["exact"], "methods": {"classifier@x_t": {}}}
    return Place(name, OracleConfig(**plain | {"num_inference_steps": 6, "samples": 10} | settings))


def scored(place, kind="exact", method="classifier@x_t", stabilizers=None, replicates=2):
    guides = [place.guide(kind, replicate) for replicate in range(replicates)]
    return control(place, guides, load_method_at(method, {}), load_stabilizers(stabilizers or {"none": {}}))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *[(f"{kind}-{overlap}-4", {}) for kind in SHAPES for overlap in ("separated", "overlapping")],
        ("points-separated-2", {"seed": 7, "samples": 3}),
        ("vectors-overlapping-10", {"num_inference_steps": 11}),
        ("points-overlapping-4", {"scheduler": "ddim"}),
        (
            "points-overlapping-4",
            {"scheduler": {"ddpm": {"variance_type": "fixed_large"}}},
        ),
        ("vectors-separated-2", {"scheduler": "euler"}),
        ("points-separated-4", {"scheduler": "dpm_solver_multistep"}),
    ],
)
def test_the_exact_guide_at_x_t_is_exact(name, settings):
    place = place_of(name, **settings)
    whole = isinstance(settings.get("scheduler", "ddpm"), dict) or settings.get("scheduler", "ddpm") in ("ddpm", "ddim")
    near = 1e-6 if whole else 1e-3  # solvers in sigma have timesteps between the whole ones, to seven digits
    found = scored(place)
    for part in (found.gradient, found.updates["none"]):
        scores = along_t(part.moments) | errors(*part)
        np.testing.assert_allclose(scores["cosine"][0], 1, atol=near)
        np.testing.assert_allclose(scores["norm_ratio"][0], 1, atol=near)
        assert scores["bias"][0].max() < near
        assert scores["variance"][0].max() < near
    own = guided(place, [place.guide("exact", 0)], load_method_at("classifier@x_t", {}), Identity())
    for part in (own.gradient, own.update):
        np.testing.assert_allclose(along_t(part.moments)["cosine"][0], 1, atol=near)
        np.testing.assert_allclose(along_t(part.moments)["norm_ratio"][0], 1, atol=near)


class Line(nn.Module):
    """log p(y|x_0) of two normals of one standard deviation: logits w x + b."""

    def __init__(self, mixture):
        super().__init__()
        self.means, self.variance = mixture.means.flatten(1)[[0, 2]], mixture.std**2

    def forward(self, x):
        means = self.means.to(x)
        return (x.flatten(1) @ means.T - means.square().sum(dim=1) / 2) / self.variance


def one_component_each(place):
    """The place with two classes of one component each: x_t is linear-Gaussian given the class."""
    first = place.mixture.means.unflatten(0, (2, 2))[:, :1]
    merged = first.repeat(1, 2, *[1] * (first.ndim - 2))
    place.mixture.means = merged.flatten(0, 1)
    return place


@pytest.mark.parametrize("kind", ["points", "vectors"])
def test_a_clean_guide_at_x_t_has_the_closed_form_of_two_normals(kind):
    """With m = mu_1 - mu_0, v_t = a s^2 + 1 - a and logit l_t(x), the exact gradient for class 1 is
    (1 - p_t) sqrt(a) m / v_t, that of the clean classifier (1 - p_0) m / s^2: cosine 1, and a known ratio.
    """
    place = one_component_each(place_of(f"{kind}-overlapping-2", samples=16, num_inference_steps=5))
    line, s, label = Line(place.mixture), place.mixture.std, place.label.numpy()
    found = control(place, [line], load_method_at("classifier@x_t", {}), load_stabilizers({"none": {}}))
    means = line.means.numpy()
    distance = np.linalg.norm(means[1] - means[0])

    def doubt(x, mu, variance):
        """1 - p(y|x)."""
        logit = x @ (mu[1] - mu[0]) / variance - ((mu[1] ** 2).sum() - (mu[0] ** 2).sum()) / (2 * variance)
        return 1 / (1 + np.exp((2 * label - 1) * logit))

    for step, (times, x_t) in enumerate(zip(place.schedule.times, place.control.x_t, strict=True)):
        a, x = times.alphas_cumprod, x_t.double().numpy()
        v = a * s**2 + 1 - a
        exact = doubt(x, a**0.5 * means, v) * a**0.5 * distance / v
        clean = doubt(x, means, s**2) * distance / s**2
        np.testing.assert_allclose(found.gradient.moments.cosine[step, 0], 1, atol=1e-6)
        np.testing.assert_allclose(found.gradient.moments.square[step, 0], clean**2, rtol=1e-3, atol=1e-30)
        np.testing.assert_allclose(found.gradient.moments.exact_square[step, 0], exact**2, rtol=1e-6)


def test_x0_of_two_normals_has_the_closed_form():
    """The slope of log p(y | E[x_0 | x_t]), by differences of the posterior mean, written out."""
    place = one_component_each(place_of("points-overlapping-2", samples=12, num_inference_steps=4))
    line = Line(place.mixture)
    found = control(place, [line], load_method_at("classifier@x0", {}), load_stabilizers({"none": {}}))
    means, s, label = line.means.numpy(), place.mixture.std, place.label.numpy()

    def log_p(x, a):
        v = a * s**2 + 1 - a
        weight = np.exp(-((x[:, None] - a**0.5 * means) ** 2).sum(axis=2) / (2 * v))
        centre = weight @ means / weight.sum(axis=1, keepdims=True)
        x_0 = centre + s**2 * a**0.5 / v * (x - a**0.5 * centre)
        logits = -((x_0[:, None] - means) ** 2).sum(axis=2) / (2 * s**2)
        margin = (logits[:, 1] - logits[:, 0]) * (2 * label - 1)
        return -np.log1p(np.exp(-margin))

    h = 1e-5
    for step, (times, x_t) in enumerate(zip(place.schedule.times, place.control.x_t, strict=True)):
        x, a = x_t.double().numpy(), times.alphas_cumprod
        slope = [(log_p(x + h * axis, a) - log_p(x - h * axis, a)) / (2 * h) for axis in np.eye(2)]
        square = np.square(slope).sum(axis=0)
        # where nearly no signal is left, x0-hat magnifies the rounding of epsilon in float32
        np.testing.assert_allclose(found.gradient.moments.square[step, 0], square, rtol=5e-3, atol=1e-9)


@pytest.mark.slow
def test_updates_are_those_of_the_stabilizer_over_the_gradients_of_the_control():
    place = place_of("points-separated-4", samples=5)
    found = scored(place, "clean", stabilizers={"none": {}, "ema": {"beta": 0.5}}, replicates=1)
    guide = place.guide("clean", 0)
    memory = torch.zeros(5, 2, dtype=torch.float64)
    for step, x_t in enumerate(place.control.x_t):
        at = x_t.clone().requires_grad_()
        log_p = guide(at).double().log_softmax(dim=1).gather(1, place.label[:, None]).sum()
        memory = 0.5 * memory + 0.5 * torch.autograd.grad(log_p, at)[0].double()
        np.testing.assert_allclose(found.updates["ema"].moments.square[step, 0], memory.square().sum(dim=1), rtol=1e-3)


def test_draws_of_a_method_differ_between_replicates_and_leave_the_path_alone():
    place = place_of(samples=8)
    found = scored(place, "exact", "lgd@x0", replicates=3)
    cosines = found.gradient.moments.cosine
    assert not np.allclose(cosines[:, 0], cosines[:, 1])
    assert errors(*found.gradient)["variance"][0].max() > 1e-4
    same = scored(place, "exact", "classifier@x0", replicates=3)
    assert errors(*same.gradient)["variance"][0].max() < 1e-12


def test_each_cell_guides_with_the_same_strength():
    """The root mean square of the shifts over steps is that of exact guidance, however a method enters the step."""
    place = place_of("vectors-overlapping-4", guidance_scale=2.0, num_inference_steps=8)
    for name in ("classifier@x_t", "mpgd@x0_detached", "dps@x0", "universal@x0"):
        at = load_method_at(name, {})
        sampler = place.sampler(place.guide("exact", 0), at, None, place.scale(at))
        shifts = np.stack([step.norm("shift").numpy() for step in place.steps(sampler)])
        assert np.sqrt(np.mean(shifts**2)) == pytest.approx(2 * place.reference.shift, rel=1e-4)


@pytest.mark.slow
def test_the_control_is_not_guided():
    place = place_of()
    unguided = place.sampler(place.guide("clean", 0)).sample(
        place.label.tolist(), place.config.num_inference_steps, place.config.seed
    )
    assert torch.equal(place.control.final, unguided)


def test_a_repeated_step_counts_once():
    place = place_of()
    at = load_method_at("freedom@x0", {"recurrence": 2})
    assert guided(place, [place.guide("exact", 0)], at, Identity()).gradient.moments.cosine.shape == (6, 1, 10)


@pytest.mark.slow
def test_guides_are_made_of_the_seed():
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    place, again = place_of(), place_of()
    assert torch.equal(place.guide("clean", 0)(x), again.guide("clean", 0)(x))
    assert not torch.allclose(place.guide("clean", 0)(x), place.guide("clean", 1)(x))
    overconfident = place.guide("overconfident", 0)
    assert isinstance(overconfident, Scaled)
    torch.testing.assert_close(overconfident(x), 10 * place.guide("clean", 0)(x))


@pytest.mark.slow
@pytest.mark.parametrize("kind", GUIDES)
def test_guides_learn_their_mixture(kind):
    place = place_of("points-separated-2")
    label = torch.arange(400) % 2
    clean = place.mixture.draw(label, torch.Generator().manual_seed(3)).float()
    t = torch.zeros(400, dtype=torch.long)
    logits = place.guide(kind, 0)(clean, t) if kind in ("exact", "timed") else place.guide(kind, 0)(clean)
    assert float((logits.argmax(dim=1) == label).double().mean()) > 0.98


@pytest.mark.slow
def test_training_leaves_torchs_generator_alone():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    place_of().guide("timed", 0)
    assert torch.equal(torch.rand(2), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["points-overlapping-4", "vectors-overlapping-4"])
def test_exact_guidance_in_many_steps_draws_from_the_true_law(name):
    """At its own strength, without normalisation: accuracy and KL are those of exact draws."""
    place = place_of(name, samples=200, num_inference_steps=500)
    found, bottom = place.finals(place.reference.final), floor(place.mixture, place.label, seed=0)
    assert found.right.mean() == pytest.approx(bottom.accuracy[0], abs=0.08)
    assert abs(kl_score(found.divergence)[0]) < 0.3
    assert place.finals(place.control.final).right.mean() < 0.4
