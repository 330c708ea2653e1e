"""Remedies for classifier-free guidance, compared with diffusers' guiders, closed forms and independent derivations."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from diffusers import AdaptiveProjectedGuidance, ClassifierFreeGuidance, ClassifierFreeZeroStarGuidance

from gradscope.stabilizers import EMA, classifier_free
from gradscope.stabilizers.classifier_free import LimitedInterval, Predictions, Projected, Rescaled, ZeroStar

STEPS = 6
SHAPES = [(1, 3, 8, 8), (3, 3, 8, 8), (3, 20), (1, 20)]
TYPES = ("epsilon", "sample", "v_prediction", "flow_prediction")
REMEDIES = [
    Rescaled(0.7),
    Projected(0.3, 5.0, -0.5),
    Projected(0.3, 5.0, -0.5, "unconditional"),
    ZeroStar(1),
    LimitedInterval(0.2, 2.0),
]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Guiders warn that they are experimental."""
    caplog.set_level(logging.ERROR, "diffusers.guiders.guider_utils")


def trajectory(shape=(3, 3, 8, 8), dtype=torch.float64, w=4.0, kind="epsilon", seed=0):
    """Predictions of some steps with falling noise. c and u have much in common, as those of denoisers have."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        both, c, u = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
        noise = 0.95 - 0.15 * step
        signal = (1 - noise**2) ** 0.5
        total = signal + noise if kind == "flow_prediction" else 1.0
        yield Predictions((both + c).to(dtype), (both + u / 2).to(dtype), w, signal / total, noise / total, step, kind)


def guided(remedies, trajectory):
    """The guided predictions, from differences; each remedy takes what the one before gave."""
    states = [None] * len(remedies)
    for at in trajectory:
        difference = at.difference
        for i, remedy in enumerate(remedies):
            state = remedy.init(at.conditional) if at.step == 0 else states[i]
            difference, states[i] = remedy.update_difference(difference, state, at)
        yield at.guided(difference)


def of_guider(guider, trajectory):
    """The guided predictions of diffusers."""
    for at in trajectory:
        guider.set_state(at.step, STEPS, None)
        guider.prepare_inputs({})
        yield guider.forward(at.conditional, at.unconditional).pred


def assert_same(got, expected, tolerance):
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(1.0, float(other.abs().max())))


GUIDERS = {
    "rescaled": ([Rescaled(0.7)], lambda w: ClassifierFreeGuidance(w, guidance_rescale=0.7)),
    "rescaled entirely": ([Rescaled(1.0)], lambda w: ClassifierFreeGuidance(w, guidance_rescale=1.0)),
    "plain": ([Rescaled(0.0)], lambda w: ClassifierFreeGuidance(w)),
    "projected": (
        [Projected(0.3, 5.0, -0.5, "unconditional")],
        lambda w: AdaptiveProjectedGuidance(w, -0.5, 5.0, eta=0.3),
    ),
    "projected, as the paper": (
        [Projected(0.0, 5.0, -0.75)],
        lambda w: AdaptiveProjectedGuidance(w - 1, -0.75, 5.0, eta=0.0, use_original_formulation=True),
    ),
    "projected only": (
        [Projected(0.0, base="unconditional")],
        lambda w: AdaptiveProjectedGuidance(w, None, 0.0, eta=0.0),
    ),
    "projected and rescaled": (
        [Projected(0.3, 5.0, 0.5, "unconditional"), Rescaled(0.7)],
        lambda w: AdaptiveProjectedGuidance(w, 0.5, 5.0, eta=0.3, guidance_rescale=0.7),
    ),
    "zero star": ([ZeroStar(2)], lambda w: ClassifierFreeZeroStarGuidance(w, zero_init_steps=2)),
    "zero star and rescaled": (
        [ZeroStar(0), Rescaled(0.7)],
        lambda w: ClassifierFreeZeroStarGuidance(w, zero_init_steps=0, guidance_rescale=0.7),
    ),
    # sigma is 3.04, 1.33, 0.86, 0.58, 0.37, 0.20
    "interval": ([LimitedInterval(0.4, 1.5)], lambda w: ClassifierFreeGuidance(w, start=0.17, stop=0.67)),
    "rescaled in an interval": (
        [Rescaled(0.7), LimitedInterval(0.4, 1.5)],
        lambda w: ClassifierFreeGuidance(w, guidance_rescale=0.7, start=0.17, stop=0.67),
    ),
}


@pytest.mark.parametrize("w", [-1.0, 0.5, 2.0, 7.5, 30.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", GUIDERS)
def test_guided_predictions_are_those_of_diffusers(name, dtype, tolerance, shape, w):
    remedies, guider = GUIDERS[name]
    if "zero star" in name:
        tolerance = 3e-6  # diffusers finds s* in float32
    same = list(trajectory(shape, dtype, w))
    assert_same(guided(remedies, same), of_guider(guider(w), same), tolerance)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", GUIDERS)
def test_updates_guide_epsilon_as_diffusers_guides_the_denoisers_output(name, kind):
    """epsilon_u - noise w update, against the guider's output, brought into epsilon by the definition of its type."""
    remedies, guider = GUIDERS[name]
    w = 4.0
    same = list(trajectory(w=w, kind=kind))
    generator = torch.Generator().manual_seed(1)
    states = [remedy.init(same[0].conditional) for remedy in remedies]
    for at, native in zip(same, of_guider(guider(w), same), strict=True):
        x_t = torch.randn(at.conditional.shape, generator=generator, dtype=torch.float64)
        update = at.gradient
        for i, remedy in enumerate(remedies):
            update, states[i] = remedy.update(update, states[i], at)
        epsilon = epsilon_of(at.unconditional, x_t, at) - at.noise * w * update
        wanted = epsilon_of(native, x_t, at)
        tolerance = 3e-6 if "zero star" in name else 1e-12
        assert_same([epsilon], [wanted], tolerance)


def epsilon_of(native, x_t, at):
    """Epsilon from the definition of each type of prediction, with signal^2 + noise^2 = 1 for v, or sum 1 for flows."""
    match at.prediction_type:
        case "epsilon":
            return native
        case "sample":
            return (x_t - at.signal * native) / at.noise
        case "v_prediction":
            return at.signal * native + at.noise * x_t
        case "flow_prediction":
            return x_t + at.signal * native


def test_the_paper_projects_x_0_where_the_denoiser_predicts_epsilon():
    """The guider gets x0-hat by its definition, and its output becomes epsilon by the same."""
    generator = torch.Generator().manual_seed(1)
    guider = AdaptiveProjectedGuidance(3.0, -0.5, 5.0, eta=0.0, use_original_formulation=True)
    remedy, state = Projected(0.0, 5.0, -0.5), Projected().init(torch.zeros(3, 3, 8, 8))
    for at in trajectory(w=4.0):
        x_t = torch.randn(at.conditional.shape, generator=generator, dtype=torch.float64)
        pair = [(x_t - at.noise * epsilon) / at.signal for epsilon in (at.conditional, at.unconditional)]
        (x_0,) = of_guider(guider, [replace(at, conditional=pair[0], unconditional=pair[1])])
        update, state = remedy.update(at.gradient, state, at.to("sample", x_t))
        epsilon = at.unconditional - at.noise * 4 * update
        assert_same([epsilon], [(x_t - at.signal * x_0) / at.noise], 1e-12)


def test_without_a_remedy_the_update_is_the_gradient():
    for at in trajectory():
        epsilon = at.unconditional - at.noise * at.guidance_scale * at.gradient
        torch.testing.assert_close(epsilon, -3 * at.unconditional + 4 * at.conditional)


@pytest.mark.parametrize("remedy", [Rescaled(0.0), Projected(1.0), LimitedInterval()])
def test_settings_that_change_nothing_give_the_gradient(remedy):
    state = remedy.init(torch.zeros(3, 3, 8, 8))
    for at in trajectory(kind="v_prediction"):
        update, state = remedy.update(at.gradient, state, at)
        torch.testing.assert_close(update, at.gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("remedies", [[Rescaled()], [Projected(0.3, 5.0, -0.5)], [ZeroStar(0)], [LimitedInterval(1)]])
def test_scale_one_gives_the_conditional_prediction(remedies):
    same = list(trajectory(w=1.0))
    assert_same(guided(remedies, same), [at.conditional for at in same], 1e-12)


def test_rescaled_has_the_deviation_of_the_conditional_prediction():
    same = list(trajectory(w=9.0))
    for at, got in zip(same, guided([Rescaled(1.0)], same), strict=True):
        plain = at.guided(at.difference).flatten(1)
        torch.testing.assert_close(got.flatten(1).std(1), at.conditional.flatten(1).std(1))
        torch.testing.assert_close(torch.cosine_similarity(got.flatten(1), plain), torch.ones(3).double())


def test_projected_guidance_is_perpendicular_and_bounded():
    same = list(trajectory(w=9.0))
    for at, got in zip(same, guided([Projected(0.0, 2.0)], same), strict=True):
        change, c = (got - at.conditional).flatten(1), at.conditional.flatten(1)
        assert (change * c).sum(1).abs().max() < 1e-10
        ascent = 2.0 * torch.nn.functional.normalize(at.difference.flatten(1))
        rest = ascent - (ascent @ c.T).diag()[:, None] / c.square().sum(1, keepdim=True) * c
        torch.testing.assert_close(change.norm(dim=1), 8 * rest.norm(dim=1))


def test_momentum_is_the_closed_form_sum():
    """With eta 1 nothing is projected away, so the momentum is seen alone."""
    same = list(trajectory(w=3.0))
    for k, got in enumerate(guided([Projected(1.0, momentum=-0.5, base="unconditional")], same)):
        average = sum((-0.5) ** (k - i) * same[i].difference for i in range(k + 1))
        torch.testing.assert_close(got, same[k].unconditional + 3 * average)


def test_the_optimised_scale_is_the_least_squares_solution():
    same = list(trajectory(w=5.0))
    for at, got in zip(same, guided([ZeroStar(0)], same), strict=True):
        for i in range(3):
            c, u = at.conditional[i].flatten(), at.unconditional[i].flatten()
            scale = torch.linalg.lstsq(u[:, None], c[:, None]).solution[0, 0]
            torch.testing.assert_close(got[i].flatten(), -4 * scale * u + 5 * c)


def test_zero_init_keeps_a_flow_in_its_place_at_pure_noise():
    """At signal 0 there are differences and no gradients."""
    at = replace(next(iter(trajectory(kind="flow_prediction"))), signal=0.0, noise=1.0)
    difference, state = ZeroStar(1).update_difference(at.difference, None, at)
    assert at.guided(difference).abs().max() < 1e-14
    with pytest.raises(ValueError, match="at signal 0"):
        ZeroStar(1).update(torch.zeros(3, 3, 8, 8), state, at)


@pytest.mark.parametrize(("signal", "noise", "inside"), [(2.0, 1.0, False), (1.0, 1.0, True), (0.5, 1.0, True),
                                                         (0.25, 1.0, False), (0.0, 1.0, False)])  # fmt: skip
def test_the_interval_leaves_out_its_lower_bound(signal, noise, inside):
    at = replace(next(iter(trajectory())), signal=signal, noise=noise)
    difference, _ = LimitedInterval(0.5, 2.0).update_difference(at.difference, None, at)
    wanted = at.guided(at.difference) if inside else at.conditional
    torch.testing.assert_close(at.guided(difference), wanted)


def test_another_stabiliser_comes_first():
    """An average of gradients, then rescaled: by hand from its guided epsilon."""
    ema, state = EMA(0.5), EMA(0.5).init(torch.zeros(3, 3, 8, 8).double())
    for at in trajectory():
        average, state = ema.update(at.gradient, state)
        update, _ = Rescaled(1.0).update(average, None, at)
        plain = at.unconditional - at.noise * 4 * average
        ratio = (at.conditional.flatten(1).std(1) / plain.flatten(1).std(1))[:, None, None, None]
        torch.testing.assert_close(at.unconditional - at.noise * 4 * update, ratio * plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("remedy", REMEDIES)
def test_half_precision_costs_its_own_rounding_only(remedy, dtype):
    same = list(trajectory(dtype=dtype))
    wide = [replace(at, conditional=at.conditional.double(), unconditional=at.unconditional.double()) for at in same]
    for at, got, exact in zip(same, guided([remedy], same), guided([remedy], wide), strict=True):
        assert got.dtype == dtype
        largest = float(at.difference.abs().max() * 4 + at.unconditional.abs().max())
        torch.testing.assert_close(got.double(), exact, rtol=0, atol=2 * torch.finfo(dtype).eps * largest)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_update_changes_neither_its_arguments_nor_its_state(remedy):
    first, second = list(trajectory())[:2]
    _, state = remedy.update(first.gradient, remedy.init(first.conditional), first)
    gradient = second.gradient
    kept = [tensor.clone() for tensor in (gradient, second.conditional, second.unconditional, *(state or ()))]
    update, _ = remedy.update(gradient, state, second)
    again, _ = remedy.update(gradient, state, second)
    assert all(map(torch.equal, kept, (gradient, second.conditional, second.unconditional, *(state or ()))))
    assert torch.equal(update, again)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_nothing_outlives_a_trajectory(remedy):
    first = list(guided([remedy], trajectory()))
    list(guided([remedy], trajectory(seed=1)))
    assert all(map(torch.equal, first, guided([remedy], trajectory())))


@pytest.mark.parametrize("remedy", REMEDIES)
def test_zeros_give_finite_updates(remedy):
    """Equal predictions, a prediction of zeros, both of them, and samples of one element."""
    state = remedy.init(torch.zeros(3, 3, 8, 8))
    for at in trajectory(dtype=torch.float32):
        zero = torch.zeros_like(at.conditional)
        pairs = [(at.conditional, at.conditional), (zero, at.conditional), (at.conditional, zero), (zero, zero)]
        for c, u in pairs:
            now = replace(at, conditional=c, unconditional=u)
            update, state = remedy.update(now.gradient, state, now)
            assert torch.isfinite(update).all()
    assert all(torch.isfinite(one).all() for one in guided([remedy], trajectory((4, 1))))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("remedy", REMEDIES)
def test_a_sample_that_is_not_finite_leaves_the_others_alone(remedy, bad):
    same = list(trajectory())
    spoilt = [replace(at, conditional=at.conditional.clone()) for at in same]
    spoilt[2].conditional[0, 1, 2, 3] = bad
    for one, other in zip(guided([remedy], same), guided([remedy], spoilt), strict=True):
        assert torch.equal(one[1:], other[1:])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Rescaled, {"guidance_rescale": 1.1}, r"guidance_rescale must lie in \[0, 1\], got 1.1"),
        (Rescaled, {"guidance_rescale": math.nan}, r"guidance_rescale must lie in \[0, 1\], got nan"),
        (Projected, {"eta": -0.1}, "eta must be finite and 0 or above, got -0.1"),
        (Projected, {"eta": math.inf}, "eta must be finite and 0 or above, got inf"),
        (Projected, {"norm_threshold": 0.0}, "norm_threshold must be finite and above 0, got 0.0"),
        (Projected, {"momentum": -1.0}, r"momentum must lie in \(-1, 1\), got -1.0"),
        (Projected, {"base": "both"}, "base must be conditional or unconditional, got 'both'"),
        (ZeroStar, {"zero_init_steps": -1}, "zero_init_steps must be 0 or above, got -1"),
        (LimitedInterval, {"low": -0.1}, "low and high must be 0 <= low < high, got -0.1 and inf"),
        (LimitedInterval, {"low": 2.0, "high": 2.0}, "low and high must be 0 <= low < high, got 2.0 and 2.0"),
        (LimitedInterval, {"high": math.nan}, "low and high must be 0 <= low < high, got 0.0 and nan"),
    ],
)
def test_bad_settings_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_public_names_are_there():
    assert all(hasattr(classifier_free, name) for name in classifier_free.__all__)
    assert {type(remedy).__name__ for remedy in REMEDIES} < set(classifier_free.__all__)
