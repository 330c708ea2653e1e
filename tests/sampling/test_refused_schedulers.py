"""Schedulers, settings and options that cannot be treated exactly are refused, with exact messages, before a run."""

import re

import diffusers
import pytest
import torch
from solvers import Case, Classifier, Denoiser

from gradscope.errors import GradscopeError
from gradscope.models.schedulers import SCHEDULERS, make_scheduler
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import GuidedSampler

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
NAMES = ", ".join(kind.__name__ for kind in SCHEDULERS.values())


def refusal(message):
    return pytest.raises(GradscopeError, match=f"^{re.escape(message)}$")


class Silent(Denoiser):
    def forward(self, x, t):
        raise AssertionError("the denoiser ran")


def sampler(scheduler, **options):
    return GuidedSampler(Silent(), scheduler, ClassifierGuidance(Classifier()), **options)


class OtherStep(diffusers.EulerDiscreteScheduler):
    def step(self, *args, **kwargs):
        return super().step(*args, **kwargs)


class OtherConversion(diffusers.DPMSolverMultistepScheduler):
    def convert_model_output(self, *args, **kwargs):
        return super().convert_model_output(*args, **kwargs)

    def scale_model_input(self, sample, *args, **kwargs):
        return sample


class OtherSpacing(diffusers.DDIMScheduler):
    def set_timesteps(self, num_inference_steps, device=None):
        super().set_timesteps(num_inference_steps, device)


def test_a_subclass_that_spaces_other_steps_is_taken():
    assert len(Schedule(OtherSpacing(), 5).times) == 5


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (diffusers.TCDScheduler(), f"scheduler: TCDScheduler cannot be treated exactly; one of: {NAMES}"),
        (
            OtherStep(),
            "scheduler: OtherStep changes EulerDiscreteScheduler's step, so it cannot be treated exactly; one of: "
            f"{NAMES}",
        ),
        (
            OtherConversion(),
            "scheduler: OtherConversion changes DPMSolverMultistepScheduler's convert_model_output, "
            f"scale_model_input, so it cannot be treated exactly; one of: {NAMES}",
        ),
        *[
            (
                SCHEDULERS[name](thresholding=True),
                f"scheduler: {SCHEDULERS[name].__name__} with thresholding=True is not supported; set it to False",
            )
            for name in ("ddpm", "ddim", "dpm_solver_multistep", "unipc_multistep", "edm_dpm_solver_multistep")
        ],
        (
            diffusers.DDPMScheduler(variance_type="fixed_large_log"),
            "scheduler: variance_type 'fixed_large_log' is not supported; did you mean 'fixed_large'? one of: "
            "fixed_small, fixed_small_log, fixed_large, learned, learned_range",
        ),
        *[
            (
                SCHEDULERS[name](use_dynamic_shifting=True, **more),
                f"scheduler: {SCHEDULERS[name].__name__} with use_dynamic_shifting is not supported (its shift "
                "depends on the image's size); leave it out",
            )
            for name, more in [
                ("flow_match_euler", {}),
                ("unipc_multistep", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
            ]
        ],
        (
            diffusers.UniPCMultistepScheduler(solver_p=diffusers.DDIMScheduler()),
            "scheduler: UniPCMultistepScheduler with solver_p is not supported (nested solvers); leave it out",
        ),
        (
            diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True),
            "scheduler: prediction_type 'epsilon' with use_flow_sigmas is not supported; set it to 'flow_prediction'",
        ),
        (
            diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction"),
            "scheduler: prediction_type 'flow_prediction' is not supported; did you mean 'v_prediction'? one "
            "of: epsilon, sample, v_prediction",
        ),
        (
            diffusers.EulerDiscreteScheduler(prediction_type="original_sample"),
            "scheduler: prediction_type 'original_sample' is not supported; one of: epsilon, sample, v_prediction",
        ),
        *[
            (
                SCHEDULERS[name](prediction_type="sample"),
                "scheduler: prediction_type 'sample' is not supported; one of: epsilon, v_prediction",
            )
            for name in ("pndm", "euler_ancestral", "kdpm2", "kdpm2_ancestral", "edm_euler")
        ],
        (
            diffusers.DDIMScheduler(trained_betas=[0.01] * 10),
            "scheduler: num_train_timesteps is 1000, but there are 10 betas; they must agree (trained_betas)",
        ),
    ],
)
def test_schedulers_are_refused_by_name_and_setting(scheduler, message):
    with refusal(message):
        sampler(scheduler)
    with refusal(message):
        Schedule(scheduler, 5)


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        *[
            (diffusers.DDIMScheduler(), {"eta": eta}, f"sampling.eta: must lie in [0, 1], got {eta!r}")
            for eta in (-0.1, 1.5, "1", True, None)
        ],
        (
            diffusers.DDPMScheduler(),
            {"eta": 0.5},
            "sampling.eta: is an option of DDIM's step; DDPMScheduler takes none, got 0.5",
        ),
        (
            diffusers.HeunDiscreteScheduler(clip_sample=True),
            {"use_clipped_model_output": True},
            "sampling.use_clipped_model_output: is an option of DDIM's step; HeunDiscreteScheduler takes none, got "
            "True",
        ),
    ],
)
def test_options_of_a_step_are_refused(scheduler, options, message):
    with refusal(message):
        sampler(scheduler, **options)


@pytest.mark.parametrize(
    ("case", "steps", "message"),
    [
        *[
            (
                Case("unipc_multistep", settings, {}),
                7,
                "scheduler: with these settings the step of UniPCMultistepScheduler at timestep 143 is not finite; set "
                "final_sigmas_type to 'sigma_min'",
            )
            for settings in ({"solver_type": "bh1"}, {"predict_x0": False}, {"lower_order_final": False})
        ],
        (
            Case("euler_ancestral", {"beta_schedule": "squaredcos_cap_v2"}, {}),
            4,
            "scheduler: with these settings the step of EulerAncestralDiscreteScheduler at timestep 999 is not finite; "
            "take other settings",
        ),
        (
            Case("flow_match_euler", {"invert_sigmas": True}, {}),
            3,
            "scheduler: at timestep 0 x_t is 1 x_0 + 0 noise; noise must be above 0 and finite, so that there is "
            "something to predict",
        ),
        (
            Case("ddim", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, {}),
            5,
            "scheduler: at timestep 999 alphas_cumprod is 0, where an epsilon prediction does not determine x0; use "
            "prediction_type v_prediction or sample, timestep_spacing leading (which does not visit this timestep), or "
            "rescale_betas_zero_snr False",
        ),
        *[
            (
                Case("pndm", {}, {}),
                steps,
                f"sampling.num_inference_steps: with timestep_spacing 'leading', {steps} steps are too few for its "
                "Runge-Kutta steps; 4 steps fit",
            )
            for steps in (1, 3)
        ],
        (
            Case("dpm_solver_multistep", {"timestep_spacing": "odd"}, {}),
            3,
            "scheduler: it cannot space 3 steps: odd is not supported. Please make sure to choose one of 'linspace', "
            "'leading' or 'trailing'.",
        ),
        (Case("heun", {}, {}), 1001, "sampling.num_inference_steps: at most the scheduler's 1000, got 1001"),
    ],
)
def test_steps_are_refused_before_the_denoiser_runs(case, steps, message):
    with refusal(message):
        sampler(case.scheduler(), **case.options).sample([0, 1], steps)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_a_prediction_is_taken_if_and_only_if_diffusers_step_takes_it(name, prediction_type):
    if "flow" in name:
        assert "prediction_type" not in SCHEDULERS[name]().config
        return
    scheduler = SCHEDULERS[name](prediction_type=prediction_type, num_train_timesteps=200)
    scheduler.set_timesteps(5)
    x = torch.ones(1, 3, 4, 4)
    try:
        scheduler.scale_model_input(x, scheduler.timesteps[0])
        scheduler.step(x, scheduler.timesteps[0], x)
    except (ValueError, NotImplementedError):
        with pytest.raises(GradscopeError, match=f"^scheduler: prediction_type '{prediction_type}' is not supported"):
            Schedule(scheduler, 5)
    else:
        assert Schedule(scheduler, 5).prediction_type == prediction_type


@pytest.mark.parametrize(
    ("name", "options", "trained", "message"),
    [
        (
            "dpm",
            {},
            diffusers.DDPMScheduler(),
            f"sampling.scheduler: got 'dpm'; did you mean 'ddpm'? one of: {', '.join(SCHEDULERS)}",
        ),
        (
            "lms",
            {"solver_order": 2},
            diffusers.DDPMScheduler(),
            "sampling.scheduler.lms: LMSDiscreteScheduler has no option 'solver_order'; one of: num_train_timesteps, "
            "beta_start, beta_end, beta_schedule, trained_betas, use_karras_sigmas, use_exponential_sigmas, "
            "use_beta_sigmas, prediction_type, timestep_spacing, steps_offset",
        ),
        (
            "euler",
            {"use_karras_sigmas": True, "use_beta_sigmas": True},
            diffusers.DDPMScheduler(),
            "sampling.scheduler.euler: diffusers refused it: Only one of `config.use_beta_sigmas`, "
            "`config.use_exponential_sigmas`, `config.use_karras_sigmas` can be used.",
        ),
        (
            "ddim",
            {},
            diffusers.FlowMatchEulerDiscreteScheduler(),
            "sampling.scheduler: ddim runs noise by alphas_cumprod, but the denoiser comes with "
            "FlowMatchEulerDiscreteScheduler, flow matching; one of: flow_match_euler, flow_match_heun",
        ),
        (
            "edm_euler",
            {},
            diffusers.EulerDiscreteScheduler(),
            "sampling.scheduler: edm_euler runs EDM's preconditioned noise, but the denoiser comes with "
            "EulerDiscreteScheduler, noise by alphas_cumprod; one of: ddpm, ddim, pndm, dpm_solver_multistep, "
            "dpm_solver_singlestep, unipc_multistep, deis_multistep, sa_solver, euler, euler_ancestral, heun, "
            "lms, kdpm2, kdpm2_ancestral",
        ),
    ],
)
def test_a_scheduler_of_the_configuration_is_refused(name, options, trained, message):
    with refusal(message):
        make_scheduler(name, options, trained)


def test_a_step_of_ddim_is_refused_where_it_is_not_finite():
    """At eta = 1, without signal, sqrt(1 - alpha - sigma^2) is 0 or NaN: rounding decides, so it depends on the CPU."""
    settings = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    refused = "with these settings the step of DDIMScheduler at timestep 999 is not finite; take sampling.eta below 1"
    x = torch.ones(1, 3, 4, 4)
    for steps in range(2, 30):
        scheduler = diffusers.DDIMScheduler(**settings)
        scheduler.set_timesteps(steps)
        theirs = scheduler.step(x, scheduler.timesteps[0], x, eta=1.0).prev_sample
        with pytest.raises(GradscopeError, match="the denoiser ran" if theirs.isfinite().all() else refused):
            sampler(diffusers.DDIMScheduler(**settings), eta=1.0).sample([0, 1], steps)
