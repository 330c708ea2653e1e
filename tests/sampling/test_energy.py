"""Any energy as a guide: plain autograd in float64 and closed forms."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from small_models import SIZE, LinearClassifier
from torch import nn

from gradscope import ClassifierGuidance, Energy, GuidedSampler, SmoothGrad, WeightedSum
from gradscope.errors import GradscopeError
from gradscope.sampling.process import Schedule
from probes import ObjectiveValue, Trace

INPUTS = ["x_t", "x0", "x0_detached"]


class LinearDenoiser(nn.Module):
    """Its output is linear in x_t, so that x0-hat is, too."""

    def __init__(self, gain: float = 0.7) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, x):
        return self.gain.to(x) * x


def samples(n, dtype=torch.float64):
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(n), dtype=torch.float64).to(dtype)


def evaluate(guidance, x_t, times, schedule, first_sample=0):
    label = torch.zeros(len(x_t), dtype=torch.int64)
    return guidance.evaluate(x_t, label, times, schedule, LinearDenoiser(), first_sample=first_sample)


def predicted(x, prediction_type, a, gain=0.7, hold=False):
    """x0-hat of the linear denoiser in closed form. `hold`: with the predicted noise constant."""
    out = gain * x
    signal, noise = a**0.5, (1 - a) ** 0.5
    epsilon = {
        "epsilon": out,
        "sample": (x - signal * out) / noise,
        "v_prediction": signal * out + noise * x,
    }[prediction_type]
    return (x - noise * (epsilon.detach() if hold else epsilon)) / signal


def wavy(x, t, x_0):
    """Depends on all of its arguments."""
    rate = (t / 1000).view(-1, 1, 1, 1)
    return (torch.sin(x * x_0) + rate * x_0**2 - 0.3 * x).flatten(1).sum(dim=1)


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("n", "dtype"), [(1, torch.float64), (3, torch.float64), (3, torch.float32)])
def test_the_gradient_is_that_of_plain_autograd(scheduler, prediction_type, clip, n, dtype):
    schedule = Schedule(scheduler(prediction_type=prediction_type, clip_sample=clip), 10)
    times, x_t = schedule.times[7], samples(n, dtype)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype is torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    for kind in INPUTS:
        x = x_t.double().requires_grad_()
        x_0 = predicted(x, prediction_type, times.alphas_cumprod, hold=kind == "x0_detached")
        x_0 = x_0.clamp(-1, 1) if clip else x_0
        x_0 = x_0.detach() if kind == "x_t" else x_0
        value = wavy(x, torch.full((n,), times.timestep), x_0)
        (expected,) = torch.autograd.grad(value.sum(), x)
        found = evaluate(ClassifierGuidance(Energy(wavy), kind), x_t, times, schedule)
        torch.testing.assert_close(found.gradient, expected, **tolerance)
        torch.testing.assert_close(found.energy, value.detach(), **tolerance)
        assert found.logits is None


@pytest.mark.parametrize("kind", INPUTS[1:])
@pytest.mark.parametrize("step", [0, 6, 9])
def test_a_quadratic_energy_of_x0_is_closed_form(kind, step):
    """-|k x - target|^2 / 2 has the gradient -k (k x - target); detached, the outer k is 1 / sqrt(a)."""
    schedule = Schedule(DDPMScheduler(clip_sample=False), 10)
    times, x_t = schedule.times[step], samples(4)
    a = times.alphas_cumprod
    k = (1 - (1 - a) ** 0.5 * 0.7) / a**0.5
    target = samples(5)[1:]

    def near(x, t, x_0, target):
        return -(x_0 - target).square().flatten(1).sum(dim=1) / 2

    found = evaluate(ClassifierGuidance(Energy(near, target=target), kind), x_t, times, schedule)
    outer = k if kind == "x0" else a**-0.5
    torch.testing.assert_close(found.gradient, -outer * (k * x_t - target), rtol=1e-9, atol=1e-12)
    away = evaluate(ClassifierGuidance(WeightedSum([(-2.0, Energy(near, target=target))]), kind), x_t, times, schedule)
    torch.testing.assert_close(away.gradient, -2 * found.gradient, rtol=1e-12, atol=0)
    torch.testing.assert_close(away.energy, -2 * found.energy, rtol=1e-12, atol=0)


def brightness(x, t, x_0, target):
    return -(x_0.flatten(1).mean(dim=1) - target).square()


def test_each_sample_has_its_target_whatever_the_blocks_are(unet):
    """Five targets for seven samples: sample i gets row i % 5."""
    guidance = ClassifierGuidance(Energy(brightness, target=[0.1, -0.4, 0.3, 0.9, -0.8]), "x0_detached", 0.4)
    sampler = GuidedSampler(unet, DDPMScheduler(), guidance)
    step = next(sampler.steps([0] * 3, 4, first_sample=4))
    target = torch.tensor([-0.8, 0.1, -0.4])
    expected = brightness(None, None, step.pred_original_sample, target)
    torch.testing.assert_close(step.energy.float(), expected, rtol=1e-5, atol=1e-7)
    again = step.objective(step.x_t.repeat(2, 1, 1, 1), torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(again.float(), expected.repeat(2), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scheduler", [DDPMScheduler(), DDIMScheduler()])
def test_guidance_by_an_energy_reaches_its_target(unet, scheduler):
    target = torch.tensor([0.4, -0.4])
    ends = {}
    for scale in (0.0, 1.0):
        guidance = ClassifierGuidance(Energy(brightness, target=target), "x0_detached", scale)
        ends[scale] = GuidedSampler(unet, scheduler, guidance).sample([0, 0], 20).flatten(1).mean(dim=1)
    assert ((ends[1.0] - target).abs() < 0.5 * (ends[0.0] - target).abs()).all()


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("objective", ["log_prob", "logit"])
def test_a_sum_is_the_weighted_sum_of_single_gradients(unet, kind, objective):
    torch.manual_seed(0)
    guides = [LinearClassifier(gain=3.0), LinearClassifier(), Energy(wavy)]
    weights = [0.7, -1.5, -0.01]
    label = [0, 3, 1]

    def first(guide):
        guidance = ClassifierGuidance(guide, kind, objective=objective)
        return next(GuidedSampler(unet, DDPMScheduler(), guidance).steps(label, 5))

    singles = [first(guide) for guide in guides]
    whole = first(WeightedSum(zip(weights, guides, strict=True)))
    for name in ("gradient", "energy"):
        expected = sum(w * getattr(step, name) for w, step in zip(weights, singles, strict=True))
        torch.testing.assert_close(getattr(whole, name), expected, rtol=1e-4, atol=1e-5)
    assert whole.logits is None


def test_a_sum_of_saturated_classifiers_keeps_its_gradient(x_t, schedule):
    """Both factors 1 - p lie below float32's range; in float64 their gradients have a closed form."""
    torch.manual_seed(0)
    guides = [LinearClassifier(gain=1.0) for _ in range(2)]
    for guide in guides:
        guide.linear.bias.data += 150 * torch.eye(4)[0]
    weights, label = [0.5, -2.0], torch.zeros(3, dtype=torch.int64)
    times = schedule.times[3]
    found = ClassifierGuidance(WeightedSum(zip(weights, guides, strict=True))).evaluate(
        x_t, label, times, schedule, torch.zeros_like
    )
    x, expected = x_t.double().requires_grad_(), 0
    for weight, guide in zip(weights, guides, strict=True):
        logits = guide.double()(x)
        m = logits[:, 0] - logits[:, 1:].logsumexp(dim=1)
        (slope,) = torch.autograd.grad(m.sum(), x)
        expected = expected + weight * torch.sigmoid(-m.detach()).view(-1, 1, 1, 1) * slope
    assert 0 < float(expected.abs().max()) < 1e-50
    torch.testing.assert_close(found.gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_smoothgrad_of_a_sum_is_the_sum_of_smoothgrads(unet):
    torch.manual_seed(0)
    guides, weights = [LinearClassifier(gain=3.0), LinearClassifier()], [1.0, -0.5]

    def first(guide):
        guidance = ClassifierGuidance(guide, "x0", smoothgrad=SmoothGrad(samples=3, std=0.3))
        return next(GuidedSampler(unet, DDPMScheduler(), guidance).steps([0, 3], 5)).gradient

    expected = sum(w * first(guide) for w, guide in zip(weights, guides, strict=True))
    torch.testing.assert_close(first(WeightedSum(zip(weights, guides, strict=True))), expected, rtol=1e-3, atol=1e-5)


def test_an_energy_that_works_in_place_harms_nothing(unet):
    def in_place(x, t, x_0):
        t += 1
        return (x.mul_(2) * x_0.add_(1)).flatten(1).sum(dim=1)

    def out_of_place(x, t, x_0):
        return (2 * x * (x_0 + 1)).flatten(1).sum(dim=1)

    for kind in INPUTS:
        ends = [
            GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(Energy(f), kind, 0.3)).sample([0, 0], 3)
            for f in (in_place, out_of_place)
        ]
        torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_a_module_runs_in_the_type_of_its_weights_and_is_frozen(unet):
    class Scored(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(3, 1, 3).double()

        def forward(self, x, t, x_0):
            assert not self.training
            assert x.dtype == x_0.dtype == torch.float64
            return self.net(x).flatten(1).mean(dim=1)

    module = Scored()
    step = next(GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(Energy(module))).steps([0], 3))
    assert step.gradient.abs().max() > 0
    assert module.training
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def one(x, t, x_0):
    return x.flatten(1).sum(dim=1)


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (lambda x, t, x_0: x.sum(), r"of shape \(2,\) on cpu; it gave float32 of shape \(\) on cpu"),
        (lambda x, t, x_0: one(x, t, x_0)[:, None], r"it gave float32 of shape \(2, 1\)"),
        (lambda x, t, x_0: one(x, t, x_0).long(), "it gave int64 of shape"),
        (lambda x, t, x_0: 1.0, "it gave float"),
        (lambda x, t, x_0: one(x, t, x_0).to("meta"), r"it gave float32 of shape \(2,\) on meta"),
        (lambda x, t, x_0: one(x.detach(), t, x_0), "its output has no graph to x_t"),
        (lambda x, t, x_0: one(x_0, t, x), "its output has no graph to x_t.* an energy of x_0 alone takes x0"),
        (lambda x, t, x_0: x @ x_0[:, :, :3], "the energy raised RuntimeError"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_at_the_first_step(unet, energy, message):
    sampler = GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(Energy(energy, name="classifiers.mine")))
    with pytest.raises(GradscopeError, match=f"^classifiers.mine: .*{message}"):
        next(sampler.steps([0, 0], 3))


def test_an_output_that_lost_x_t_on_its_way_is_refused(unet):
    weight = torch.ones(2, requires_grad=True)
    sampler = GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(Energy(lambda x, t, x_0: weight * 1)))
    with pytest.raises(GradscopeError, match="has no graph to differentiate"):
        next(sampler.steps([0, 0], 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Energy(3), r"energy: must be a function energy\(x, t, x_0\) .* got 3"),
        (lambda: Energy(lambda x: x), r"energy: must take \(x, t, x_0\) or .* it takes \(x\)"),
        (lambda: Energy(brightness), "energy: target is missing; the energy takes one"),
        (lambda: Energy(one, target=[1.0]), "energy: target is given, but the energy takes none"),
        (lambda: Energy(brightness, target=1.0), r"energy: target must have a row for each sample, .* got shape \(\)"),
        (lambda: Energy(brightness, target=[]), r"got shape \(0,\)"),
        (lambda: Energy(brightness, target="red"), "energy: target must be numbers"),
        (lambda: WeightedSum([]), "sum: at least one guide is needed"),
        (lambda: WeightedSum([(0.0, Energy(one))]), "sum.0.weight: must be a finite number and not 0, got 0.0"),
        (lambda: WeightedSum([(1.0, Energy(one)), (float("nan"), Energy(one))]), "sum.1.weight: .* got nan"),
        (lambda: WeightedSum([(1.0, one)]), r"sum.0.guide: must be a torch.nn.Module, or gradscope.Energy\(function\)"),
        (lambda: WeightedSum([Energy(one)]), r"sum.0: must be a pair \(weight, guide\)"),
        (lambda: ClassifierGuidance(one), "classifier: must be a torch.nn.Module, or gradscope.Energy"),
        (lambda: ClassifierGuidance(Energy(one), takes_timestep=True), "takes_timestep: .* but the guide is an energy"),
        (
            lambda: ClassifierGuidance(WeightedSum([(1.0, Energy(one))]), smoothgrad=SmoothGrad(2, 0.1)),
            "guidance.smoothgrad: adds noise to the input of a classifier, which an energy lacks",
        ),
    ],
)
def test_wrong_guides_are_refused_when_they_are_made(make, message):
    with pytest.raises(GradscopeError, match=message):
        make()


def test_a_label_that_a_classifier_of_the_sum_lacks_is_refused(unet):
    guide = WeightedSum([(1.0, LinearClassifier(classes=5)), (1.0, LinearClassifier(classes=3))])
    with pytest.raises(GradscopeError, match="the classifier has classes 0 to 2, got 4"):
        GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(guide)).sample([4], 3)


@pytest.mark.parametrize("objective", ["log_prob", "logit"])
def test_the_variable_energy_is_the_objective(unet, classifier, objective):
    sampler = GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(classifier, objective=objective))
    trace = Trace([ObjectiveValue()])
    with sampler.register_step_hook(trace):
        sampler.sample([0, 3], 3)
    with torch.no_grad():
        expected = []
        for step in sampler.steps([0, 3], 3):
            logits = classifier(step.x_t).double()
            scores = logits.log_softmax(dim=1) if objective == "log_prob" else logits
            expected.append(scores[range(2), [0, 3]])
    torch.testing.assert_close(trace["energy"].double(), torch.stack(expected, dim=1), rtol=1e-4, atol=1e-5)


def test_at_signal_0_the_gradient_of_the_detached_form_is_0_and_the_energy_is_known():
    schedule = Schedule(DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False,
                                      timestep_spacing="trailing"), 5)  # fmt: skip
    times, x_t = schedule.times[0], samples(2)
    assert times.alphas_cumprod == 0
    found = evaluate(ClassifierGuidance(Energy(wavy), "x0_detached"), x_t, times, schedule)
    assert not found.defined
    assert not found.gradient.any()
    torch.testing.assert_close(found.energy, wavy(x_t, torch.full((2,), times.timestep), -0.7 * x_t))
