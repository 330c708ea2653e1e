"""Hooks on the loop's models and on autograd's graph."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradscope.errors import GradscopeError
from gradscope.watching.calls import copied, number, sample_of, tensor_of, time_of
from gradscope.watching.evaluation import Evaluation, GuideCall, Point
from gradscope.watching.graph import Origin, Passage, origins
from gradscope.watching.scheduler_step import Taken, remember, replaced_step, taken
from gradscope.watching.trail import Trail


class Watching(Protocol):
    """What hooks need of the watch."""

    def trail(self) -> Trail:
        """The evaluations of the cell that the loop is in."""
        ...

    def guarded(self, see: Callable[[], Any]) -> Any:
        """Call a function; an error ends the watch, not the loop."""
        ...


@contextmanager
def hooked(watch: Watching, denoiser: nn.Module, guide: nn.Module | None, scheduler: Any) -> Iterator[None]:
    """Hooks on all that is given; on leaving they are removed. Those on tensors belong to their evaluation."""
    with ExitStack() as stack:
        for handle in _on_denoiser(watch, denoiser):
            stack.callback(handle.remove)
        for handle in () if guide is None else _on_guide(watch, guide):
            stack.callback(handle.remove)
        if callable(getattr(scheduler, "step", None)):
            stack.enter_context(_on_scheduler(watch, scheduler))
        yield


class _Hook:
    """A hook of a module. Copies of the module, and files that it is saved to, get one that does nothing."""

    def __init__(self, see: Callable[..., None]) -> None:
        self._see = torch.compiler.disable(see)

    def __call__(self, *arguments: Any) -> None:
        self._see(*arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return nothing

    def __reduce__(self) -> Any:
        return _nothing, ()


def nothing(*arguments: Any) -> None:
    """A hook that does nothing."""


def _nothing() -> Callable[..., None]:
    return nothing


def _on_denoiser(watch: Watching, denoiser: nn.Module) -> list[RemovableHandle]:
    inside: list[Evaluation | None] = []

    def before(module: nn.Module, arguments: Any, named: Any) -> None:
        def see() -> Evaluation:
            x = sample_of(arguments, named)
            if x is None:
                raise GradscopeError(f"denoiser: {type(module).__name__} was called without a tensor of samples")
            evaluation = watch.trail().denoise(x, number(time_of(arguments, named, len(x))))
            for origin in origins(x):
                _on_point(watch, evaluation, origin)
            if x.grad_fn is not None:
                _on_point(watch, evaluation, Origin(x, False))
            return evaluation

        inside.append(None if _in_backward() else watch.guarded(see))

    def after(module: nn.Module, arguments: Any, named: Any, result: Any) -> None:
        evaluation = inside.pop() if inside else None

        def see() -> None:
            output, x = tensor_of(result), sample_of(arguments, named)
            if evaluation is None or x is None:
                return
            if output is None:
                raise GradscopeError(f"denoiser: {type(module).__name__} gave no tensor, but {type(result).__name__}")
            evaluation.add_output(x, output)
            if output.grad_fn is not None:
                evaluation.passages.append(Passage(output.grad_fn, x))

        watch.guarded(see)

    return [
        denoiser.register_forward_pre_hook(_Hook(before), with_kwargs=True),
        denoiser.register_forward_hook(_Hook(after), with_kwargs=True),
    ]


def _on_guide(watch: Watching, guide: nn.Module) -> list[RemovableHandle]:
    inside: list[tuple[Evaluation, GuideCall] | None] = []

    def before(module: nn.Module, arguments: Any, named: Any) -> None:
        def see() -> tuple[Evaluation, GuideCall] | None:
            trail = watch.trail()
            trail.record.facts["guide_calls"] += 1
            x = sample_of(arguments, named)
            if x is None:
                raise GradscopeError(f"guide: {type(module).__name__} was called without a floating-point tensor")
            if not has_graph or not x.requires_grad:
                return None  # it is only asked, for example for its opinion
            evaluation = trail.guide()
            call = GuideCall(copied(x))
            evaluation.guide_calls.append(call)
            for origin in origins(x, evaluation.passages):
                _on_point(watch, evaluation, origin, call)
            if x.grad_fn is not None:
                evaluation.handles.append(x.register_hook(_keep(watch, call, "gradient", counts=True)))
            return evaluation, call

        has_graph = torch.is_grad_enabled()
        inside.append(None if _in_backward() else watch.guarded(see))

    def after(module: nn.Module, arguments: Any, named: Any, result: Any) -> None:
        seen = inside.pop() if inside else None

        def see() -> None:
            output = tensor_of(result)
            if seen is None or output is None:
                return
            evaluation, call = seen
            call.output = copied(output)
            if output.requires_grad:
                evaluation.handles.append(output.register_hook(_keep(watch, call, "of_output")))

        watch.guarded(see)

    return [
        guide.register_forward_pre_hook(_Hook(before), with_kwargs=True),
        guide.register_forward_hook(_Hook(after), with_kwargs=True),
    ]


def _on_point(watch: Watching, evaluation: Evaluation, origin: Origin, call: GuideCall | None = None) -> None:
    """Keep every gradient that autograd gives a tensor; for `backward`, what it has summed up in ``grad``."""
    point, tensor = evaluation.add_point(origin, call), origin.leaf
    if point is None:
        return
    evaluation.handles.append(tensor.register_hook(_keep(watch, point, "gradient", counts=True)))
    if tensor.is_leaf:
        evaluation.handles.append(tensor.register_post_accumulate_grad_hook(_keep_sum(watch, point)))


def _keep(watch: Watching, record: Any, name: str, counts: bool = False) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        def see() -> None:
            setattr(record, name, copied(gradient))
            if counts:
                record.count += 1

        watch.guarded(see)

    return keep


def _keep_sum(watch: Watching, point: Point) -> Callable[[Tensor], None]:
    def keep(leaf: Tensor) -> None:
        def see() -> None:
            if leaf.grad is not None:
                point.gradient, point.count = copied(leaf.grad), 1

        watch.guarded(see)

    return keep


def _in_backward() -> bool:
    """Whether autograd's backward pass runs: gradient checkpointing calls modules again in it."""
    running: int = torch._C._current_graph_task_id()
    return running != -1


@contextmanager
def _on_scheduler(watch: Watching, scheduler: Any) -> Iterator[None]:
    def before(arguments: Any) -> Taken | None:
        def see() -> Taken | None:
            seen = taken(arguments)
            if seen is not None:
                remember(scheduler, seen)
            return seen

        found: Taken | None = watch.guarded(see)
        return found

    def after(seen: Taken | None, result: Any) -> None:
        def see() -> None:
            if seen is None:
                return
            output = tensor_of(result)
            seen.prev_sample = None if output is None else copied(output)
            counted = getattr(scheduler, "step_index", None)
            seen.index = None if counted is None else int(counted) - 1
            watch.trail().stepped(seen)

        watch.guarded(see)

    with replaced_step(scheduler, before, after):
        yield
