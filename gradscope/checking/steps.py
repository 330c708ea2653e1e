"""The steps of a loop, kept in memory while hooks of `gradscope.watching` see them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from gradscope.sampling.process import Level
from gradscope.watching.growing_store import Block, GrowingStore
from gradscope.watching.process import Process
from probes import GuidedStep


@dataclass
class _KeptBlock(Block):
    """A batch whose steps are kept."""

    steps: list[GuidedStep] = field(default_factory=list)
    where: str = "x_t"

    def record(self, step: GuidedStep) -> None:
        self.steps.append(step)


class KeptSteps(GrowingStore):
    """Takes the place of a store: it keeps the steps of each batch."""

    def __init__(self, process: Process) -> None:
        super().__init__("", process, None, lambda rank: (), 0, {})
        self.blocks: list[_KeptBlock] = []

    def begin(
        self, cell: Mapping[str, Any], label: Sequence[int], step: GuidedStep, attributes: Mapping[str, Any]
    ) -> Block:
        block = _KeptBlock((), 0, [slice(0, len(step.x_t))], [], where=str(cell["classifier_input"]))
        self.blocks.append(block)
        return block

    def left_out(self, step: GuidedStep) -> list[str]:
        return []

    def set_times(self, times: np.ndarray, levels: list[Level | None]) -> None:
        return

    def set_labels(self, first_sample: int, label: Sequence[int]) -> None:
        return

    def final(self, block: Block, samples: Tensor) -> None:
        return
