"""Faults of public guidance code, planted in small correct loops, to see whether `gradscope.check` names them."""

from gradscope.checking.history.chunking import Chunking
from gradscope.checking.history.classifier import Classifier
from gradscope.checking.history.classifier_free import ClassifierFree
from gradscope.checking.history.faults import FAULTS, Fault
from gradscope.checking.history.loop import Loop
from gradscope.checking.history.planner import Planner
from gradscope.checking.history.posterior import Posterior

LOOPS: dict[str, type[Loop]] = {loop.name: loop for loop in (Classifier, Posterior, Planner, Chunking, ClassifierFree)}
"""By name."""

__all__ = ["FAULTS", "LOOPS", "Fault", "Loop"]
