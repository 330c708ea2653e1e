"""A user's own small guides, and a configuration that names them."""

import pytest
from own_models import content  # noqa: F401

from gradscope.config import RunConfig, check

GUIDES = """

def brightness(x, t, x_0, target):
    return -(x_0.flatten(1).mean(dim=1) - target).square()


def images():
    return torch.full((2, 3, 8, 8), 0.5) * torch.tensor([1.0, -1.0]).view(-1, 1, 1, 1)


def near(x, t, x_0, target):
    return -(x_0 - target).square().flatten(1).sum(dim=1) / 2


def loss(x, t, x_0):
    return x.square().flatten(1).mean(dim=1)


class Learned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.net = torch.nn.Conv2d(3, 1, 3)

    def forward(self, x, t, x_0):
        return self.net(x_0).flatten(1).sum(dim=1)


class NoiseAware(LinearClassifier):
    def forward(self, *inputs):
        x, t = inputs
        return super().forward(x) * (1 + t[:, None] / 1000 * torch.arange(4))


def noise_aware():
    torch.manual_seed(5)
    return NoiseAware()


def flat(x, t, x_0):
    return x
"""
PROBES = ["gradient", "x_t", "pred_original_sample", "norms", "cosines", "energy"]


@pytest.fixture
def configured(content, tmp_path):  # noqa: F811
    with (tmp_path / "mymodels.py").open("a") as file:
        file.write(GUIDES)

    def make(classifiers, **changes):
        made = {**content, "probes": PROBES, "stabilizers": {"none": {}}, "classifiers": classifiers}
        made["guidance"] = {"classifier_input": ["x0_detached"], "guidance_scale": [0.4]}
        return check(RunConfig, {**made, **changes}, "run.yaml")

    return make
