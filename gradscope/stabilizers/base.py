"""What a stabiliser is."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Stabilizer:
    """Base of all stabilisers; fields are settings."""

    def init(self, x_T: Tensor) -> Any:
        """State before the first step, for samples of the shape of x_T."""
        raise NotImplementedError

    def update(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The update for this gradient, of its shape, and the next state."""
        raise NotImplementedError
