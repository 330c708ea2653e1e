"""The interface of stabilisers."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Stabilizer:
    """Base of all stabilisers. Fields of a subclass are its settings."""

    def init(self, x_T: Tensor) -> Any:
        """State before the first step, for samples of the shape of x_T, ``(n, ...)``."""
        raise NotImplementedError

    def update(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The update for a gradient, ``(n, ...)``, and the next state. The update has the gradient's shape.

        A gradient of a wider type than the state's gives an update of its own type.
        """
        raise NotImplementedError
