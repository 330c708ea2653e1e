"""Verdicts of a judge and of the guides on samples that were recorded from Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from gradscope.config import check
from gradscope.evaluation.evaluate import evaluate_store
from gradscope.evaluation.evaluators import Evaluators, Settings
from gradscope.evaluation.from_python import Spec, judge_of, plain
from gradscope.models.calls import frozen
from gradscope.models.classifiers import Classifier
from gradscope.store.locations.location import StorePath


@dataclass(frozen=True)
class Verdicts:
    """A judge that is loaded before the recording and judges its samples afterwards."""

    settings: Settings
    judge: Classifier | None
    """None: only the guides judge their own samples."""
    device: torch.device

    @classmethod
    def of(cls, judge: nn.Module | Spec, shape: tuple[int, ...], device: torch.device) -> Self:
        """Load a judge: a module, or a value of the configuration's key `judge`.

        Raises
        ------
        GradscopeError
            The judge cannot be loaded, or does not take samples of this shape.
        """
        settings = check(Settings, {"judge": plain(judge)}, "record")
        with frozen(*([judge] if isinstance(judge, nn.Module) else [])):  # loading sets a module to evaluation mode
            return cls(settings, judge_of(judge, settings, shape, device), device)

    def add(self, path: StorePath, guides: Mapping[str, Classifier]) -> None:
        """Add the verdicts to a store, as `gradscope record` does."""
        modules: list[Any] = [guide.module for guide in guides.values()]
        with frozen(*modules, *([] if self.judge is None else [self.judge.module])):
            evaluate_store(path, Evaluators(self.settings, guides, self.judge), self.device)
