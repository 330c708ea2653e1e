"""Class-conditional denoisers and classifier-free guidance, together with a classifier, against a plain loop."""

import re

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier
from solvers import own_generators, started, takes_generator

from gradscope.errors import GradscopeError
from gradscope.sampling.denoiser import Condition
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler

LABELS, STEPS, SCALE = [2, 0, 1], 4, 0.3
SCHEDULERS = [DDPMScheduler(), DPMSolverMultistepScheduler(), EulerDiscreteScheduler()]
CONDITIONS = [
    (Condition("label"), 1.0),
    (Condition("unconditional"), None),
    (Condition("unconditional", null_label=3), None),
    (Condition("label", scale=3.0), 3.0),
    (Condition("label", null_label=3, scale=0.0), 0.0),
]


@pytest.fixture
def unet():
    torch.manual_seed(0)
    made = UNet2DModel(sample_size=SIZE, num_class_embeds=5, **UNET)
    return made.eval().requires_grad_(False)


def plain_output(unet, x, t, condition, scale):
    """The prediction u + w (c - u) with plain calls; the null class is the last one unless it is named."""
    null = torch.full((len(x),), 4 if condition.null_label is None else condition.null_label)
    label = torch.tensor(LABELS)
    if scale is None:
        return unet(x, t, class_labels=null).sample
    c = unet(x, t, class_labels=label).sample
    if scale == 1:
        return c
    u = unet(x, t, class_labels=null).sample
    return u + scale * (c - u)


def calls_of(unet):
    """The denoiser's forward and backward passes, counted by hooks."""
    counted = {"forward": 0, "backward": 0}

    def forward(module, inputs, output):
        counted["forward"] += 1
        if output.sample.requires_grad:
            output.sample.register_hook(lambda gradient: counted.__setitem__("backward", counted["backward"] + 1))

    unet.register_forward_hook(forward)
    return counted


@pytest.mark.parametrize(("condition", "scale"), CONDITIONS)
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
def test_an_unguided_run_is_the_plain_loop_to_the_bit(unet, scheduler, condition, scale):
    guidance = ClassifierGuidance(LinearClassifier(), guidance_scale=0.0)
    got = GuidedSampler(unet, scheduler, guidance, condition=condition).sample(LABELS, STEPS, seed=3)
    solver, generators = started(scheduler, STEPS), own_generators(3, 3)
    x = torch.stack([torch.randn(3, SIZE, SIZE, generator=own) for own in generators]) * solver.init_noise_sigma
    noise = {"generator": generators} if takes_generator(solver) else {}
    for t in solver.timesteps:
        with torch.no_grad():
            output = plain_output(unet, solver.scale_model_input(x, t), t, condition, scale)
        x = solver.step(output, t, x, **noise).prev_sample
    assert torch.equal(got, x)


@pytest.mark.parametrize(("condition", "scale"), CONDITIONS)
@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
def test_the_classifiers_gradient_passes_the_mixed_prediction(unet, classifier_input, condition, scale):
    """Each step from its own x_t, in DDPM, by plain autograd in float64; passes of the denoiser by hooks."""
    torch.manual_seed(1)
    classifier, scheduler = LinearClassifier(), DDPMScheduler(clip_sample_range=3.0)
    guidance = ClassifierGuidance(classifier, classifier_input, guidance_scale=SCALE)
    counted = calls_of(unet)
    steps = list(GuidedSampler(unet, scheduler, guidance, condition=condition).steps(LABELS, STEPS))
    passes = 1 if scale in (None, 1.0) else 2
    backward = passes if classifier_input == "x0" else 0
    assert counted == {"forward": STEPS * passes, "backward": STEPS * backward}
    unet.double()
    classifier.double()
    for step in steps:
        x = step.x_t.double().requires_grad_()
        output = plain_output(unet, x, int(step.timestep), condition, scale)
        a = float(scheduler.alphas_cumprod[int(step.timestep)])
        kept = output.detach() if classifier_input == "x0_detached" else output
        x_0 = ((x - (1 - a) ** 0.5 * kept) / a**0.5).clamp(-3, 3)
        log_p = classifier(x if classifier_input == "x_t" else x_0).log_softmax(dim=1)[range(3), LABELS]
        (gradient,) = torch.autograd.grad(log_p.sum(), x)
        size = float(gradient.abs().max())
        torch.testing.assert_close(step.gradient, gradient, rtol=0, atol=1e-4 * size)
        torch.testing.assert_close(step.model_output.double(), output.detach(), rtol=0, atol=1e-4)
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        torch.testing.assert_close(step.shift.double(), SCALE * gradient / length, rtol=0, atol=1e-4 * SCALE)


def refusal(message):
    return pytest.raises(GradscopeError, match=f"^{re.escape(message)}$")


def test_settings_that_do_not_fit_are_refused():
    with refusal("sampling.condition: got 'lable'; did you mean 'label'? one of: none, label, unconditional"):
        Condition("lable")
    message = "sampling.classifier_free_scale: needs sampling.condition label, which is 'unconditional'; got 2"
    with refusal(message):
        Condition("unconditional", scale=2.0)
    for wrong in (1.5, -1, True, "a"):
        with pytest.raises(GradscopeError, match="sampling.null_label: must be a whole number of at least 0, got"):
            Condition("unconditional", null_label=wrong)
    for wrong in (float("nan"), float("inf"), "2", None, True):
        with pytest.raises(GradscopeError, match="sampling.classifier_free_scale: must be a finite number, got"):
            Condition("label", scale=wrong)


def test_conditions_that_a_denoiser_does_not_know_are_refused(unet):
    guidance = ClassifierGuidance(LinearClassifier(classes=9))
    plain = UNet2DModel(sample_size=SIZE, **UNET)
    embeds = UNet2DModel(sample_size=SIZE, class_embed_type="timestep", **UNET)
    conditional = (
        "denoiser: UNet2DModel is class-conditional; set sampling.condition (condition= in Python) to label or "
    )
    classes = "sampling.null_label: the denoiser has classes 0 to 4, got "
    for model, condition, message in [
        (unet, Condition(), conditional + "unconditional"),
        (unet, Condition("unconditional", 5), classes + "5"),
        (
            plain,
            Condition("label"),
            "sampling.condition: UNet2DModel is unconditional (its config has no num_class_embeds), got "
            "'label'; set it to none",
        ),
        (
            embeds,
            Condition(),
            "denoiser: UNet2DModel takes an embedding of classes (class_embed_type), which is not supported; take one "
            "with num_class_embeds",
        ),
    ]:
        with refusal(message):
            GuidedSampler(model, DDPMScheduler(), guidance, condition=condition)


def test_labels_that_a_denoiser_does_not_know_are_refused_before_it_runs(unet):
    """The classifier knows more classes than the denoiser."""
    counted = calls_of(unet)
    sampler = GuidedSampler(
        unet, DDPMScheduler(), ClassifierGuidance(LinearClassifier(classes=9)), condition=Condition("label", scale=2.0)
    )
    for label in (5, -1):
        with refusal(f"labels: the denoiser has classes 0 to 4, got {label}"):
            sampler.sample([0, label], 3)
    assert counted["forward"] == 0


def test_a_denoiser_that_does_not_say_its_classes_needs_a_null_label(unet):
    class Plain(torch.nn.Module):
        config = type("Config", (), {"sample_shape": (3, SIZE, SIZE)})()

        def forward(self, x, t, class_labels):
            return x * class_labels.view(-1, 1, 1, 1)

    guidance = ClassifierGuidance(LinearClassifier())
    sampler = GuidedSampler(Plain(), DDPMScheduler(), guidance, condition=Condition("label", scale=2.0))
    message = (
        "sampling.null_label: Plain does not say how many classes it knows; give the class that stands for no condition"
    )
    with refusal(message):
        sampler.sample([0], 3)
    named = Condition("label", null_label=3, scale=2.0)
    step = next(GuidedSampler(Plain(), DDPMScheduler(), guidance, condition=named).steps([1], 3))
    torch.testing.assert_close(step.model_output, (3 + 2.0 * (1 - 3)) * step.x_t)
