"""How exact the sampler is: against two plain steps of the scheduler itself, unguided and guided, in float64.

The reference shares nothing with gradscope's process: it takes the scheduler's tables, converts predictions by hand,
and steps deep copies of the scheduler and of the generators. ``python tests/exactness.py`` measures the table that the
documentation shows.
"""

import copy
import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import nn

from gradscope import ClassifierGuidance, Energy, GuidedSampler, Measurement, WeightedSum, methods
from gradscope.errors import GradscopeError
from gradscope.models.schedulers import SCHEDULERS
from gradscope.sampling.noise import BlockNoise
from gradscope.sampling.seeds import sample_seeds

TABLE = Path(__file__).parent / "exactness.json"
SHAPE, LABELS, STEPS, SCALE = (3, 4, 4), [0, 1, 2], 5, 0.3
PREDICTIONS = ("epsilon", "sample", "v_prediction")
METHODS = {
    "classifier": methods.ClassifierGradient(),
    "dps": methods.DPS(norm=False),
    "lgd": methods.LGD(draws=2),
    "mpgd": methods.MPGD(),
    "pigdm": methods.PiGDM(),
    "freedom": methods.FreeDoM(recurrence=2),
    "universal": methods.Universal(steps=1, rate=0.1, recurrence=2),
    "tfg": methods.TFG(mu=0.1, std=0.1, draws=2),
}


class Denoiser(nn.Module):
    """A smooth function of x_t."""

    config = SimpleNamespace(sample_shape=SHAPE)

    def forward(self, x, t):
        return 0.3 * torch.tanh(x) + 0.1 * x.roll(1, -1)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        weights = torch.randn(4, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.weight = nn.Parameter(0.1 * weights)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


class Timed(Classifier):
    def forward(self, x, timesteps):
        return super().forward(x) * (1 + timesteps[:, None] / 1000)


def near(x, t, x_0):
    return -(x_0 - 0.5).square().flatten(1).mean(dim=1)


GUIDES = {
    "classifier f(x)": Classifier,
    "classifier f(x, t)": Timed,
    "energy": lambda: Energy(near),
    "sum": lambda: WeightedSum([(1.0, Classifier()), (0.5, Energy(near))]),
    # every second row, observed
    "measurement": lambda: Measurement(lambda x_0: x_0[:, :, ::2], torch.full((1, 3, 2, 4), 0.5).double(), 0.1),
}


class WideNoise(BlockNoise):
    """The noise of a sampler in float64, so that all that follows is float64, too."""

    def _draw(self):
        return torch.stack([torch.randn(SHAPE, generator=g, dtype=torch.float64) for g in self.generators])


@dataclass
class Found:
    """What was measured of one combination."""

    refused: str = ""
    """The error, if the combination is refused."""
    unguided_equal: bool = False
    """Whether a run at scale 0 is the scheduler's own, bit for bit."""
    deviation: float = float("nan")
    """Largest distance of a step's shift from the plain difference, over its norm; of prev_sample, if larger."""
    evaluations: int = 0
    """Evaluations of the denoiser in five steps."""


def kinds() -> Iterator[tuple[str, str]]:
    """Every scheduler with every prediction that it knows."""
    for name, kind in SCHEDULERS.items():
        known = inspect.signature(kind).parameters
        if "FlowMatch" in kind.__name__:
            yield name, "flow"
        for prediction in PREDICTIONS if "prediction_type" in known else ():
            if not (prediction == "sample" and name.startswith(("edm", "pndm", "heun", "kdpm2", "euler_ancestral"))):
                yield name, prediction


def made(name: str, prediction: str):
    """The scheduler, which does not clamp: where it clamps, x0-hat is no affine function of the prediction."""
    kind = SCHEDULERS[name]
    options = {} if prediction == "flow" else {"prediction_type": prediction}
    if "clip_sample" in inspect.signature(kind).parameters:
        options["clip_sample"] = False
    return kind(**options)


def measured(name: str, prediction: str = "", method: str = "classifier", guide: str = "") -> Found:
    """Compare guided and unguided runs of a combination with plain steps of the scheduler."""
    prediction = prediction or ("flow" if name.startswith("flow") else "epsilon")
    chosen = METHODS[method]
    given = "x0" if guide and "x0" in chosen.inputs else chosen.inputs[0]
    make = GUIDES[guide or ("measurement" if method == "pigdm" else "classifier f(x)")]
    with patch("gradscope.sampling.trajectory.BlockNoise", WideNoise):
        try:
            steps = list(sampler(name, prediction, make(), chosen, given, SCALE).steps(LABELS, STEPS))
        except GradscopeError as error:
            return Found(refused=str(error))
        plain = list(sampler(name, prediction, make(), chosen, given, 0.0).steps(LABELS, STEPS))
        reference = Reference(made(name, prediction), prediction)
        equal = all(
            torch.equal(step.prev_sample, other) for step, other in zip(plain, reference.loop(plain), strict=True)
        )
        reference = Reference(made(name, prediction), prediction)
        deviation = max(reference.deviations(steps, chosen.enters))
    return Found("", equal, deviation, len({step.step for step in steps}))


def sampler(name, prediction, guide, method, given, scale):
    guidance = ClassifierGuidance(guide, given, scale, method=method)
    return GuidedSampler(Denoiser(), made(name, prediction), guidance)


class Reference:
    """Plain steps of a scheduler with the samples' own generators."""

    def __init__(self, scheduler, prediction) -> None:
        self.scheduler, self.prediction = scheduler, prediction
        scheduler.set_timesteps(STEPS)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        seeds = sample_seeds(0, range(len(LABELS)))
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        for generator in self.generators:
            torch.randn(SHAPE, generator=generator, dtype=torch.float64)  # the initial noise

    def native(self, x, t):
        given = self.scheduler.scale_model_input(x, t) if hasattr(self.scheduler, "scale_model_input") else x
        return Denoiser()(given, t)

    def step(self, native, t, x, scheduler=None, generators=None):
        scheduler, generators = scheduler or self.scheduler, generators or self.generators
        takes = "generator" in inspect.signature(scheduler.step).parameters
        return scheduler.step(native, t, x, **({"generator": generators} if takes else {})).prev_sample

    def loop(self, steps):
        """The unguided samples, at each step's own x_t."""
        for step in steps:
            if step.repeat == 0:
                saved = copy.deepcopy(self.scheduler)
            else:
                self.scheduler = copy.deepcopy(saved)
            t = self.scheduler.timesteps[step.step]
            yield self.step(self.native(step.x_t, t), t, step.x_t)

    def deviations(self, steps, enters):
        """Distances of each step's shift and sample from the plain ones, over the shift's norm."""
        for step in steps:
            if step.repeat == 0:
                saved = copy.deepcopy(self.scheduler)
            else:
                self.scheduler = copy.deepcopy(saved)
            x, t = step.x_t, self.scheduler.timesteps[step.step]
            native, pushed = self.native(x, t), SCALE * step.direction
            other = copy.deepcopy((self.scheduler, self.generators))
            unguided = self.step(native, t, x, *other)
            signal, noise = self.level(step.step)
            if signal == 0 and enters != "x0":
                guided = self.step(native, t, x)
            elif enters == "prediction" or (enters == "process" and type(self.scheduler).__name__ != "DDPMScheduler"):
                guided = self.step(self.moved(native, x, pushed, signal, noise, t), t, x)
            elif enters == "x0":
                guided = self.step(native, t, x) + self.of_x_0(step) * pushed
            else:
                guided = self.step(native, t, x) + pushed
            length = float((guided - unguided).norm())
            yield float((step.shift - (guided - unguided)).norm()) / max(length, 1e-300) if length else 0.0
            yield float((step.prev_sample - guided).norm()) / float(guided.norm())

    def level(self, i):
        scheduler, name = self.scheduler, type(self.scheduler).__name__
        if not hasattr(scheduler, "sigmas"):
            share = float(scheduler.alphas_cumprod[int(scheduler.timesteps[i])])
            return share**0.5, (1 - share) ** 0.5
        sigma = float(scheduler.sigmas[i])
        if name.startswith("KDPM2") and i % 2:
            sigma = float(scheduler.sigmas_interpol[i - ("Ancestral" in name)])
        if self.prediction == "flow":
            return 1 - sigma, sigma
        if name.startswith(("DPM", "UniPC", "DEIS", "SA")):
            return (1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5
        return 1.0, sigma

    def moved(self, native, x, pushed, signal, noise, t):
        """The prediction whose epsilon is ``epsilon - noise * pushed``, by hand."""
        root = (signal**2 + noise**2) ** 0.5
        if type(self.scheduler).__name__.startswith("EDM"):
            data = self.scheduler.config.sigma_data
            skip, out = data**2 / (noise**2 + data**2), noise * data / (noise**2 + data**2) ** 0.5
            out = -out if self.prediction == "v_prediction" else out
            x_0 = skip * x + out * native + noise**2 * pushed
            return (x_0 - skip * x) / out
        if self.prediction == "epsilon":
            return native - noise * pushed
        x_0 = {
            "sample": lambda: native,
            "v_prediction": lambda: (signal * x / root - noise * native) / root,
            "flow": lambda: x - noise * native,
        }[self.prediction]()
        epsilon = (x - signal * x_0) / noise - noise * pushed
        x_0 = (x - noise * epsilon) / signal
        return {
            "sample": lambda: x_0,
            "v_prediction": lambda: (signal * epsilon - noise * x_0) / root,
            "flow": lambda: epsilon - x_0,
        }[self.prediction]()

    def of_x_0(self, step):
        """Change of prev_sample if x0-hat gains 1 and epsilon stays."""
        scheduler, i, name = self.scheduler, step.step, type(self.scheduler).__name__
        timesteps = scheduler.timesteps.tolist()
        if name == "DDIMScheduler":
            before = timesteps[i] - 1000 // len(timesteps)
            return float(scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod) ** 0.5
        if name == "DDPMScheduler":
            now = float(scheduler.alphas_cumprod[timesteps[i]])
            before = float(scheduler.alphas_cumprod[timesteps[i + 1]]) if i + 1 < len(timesteps) else 1.0
            return before**0.5 * (1 - now / before) / (1 - now)
        return 1 - float(scheduler.sigmas[i + 1]) if self.prediction == "flow" else 1.0


def table() -> dict[str, dict[str, object]]:
    """All that the documentation shows, by "scheduler | prediction | method | guide"."""
    asked = [(name, prediction, "classifier", "classifier f(x)") for name, prediction in kinds()]
    firsts = {name: prediction for name, prediction in reversed(list(kinds()))}
    asked += [
        (n, p, m, "measurement" if m == "pigdm" else "classifier f(x)") for n, p in firsts.items() for m in METHODS
    ]
    asked += [(name, "epsilon", m, g) for name in ("ddpm", "ddim") for m in METHODS for g in GUIDES]
    return {" | ".join(key): asdict(measured(*key)) for key in dict.fromkeys(asked)}


if __name__ == "__main__":
    TABLE.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
