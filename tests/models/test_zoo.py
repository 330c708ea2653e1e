"""The shipped weights are what their cards say, and that is what is promised."""

import numpy as np
import pytest
import torch

from gradscope.data import datasets
from gradscope.intervals import wilson
from gradscope.models import cards
from gradscope.models.classifiers import load_classifier
from gradscope.models.diffusion import load_denoiser
from gradscope.models.training import noised

SHAPE = (3, 32, 32)
CLASSIFIERS = ("robust", "non_robust", "judge", "extractor")


def card(name):
    return cards.read(cards.resolve(f"zoo:sportballs32/{name}", "zoo"))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_zoo_is_small():
    folder = cards.resolve("zoo:sportballs32/ddpm", "zoo").parent
    assert sum(file.stat().st_size for file in folder.iterdir() if not file.name.endswith(".pt")) <= 24e6


def test_models_are_independent_of_each_other():
    loaded = {name: card(name) for name in CLASSIFIERS}
    assert len({c.seed for c in loaded.values()}) == 4
    architectures = {name: c.architecture["timm"] for name, c in loaded.items()}
    assert architectures["robust"] == architectures["non_robust"]
    assert len(set(architectures.values())) == 3
    assert parameters(load_classifier("zoo:sportballs32/judge", "judge", SHAPE).module) <= 2.5e6
    assert load_classifier("zoo:sportballs32/extractor", "extractor", SHAPE).module.num_features <= 96


def test_cards_show_what_is_promised():
    for name in CLASSIFIERS:
        assert all(metric.n >= 4000 for metric in card(name).metrics.values())
    assert card("non_robust").metrics["accuracy_clean"].value >= 0.99
    assert card("non_robust").metrics["accuracy_x_t"].value <= 0.55
    assert card("robust").metrics["accuracy_x_t"].value >= 0.60
    assert card("judge").metrics["accuracy_clean"].value >= 0.995
    metrics = card("ddpm").metrics
    for label in card("ddpm").classes:
        assert metrics[f"share_{label}"].n == 1000
        assert 0.15 <= metrics[f"share_{label}"].value <= 0.35
    assert abs(metrics["mean_pixel"].value - metrics["mean_pixel_data"].value) < 0.03


def test_the_schedule_ends_in_noise():
    scheduler = load_denoiser("zoo:sportballs32/ddpm").scheduler
    assert float(scheduler.alphas_cumprod[-1]) <= 1e-4


@pytest.mark.parametrize("name", ["robust", "non_robust", "judge"])
def test_accuracies_measured_anew_agree_with_the_card(name):
    """On other held-out images and other noise: the 99.9 % interval must hold the card's value."""
    held_out = datasets.load(card(name).data, "test")
    images, labels = held_out.batch(range(15_000, 15_512))
    scheduler = load_denoiser("zoo:sportballs32/ddpm").scheduler
    module = load_classifier(f"zoo:sportballs32/{name}", name, SHAPE).module
    torch.manual_seed(123)
    for key, x in {"accuracy_clean": images, "accuracy_x_t": noised(scheduler, images)[0]}.items():
        with torch.no_grad():
            right = int((module(x).argmax(dim=1) == labels).sum())
        low, high = wilson(right, len(labels), 0.999)
        assert low <= card(name).metrics[key].value <= high


@pytest.mark.slow
def test_unguided_samples_measured_anew_agree_with_the_card():
    """128 samples of other noise, by the judge: class shares and the mean pixel."""
    from diffusers import DDPMScheduler

    denoiser = load_denoiser("zoo:sportballs32/ddpm")
    judge = load_classifier("zoo:sportballs32/judge", "judge", SHAPE).module
    scheduler = DDPMScheduler.from_config(denoiser.scheduler.config)
    scheduler.set_timesteps(50)
    generator = torch.Generator().manual_seed(99)
    x = torch.randn(128, *SHAPE, generator=generator)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(denoiser.unet(x, t).sample, t, x, generator=generator).prev_sample
        verdict = judge(x).argmax(dim=1).numpy()
    metrics = card("ddpm").metrics
    for k, label in enumerate(card("ddpm").classes):
        low, high = wilson(np.sum(verdict == k), 128, 0.999)
        assert low <= metrics[f"share_{label}"].value <= high
    assert float(x.mean()) == pytest.approx(metrics["mean_pixel"].value, abs=0.04)
