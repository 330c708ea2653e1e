"""Options of a scheduler in a configuration: their names, types and values are checked before anything runs."""

import re

import pytest
from diffusers import DDPMScheduler

from gradscope.config.run import SchedulerName
from gradscope.errors import GradscopeError
from gradscope.models.schedulers import SCHEDULERS, make_scheduler

WRONG = [
    ("ddim", {"clip_sample": "false"}, "ddim.clip_sample: must be true or false, got 'false'"),
    ("euler", {"rescale_betas_zero_snr": "no"}, "euler.rescale_betas_zero_snr: must be true or false, got 'no'"),
    ("dpm_solver_multistep", {"solver_order": 7}, "dpm_solver_multistep.solver_order: got 7; one of: 1, 2, 3"),
    ("unipc_multistep", {"solver_order": 0}, "unipc_multistep.solver_order: got 0; one of: 1, 2, 3"),
    ("unipc_multistep", {"solver_order": True}, "unipc_multistep.solver_order: must be a whole number, got True"),
    ("ddim", {"steps_offset": 0.5}, "ddim.steps_offset: must be a whole number, got 0.5"),
    ("ddim", {"clip_sample_range": "x"}, "ddim.clip_sample_range: must be a number, got 'x'"),
    ("euler", {"use_karras_sigmas": "maybe"}, "euler.use_karras_sigmas: must be true or false, got 'maybe'"),
    ("ddpm", {"num_train_timesteps": "abc"}, "ddpm.num_train_timesteps: must be a whole number, got 'abc'"),
    ("dpm_solver_multistep", {"algorithm": "x"}, "DPMSolverMultistepScheduler has no option 'algorithm'; did you mean"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_wrong_options_name_their_key(name, options, message):
    with pytest.raises(GradscopeError, match=re.escape(message)):
        make_scheduler(name, options, DDPMScheduler())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unipc_multistep", {"sigma_max": 80.0, "solver_order": 3}),  # annotated as bool in diffusers
        ("ddpm", {"beta_start": 1, "beta_end": 0.5, "num_train_timesteps": 10}),
        ("ddim", {"trained_betas": [0.1] * 1000}),
        ("dpm_solver_multistep", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ],
)
def test_right_options_are_taken(name, options):
    made = make_scheduler(name, options, DDPMScheduler())
    assert {key: made.config[key] for key in options} == options


def test_the_configuration_knows_every_scheduler():
    assert SchedulerName.__args__ == tuple(SCHEDULERS)
