"""gradscope: see why classifier guidance fails.

The public names are loaded on first use, so that reading a store needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradscope import stabilizers
    from gradscope.analysis import summary
    from gradscope.guidance import ClassifierGuidance
    from gradscope.recorder import Recorder
    from gradscope.sampler import GuidedSampler
    from gradscope.single import record
    from gradscope.store import open_store as open

_NAMES = {
    "ClassifierGuidance": "gradscope.guidance:ClassifierGuidance",
    "GuidedSampler": "gradscope.sampler:GuidedSampler",
    "Recorder": "gradscope.recorder:Recorder",
    "open": "gradscope.store:open_store",
    "record": "gradscope.single:record",
    "stabilizers": "gradscope.stabilizers:",
    "summary": "gradscope.analysis:summary",
}

__all__ = ["ClassifierGuidance", "GuidedSampler", "Recorder", "open", "record", "stabilizers", "summary"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'gradscope' has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return __all__
