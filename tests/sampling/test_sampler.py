from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from small_models import LinearClassifier, ZeroUNet
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler
from gradscope.sampling.seeds import sample_seeds
from gradscope.stabilizers import EMA, Adam, Identity
from probes import Cosine, GradientLipschitz, Norm, Tensor, Trace

LABELS = [0, 1, 2, 3, 0]
STEPS = 6


def sampler(unet, scheduler, classifier, classifier_input="x_t", stabilizer=None, **settings):
    return GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, classifier_input, **settings), stabilizer)


def steps_of(guided, labels=LABELS, **options):
    return list(guided.steps(labels, STEPS, **options))


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_unguided_sampling_is_diffusers_own(unet, classifier, kind):
    """Scale 0, against the loop of the documentation, with the same noise."""
    scheduler = kind()
    got = sampler(unet, scheduler, classifier, guidance_scale=0.0).sample([1], STEPS, seed=5)
    generator = torch.Generator().manual_seed(int(sample_seeds(5, [0])[0]))
    x = torch.randn(3, 8, 8, generator=generator)[None]
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(unet(x, t).sample, t, x, generator=generator).prev_sample
    torch.testing.assert_close(got, x)


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_shift_is_guided_minus_unguided_prev_sample(unet, classifier, kind):
    guided = steps_of(sampler(unet, kind(), classifier, "x0", guidance_scale=0.7))[0]
    unguided = steps_of(sampler(unet, kind(), classifier, "x0", guidance_scale=0.0))[0]
    assert float(guided.shift.abs().max()) > 1e-3
    torch.testing.assert_close(guided.shift, guided.prev_sample - unguided.prev_sample, rtol=1e-3, atol=1e-6)
    assert torch.equal(unguided.shift, torch.zeros_like(unguided.shift))


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
@pytest.mark.parametrize("stabilizer", [Identity(), EMA(), Adam()])
def test_a_step_is_built_from_its_parts(unet, scheduler, classifier, classifier_input, stabilizer):
    """Update, direction and shift of every step, recomputed from the recorded gradients in float64."""
    steps = steps_of(sampler(unet, scheduler, classifier, classifier_input, stabilizer, guidance_scale=0.3))
    state = stabilizer.init(steps[0].x_t.double())
    for step in steps:
        update, state = stabilizer.update(step.gradient.double(), state)
        torch.testing.assert_close(step.update.double(), update, rtol=1e-4, atol=1e-7)
        length = update.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        torch.testing.assert_close(step.direction.double(), update / length, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(step.shift, 0.3 * step.direction)


@pytest.mark.parametrize("weight", ["one", "sigma", "variance"])
def test_without_normalisation_the_update_is_scaled_as_it_is(unet, scheduler, classifier, weight):
    for step in steps_of(sampler(unet, scheduler, classifier, normalize="none", weight=weight, guidance_scale=2.0)):
        factor = {"one": 1, "sigma": step.sigma, "variance": step.sigma**2}[weight]
        torch.testing.assert_close(step.shift.double(), 2 * factor * step.gradient)


def test_with_l2_normalisation_ema_equals_its_bias_corrected_form(unet, scheduler, classifier):
    plain, corrected = (
        sampler(unet, scheduler, classifier, stabilizer=EMA(0.9, c), guidance_scale=0.4).sample(LABELS, STEPS)
        for c in (False, True)
    )
    torch.testing.assert_close(plain, corrected, rtol=1e-4, atol=1e-4)


def test_samples_are_bit_identical_with_and_without_probes(unet, scheduler, classifier):
    bare = sampler(unet, scheduler, classifier, "x0", Adam(), guidance_scale=0.4).sample(LABELS, STEPS)
    probed = sampler(unet, scheduler, classifier, "x0", Adam(), guidance_scale=0.4)
    trace = Trace([Tensor("gradient"), Norm("update"), Cosine("gradient"), GradientLipschitz()])
    with probed.register_step_hook(trace):
        assert torch.equal(probed.sample(LABELS, STEPS), bare)
    assert trace["update_norm"].shape == (len(LABELS), STEPS)


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
def test_the_objective_may_be_differentiated_in_a_hook_with_parameters_frozen(
    unet, scheduler, classifier, classifier_input
):
    guided = sampler(unet, scheduler, classifier, classifier_input, Adam(), guidance_scale=0.4)
    bare, gradients = guided.sample(LABELS, STEPS), []

    def differentiate(step):
        x = step.x_t.clone().requires_grad_()
        objective = step.objective(x, step.label)
        assert not any(p.requires_grad for p in [*unet.parameters(), *classifier.parameters()])
        gradients.append(torch.autograd.grad(objective.sum(), x)[0] - step.gradient)

    with guided.register_step_hook(differentiate):
        assert torch.equal(guided.sample(LABELS, STEPS), bare)
    assert max(float(g.abs().max()) for g in gradients) < 1e-5
    assert len(gradients) == STEPS
    alphas = [step.alphas_cumprod for step in steps_of(guided)]
    assert alphas == scheduler.alphas_cumprod[[step.timestep for step in steps_of(guided)]].tolist()


@pytest.mark.parametrize(("count", "first"), [(1, 2), (3, 1), (2, 2)])
def test_noise_of_a_sample_does_not_depend_on_the_batch(classifier, count, first):
    guided = sampler(ZeroUNet(), DDPMScheduler(clip_sample=False), classifier, guidance_scale=0.0)
    together = steps_of(guided, seed=3)
    some = steps_of(guided, LABELS[first : first + count], seed=3, first_sample=first)
    for a, b in zip(together, some, strict=True):
        assert torch.equal(a.x_t[first : first + count], b.x_t)
        assert torch.equal(a.prev_sample[first : first + count], b.prev_sample)
    assert not torch.equal(together[0].x_t[0], together[0].x_t[1])


def test_one_step_at_the_same_x_t_agrees_across_batch_sizes(unet, scheduler, classifier):
    guided = sampler(unet, scheduler, classifier, "x0", Adam(), guidance_scale=0.4)
    together = next(guided.steps(LABELS, STEPS))
    for i, label in enumerate(LABELS):
        alone = next(guided.steps([label], STEPS, first_sample=i))
        for name in ("x_t", "gradient", "model_output", "prev_sample"):
            a, b = getattr(together, name)[i], getattr(alone, name)[0]
            assert float((a - b).norm() / b.norm()) < 1e-4


def test_seeds_depend_on_seed_and_index_alone():
    assert np.array_equal(sample_seeds(7, range(10))[4:], sample_seeds(7, range(4, 10)))
    assert len(set(sample_seeds(7, range(1000))) | set(sample_seeds(8, range(1000)))) == 2000
    assert (sample_seeds(0, range(1000)) >= 0).all()


def test_no_stabiliser_state_leaks_from_one_batch_to_the_next(unet, scheduler, classifier):
    guided = sampler(unet, scheduler, classifier, stabilizer=Adam(), guidance_scale=0.4)
    first = guided.sample(LABELS, STEPS)
    guided.sample([3, 3], STEPS, seed=9)
    assert torch.equal(guided.sample(LABELS, STEPS), first)


def test_contexts_of_hooks_are_open_while_the_models_run_and_closed_while_hooks_run(unet, scheduler):
    events = []

    class Watches:
        @contextmanager
        def attach(self, modules):
            assert list(modules) == ["classifier", "unet"]
            assert modules["unet"] is unet
            events.append("open")
            yield
            events.append("closed")

        def __call__(self, step):
            events.append("hook")

    class Told(LinearClassifier):
        def forward(self, x):
            events.append("model")
            return super().forward(x)

    guided = sampler(unet, scheduler, Told())
    with guided.register_step_hook(Watches()):
        guided.sample([0], 2)
    assert events == ["open", "model", "closed", "hook"] * 2 + ["open", "closed"]


def test_hooks_run_in_order_until_removed(unet, scheduler, classifier):
    guided = sampler(unet, scheduler, classifier)
    seen = []
    first = guided.register_step_hook(lambda step: seen.append(("first", step.step)))
    second = guided.register_step_hook(lambda step: seen.append(("second", step.timestep)))
    guided.sample([0], 2)
    assert seen == [("first", 0), ("second", 500), ("first", 1), ("second", 0)]
    first.remove()
    second.remove()
    guided.sample([0], 2)
    assert len(seen) == 4


def test_models_are_left_as_they_were_even_after_an_exception(unet, scheduler, classifier):
    unet.train()
    guided = sampler(unet, scheduler, classifier, "x0")

    def fail(step):
        assert not unet.training
        assert not any(p.requires_grad for p in unet.parameters())
        raise RuntimeError("hook")

    with pytest.raises(RuntimeError, match="hook"), guided.register_step_hook(fail):
        guided.sample([0], 2)
    assert unet.training
    assert all(p.requires_grad for p in [*unet.parameters(), *classifier.parameters()])
    assert not guided._hooks
    assert all(p.grad is None for p in [*unet.parameters(), *classifier.parameters()])


class SometimesNaN(nn.Module):
    """Passes images through a linear layer; the second sample's logits are NaN in the third call."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier, self.calls = classifier, 0

    def forward(self, x):
        self.calls += 1
        logits = self.classifier(x)
        if self.calls == 3:
            logits = logits * torch.tensor([[1.0], [torch.nan], [1.0]])
        return logits


def test_a_gradient_that_is_not_finite_leaves_its_sample_unguided_at_that_step(unet, scheduler, classifier):
    labels = [0, 1, 2]
    steps = list(sampler(unet, scheduler, SometimesNaN(classifier), stabilizer=Adam()).steps(labels, STEPS))
    clean = list(sampler(unet, scheduler, classifier, stabilizer=Adam()).steps(labels, STEPS))
    assert not torch.isfinite(steps[2].gradient[1]).any()
    assert torch.equal(steps[2].shift[1], torch.zeros(3, 8, 8))
    assert torch.equal(steps[2].shift[0], clean[2].shift[0])
    assert all(torch.isfinite(step.prev_sample).all() for step in steps)
    assert float(steps[3].shift[1].norm()) == pytest.approx(1, rel=1e-4)
    for i in (0, 2):
        assert torch.equal(steps[-1].prev_sample[i], clean[-1].prev_sample[i])


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12])
def test_directions_hold_for_gradients_of_any_size(unet, scheduler, classifier, scale):
    class Scaled(nn.Module):
        def forward(self, x):
            return classifier(x) * scale

    for step in steps_of(sampler(unet, scheduler, Scaled(), objective="logit", guidance_scale=1.0)):
        torch.testing.assert_close(step.direction.flatten(1).norm(dim=1), torch.ones(5), rtol=1e-4, atol=0)


def test_unet_that_cannot_be_guided_is_refused_by_name(scheduler, classifier):
    options = {
        "sample_size": 8,
        "block_out_channels": (8,),
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    }
    with pytest.raises(GradscopeError, match="UNet2DModel is class-conditional"):
        sampler(UNet2DModel(num_class_embeds=4, **options), scheduler, classifier)
    with pytest.raises(GradscopeError, match="3 input and 5 output channels; it must give as many, or twice as many"):
        sampler(UNet2DModel(out_channels=5, **options), scheduler, classifier)
    with pytest.raises(GradscopeError, match="Conv2d lacks the shape of its samples"):
        sampler(nn.Conv2d(3, 3, 1), scheduler, classifier).sample([0], 2)


@pytest.mark.parametrize(("labels", "got"), [([0, 4], 4), ([-1, 2], -1)])
def test_labels_out_of_range_are_refused(unet, scheduler, classifier, labels, got):
    with pytest.raises(GradscopeError, match=f"labels: the classifier has classes 0 to 3, got {got}"):
        sampler(unet, scheduler, classifier).sample(labels, 2)


def test_ddim_takes_no_weight_of_noise(unet, classifier):
    with pytest.raises(GradscopeError, match="weight: 'variance' weighs DDPM's noise; DDIMScheduler takes 'one'"):
        sampler(unet, DDIMScheduler(), classifier, weight="variance")
