"""Norms of layers, recomputed by plain autograd; hooks are removed."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.sampler import GuidedSampler
from probes import Attribution, GradientSNR, Layers, Trace

LABELS, STEPS = [0, 1, 2], 3
NAMES = ["classifier", "classifier.0", "classifier.3", "unet.down_blocks.0", "unet.mid_block"]


@pytest.fixture
def convolutional():
    """A model with an activation that works in place on the watched convolution's output."""
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 4))


def sampler(unet, classifier, classifier_input="x0", **settings):
    return GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(classifier, classifier_input, **settings))


def sample(guided, probes):
    trace, steps = Trace(probes), []
    with guided.register_step_hook(trace), guided.register_step_hook(steps.append):
        guided.sample(LABELS, STEPS)
    return trace, steps


def hooks_of(*models):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
               for model in models for m in model.modules())  # fmt: skip


def norms(h):
    return h.detach().double().flatten(1).norm(dim=1)


def test_norms_of_a_classifiers_layers_are_those_of_plain_autograd(unet, convolutional):
    trace, steps = sample(sampler(unet, convolutional, "x_t"), [Layers(NAMES)])
    assert trace["layer_activation_norm"].shape == (3, STEPS, len(NAMES))
    for k, step in enumerate(steps):
        h = convolutional[0](step.x_t)
        logits = convolutional[3](h.relu().flatten(1))
        objective = logits.log_softmax(dim=1)[range(3), LABELS].sum()
        grads = torch.autograd.grad(objective, [logits, h])
        for j, (value, grad) in enumerate([(logits, grads[0]), (h, grads[1]), (logits, grads[0])]):
            activation, gradient = (
                trace[f"layer_{name}_norm"][:, k, j].double() for name in ("activation", "gradient")
            )
            torch.testing.assert_close(activation, norms(value), rtol=1e-4, atol=0)
            torch.testing.assert_close(gradient, norms(grad), rtol=1e-4, atol=1e-9)


def test_norms_of_the_unets_layers_are_those_of_plain_autograd(unet, convolutional):
    """The gradient with respect to the middle block's output: the rest of the U-Net runs on a replaced output."""
    trace, steps = sample(sampler(unet, convolutional, "x0"), [Layers(NAMES)])
    step = steps[1]
    outputs = {}

    def replace(module, inputs, output):
        outputs["mid"] = output.detach().requires_grad_()
        return outputs["mid"]

    with unet.mid_block.register_forward_hook(replace):
        epsilon = unet(step.x_t, step.timestep).sample
    a = step.alphas_cumprod
    x_0 = ((step.x_t - (1 - a) ** 0.5 * epsilon) / a**0.5).clamp(-1, 1)
    objective = convolutional(x_0).log_softmax(dim=1)[range(3), LABELS].sum()
    (grad,) = torch.autograd.grad(objective, outputs["mid"])
    got = {name: trace[name][:, 1, 4].double() for name in ("layer_activation_norm", "layer_gradient_norm")}
    torch.testing.assert_close(got["layer_activation_norm"], norms(outputs["mid"]), rtol=1e-4, atol=0)
    torch.testing.assert_close(got["layer_gradient_norm"], norms(grad), rtol=1e-3, atol=1e-9)
    assert torch.isfinite(trace["layer_gradient_norm"]).all()


@pytest.mark.parametrize("classifier_input", ["x_t", "x0_detached"])
def test_the_gradient_norm_is_nan_where_backward_does_not_reach(unet, convolutional, classifier_input):
    trace, _ = sample(sampler(unet, convolutional, classifier_input), [Layers(NAMES)])
    assert torch.isnan(trace["layer_gradient_norm"][..., 3:]).all()
    assert torch.isfinite(trace["layer_gradient_norm"][..., :3]).all()
    assert torch.isfinite(trace["layer_activation_norm"]).all()


@pytest.mark.parametrize("classifier_input", ["x_t", "x0"])
def test_passes_of_other_probes_do_not_count(unet, convolutional, classifier_input):
    guided = sampler(unet, convolutional, classifier_input)
    alone, _ = sample(guided, [Layers(NAMES)])
    for probes in ([Layers(NAMES), GradientSNR(2), Attribution(2)], [GradientSNR(2), Attribution(2), Layers(NAMES)]):
        among, _ = sample(guided, probes)
        for name in ("layer_activation_norm", "layer_gradient_norm"):
            assert torch.equal(among[name].nan_to_num(-1), alone[name].nan_to_num(-1))


def test_samples_are_the_same_and_no_hook_remains(unet, convolutional):
    guided = sampler(unet, convolutional)
    bare = guided.sample(LABELS, STEPS)
    with guided.register_step_hook(Trace([Layers(NAMES)])):
        assert torch.equal(guided.sample(LABELS, STEPS), bare)
        assert hooks_of(unet, convolutional) == 0


@pytest.mark.parametrize("where", ["hook", "model"])
def test_no_hook_remains_after_an_exception(unet, convolutional, where):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = convolutional, 0

        def forward(self, x):
            self.calls += 1
            if where == "model" and self.calls == 2:
                raise RuntimeError("here")
            return self.inner(x)

    def fail(step):
        if step.step == 1:
            raise RuntimeError("here")

    classifier = Fails()
    guided = sampler(unet, classifier)
    layers = Layers(["classifier.inner.0", "unet.mid_block"])
    with (
        pytest.raises(RuntimeError, match="here"),
        guided.register_step_hook(Trace([layers])),
        guided.register_step_hook(fail),
    ):
        guided.sample(LABELS, STEPS)
    assert hooks_of(unet, classifier) == 0
    assert not guided._hooks


def test_the_last_draw_of_smoothgrad_counts(unet, convolutional):
    """Neither the pass without noise, which has no gradient, nor the first draw."""
    seen = []
    guided = sampler(unet, convolutional, "x_t", smoothgrad=SmoothGrad(3, 0.5))
    with convolutional[0].register_forward_hook(lambda module, inputs, output: seen.append(norms(output))):
        trace, _ = sample(guided, [Layers(["classifier.0"])])
    assert len(seen) == 4 * STEPS
    torch.testing.assert_close(trace["layer_activation_norm"][:, 0, 0].double(), seen[3], rtol=1e-5, atol=0)
    assert torch.isfinite(trace["layer_gradient_norm"]).all()


def test_a_layer_that_does_not_run_is_nan(unet, convolutional):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = convolutional, nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    classifier = Idle()
    trace, _ = sample(sampler(unet, classifier), [Layers(["classifier.idle", "classifier.used"])])
    assert torch.isnan(trace["layer_activation_norm"][..., 0]).all()
    assert torch.isfinite(trace["layer_activation_norm"][..., 1]).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.2", "a layer is named classifier.PATH or unet.PATH, got 'blocks.2'"),
        ("classifier.4", r"got 'classifier.4', but classifier \(Sequential\) has no layer '4'; one of: 0, 1, 2, 3"),
        ("classifier.3.weight", r"but classifier.3 \(Linear\) has no layer 'weight'; it has none"),
        ("unet.mid_blok", r"but unet \(UNet2DModel\) has no layer 'mid_blok'; one of: conv_in, .*mid_block"),
    ],
)
def test_unknown_layers_say_what_there_is(unet, convolutional, name, message):
    guided = sampler(unet, convolutional)
    with pytest.raises(ValueError, match=message), guided.register_step_hook(Trace([Layers(["classifier.0", name])])):
        guided.sample(LABELS, STEPS)
    assert hooks_of(unet, convolutional) == 0


@pytest.mark.parametrize("names", [[], ["classifier.0", "classifier.0"]])
def test_names_are_distinct(names):
    with pytest.raises(ValueError, match="names must be one or more distinct layers, got"):
        Layers(names)


def test_models_that_ran_unattached_are_refused(unet, convolutional):
    step = next(sampler(unet, convolutional).steps(LABELS, STEPS))
    with pytest.raises(ValueError, match=r"ran outside of Layers.attach\(modules\)"):
        Layers(["classifier.0"]).measure(step, None)
