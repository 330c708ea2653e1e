"""A loop while it is watched."""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError, GradscopeWarning
from gradscope.store.locations.location import StorePath
from gradscope.watching.growing_store import GrowingStore
from gradscope.watching.hooks import hooked
from gradscope.watching.process import Process
from gradscope.watching.seen_step import CLASSIFIER_FREE, Seen
from gradscope.watching.trail import Trail


class Watched:
    """A loop that is being watched; see `watch`.

    Attributes
    ----------
    problems : list of str
        What could not be watched, in sentences; each was also given as a warning when it was known.
    """

    def __init__(
        self,
        path: StorePath,
        denoiser: nn.Module,
        guide: nn.Module | None,
        process: Process,
        store: GrowingStore,
        *,
        labels: Any,
        cell: Mapping[str, Any],
        minimize: bool | None,
        repeats: int,
        about: Mapping[str, Any],
    ) -> None:
        self.path, self.process, self.store = path, process, store
        self.minimize, self.repeats = minimize, repeats
        self.problems: list[str] = []
        self._denoiser, self._guide = denoiser, guide
        self._labels = None if labels is None else torch.as_tensor(labels)
        self._about, self._usual = about, dict(cell)
        self._cells: list[dict[str, Any]] = [{}]
        self._trails: dict[tuple[Any, ...], Trail] = {}
        self._hooks = ExitStack()
        self._stopped = False
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        self._hooks.enter_context(hooked(self, self._denoiser, self._guide, self.process.scheduler))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()
        for trail in self._trails.values():
            self.guarded(trail.end)
            trail.release()
        if error is None:
            self._tell_what_was_not_seen()
        trails = self._trails.values()
        complete = not self._stopped and all(trail.complete for trail in trails)
        try:
            self.store.close(error, "complete" if complete else "partial", self._summary())
        except GradscopeError as failed:
            self.warn(str(failed))

    @contextmanager
    def cell(self, **coordinates: Any) -> Iterator[None]:
        """What runs inside is recorded as a cell of its own.

        Parameters
        ----------
        **coordinates
            ``classifier``, ``classifier_input``, ``stabilizer``, ``guidance_scale``, or further dimensions, the same in
            every cell. Coordinates that are not given keep their values from `watch` or from the loop.

        Examples
        --------
        >>> with gradscope.watch("cells.zarr", denoiser=unet, guide=classifier, scheduler=scheduler) as watched:
        ...     for scale in (1.0, 4.0):
        ...         with watched.cell(guidance_scale=scale):
        ...             images = my_loop(scale)
        """
        self._cells.append(self._cells[-1] | coordinates)
        try:
            yield
        finally:
            self._cells.pop()

    def labels(self, labels: Any) -> None:
        """Give the target classes of the batch that is sampled, ``(n,)``, before or during its steps."""
        self.guarded(lambda: setattr(self.trail(), "label", torch.as_tensor(labels)))

    def update(self, update: Tensor) -> None:
        """Give the gradient after the loop's own stabiliser, ``(n, *sample)``, once a step."""

        def see() -> None:
            current = self.trail().current
            if current is not None:
                current.update = update.detach().clone()

        self.guarded(see)

    def final(self, samples: Tensor) -> None:
        """Give the final samples of the batch, ``(n, *sample)``, in the denoiser's range."""
        self.guarded(lambda: self.trail().final(samples))

    def trail(self) -> Trail:
        """The evaluations of the cell that the loop is in."""
        cell = self._usual | self._cells[-1]
        key = tuple(sorted((dim, repr(value)) for dim, value in cell.items()))
        if key not in self._trails:
            self._trails[key] = Trail(self, cell)
            self._trails[key].label = self._labels
        return self._trails[key]

    def guarded(self, see: Callable[[], Any]) -> Any:
        """Call a function that sees something. If it fails, the watch ends with a warning; the loop goes on."""
        if self._stopped:
            return None
        try:
            with torch.inference_mode(False), torch.no_grad():
                return see()
        except Exception as error:
            self._stopped = True
            what = str(error) if isinstance(error, GradscopeError | ValueError) else f"{type(error).__name__}: {error}"
            self.warn(f"the loop is not watched any further: {what}")
            return None

    def warn(self, text: str, reason: str = "") -> None:
        """Give a warning, each reason (default: each text) once."""
        if (reason or text) not in self._told:
            self._told.add(reason or text)
            self.problems.append(text)
            warnings.warn(f"gradscope.watch: {text}", GradscopeWarning, stacklevel=2)

    def attributes(self, seen: Seen) -> dict[str, Any]:
        """Attributes of the store that is made with this step."""
        step = seen.step
        assert step is not None
        classes = [] if step.logits is None else [str(k) for k in range(step.logits.shape[1])]
        return (
            {"guidance_kind": seen.kind, "watched": 1, "sample_dtype": str(step.x_t.dtype).removeprefix("torch.")}
            | {"classes": classes}
            | dict(self._about)
        )

    def usual_cell(self, seen: Seen) -> dict[str, Any]:
        """Coordinates of a cell, for those that are not given."""
        step = seen.step
        assert step is not None
        implicit = seen.kind == CLASSIFIER_FREE
        return {
            "classifier": "condition" if implicit else Path(str(self.path)).stem,
            "classifier_input": seen.classifier_input,
            "stabilizer": "none" if step.update is None else "own",
            "guidance_scale": 1.0 if seen.scale is None else round(seen.scale, 4),
        }

    def _summary(self) -> dict[str, Any]:
        """Attributes that are known at the end."""
        facts: Counter[str] = Counter()
        unseen: dict[str, str] = {}
        for trail in self._trails.values():
            facts += trail.facts
            unseen |= trail.missing
        if facts["without_gradient"]:
            unseen["gradient"] = f"the loop took none at {facts['without_gradient']} of {facts['steps']} steps"
        return {"unseen": json.dumps(unseen), "seen": json.dumps(facts), "problems": json.dumps(self.problems)}

    def _tell_what_was_not_seen(self) -> None:
        facts: Counter[str] = Counter()
        for trail in self._trails.values():
            facts += trail.facts
        denoiser = type(self._denoiser).__name__
        if not facts["evaluations"]:
            self.warn(
                f"denoiser: {denoiser} never ran inside the watch, so nothing is recorded; give the module that the "
                "loop calls: the compiled or wrapped one, if it calls that"
            )
        elif self.process.can_step and not facts["scheduler_steps"] and self.store.recorder is None:
            scheduler = type(self.process.scheduler).__name__
            self.warn(
                f"scheduler: {denoiser} ran {facts['evaluations']} times, but the step of this {scheduler} never did; "
                "was it replaced or copied inside the watch? begin the watch after that"
            )
        elif not facts["gradients"] and not facts["undecidable"]:
            self.warn(
                f"no gradient was seen in {facts['evaluations']} evaluations of {denoiser}, so nothing is recorded; a "
                "guide must be a module that the loop calls (guide=...), and classifier-free guidance needs a scale "
                "above 1 and the scheduler that the loop steps"
            )
