"""What Universal and TFG share: a gradient at x_t, and gradient steps at x0-hat.

The guide is asked about x0-hat once. One backward pass gives the gradient at x_t and the first step at x0-hat: K steps
take K passes of the guide in each direction, with the gradient at x_t or without.
"""

from collections.abc import Callable

from torch import Tensor

from gradscope.sampling.guidance.guides import Answer
from gradscope.sampling.guidance.view import View, leaf


def ascent(
    view: View, ask: Callable[[Tensor], Answer], at_x_t: bool, steps: int, rate: float
) -> tuple[Answer, Tensor | None, Tensor]:
    """The guide's answer at x0-hat, its gradient at x_t, and the sum of gradient steps at x0-hat.

    Parameters
    ----------
    view
        The step.
    ask
        The guide's answer at a clean sample, ``(n, *sample)``.
    at_x_t
        Whether the gradient at x_t is needed; otherwise it is None, and no backward pass reaches the denoiser.
    steps, rate
        Number and size of the steps.
    """
    x_0 = view.x_0
    assert x_0 is not None
    answer, moved = ask(x_0), x_0.detach()
    wanted = [view.x_t] * at_x_t + [x_0] * (steps > 0)
    found = view.gradients(answer.scores, wanted) if wanted else []
    for step in range(steps):
        if step == 0:
            slope = found[-1]
        else:
            at = leaf(moved)
            slope = view.gradient(ask(at).scores, at)
        moved = moved + rate * slope.to(moved)
    return answer, found[0] if at_x_t else None, moved.double() - x_0.detach().double()
