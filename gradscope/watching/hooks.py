"""Hooks on the loop's models and on autograd's graph."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradscope.errors import GradscopeError
from gradscope.watching.calls import copied, number, sample_of, tensor_of, time_of
from gradscope.watching.evaluation import Evaluation, GuideCall
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


def _on_denoiser(watch: Watching, denoiser: nn.Module) -> list[RemovableHandle]:
    inside: list[Evaluation | None] = []

    def before(module: nn.Module, arguments: Any, named: Any) -> None:
        def see() -> Evaluation:
            x = sample_of(arguments, named)
            if x is None:
                raise GradscopeError(f"denoiser: {type(module).__name__} was called without a tensor of samples")
            evaluation = watch.trail().denoise(x, number(time_of(arguments, named)))
            for origin in origins(x):
                _on_leaf(watch, evaluation, origin)
            return evaluation

        inside.append(watch.guarded(see))

    def after(module: nn.Module, arguments: Any, named: Any, result: Any) -> None:
        def see() -> None:
            evaluation = inside.pop() if inside else None
            output, x = tensor_of(result), sample_of(arguments, named)
            if evaluation is None or x is None:
                return
            if output is None:
                raise GradscopeError(f"denoiser: {type(module).__name__} gave no tensor, but {type(result).__name__}")
            evaluation.add_output(output)
            if output.grad_fn is not None:
                evaluation.passages.append(Passage(output.grad_fn, x))

        watch.guarded(see)

    return [
        denoiser.register_forward_pre_hook(_eager(before), with_kwargs=True),
        denoiser.register_forward_hook(_eager(after), with_kwargs=True),
    ]


def _on_guide(watch: Watching, guide: nn.Module) -> list[RemovableHandle]:
    inside: list[tuple[Evaluation, GuideCall] | None] = []

    def before(module: nn.Module, arguments: Any, named: Any) -> None:
        def see() -> tuple[Evaluation, GuideCall] | None:
            x = sample_of(arguments, named)
            if x is None:
                raise GradscopeError(f"guide: {type(module).__name__} was called without a floating-point tensor")
            if not x.requires_grad:
                return None
            evaluation = watch.trail().guide(x)
            call = GuideCall(copied(x))
            evaluation.guide_calls.append(call)
            for origin in origins(x, evaluation.passages):
                _on_leaf(watch, evaluation, origin, of_guide=True, is_guide_input=origin.leaf is x)
            if x.grad_fn is not None:
                evaluation.handles.append(x.register_hook(_keep(watch, call, "gradient", counts=True)))
            return evaluation, call

        # A guide without a graph is only asked, for example for its opinion.
        inside.append(watch.guarded(see) if torch.is_grad_enabled() else None)

    def after(module: nn.Module, arguments: Any, named: Any, result: Any) -> None:
        def see() -> None:
            seen = inside.pop() if inside else None
            output = tensor_of(result)
            if seen is None or output is None:
                return
            evaluation, call = seen
            call.output = copied(output)
            if output.requires_grad:
                evaluation.handles.append(output.register_hook(_keep(watch, call, "of_output")))

        watch.guarded(see)

    return [
        guide.register_forward_pre_hook(_eager(before), with_kwargs=True),
        guide.register_forward_hook(_eager(after), with_kwargs=True),
    ]


def _on_leaf(
    watch: Watching,
    evaluation: Evaluation,
    origin: Origin,
    of_guide: bool = False,
    is_guide_input: bool = False,
) -> None:
    """Keep every gradient that autograd gives a leaf."""
    if evaluation.add_leaf(origin, of_guide, is_guide_input):
        leaf = evaluation.leaves[id(origin.leaf)]
        evaluation.handles.append(origin.leaf.register_hook(_keep(watch, leaf, "gradient", counts=True)))


def _keep(watch: Watching, record: Any, name: str, counts: bool = False) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        def see() -> None:
            setattr(record, name, copied(gradient))
            if counts:
                record.count += 1

        watch.guarded(see)

    return keep


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


def _eager(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook that torch.compile leaves alone."""
    disabled: Callable[..., None] = torch.compiler.disable(hook)
    return disabled
