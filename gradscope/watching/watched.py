"""A loop while it is watched."""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError, GradscopeWarning, one_of
from gradscope.store import CELL_DIMS
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
        self.minimize, self.repeats, self.has_guide = minimize, repeats, guide is not None
        self.problems: list[str] = []
        self._denoiser, self._guide = denoiser, guide
        self._labels = None if labels is None else checked_labels(labels)
        self._about, self._usual = about, dict(cell)
        self._cells: list[dict[str, Any]] = [{}]
        self._trails: dict[tuple[Any, ...], Trail] = {}
        self._hooks = ExitStack()
        self._stopped = False
        self._warned: set[str] = set()
        self._postponed: list[str] = []
        self._state = "new"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise GradscopeError("a watch is entered once; call gradscope.watch again, with another path")
        self._state = "open"
        self._hooks.enter_context(hooked(self, self._denoiser, self._guide, self.process.scheduler))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()
        for trail in self._trails.values():
            if self._stopped:
                with suppress(Exception):  # the user has been warned; other cells still record their last step
                    _without_graph(trail.end)
            self.guarded(trail.end)
            trail.release()
        self._state = "closed"
        if error is None and not self._stopped:
            self._tell_what_was_not_seen()
        complete = not self._stopped and all(trail.record.complete for trail in self._trails.values())
        try:
            self.store.close(error, "complete" if complete else "partial", self._summary())
        except GradscopeError as failed:
            self.warn(str(failed))
        for text in self._postponed:
            warnings.warn(text, GradscopeWarning, stacklevel=2)

    @contextmanager
    def cell(self, **coordinates: Any) -> Iterator[None]:
        """What runs inside is recorded as a cell of its own.

        Parameters
        ----------
        **coordinates
            ``classifier``, ``classifier_input``, ``stabilizer``, ``guidance_scale``, or further dimensions, the same in
            every cell. Coordinates that are not given keep their values from `watch` or from the loop.

        Raises
        ------
        GradscopeError
            The store, which exists by now, has no such dimension.

        Examples
        --------
        >>> with gradscope.watch("cells.zarr", denoiser=unet, guide=classifier, scheduler=scheduler) as watched:
        ...     for scale in (1.0, 4.0):
        ...         with watched.cell(guidance_scale=scale):
        ...             images = my_loop(scale)
        """
        known = {*CELL_DIMS, *self.store.dims}
        if self.store.dims and (unknown := [dim for dim in coordinates if dim not in known]):
            raise GradscopeError(f"cell: the store has no dimension {unknown[0]!r}; {one_of(unknown[0], known)}")
        self._cells.append(self._cells[-1] | coordinates)
        try:
            yield
        finally:
            self._cells.pop()

    def labels(self, labels: Any) -> None:
        """Give the target classes of the batch, ``(n,)``, before or during its steps."""
        checked = checked_labels(labels)
        self._call("labels", lambda: self.trail().labels(checked))

    def update(self, update: Tensor) -> None:
        """Give the gradient after the loop's own stabiliser, ``(n, *sample)``, once a step, from the first one on."""

        def see() -> None:
            current = self.trail().current
            if current is not None:
                current.set_update(update.detach().clone())
            if self.store.recorder is not None and not self.store.has("update_norm", "update"):
                self.warn("update: it was not given at the store's first step, so it is not recorded")

        self._call("update", see)

    def final(self, samples: Tensor) -> None:
        """Give the final samples of the batch, ``(n, *sample)``, in the denoiser's range, right after its steps."""
        self._call("final", lambda: self.trail().final(samples))

    def _call(self, name: str, see: Callable[[], Any]) -> None:
        if self._state != "open":
            self.warn(f"{name}: call it inside the with block of the watch")
            return
        self.guarded(see)

    def trail(self) -> Trail:
        """The evaluations of the cell that the loop is in."""
        cell = self._usual | self._cells[-1]
        key = tuple(sorted((dim, repr(value)) for dim, value in cell.items()))
        if key not in self._trails:
            self._trails[key] = Trail(self, cell, self._labels)
        return self._trails[key]

    def guarded(self, see: Callable[[], Any]) -> Any:
        """Call a function that sees something. If it fails, the watch ends with a warning; the loop goes on."""
        if self._stopped:
            return None
        try:
            return _without_graph(see)
        except Exception as error:
            self._stopped = True
            what = str(error) if isinstance(error, GradscopeError | ValueError) else f"{type(error).__name__}: {error}"
            self.warn(f"the loop is not watched any further: {what}")
            return None

    def warn(self, text: str, reason: str = "") -> None:
        """Give a warning, each reason (default: each text) once."""
        if (reason or text) not in self._warned:
            self._warned.add(reason or text)
            self.problems.append(text)
            message = f"gradscope.watch: {text}"
            try:
                warnings.warn(message, GradscopeWarning, stacklevel=2)
            except GradscopeWarning:  # warnings are errors: raised after the loop, which goes on
                if self._state != "open":
                    raise
                self._postponed.append(message)

    def attributes(self, seen: Seen) -> dict[str, Any]:
        """Attributes of the store that is made with this step."""
        step = seen.step
        assert step is not None
        classes = [] if step.logits is None else [str(k) for k in range(step.logits.shape[1])]
        given = self._about.get("classes")
        if given and classes and len(given) != len(classes):
            raise GradscopeError(f"classes: got {len(given)} names, the guide has {len(classes)} classes")
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
            facts += trail.record.facts
            unseen |= trail.record.missing
        if facts["without_gradient"]:
            unseen["gradient"] = f"the loop took none at {facts['without_gradient']} of {facts['steps']} steps"
        return {"unseen": json.dumps(unseen), "seen": json.dumps(facts), "problems": json.dumps(self.problems)}

    def _tell_what_was_not_seen(self) -> None:
        facts: Counter[str] = Counter()
        for trail in self._trails.values():
            facts += trail.record.facts
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
        elif self._guide is not None and not facts["guide_calls"]:
            self.warn(
                f"guide: {type(self._guide).__name__} never ran inside the watch; give the module that the loop calls "
                "as a function (a call of .forward, or a __call__ of its own, passes hooks by)"
            )
        elif not facts["gradients"] and not facts["undecidable"]:
            self.warn(
                f"no gradient was seen in {facts['evaluations']} evaluations of {denoiser}, so nothing is recorded; a "
                "guide must be a module that the loop calls (guide=...), and classifier-free guidance needs a scale "
                "above 1 and the scheduler that the loop steps"
            )


def _without_graph(see: Callable[[], Any]) -> Any:
    """Call a function in the loop's place, without autograd, and outside of inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return see()


def checked_labels(labels: Any) -> Tensor:
    """Target classes as a tensor, ``(n,)``, int64.

    Raises
    ------
    GradscopeError
        They are no whole numbers, one for each sample.
    """
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError) as error:
        raise GradscopeError(f"labels: one whole number for each sample, got {labels!r:.80}") from error
    if found.ndim != 1 or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise GradscopeError(
            f"labels: one whole number for each sample, got {str(found.dtype).removeprefix('torch.')} of shape "
            f"{tuple(found.shape)}"
        )
    return found.detach().cpu().long()
