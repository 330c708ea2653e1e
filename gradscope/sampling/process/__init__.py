"""The process that a scheduler describes: noise levels, predictions, steps, and how guidance enters them."""

from gradscope.models.schedulers import configuration_of
from gradscope.sampling.process.checks import refuse_inexact, refuse_options
from gradscope.sampling.process.level import PREDICTIONS, Level, is_flow, level_of_sigma, posterior_sigma
from gradscope.sampling.process.posterior import VARIANCE_TYPES, learns_variance
from gradscope.sampling.process.schedule import Entry, Prediction, Schedule, Times
from gradscope.sampling.process.walk import Walk

__all__ = [
    "PREDICTIONS",
    "VARIANCE_TYPES",
    "Entry",
    "Level",
    "Prediction",
    "Schedule",
    "Times",
    "Walk",
    "configuration_of",
    "is_flow",
    "learns_variance",
    "level_of_sigma",
    "posterior_sigma",
    "refuse_inexact",
    "refuse_options",
]
