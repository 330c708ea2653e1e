"""gradscope: see why classifier guidance fails.

The public names are loaded on first use, so that reading a store needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradscope import methods, stabilizers
    from gradscope.accessor import open_store as open
    from gradscope.analysis import compare, stability, summary
    from gradscope.analysis.runs import open_many
    from gradscope.analysis.signatures import signatures
    from gradscope.auditing.audit import audit
    from gradscope.auditing.prediction import predict_failures
    from gradscope.checking.check import check
    from gradscope.checking.loop import check_loop
    from gradscope.errors import GradscopeError
    from gradscope.evaluation.from_python import evaluate
    from gradscope.models.diffusion import load_denoiser
    from gradscope.models.from_python import load_classifier
    from gradscope.recording.from_python import record
    from gradscope.recording.recorder import Recorder
    from gradscope.reporting.report import report
    from gradscope.sampling.denoiser import Condition
    from gradscope.sampling.guidance.classifier import ClassifierGuidance
    from gradscope.sampling.guidance.energy import Energy
    from gradscope.sampling.guidance.measurement import Measurement
    from gradscope.sampling.guidance.smoothgrad import SmoothGrad
    from gradscope.sampling.guidance.weighted_sum import WeightedSum
    from gradscope.sampling.sampler import GuidedSampler
    from gradscope.store import Grid
    from gradscope.verification.verify import verify
    from gradscope.watching.watch import watch
    from probes import GuidedStep

_NAMES = {
    "ClassifierGuidance": "gradscope.sampling.guidance.classifier:ClassifierGuidance",
    "Condition": "gradscope.sampling.denoiser:Condition",
    "Energy": "gradscope.sampling.guidance.energy:Energy",
    "GradscopeError": "gradscope.errors:GradscopeError",
    "Grid": "gradscope.store:Grid",
    "GuidedSampler": "gradscope.sampling.sampler:GuidedSampler",
    "GuidedStep": "probes:GuidedStep",
    "Measurement": "gradscope.sampling.guidance.measurement:Measurement",
    "Recorder": "gradscope.recording.recorder:Recorder",
    "SmoothGrad": "gradscope.sampling.guidance.smoothgrad:SmoothGrad",
    "WeightedSum": "gradscope.sampling.guidance.weighted_sum:WeightedSum",
    "audit": "gradscope.auditing.audit:audit",
    "check": "gradscope.checking.check:check",
    "check_loop": "gradscope.checking.loop:check_loop",
    "compare": "gradscope.analysis:compare",
    "evaluate": "gradscope.evaluation.from_python:evaluate",
    "load_classifier": "gradscope.models.from_python:load_classifier",
    "load_denoiser": "gradscope.models.diffusion:load_denoiser",
    "methods": "gradscope.methods:",
    "open": "gradscope.accessor:open_store",  # which registers ds.gradscope
    "open_many": "gradscope.analysis.runs:open_many",
    "predict_failures": "gradscope.auditing.prediction:predict_failures",
    "record": "gradscope.recording.from_python:record",
    "report": "gradscope.reporting.report:report",
    "signatures": "gradscope.analysis.signatures:signatures",
    "stabilizers": "gradscope.stabilizers:",
    "stability": "gradscope.analysis.stability:",
    "summary": "gradscope.analysis:summary",
    "verify": "gradscope.verification.verify:verify",
    "watch": "gradscope.watching.watch:watch",
}

__all__ = [
    "ClassifierGuidance",
    "Condition",
    "Energy",
    "GradscopeError",
    "Grid",
    "GuidedSampler",
    "GuidedStep",
    "Measurement",
    "Recorder",
    "SmoothGrad",
    "WeightedSum",
    "audit",
    "check",
    "check_loop",
    "compare",
    "evaluate",
    "load_classifier",
    "load_denoiser",
    "methods",
    "open",
    "open_many",
    "predict_failures",
    "record",
    "report",
    "signatures",
    "stability",
    "stabilizers",
    "summary",
    "verify",
    "watch",
]


if not TYPE_CHECKING:  # a type checker then refuses names that are not public

    def __getattr__(name: str) -> Any:
        if name not in _NAMES:
            raise AttributeError(f"module 'gradscope' has no attribute {name!r}")
        module, _, attribute = _NAMES[name].partition(":")
        try:
            if name != "GradscopeError":
                import_module("gradscope.accessor")  # registers ds.gradscope
            loaded = import_module(module)
        except ImportError as error:
            from gradscope.errors import hidden_package

            if (hidden := hidden_package(error)) is not None:
                raise hidden from error
            raise
        return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return __all__
