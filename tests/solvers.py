"""Schedulers with the settings that users vary, small models, and diffusers' plain sampling loop."""

import copy
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.models.schedulers import SCHEDULERS
from gradscope.sampling.seeds import sample_seeds

SHAPE = (3, 4, 4)


class Case(NamedTuple):
    """A scheduler and its settings."""

    name: str
    settings: dict[str, Any]
    options: dict[str, Any]
    """Options of its step."""

    def scheduler(self) -> Any:
        # KDPM2 searches its table for every timestep of training when it is made.
        fast = {"num_train_timesteps": 200} if self.name.startswith("kdpm2") else {}
        return SCHEDULERS[self.name](**fast | self.settings)


def _each(key: str, *values: Any) -> list[dict[str, Any]]:
    return [{key: value} for value in values]


PREDICTIONS = _each("prediction_type", "epsilon", "sample", "v_prediction")
TWO_PREDICTIONS = _each("prediction_type", "epsilon", "v_prediction")
SPACINGS = [*_each("timestep_spacing", "trailing", "linspace"), {"timestep_spacing": "leading", "steps_offset": 1}]
BETAS = _each("beta_schedule", "scaled_linear", "squaredcos_cap_v2")
SIGMAS = [{f"use_{kind}_sigmas": True} for kind in ("karras", "exponential", "beta")]
FINAL = _each("final_sigmas_type", "zero", "sigma_min")
ZERO_SNR = [{"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}]
FLOW = [{"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift} for shift in (1.0, 3.0)]
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "ddpm": [
        *[*PREDICTIONS, *SPACINGS, *BETAS, *ZERO_SNR],
        *[{"clip_sample": False}, {"variance_type": "fixed_large"}],
    ],
    "ddim": [
        *[*PREDICTIONS, *SPACINGS, *BETAS, *ZERO_SNR],
        *[{"clip_sample": False}, {"set_alpha_to_one": False}, {"eta": 0.5}, {"eta": 1.0, "clip_sample": False}],
        *[{"use_clipped_model_output": True}, {"use_clipped_model_output": True, "eta": 1.0}],
    ],
    "pndm": [
        *[*PREDICTIONS[::2], *SPACINGS, {"set_alpha_to_one": True}],
        *[{"skip_prk_steps": True}, {"skip_prk_steps": True, "steps_offset": 1}],
    ],
    "dpm_solver_multistep": [
        *[*PREDICTIONS, *SPACINGS, *BETAS, *SIGMAS, *FINAL, *ZERO_SNR, *FLOW, *_each("solver_order", 1, 3)],
        *[{"algorithm_type": "dpmsolver", "solver_order": order} | SIGMA_MIN for order in (1, 2, 3)],
        *[{"algorithm_type": "sde-dpmsolver++", "solver_order": order} for order in (1, 2, 3)],
        *[{"algorithm_type": "sde-dpmsolver"} | SIGMA_MIN, FLOW[1] | {"algorithm_type": "sde-dpmsolver++"}],
        *[{"solver_type": "heun"}, {"euler_at_final": True}, {"use_lu_lambdas": True}, {"lower_order_final": False}],
        {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
    ],
    "dpm_solver_singlestep": [
        *[*PREDICTIONS, *BETAS, *SIGMAS, *FINAL, *FLOW, *_each("solver_order", 1, 3), {"solver_type": "heun"}],
        *[{"algorithm_type": "dpmsolver", "solver_order": order} | SIGMA_MIN for order in (2, 3)],
        *[{"algorithm_type": "sde-dpmsolver++", "solver_order": order} for order in (1, 2)],
        {"lower_order_final": True},
    ],
    "unipc_multistep": [
        *[*PREDICTIONS, *SPACINGS, *BETAS, *SIGMAS, *FINAL, *ZERO_SNR, *FLOW, *_each("solver_order", 1, 3)],
        *[{"solver_type": "bh1"} | SIGMA_MIN, {"predict_x0": False} | SIGMA_MIN, {"disable_corrector": [0, 2]}],
    ],
    "deis_multistep": [*PREDICTIONS, *SPACINGS, *BETAS, *SIGMAS, *FLOW, *_each("solver_order", 1, 3)],
    "sa_solver": [
        *[*PREDICTIONS, *SPACINGS, *BETAS, *SIGMAS, *FLOW, {"algorithm_type": "noise_prediction"}],
        *[{"predictor_order": 3, "corrector_order": 4}, {"predictor_order": 1, "corrector_order": 1}],
    ],
    "euler": [
        *[*PREDICTIONS, *SPACINGS, *BETAS, *SIGMAS, *FINAL, *ZERO_SNR, {"interpolation_type": "log_linear"}],
        {"timestep_type": "continuous", "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 80.0},
    ],
    "euler_ancestral": [*TWO_PREDICTIONS, *SPACINGS, *BETAS[:1], *ZERO_SNR],
    "heun": [*PREDICTIONS, *SPACINGS, *BETAS, *SIGMAS, {"clip_sample": True}],
    "lms": [*PREDICTIONS, *SPACINGS, *BETAS, *SIGMAS],
    "kdpm2": [*TWO_PREDICTIONS, *SPACINGS, *BETAS, *SIGMAS],
    "kdpm2_ancestral": [*TWO_PREDICTIONS, *SPACINGS, *BETAS[:1], *SIGMAS],
    "edm_euler": [
        *[*TWO_PREDICTIONS, *FINAL, {"sigma_schedule": "exponential"}, {"sigma_data": 1.0, "sigma_min": 0.01}],
    ],
    "edm_dpm_solver_multistep": [
        *[*TWO_PREDICTIONS, *FINAL, {"sigma_schedule": "exponential"}, {"sigma_data": 1.0, "sigma_min": 0.01}],
        *[{"solver_order": 1}, {"solver_order": 3}, {"algorithm_type": "sde-dpmsolver++"}, {"euler_at_final": True}],
    ],
    "flow_match_euler": [
        *[{}, {"shift": 3.0}, {"stochastic_sampling": True}, {"shift": 3.0, "stochastic_sampling": True}],
        *[*SIGMAS, {"shift_terminal": 0.1}],
    ],
    "flow_match_heun": [{}, {"shift": 3.0}],
}


def cases(*names: str) -> list[Any]:
    """Cases as parameters of a test, of all schedulers or the named ones."""
    found = []
    for name in names or SCHEDULERS:
        for i, given in enumerate(SETTINGS[name]):
            options = {key: given[key] for key in ("eta", "use_clipped_model_output") if key in given}
            settings = {key: value for key, value in given.items() if key not in options}
            told = "-".join(f"{value}" if isinstance(value, str) else f"{key}={value}" for key, value in given.items())
            found.append(pytest.param(Case(name, settings, options), i, id=f"{name}-{told or 'default'}"))
    return found


class Denoiser(nn.Module):
    """A bounded function of what the scheduler gives it, and of the time."""

    def __init__(self, channels: int = 3, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = SimpleNamespace(sample_shape=(channels, *SHAPE[1:]))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(channels, out_channels or channels, 3, padding=1)

    def forward(self, x: torch.Tensor, t: Any) -> torch.Tensor:
        t = torch.as_tensor(t).reshape(-1, 1, 1, 1).to(x.dtype)
        return torch.tanh(self.conv(x)) * (1 + 0.3 * torch.cos(t / 300))


class Classifier(nn.Module):
    """Four logits with a slope everywhere, however large the sample is."""

    def __init__(self, size: int = 48) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.linear = nn.Linear(size, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(nn.functional.softsign(x).flatten(1))


def own_generators(seed: int, count: int) -> list[torch.Generator]:
    """The samples' generators."""
    return [torch.Generator().manual_seed(int(own)) for own in sample_seeds(seed, range(count))]


def takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


def started(scheduler: Any, steps: int) -> Any:
    """The scheduler with its timesteps set."""
    made = copy.deepcopy(scheduler)
    made.set_timesteps(steps)
    # By itself a scheduler starts at the second of two equal first timesteps, and runs out of steps.
    if len(made.timesteps) > 1 and made.timesteps[0] == made.timesteps[1]:
        made.set_begin_index(0)
    return made


def given_to_denoiser(scheduler: Any, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x


@torch.no_grad()
def plain_loop(
    scheduler: Any,
    denoiser: nn.Module,
    count: int,
    steps: int,
    seed: int,
    shape: tuple[int, ...] = SHAPE,
    **options: Any,
) -> list[torch.Tensor]:
    """prev_sample of every step of diffusers' own loop, without guidance."""
    scheduler, generators = started(scheduler, steps), own_generators(seed, count)
    x = torch.stack([torch.randn(shape, generator=own) for own in generators])
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    noise, found = {"generator": generators} if takes_generator(scheduler) else {}, []
    for t in scheduler.timesteps:
        output = denoiser(given_to_denoiser(scheduler, x, t), t)
        x = scheduler.step(output[:, : shape[0]], t, x, **options, **noise).prev_sample
        found.append(x)
    return found


class _Wide:
    """A module that has float64 in place of float32."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


@contextmanager
def float64() -> Iterator[None]:
    """Everything in float64, what schedulers compute in float32 too: their tables and their steps."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in SCHEDULERS.values():
            module = sys.modules[kind.__module__]
            for name, own in (("torch", torch), ("np", np)):
                if hasattr(module, name):
                    patch.setattr(module, name, _Wide(own))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)
