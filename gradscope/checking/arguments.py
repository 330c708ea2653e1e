"""Arguments of the checks that are only used where a fault is looked for: refuse those that do not fit before that."""

from typing import Any

import torch
from torch import Tensor

from gradscope.errors import GradscopeError, one_of
from gradscope.sampling.process import PREDICTIONS
from gradscope.stabilizers import Stabilizer


def require_process(scheduler: Any, alphas_cumprod: Any, prediction_type: str | None) -> None:
    """Raise if a process cannot be read.

    Raises
    ------
    GradscopeError
        The scheduler is a name or a class, the table has other numbers than shares, or the prediction is unknown.
    """
    if scheduler is not None and (isinstance(scheduler, type) or not hasattr(scheduler, "__dict__")):
        raise GradscopeError(f"scheduler: takes an object with alphas_cumprod, got {scheduler!r:.80}")
    if prediction_type is not None and prediction_type not in PREDICTIONS:
        raise GradscopeError(f"prediction_type: got {prediction_type!r}; {one_of(prediction_type, PREDICTIONS)}")
    if alphas_cumprod is None:
        return
    try:
        table = torch.as_tensor(alphas_cumprod).double()
        fits = table.ndim == 1 and bool(((table >= 0) & (table <= 1)).all())
    except (TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        raise GradscopeError(
            f"alphas_cumprod: takes numbers in [0, 1], one for each training timestep, got {alphas_cumprod!r:.80}"
        )


def require_state(stabilizer: Stabilizer | None, state: Any, x: Tensor) -> None:
    """Raise if a stabiliser cannot hold this state for samples x.

    Raises
    ------
    GradscopeError
        It holds another type or shape.
    """
    if stabilizer is None or state is None:
        return
    if not _alike(state, stabilizer.init(x)):
        raise GradscopeError(
            f"state: takes what {type(stabilizer).__name__} holds for samples of shape {tuple(x.shape)}, as its init "
            f"and update return it, got {type(state).__name__}"
        )


def _alike(state: Any, fresh: Any) -> bool:
    """Whether two states have the same structure and shapes."""
    if isinstance(fresh, Tensor):
        return isinstance(state, Tensor) and state.shape == fresh.shape
    if isinstance(fresh, tuple):
        return type(state) is type(fresh) and len(state) == len(fresh) and all(map(_alike, state, fresh))
    return isinstance(state, type(fresh))
