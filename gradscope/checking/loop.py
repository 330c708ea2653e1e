"""`gradscope.check_loop`: is the guidance of a whole loop right."""

import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.checking.arguments import require_process
from gradscope.checking.calls import Energy, values
from gradscope.checking.case import Case, Declared
from gradscope.checking.check import INPUTS, NORMS
from gradscope.checking.checked import Checked, shown
from gradscope.checking.judge import judge
from gradscope.checking.measure import Measure
from gradscope.checking.modules import modules_of
from gradscope.checking.shifts import shift_verdicts, turned
from gradscope.checking.steps import KeptSteps
from gradscope.checking.untouched import Wide, untouched
from gradscope.errors import GradscopeError, GradscopeWarning, one_of, whole_number
from gradscope.stabilizers import Stabilizer
from gradscope.watching.process import Process
from gradscope.watching.watch import watch
from gradscope.watching.watched import Watched, checked_labels
from probes import GuidedStep

_UNSEEN = (
    "only the gradients were checked, since no scheduler stepped: the sign, size and order of the push are open; "
    "give gradscope.check what the loop adds"
)
_OF_NUMBERS = ("saturated", "float16_underflow")
"""Verdicts on the type of numbers, not on formulas."""


@dataclass(frozen=True)
class CheckedLoop(Checked):
    """The answer of `gradscope.check_loop`: that of most steps, and each step's own."""

    steps: tuple[tuple[float, Checked], ...] = field(default=(), repr=False)
    """Timestep and answer of each step that was checked, in sampling order."""


def check_loop(
    loop: Callable[[], Any],
    energy: Energy,
    *,
    denoiser: nn.Module,
    guide: nn.Module | None = None,
    scheduler: Any = None,
    labels: Any = None,
    alphas_cumprod: Any = None,
    timesteps: Sequence[float] | None = None,
    prediction_type: str | None = None,
    minimize: bool | None = None,
    classifier_input: str | None = None,
    normalize: str = "none",
    stabilizer: Stabilizer | None = None,
    factor: float | Callable[[float], float] | None = None,
    steps: int = 5,
    seed: int = 0,
) -> CheckedLoop:
    """Run a sampling loop once, unchanged, and check the gradients that hooks see, and what the steps do with them.

    Parameters
    ----------
    loop
        A function without arguments that samples one batch. Its modules are watched by hooks, see `gradscope.watch`.
    energy
        ``energy(x, t)``: what the loop is declared to ascend, ``(n,)``; t is a number, or ``(n,)`` if it takes only
        that.
    denoiser, guide, scheduler, labels, alphas_cumprod, timesteps, prediction_type, minimize
        As `gradscope.watch` takes them.
    classifier_input, normalize
        As `gradscope.check` takes them; ``normalize`` is what the loop declares to do after the stabiliser.
    stabilizer
        The stabiliser that the loop declares; `gradscope.stabilizers` has some. Default: none.
    factor
        The factor between direction and shift, if it is declared: a number, or a function of the timestep.
    steps
        Number of steps that are checked, evenly spaced.
    seed
        Seed of the random directions.

    Returns
    -------
    CheckedLoop
        The verdict of most faulty steps, and ``steps``.

    Raises
    ------
    GradscopeError
        An argument cannot be used, or hooks saw no gradient.

    Examples
    --------
    >>> def energy(x, t):
    ...     return classifier(x).log_softmax(dim=1)[range(4), range(4)]
    >>> found = gradscope.check_loop(my_loop, energy, denoiser=unet, guide=classifier, scheduler=scheduler)
    >>> found.verdict
    'right'
    """
    _require(loop, energy, classifier_input, normalize, stabilizer)
    whole_number(steps, "steps", least=1)
    require_process(scheduler, alphas_cumprod, prediction_type)
    if scheduler is None and timesteps is None and alphas_cumprod is None:
        raise GradscopeError(
            "timesteps: those of the loop are not known; give timesteps=, alphas_cumprod= or scheduler="
        )
    label = None if labels is None else checked_labels(labels)
    if timesteps is None and scheduler is None and alphas_cumprod is not None:
        timesteps = range(len(alphas_cumprod) - 1, -1, -1)
    process = Process(scheduler, alphas_cumprod, timesteps, None, prediction_type)
    with tempfile.TemporaryDirectory() as folder:
        settings = watch(
            str(Path(folder) / "loop.zarr"),  # never made: the steps are kept in memory
            denoiser=denoiser,
            guide=guide,
            scheduler=scheduler,
            alphas_cumprod=alphas_cumprod,
            timesteps=timesteps,
            prediction_type=prediction_type,
            labels=labels,
            minimize=minimize,
        )
        kept = KeptSteps(process)
        watched = Watched(
            settings.path, denoiser, guide, process, kept, labels=label, cell={}, minimize=minimize, repeats=0, about={}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GradscopeWarning)  # they are in `problems`
            with watched:
                loop()
    if not kept.blocks:
        why = "; ".join(watched.problems) or "no gradient was seen"
        raise GradscopeError(f"loop: {why}")
    seen, where = kept.blocks[0].steps, kept.blocks[0].where
    sign = turned(seen)
    chosen = sorted({round(i) for i in np.linspace(0, len(seen) - 1, min(steps, len(seen)))})
    make = _Cases(
        energy,
        Declared("x0_detached" if classifier_input == "x0_detached" else None),
        denoiser,
        guide,
        label,
        process if scheduler is not None or alphas_cumprod is not None else None,
        sign,
        seed,
    )
    found = [(seen[i].timestep, make.judged(seen, i)) for i in chosen]
    answer = _of_most(found)
    if answer.right and (shifts := shift_verdicts(seen, normalize, stabilizer, factor, sign)) is not None:
        name, cause, evidence = shifts
        answer = Checked(name, cause, {**answer.evidence, **evidence}, answer.confidence)
    unseen = all(step.shift is None and step.update is None for step in seen)
    remarks = [
        *answer.remarks,
        *([_UNSEEN] if answer.right and unseen else []),
        *(problem for problem in watched.problems if "cell" not in problem),
    ]
    if where in ("at_x0", "elsewhere"):
        remarks.append(f"hooks saw the gradient at {'x0-hat' if where == 'at_x0' else 'a tensor other than x_t'}")
    return CheckedLoop(
        answer.verdict,
        answer.cause,
        answer.evidence,
        answer.confidence,
        answer.others,
        tuple(remarks),
        answer.needs,
        tuple(found),
    )


def _require(
    loop: object, energy: object, classifier_input: str | None, normalize: str, stabilizer: Stabilizer | None
) -> None:
    for name, function in (("loop", loop), ("energy", energy)):
        if not callable(function):
            raise GradscopeError(f"{name}: takes a function, got {type(function).__name__}")
    if classifier_input not in (None, *INPUTS):
        raise GradscopeError(f"classifier_input: got {classifier_input!r}; {one_of(classifier_input, INPUTS)}")
    if normalize not in NORMS:
        raise GradscopeError(f"normalize: got {normalize!r}; {one_of(normalize, NORMS)}")
    if stabilizer is not None and not isinstance(stabilizer, Stabilizer):
        raise GradscopeError(f"stabilizer: takes one of gradscope.stabilizers, got {type(stabilizer).__name__}")


@dataclass(frozen=True)
class _Cases:
    """What the cases of a loop's steps have in common."""

    energy: Energy
    declared: Declared
    denoiser: nn.Module
    guide: nn.Module | None
    label: Tensor | None
    process: Process | None
    sign: float
    seed: int

    def judged(self, seen: Sequence[GuidedStep], i: int) -> Checked:
        """The answer of the step with this index."""
        step, before = seen[i], seen[i - 1] if i else None
        modules = [*modules_of([self.energy]), *(one for one in (self.denoiser, self.guide) if one is not None)]
        with untouched(modules):
            t = _time(self.energy, step)
            return judge(
                Case(
                    cond_fn=None,
                    energy=self.energy,
                    x_t=step.x_t,
                    t=t,
                    claim=self.sign * step.gradient,
                    declared=self.declared,
                    measure=Measure(self.energy, step.x_t, t, Wide(modules), self.seed),
                    denoiser=self.denoiser,
                    guide=self.guide,
                    labels=step.label if self.label is None else self.label.to(step.x_t.device),
                    process=self.process,
                    previous=None if before is None else (before.x_t, _like(t, before.timestep)),
                    following=_following(step, seen[i + 1] if i + 1 < len(seen) else None, t),
                )
            )


def _of_most(found: Sequence[tuple[float, Checked]]) -> Checked:
    """The answer of a loop: the fault and cause that explain most of the faulty steps."""
    decided = [(t, one) for t, one in found if one.verdict not in ("flat", "undecided")]
    faulty = [(t, one) for t, one in decided if not one.right]
    if not decided:
        return next((one for _, one in found if one.verdict == "undecided"), found[0][1])
    right = [one for _, one in decided if one.right]
    # Certain guides lose their numbers at some steps of any loop.
    lost = all(one.verdict in _OF_NUMBERS for _, one in faulty) and len(faulty) <= len(right)
    if not faulty or lost:
        notes = tuple(f"at timestep {t:g}: {one.title}" for t, one in faulty)
        return replace(right[0], remarks=right[0].remarks + notes)
    counts: Counter[tuple[str, str]] = Counter()
    for _, one in faulty:
        counts.update({(one.verdict, one.cause), *one.others})
    own = Counter((one.verdict, one.cause) for _, one in faulty)
    # A cause that explains few of the steps is one by chance.
    named = [key for key in counts if key[0] != "not_the_gradient" and 2 * counts[key] >= len(faulty)]
    best = max(named or counts, key=lambda key: (counts[key], own[key]))
    example = next((one for _, one in faulty if (one.verdict, one.cause) == best), faulty[0][1])
    others = tuple(key for key in counts if key != best and counts[key] == counts[best])
    note = f"{counts[best]} of {len(decided)} steps that say anything show it"
    if right:
        note += f"; {len(right)} are right"
    return replace(example, verdict=best[0], cause=best[1], others=others, remarks=(*example.remarks, note))


def _time(energy: Energy, step: GuidedStep) -> Any:
    """The step's timestep in a form that the energy takes."""
    t: Any = int(step.timestep) if step.timestep == int(step.timestep) else step.timestep
    try:
        with torch.no_grad():
            values(energy, step.x_t.clone(), t)
    except GradscopeError:
        return torch.full((len(step.x_t),), t, device=step.x_t.device)
    return t


def _like(t: Any, timestep: float) -> Any:
    """A timestep in the form of another one."""
    if isinstance(t, Tensor):
        return torch.full_like(t, timestep)
    return type(t)(timestep)


def _following(step: GuidedStep, after: GuidedStep | None, t: Any) -> list[tuple[str, Tensor, Any]]:
    """The points after a step, each with its name and timestep."""
    if step.prev_sample is None:
        return []
    times = [t] if after is None else [t, _like(t, after.timestep)]
    points = {"x after the step": step.prev_sample}
    if step.shift is not None:
        points = {"x after the noise, before the shift": step.prev_sample - step.shift} | points
    return [(f"{name}, at timestep {shown(time)}" if i else name, x, time)
            for name, x in points.items() for i, time in enumerate(times)]  # fmt: skip
