"""Guidance methods by their public name: ``from gradscope.methods import Method, pull``.

They lie in `gradscope.sampling.guidance.methods`, one a file.
"""

from gradscope.sampling.guidance.methods import *  # noqa: F403
from gradscope.sampling.guidance.methods import __all__ as __all__
