"""gradscope: see why classifier guidance fails.

The public names are loaded on first use, so that reading a store needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradscope import stabilizers
    from gradscope.analysis import compare, stability, summary
    from gradscope.analysis import open_store as open
    from gradscope.analysis.report import report
    from gradscope.analysis.signatures import signatures
    from gradscope.evaluating import evaluate
    from gradscope.evaluation.audit import audit
    from gradscope.guidance import ClassifierGuidance
    from gradscope.recorder import Recorder
    from gradscope.sampler import GuidedSampler
    from gradscope.single import record
    from gradscope.smoothgrad import SmoothGrad

_NAMES = {
    "ClassifierGuidance": "gradscope.guidance:ClassifierGuidance",
    "GuidedSampler": "gradscope.sampler:GuidedSampler",
    "Recorder": "gradscope.recorder:Recorder",
    "SmoothGrad": "gradscope.smoothgrad:SmoothGrad",
    "audit": "gradscope.evaluation.audit:audit",
    "compare": "gradscope.analysis:compare",
    "evaluate": "gradscope.evaluating:evaluate",
    "open": "gradscope.analysis:open_store",  # which registers ds.gradscope
    "record": "gradscope.single:record",
    "report": "gradscope.analysis.report:report",
    "signatures": "gradscope.analysis.signatures:signatures",
    "stabilizers": "gradscope.stabilizers:",
    "stability": "gradscope.analysis.stability:",
    "summary": "gradscope.analysis:summary",
}

__all__ = [
    "ClassifierGuidance",
    "GuidedSampler",
    "Recorder",
    "SmoothGrad",
    "audit",
    "compare",
    "evaluate",
    "open",
    "record",
    "report",
    "signatures",
    "stability",
    "stabilizers",
    "summary",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'gradscope' has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return __all__
