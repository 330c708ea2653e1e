import pytest
import torch
from diffusers import DDPMScheduler
from small_models import LinearClassifier
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.process import Schedule

LABEL = torch.tensor([0, 3, 1])


def run(guidance, x_t, times, schedule, unet):
    t = torch.full((len(x_t),), times.timestep)
    return guidance.evaluate(x_t, LABEL, times, schedule, lambda x: unet(x, t).sample)


def test_x_t_gradient_of_a_linear_classifier_is_closed_form(schedule, x_t, classifier, unet):
    """Of log softmax(Wx + b)[y]: W[y] - sum_k p_k W[k]; of the logit: W[y]."""
    weight = classifier.linear.weight.detach()
    probability = classifier(x_t).softmax(dim=1).detach()
    for objective, expected in {
        "log_prob": weight[LABEL] - probability @ weight,
        "logit": weight[LABEL],
    }.items():
        guidance = ClassifierGuidance(classifier, "x_t", objective=objective)
        evidence = run(guidance, x_t, schedule.times[4], schedule, unet)
        torch.testing.assert_close(evidence.gradient.flatten(1).float(), expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(evidence.logits, classifier(x_t).detach())


@pytest.mark.parametrize("step", [0, 5, 9])
def test_x0_gradient_is_plain_autograd(schedule, x_t, classifier, unet, step):
    times = schedule.times[step]
    x = x_t.clone().requires_grad_()
    a = torch.tensor(times.alphas_cumprod)
    epsilon = unet(x, times.timestep).sample
    x_0 = ((x - (1 - a).sqrt() * epsilon) / a.sqrt()).clamp(-1, 1)
    classifier(x_0).log_softmax(dim=1)[torch.arange(3), LABEL].sum().backward()
    evidence = run(ClassifierGuidance(classifier, "x0"), x_t, times, schedule, unet)
    torch.testing.assert_close(evidence.gradient.float(), x.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(evidence.prediction.pred_original_sample, x_0.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(evidence.prediction.model_output, epsilon.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_x0_detached_passes_the_clamp_and_one_factor(x_t, classifier, unet, prediction_type):
    """The chain rule by hand: classifier's gradient at x0-hat, zero where clamped, over sqrt(alphas_cumprod)."""
    schedule = Schedule(DDPMScheduler(prediction_type=prediction_type), 10)
    times = schedule.times[8]
    evidence = run(ClassifierGuidance(classifier, "x0_detached"), x_t, times, schedule, unet)
    x_0 = evidence.prediction.pred_original_sample.clone().requires_grad_()
    classifier(x_0).log_softmax(dim=1)[torch.arange(3), LABEL].sum().backward()
    inside = x_0.detach().abs() < 1
    assert 0.05 < inside.float().mean() < 0.999
    torch.testing.assert_close(
        evidence.gradient.float(), x_0.grad * inside / times.alphas_cumprod**0.5, rtol=1e-3, atol=1e-5
    )


class GaussianDenoiser(nn.Module):
    """The exact epsilon of data N(0, s^2 I): sqrt(1 - a) x / (a s^2 + 1 - a)."""

    def __init__(self, alphas_cumprod: torch.Tensor, variance: float) -> None:
        super().__init__()
        self.alphas_cumprod, self.variance = alphas_cumprod, variance

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (1 - a).sqrt() * x / (a * self.variance + 1 - a)


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
@pytest.mark.parametrize("step", [1, 6])
def test_gaussian_model_with_linear_classifier_is_closed_form(x_t, classifier_input, step):
    """x0-hat = k x_t with k = sqrt(a) s^2 / (a s^2 + 1 - a); the detached form has 1/sqrt(a) for k."""
    scheduler, variance = DDPMScheduler(clip_sample=False), 0.5
    schedule = Schedule(scheduler, 10)
    times = schedule.times[step]
    torch.manual_seed(0)
    classifier = LinearClassifier(gain=1.0)
    denoiser = GaussianDenoiser(scheduler.alphas_cumprod, variance)
    a = float(scheduler.alphas_cumprod[times.timestep])
    k = a**0.5 * variance / (a * variance + 1 - a)
    seen, factor = {"x_t": (x_t, 1.0), "x0": (k * x_t, k), "x0_detached": (k * x_t, a**-0.5)}[classifier_input]
    weight = classifier.linear.weight.detach()
    probability = classifier(seen).softmax(dim=1).detach()
    expected = factor * (weight[LABEL] - probability @ weight)
    guidance = ClassifierGuidance(classifier, classifier_input)
    t = torch.full((3,), times.timestep)
    evidence = guidance.evaluate(x_t, LABEL, times, schedule, lambda x: denoiser(x, t))
    torch.testing.assert_close(evidence.gradient.flatten(1).float(), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
@pytest.mark.parametrize("objective", ["log_prob", "logit"])
def test_the_gradient_is_that_of_the_objective_for_any_number_of_samples(
    schedule, x_t, classifier, unet, classifier_input, objective
):
    times = schedule.times[5]
    guidance = ClassifierGuidance(classifier, classifier_input, objective=objective)

    def denoise(x):
        return unet(x, torch.full((len(x),), times.timestep)).sample

    evidence = guidance.evaluate(x_t, LABEL, times, schedule, denoise)
    x = x_t.repeat(2, 1, 1, 1).requires_grad_()
    value = evidence.objective(x, LABEL.repeat(2))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(gradient, evidence.gradient.repeat(2, 1, 1, 1).float(), rtol=1e-3, atol=1e-5)
    scores = evidence.logits.log_softmax(dim=1) if objective == "log_prob" else evidence.logits
    torch.testing.assert_close(value.detach().float(), scores[range(3), LABEL].repeat(2), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not evidence.objective(x, LABEL.repeat(2)).requires_grad


def test_the_objective_at_other_images_predicts_anew_and_holds_the_noise_constant(schedule, x_t, classifier, unet):
    times, moved = schedule.times[5], x_t + 0.3
    a = times.alphas_cumprod

    def denoise(x):
        return unet(x, torch.full((len(x),), times.timestep)).sample

    guidance = ClassifierGuidance(classifier, "x0_detached")
    objective = guidance.evaluate(x_t, LABEL, times, schedule, denoise).objective
    x, by_hand = (moved.clone().requires_grad_() for _ in range(2))
    epsilon = denoise(moved).detach()
    x_0 = ((by_hand - (1 - a) ** 0.5 * epsilon) / a**0.5).clamp(-1, 1)
    expected = classifier(x_0).log_softmax(dim=1)[range(3), LABEL]
    torch.testing.assert_close(objective(x, LABEL).float(), expected, rtol=1e-4, atol=1e-5)
    objective(x, LABEL).sum().backward(inputs=[x])
    expected.sum().backward(inputs=[by_hand])
    torch.testing.assert_close(x.grad, by_hand.grad, rtol=1e-3, atol=1e-5)


def test_the_objective_at_x_t_needs_no_denoiser(schedule, x_t, classifier):
    passes = []

    def denoise(x):
        passes.append(len(x))
        return torch.zeros_like(x)

    evidence = ClassifierGuidance(classifier).evaluate(x_t, LABEL, schedule.times[5], schedule, denoise)
    evidence.objective(x_t, LABEL)
    assert passes == [3]


def test_only_x0_builds_a_graph_through_the_denoiser(schedule, x_t, classifier, unet):
    graph = {}
    for classifier_input in ("x_t", "x0", "x0_detached"):

        def denoise(x, key=classifier_input):
            out = unet(x, torch.full((3,), 500)).sample
            graph[key] = out.requires_grad
            return out

        ClassifierGuidance(classifier, classifier_input).evaluate(x_t, LABEL, schedule.times[5], schedule, denoise)
    assert graph == {"x_t": False, "x0": True, "x0_detached": False}


def test_amount_is_scale_times_weight_inside_the_interval(schedule, classifier):
    times = schedule.times[3]
    for weight, expected in {"one": 1, "sigma": 0.3, "variance": 0.09}.items():
        guidance = ClassifierGuidance(classifier, guidance_scale=0.3, weight=weight)
        assert guidance.amount(times, 0.3) == pytest.approx(0.3 * expected)
    t = times.timestep
    assert ClassifierGuidance(classifier, interval=(t, t + 1)).amount(times, 0.3) == 1
    assert ClassifierGuidance(classifier, interval=(0, t)).amount(times, 0.3) == 0
    assert ClassifierGuidance(classifier, interval=(t + 1, 1000)).amount(times, 0.3) == 0


def test_unknown_choices_say_what_is_possible(classifier):
    with pytest.raises(
        GradscopeError, match=r"classifier_input: got 'x_0'; did you mean 'x0'\? one of: x_t, x0, x0_det"
    ):
        ClassifierGuidance(classifier, classifier_input="x_0")
