"""Adversarial images, against a loop of our own in float64 numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import AdversarialConfig
from gradscope.models.adversarial import attacked


class Net(nn.Module):
    """A smooth classifier with batch statistics and dropout, which an attack must leave alone."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm, self.drop, self.last = nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Linear(4, classes)

    def forward(self, x):
        return self.last(self.drop(self.norm(self.conv(x)).tanh().mean(dim=(2, 3))))


def net() -> nn.Module:
    torch.manual_seed(2)
    made = Net().train()
    made.norm.running_mean.normal_()
    return made


def images(n: int = 6, size: int = 5) -> torch.Tensor:
    return torch.rand(n, 2, size, size, generator=torch.Generator().manual_seed(4)) * 2 - 1


def config(**changes) -> AdversarialConfig:
    return AdversarialConfig.model_validate({"radius": 0.5, "norm": "l2", "steps": 3} | changes)


def lengths(shift: np.ndarray, norm: str) -> np.ndarray:
    flat = np.abs(shift.reshape(len(shift), -1)).astype(np.float64)
    return flat.max(axis=1) if norm == "linf" else np.sqrt((flat**2).sum(axis=1))


def by_hand(model, x_0, labels, norm, radius, steps, size, start) -> np.ndarray:
    """PGD one image at a time, with gradients by central differences of the float64 model."""
    model = model.double().eval()
    out = []
    for image, label, moved in zip(x_0.double().numpy(), labels.numpy(), start, strict=True):
        x = np.clip(image + moved, -1, 1)
        for _ in range(steps):
            g = np.zeros_like(x)
            for i in np.ndindex(x.shape):
                values = []
                for side in (1e-6, -1e-6):
                    y = x.copy()
                    y[i] += side
                    with torch.no_grad():
                        values.append(-float(model(torch.from_numpy(y)[None]).log_softmax(dim=1)[0, label]))
                g[i] = (values[0] - values[1]) / 2e-6
            x = x + size * (np.sign(g) if norm == "linf" else g / np.sqrt((g**2).sum()))
            shift = x - image
            length = lengths(shift[None], norm)[0]
            if norm == "linf":
                shift = np.clip(shift, -radius, radius)
            elif length > radius:
                shift = shift * radius / length
            x = np.clip(image + shift, -1, 1)
        out.append(x)
    return np.array(out)


@pytest.mark.parametrize(
    ("norm", "radius", "steps", "step_size"),
    [("l2", 0.5, 3, None), ("l2", 2.0, 2, 0.3), ("linf", 0.1, 3, None), ("linf", 0.3, 1, 0.05)],
)
def test_attacked_images_are_those_of_a_loop_by_hand(monkeypatch, norm, radius, steps, step_size):
    model, x_0, labels = net(), images(3, 3), torch.tensor([0, 2, 1])
    start = np.random.default_rng(1).normal(size=x_0.shape) * 0.02
    monkeypatch.setattr("gradscope.models.adversarial._start", lambda x, config: torch.from_numpy(start).to(x.dtype))
    ours = attacked(model, x_0, labels, config(norm=norm, radius=radius, steps=steps, step_size=step_size))
    size = 2.5 * radius / steps if step_size is None else step_size
    wanted = by_hand(model, x_0, labels, norm, radius, steps, size, start)
    np.testing.assert_allclose(ours.numpy(), wanted, atol=2e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("radius", [0.05, 1.0, 6.0])
def test_the_radius_and_the_range_hold_and_the_loss_grows(norm, radius):
    model, x_0, labels = net().eval(), images(), torch.tensor([0, 1, 2] * 2)
    moved = attacked(model, x_0, labels, config(norm=norm, radius=radius))
    distance = lengths((moved - x_0).numpy(), norm)
    assert (distance <= radius * (1 + 1e-5)).all()
    assert float(moved.abs().max()) <= 1
    if radius == 0.05:
        assert (distance > 0.8 * radius).all()
    with torch.no_grad():
        before, after = (nn.functional.cross_entropy(model(x), labels, reduction="none") for x in (x_0, moved))
    assert (after > before).all() or radius == 6.0  # a step of 5 may jump over a summit


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_attack_leaves_the_model_as_it_was_and_depends_on_the_seed_alone(norm):
    model, x_0, labels = net(), images(), torch.tensor([0, 1, 2] * 2)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    made = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        made.append(attacked(model, x_0, labels, config(norm=norm)))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert not made[0].requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_gradients_below_the_range_of_float32_squares_still_move_the_image():
    model = net()
    with torch.no_grad():
        model.last.weight *= 1e-25
        model.last.bias.zero_()
    x_0, labels = images() * 0.5, torch.tensor([0, 1, 2] * 2)
    moved = attacked(model, x_0, labels, config(radius=0.2))
    assert (lengths((moved - x_0).numpy(), "l2") > 0.15).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_start_is_uniform_in_the_ball(norm):
    from scipy.stats import kstest

    from gradscope.models.adversarial import _start

    torch.manual_seed(0)
    start = _start(torch.zeros(4000, 1, 1, 3), config(norm=norm, radius=0.7)).numpy()
    share = lengths(start, norm) / 0.7
    assert kstest(share**3, "uniform").pvalue > 1e-3  # the volume within a radius grows with its cube
    assert abs(start.mean()) < 0.02
