"""Every probe's values, re-derived in float64 NumPy."""

import numpy as np
import pytest
import torch
from every_probe import make
from guided_steps import MODULES, SHAPE, N, check, flat, make_steps, run

import probes
from probes import NAMED, GuidedStep, Probe, Trace


def test_zero_gradients_have_norm_zero_and_no_cosine():
    steps = make_steps()
    steps[2].gradient[1] = 0
    trace = run(["norms", "cosines", "sensitivity", "fractions"], steps)
    assert trace["gradient_norm"][1, 2] == 0
    assert torch.isnan(trace["gradient_cosine"][1, 2:4]).all()
    assert torch.isfinite(trace["gradient_cosine"][0, 1:]).all()
    assert torch.isnan(trace["score_cosine"][1, 2])
    assert trace["zero_fraction"][1, 2] == 1
    assert torch.isfinite(trace["gradient_lipschitz"][1, 2])


def test_sensitivity_is_the_difference_quotient_raw_and_on_unit_gradients():
    steps = make_steps(scale=1e-20)
    trace, g, x = run(["sensitivity"], steps), flat(steps, "gradient"), flat(steps, "x_t")
    unit = g / np.linalg.norm(g, axis=-1, keepdims=True)
    moved = np.linalg.norm(np.diff(x, axis=0), axis=-1)
    check(trace["gradient_lipschitz"][:, 1:], np.linalg.norm(np.diff(g, axis=0), axis=-1) / moved)
    check(trace["unit_gradient_lipschitz"][:, 1:], np.linalg.norm(np.diff(unit, axis=0), axis=-1) / moved)
    assert torch.isnan(trace["gradient_lipschitz"][:, 0]).all()


@pytest.mark.parametrize("scale", [1e-130, 1e-300, 1e200])
def test_true_gradients_of_a_saturated_guide_have_all_values_but_float32_norms(scale):
    """Gradients whose squares and products of norms leave float64's range."""
    probe_names = ["norms", "cosines", "sensitivity", "fractions", "spectrum"]
    tiny, plain = (run(probe_names, make_steps(scale=s, dtype=torch.float64)) for s in (scale, 1.0))
    for name in (
        "gradient_cosine update_cosine gradient_lag_cosine gradient_first_cosine update_gradient_cosine score_cosine "
        "unit_gradient_lipschitz zero_fraction high_frequency_share radial_spectrum"
    ).split():
        torch.testing.assert_close(tiny[name], plain[name], rtol=1e-5, atol=1e-7, equal_nan=True)
    assert (tiny["gradient_norm"] == (0 if scale < 1 else torch.inf)).all()


def test_strength_is_shift_over_the_noise_added_or_else_over_sigma():
    steps = make_steps()
    steps[3] = GuidedStep(**{**vars(steps[3]), "noise_added": 0.0})
    steps[2] = GuidedStep(**{**vars(steps[2]), "noise_added": torch.tensor([0.1, 0.2, 0.0, 0.3])})
    trace = run(["strength"], steps)
    noise = np.array([[0.8] * 4, [0.6] * 4, [0.1, 0.2, 0.2, 0.3], [0.1] * 4])
    expected = np.linalg.norm(flat(steps, "shift")[:-1], axis=-1) / (noise * np.sqrt(3 * 8 * 8))
    check(trace["effective_strength"][:, :-1], expected)
    assert torch.isnan(trace["effective_strength"][:, -1]).all()
    check(trace["noise_added"][:, :3], np.array([[0.8] * 4, [0.6] * 4, [0.1, 0.2, 0, 0.3]]))
    assert trace["unguided"].tolist() == [[0] * 5, [0, 1, 0, 0, 0], [0] * 5, [1] * 5]


def test_strength_is_shift_over_sigma_for_samplers_without_noise_added():
    steps = [GuidedStep(**{**vars(step), "noise_added": None}) for step in make_steps()]
    trace = Trace([probes.EffectiveStrength()])
    for step in steps:
        trace(step)
    sigma = np.array([step.sigma for step in steps[:-1]])[:, None]
    check(
        trace["effective_strength"][:, :-1],
        np.linalg.norm(flat(steps, "shift")[:-1], axis=-1) / (sigma * np.sqrt(3 * 8 * 8)),
    )
    assert torch.isnan(trace["effective_strength"][:, -1]).all()


def test_belief_is_log_softmax_entropy_and_argmax():
    steps = make_steps()
    trace = run(["belief"], steps)
    logits = np.stack([step.logits.double().numpy() for step in steps])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    check(trace["log_prob"], np.log(p[:, np.arange(N), [0, 1, 2, 0]]), rtol=1e-4)
    check(trace["entropy"], -(p * np.log(p)).sum(-1), rtol=1e-4)
    np.testing.assert_array_equal(trace["predicted_class"].numpy(), p.argmax(-1).T)


def test_a_saturated_guide_keeps_its_margin_and_its_log_probability():
    """Where 1 - p is below float64's resolution, log p is -exp(-margin); float32 has numbers down to 1e-45."""
    steps = make_steps(1)
    steps[0].logits[:] = torch.tensor([[40.0, 0, 1], [120, 0, 0], [-3, -200, 1], [1, 0, 0]])
    steps[0].label[:] = torch.tensor([0, 0, 1, 0])
    trace = run(["belief"], steps)
    margin = np.array([40 - np.log(1 + np.e), 120 - np.log(2), -200 - np.log(np.exp(-3) + np.e), 1 - np.log(2)])
    np.testing.assert_allclose(trace["margin"][:, 0], margin, rtol=1e-6)
    np.testing.assert_allclose(trace["log_prob"][:, 0], -np.log1p(np.exp(-margin)), rtol=1e-4, atol=1e-45)
    assert trace["log_prob"][0, 0] == pytest.approx(-np.exp(-margin[0]), rel=1e-4)


def test_a_certain_belief_has_entropy_zero():
    step = make_steps(1)[0]
    step.logits[:] = torch.tensor([1000.0, 0.0, 0.0])
    assert torch.equal(run(["belief"], [step])["entropy"], torch.zeros(N, 1))


def test_fractions_count_elements():
    steps = make_steps()
    steps[1].gradient[2, 0, 0, :3] = 0
    steps[1].gradient[3, 1, 0, 0] = torch.nan
    steps[1].gradient[3, 1, 0, 1] = torch.inf
    trace = run(["fractions"], steps)
    expected = (np.abs(flat(steps, "pred_original_sample")) == 1).mean(-1)
    assert 0.2 < expected.mean() < 0.5
    check(trace["clipped_fraction"], expected)
    assert trace["zero_fraction"][2, 1] == pytest.approx(3 / 192)
    finite = Trace([probes.FiniteFraction()])
    for step in steps:
        finite(step)
    assert finite["finite_fraction"][3, 1] == pytest.approx(190 / 192)
    assert finite["finite_fraction"].sum() == pytest.approx(N * 5 - 2 / 192)


def test_nothing_is_clipped_where_the_scheduler_does_not_clip():
    step = GuidedStep(**{**vars(make_steps(1)[0]), "clip_range": None})
    assert run(["fractions"], [step])["clipped_fraction"].sum() == 0


def test_a_nan_gradient_shows_in_its_own_sample_alone():
    steps = make_steps()
    steps[2].gradient[0, 0, 0, 0] = torch.nan
    trace = run(["norms", "cosines", "sensitivity"], steps)
    for name in ("gradient_norm", "gradient_cosine", "score_cosine", "gradient_lipschitz"):
        assert torch.isnan(trace[name][0, 2])
        assert torch.isfinite(trace[name][1:, 1:]).all()


@pytest.mark.parametrize("name", ["gradient", "update", "direction", "x_t", "pred_original_sample"])
def test_tensors_are_the_steps_own(name):
    steps = make_steps()
    got = run([name], steps)[name]
    assert torch.equal(got, torch.stack([getattr(step, name) for step in steps], dim=1))


@pytest.mark.parametrize("name", list(NAMED))
def test_every_probe_declares_what_it_yields_and_changes_nothing(name):
    steps = make_steps()
    before = [{k: v.clone() for k, v in vars(s).items() if isinstance(v, torch.Tensor)} for s in steps]
    for probe in make(name):
        state = probe.init()
        for step in steps:
            with probe.attach(MODULES):
                pass
            values, state = probe.measure(step, state)
            assert list(values) == [variable.name for variable in probe.variables]
            for variable in probe.variables:
                image = dict(zip(probes.IMAGE_DIMS, SHAPE, strict=True))
                own = {dim: len(coordinate.values) for dim, coordinate in variable.coords.items()}
                shape = SHAPE if variable.dims == probes.TENSOR else [(image | own)[dim] for dim in variable.dims]
                assert values[variable.name].shape == (N, *shape)
                assert str(values[variable.name].dtype) == f"torch.{variable.dtype}"
                assert variable.long_name
                assert variable.equation
                assert variable.units
                assert all(coordinate.long_name and coordinate.units for coordinate in variable.coords.values())
    for step, kept in zip(steps, before, strict=True):
        assert all(torch.equal(getattr(step, k), v) for k, v in kept.items())


@pytest.mark.parametrize("name", list(NAMED))
def test_a_probe_reads_only_what_it_needs(name):
    """It measures with all other fields None, and raises an error with one of its needs None."""
    for probe in make(name):
        with probe.attach(MODULES):
            pass
        full = vars(make_steps(1)[0])
        required = {"step", "timestep", "x_t", "gradient", "clip_range"}
        least = {k: v for k, v in full.items() if k in required or k in probe.needs}
        probe.measure(GuidedStep(**least), probe.init())
        for need in set(probe.needs) - {"gradient", "x_t"}:
            with pytest.raises(ValueError, match=f"{type(probe).__name__} needs GuidedStep.{need}"):
                Trace([probe])(GuidedStep(**{**full, need: None}))


def test_a_trace_starts_again_with_each_trajectory():
    steps = make_steps()
    once, twice = run(["cosines"], steps), run(["cosines"], steps + steps)
    torch.testing.assert_close(once["gradient_cosine"], twice["gradient_cosine"], equal_nan=True)


def test_a_users_own_probe_is_one_class():
    class Peak(Probe):
        variables = (probes.Variable("peak", "largest magnitude", "max|g|"),)

        def measure(self, step, state):
            return {"peak": step.gradient.abs().flatten(1).amax(dim=1)}, state

    steps = make_steps()
    trace = Trace([Peak()])
    for step in steps:
        trace(step)
    check(trace["peak"], np.abs(flat(steps, "gradient")).max(-1))


def test_unknown_tensors_are_refused_with_the_possible_ones():
    with pytest.raises(ValueError, match="no tensor 'x0' in a step; one of: gradient, update, direction"):
        probes.Tensor("x0")
