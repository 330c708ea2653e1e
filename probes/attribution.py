"""How well the gradient explains the guide nearby: captum's measures of arXiv 1901.09392."""

import torch
from torch import Tensor

from probes.catalogue import CATALOGUE
from probes.differentiation import gradient
from probes.probe import Probe
from probes.step import GuidedStep


class Attribution(Probe):
    """How much the gradient changes nearby, and how well it predicts the objective nearby.

    Parameters
    ----------
    draws
        Perturbations of x_t for each measure. Both measures together cost ``draws + 1`` gradients and ``draws + 1``
        further forward passes.
    radius
        Half the side of the cube that `sensitivity_max` draws from, and standard deviation of the Gaussian noise of
        `infidelity`, in the units of x_t.

    Examples
    --------
    The gradient of a linear objective does not change, and predicts the objective exactly.

    >>> def objective(x, label):
    ...     return x.flatten(1).sum(dim=1)
    >>> x_t, label = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    >>> step = GuidedStep(
    ...     step=0, timestep=999, x_t=x_t, gradient=torch.ones_like(x_t), label=label, objective=objective
    ... )
    >>> values, _ = Attribution().measure(step, None)
    >>> values["sensitivity_max"]
    tensor([0., 0.])
    >>> values["infidelity"].max() < 1e-9
    tensor(True)
    """

    needs = ("gradient", "label", "objective")
    of_guide = True
    variables = (
        CATALOGUE["sensitivity_max"],
        CATALOGUE["infidelity"],
    )

    def __init__(self, draws: int = 4, radius: float = 0.02) -> None:
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        if not 0 < radius < float("inf"):
            raise ValueError(f"radius must be finite and above 0, got {radius}")
        self.draws, self.radius = draws, radius

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        from captum.metrics import infidelity, sensitivity_max  # here: captum loads matplotlib

        assert step.label is not None
        assert step.objective is not None
        objective, label = step.objective, step.label
        generator = torch.Generator().manual_seed(step.step)  # captum's default draws use torch's global generator
        # Contiguous, because captum makes views; float64, because squares may underflow in float32.
        x_t = step.x_t.contiguous()
        options = {"n_perturb_samples": self.draws, "max_examples_per_batch": len(x_t)}

        # Captum asks about x_t again and again.
        at_x_t = gradient(objective, x_t, label).double().contiguous()
        value_at_x_t = objective(x_t, label).double()

        def explain(inputs: tuple[Tensor]) -> tuple[Tensor]:
            x = inputs[0]
            return (at_x_t if x.equal(x_t) else gradient(objective, x, label).double().contiguous(),)

        def value(x: Tensor) -> Tensor:
            return value_at_x_t if x.equal(x_t) else objective(x, label).double()

        def in_cube(x: Tensor) -> tuple[Tensor]:
            return (x + torch.empty(x.shape).uniform_(-self.radius, self.radius, generator=generator).to(x),)

        def normal(x: Tensor) -> tuple[Tensor, Tensor]:
            noise = self.radius * torch.randn(x.shape, generator=generator).to(x)
            return noise, x - noise

        sensitivity = sensitivity_max(explain, x_t, in_cube, **options)
        nonzero = at_x_t.flatten(1).any(dim=1)  # captum divides by 1 for a zero gradient
        explained = step.gradient.double().contiguous()
        error = infidelity(value, normal, x_t, explained, **options)
        return {"sensitivity_max": sensitivity.where(nonzero, torch.nan).float(), "infidelity": error.float()}, state
