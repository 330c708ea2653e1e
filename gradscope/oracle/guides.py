"""The guides of the oracle: two exact classifiers of a mixture, and small networks that are trained on it.

Each is made for a mixture and a training seed, within seconds on one thread.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gradscope.models.mixture import Clean, NoiseAware, share_at
from gradscope.oracle.mixtures import Wide

FACTOR, SMOOTHING = 10.0, 0.2
"""Factor of the overconfident guide's logits; label smoothing of the smoothed one (arXiv 1512.00567)."""
_WIDTH, _BATCH, _RATE = 64, 128, 3e-3
_STEPS, _STEPS_IMAGES = 1000, 400
_LARGE = 1000
"""Elements of a sample from which training takes the steps of images."""


class Network(nn.Module):
    """Logits of a perceptron of the flattened sample, whose elements are standardised by the training data, f(x)."""

    def __init__(self, elements: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(elements),
            nn.Linear(elements, _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


class Timed(nn.Module):
    """Logits of a perceptron of the sample and its noise level, f(x, t)."""

    alphas_cumprod: Tensor

    def __init__(self, elements: int, classes: int, alphas_cumprod: Tensor) -> None:
        super().__init__()
        self.network = Network(elements + 3, classes)
        self.register_buffer("alphas_cumprod", alphas_cumprod)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        a = share_at(self.alphas_cumprod, timestep).to(x).reshape(-1, 1).expand(len(x), 1)
        level = torch.cat([a**0.5, (1 - a) ** 0.5, (a / (1 - a)).log() / 5], dim=1)
        return self.network(torch.cat([x.flatten(1), level], dim=1))


class Scaled(nn.Module):
    """A classifier's logits times a factor."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.network(x)


def exact(mixture: Wide, alphas_cumprod: Tensor, seed: int) -> nn.Module:
    """The exact p(y | x_t), f(x, t)."""
    return NoiseAware(mixture, alphas_cumprod)


def clean_exact(mixture: Wide, alphas_cumprod: Tensor, seed: int) -> nn.Module:
    """The exact p(y | x_0), which knows no noise."""
    return Clean(mixture)


def clean(mixture: Wide, alphas_cumprod: Tensor, seed: int) -> nn.Module:
    """A network that is trained on clean samples."""
    return _trained(_network(mixture, seed), mixture, alphas_cumprod, seed, noisy=False)


def noisy(mixture: Wide, alphas_cumprod: Tensor, seed: int) -> nn.Module:
    """A network f(x) that is trained on x_t of all timesteps."""
    return _trained(_network(mixture, seed), mixture, alphas_cumprod, seed, noisy=True)


def timed(mixture: Wide, alphas_cumprod: Tensor, seed: int) -> nn.Module:
    """A network f(x, t) that is trained on x_t of all timesteps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Timed(mixture.means[0].numel(), mixture.classes, alphas_cumprod)
    return _trained(network, mixture, alphas_cumprod, seed, noisy=True)


def overconfident(mixture: Wide, alphas_cumprod: Tensor, seed: int) -> nn.Module:
    """The network that is trained on clean samples, with ten times its logits."""
    return Scaled(clean(mixture, alphas_cumprod, seed), FACTOR)


def smoothed(mixture: Wide, alphas_cumprod: Tensor, seed: int) -> nn.Module:
    """A network that is trained on clean samples with smoothed labels, so that it does not saturate."""
    return _trained(_network(mixture, seed), mixture, alphas_cumprod, seed, noisy=False, smoothing=SMOOTHING)


GUIDES: Mapping[str, Callable[[Wide, Tensor, int], nn.Module]] = {
    "exact": exact,
    "clean_exact": clean_exact,
    "clean": clean,
    "noisy": noisy,
    "timed": timed,
    "overconfident": overconfident,
    "smoothed": smoothed,
}
"""The kinds of guide, by their name in a configuration: functions of a mixture, alphas_cumprod and a training seed."""


def _network(mixture: Wide, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(mixture.means[0].numel(), mixture.classes)


def _trained(
    network: nn.Module, mixture: Wide, alphas_cumprod: Tensor, seed: int, *, noisy: bool, smoothing: float = 0.0
) -> nn.Module:
    """The network after training on draws of the mixture; every batch is new."""
    generator = torch.Generator().manual_seed(seed)
    steps = _STEPS if mixture.means[0].numel() < _LARGE else _STEPS_IMAGES
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    timed = isinstance(network, Timed)
    for _ in range(steps):
        label = torch.randint(mixture.classes, (_BATCH,), generator=generator)
        x = mixture.draw(label, generator).float()
        t = torch.randint(len(alphas_cumprod), (_BATCH,), generator=generator)
        if noisy:
            a = alphas_cumprod[t].reshape(-1, *[1] * (x.ndim - 1)).float()
            x = a**0.5 * x + (1 - a) ** 0.5 * torch.randn(x.shape, generator=generator)
        logits = network(x, t) if timed else network(x)
        optimizer.zero_grad()
        cross_entropy(logits, label, label_smoothing=smoothing).backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)
