"""`gradscope.check`: is a gradient of guidance right, that is the gradient of its energy."""

import math
from typing import Any

from torch import Tensor, nn

from gradscope.checking.arguments import require_process, require_state
from gradscope.checking.calls import Energy, claimed
from gradscope.checking.case import Case, Declared
from gradscope.checking.checked import Checked
from gradscope.checking.judge import judge
from gradscope.checking.measure import Measure
from gradscope.checking.modules import modules_of
from gradscope.checking.untouched import Wide, untouched
from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.stabilizers import Stabilizer
from gradscope.watching.process import Process
from gradscope.watching.watched import checked_labels

INPUTS = ("x_t", "x0", "x0_detached")
NORMS = ("none", "l2")


def check(
    cond_fn: Energy,
    energy: Energy,
    x_t: Tensor,
    t: Any,
    *,
    denoiser: nn.Module | None = None,
    scheduler: Any = None,
    guide: nn.Module | None = None,
    labels: Any = None,
    previous: tuple[Tensor, Any] | None = None,
    classifier_input: str | None = None,
    normalize: str = "none",
    stabilizer: Stabilizer | None = None,
    state: Any = None,
    guidance_scale: float = 1.0,
    alphas_cumprod: Any = None,
    prediction_type: str | None = None,
    seed: int = 0,
) -> Checked:
    """Check a gradient of guidance against finite differences of its energy, and name the fault.

    Parameters
    ----------
    cond_fn
        ``cond_fn(x, t)``: the gradient that the code really uses, of the shape of x.
    energy
        ``energy(x, t)``: what is declared to be ascended, ``(n,)``, for example log p(y | x_t). A black box is enough;
        with autograd and in float64 (PyTorch modules) the check is sharper. Samples must not depend on each other.
    x_t
        Noisy samples, ``(n, *sample)``, floating point. Several (4 to 16) say more than one.
    t
        Their timestep, in the form in which both functions take it: a number, or ``(n,)``.
    denoiser
        The module that energy and cond_fn call: its output is held constant, its timestep changed.
    scheduler
        A diffusers scheduler, or any object with ``alphas_cumprod``; its ``timesteps``, if it has some, are the loop's.
    guide
        The module that the energy calls last: a classifier that gives logits, or an energy.
    labels
        Its targets, ``(n,)``. Without them they are read off the energy.
    previous
        ``(x, t)`` of the step before, to find stale values.
    classifier_input
        What is declared: ``x0_detached`` says that the denoiser's Jacobian is left out by design. Default: the gradient
        is that of the energy.
    normalize
        ``l2`` if cond_fn is declared to normalise each sample's gradient, else ``none``.
    stabilizer, state
        The stabiliser that cond_fn is declared to apply before it normalises, one of `gradscope.stabilizers`, and what
        it holds before this step. Default: no stabiliser; the state before the first step.
    guidance_scale
        Factor that cond_fn is declared to multiply by.
    alphas_cumprod, prediction_type
        In place of the scheduler's.
    seed
        Seed of the random directions.

    Returns
    -------
    Checked
        The verdict with evidence, advice and confidence.

    Raises
    ------
    GradscopeError
        An argument cannot be used, a function raises or gives something else than described, or the energy mixes the
        samples of a batch.

    Examples
    --------
    >>> def energy(x, t):
    ...     return -0.5 * x.square().sum(dim=1)
    >>> gradscope.check(lambda x, t: x, energy, torch.ones(4, 3), 10).verdict
    'wrong_sign'
    """
    if not isinstance(x_t, Tensor) or not x_t.is_floating_point() or x_t.ndim < 2 or not x_t.numel():
        got = f"{x_t.dtype} of shape {tuple(x_t.shape)}" if isinstance(x_t, Tensor) else type(x_t).__name__
        raise GradscopeError(f"x_t: takes floating-point samples (n, *sample), got {got}")
    if not bool(x_t.isfinite().all()):
        raise GradscopeError("x_t: it has values that are not finite")
    for name, function in (("cond_fn", cond_fn), ("energy", energy)):
        if not callable(function):
            raise GradscopeError(f"{name}: takes a function of (x, t), got {type(function).__name__}")
    for name, module in (("denoiser", denoiser), ("guide", guide)):
        if module is not None and not isinstance(module, nn.Module):
            raise GradscopeError(f"{name}: takes a torch.nn.Module, got {type(module).__name__}")
    if classifier_input not in (None, *INPUTS):
        raise GradscopeError(f"classifier_input: got {classifier_input!r}; {one_of(classifier_input, INPUTS)}")
    if normalize not in NORMS:
        raise GradscopeError(f"normalize: got {normalize!r}; {one_of(normalize, NORMS)}")
    if not isinstance(guidance_scale, int | float) or not guidance_scale or not math.isfinite(guidance_scale):
        raise GradscopeError(f"guidance_scale: takes a finite number other than 0, got {guidance_scale!r:.80}")
    if stabilizer is not None and not isinstance(stabilizer, Stabilizer):
        raise GradscopeError(f"stabilizer: takes one of gradscope.stabilizers, got {type(stabilizer).__name__}")
    if classifier_input == "x0_detached" and denoiser is None:
        raise GradscopeError("denoiser: x0_detached holds its output constant, so it is needed")
    if previous is not None and not (
        isinstance(previous, tuple) and len(previous) == 2 and isinstance(previous[0], Tensor)
    ):
        raise GradscopeError("previous: takes (x, t) of the step before")
    if previous is not None and previous[0].shape != x_t.shape:
        raise GradscopeError(f"previous: x must have the shape {tuple(x_t.shape)}, got {tuple(previous[0].shape)}")
    label = None if labels is None else checked_labels(labels)
    if label is not None and len(label) != len(x_t):
        raise GradscopeError(f"labels: got {len(label)} for {len(x_t)} samples")
    whole_number(seed, "seed")
    require_process(scheduler, alphas_cumprod, prediction_type)
    require_state(stabilizer, state, x_t)
    known = scheduler is not None or alphas_cumprod is not None
    x_t = x_t.detach()
    modules = [*modules_of([cond_fn, energy]), *(module for module in (denoiser, guide) if module is not None)]
    with untouched(modules):
        claim = claimed(cond_fn, x_t, t)
        measure = Measure(energy, x_t, t, Wide(modules), seed)
        case = Case(
            cond_fn=cond_fn,
            energy=energy,
            x_t=x_t,
            t=t,
            claim=claim,
            declared=Declared(classifier_input, normalize, float(guidance_scale), stabilizer, state),
            measure=measure,
            denoiser=denoiser,
            guide=guide,
            labels=None if label is None else label.to(x_t.device),
            process=Process(scheduler, alphas_cumprod, None, None, prediction_type) if known else None,
            previous=previous,
        )
        return judge(case)
