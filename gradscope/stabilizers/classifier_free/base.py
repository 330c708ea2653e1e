"""The interface of remedies for classifier-free guidance."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradscope.stabilizers.classifier_free.predictions import Predictions


@dataclass(frozen=True)
class Remedy:
    """Base of all remedies. Fields of a subclass are its settings, and its state is explicit.

    This is the interface of `gradscope.stabilizers.Stabilizer`, with the predictions as a further argument. A remedy
    works on differences of predictions, in the type that the predictions have. Most papers and diffusers' guiders take
    the denoiser's own output. `update_difference` does this; `update` says the same in terms of the gradient.
    """

    def init(self, x_T: Tensor) -> Any:
        """State before the first step, for samples of the shape of x_T, ``(n, ...)``."""
        return None

    def update(self, gradient: Tensor, state: Any, at: Predictions) -> tuple[Tensor, Any]:
        """The update for a gradient, and the next state.

        Parameters
        ----------
        gradient
            ``at.gradient``, or the update of what came before, ``(n, ...)``.
        state
            From `init` or from the step before.
        at
            The predictions, with scale, noise level and step.

        Returns
        -------
        Tensor
            Such that the guided epsilon is ``epsilon_u - noise * guidance_scale * update``, ``(n, ...)``.
        state
            For the next step.

        Raises
        ------
        ValueError
            At signal 0, where no gradient exists.
        """
        factor = at.per_gradient
        difference, state = self.update_difference(factor * gradient, state, at)
        return difference / factor, state

    def update_difference(self, difference: Tensor, state: Any, at: Predictions) -> tuple[Tensor, Any]:
        """As `update`, in the type of the predictions.

        Parameters
        ----------
        difference
            ``at.difference``, or the result of what came before, ``(n, ...)``.
        state
            From `init` or from the step before.
        at
            The predictions, with scale, noise level and step.

        Returns
        -------
        Tensor
            Such that the guided prediction is ``at.guided(difference)``, ``(n, ...)``.
        state
            For the next step.
        """
        raise NotImplementedError
