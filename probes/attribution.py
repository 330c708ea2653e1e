"""The gradient as an explanation of the guide: captum's measures of arXiv 1901.09392."""

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
        Perturbations of x_t for each measure. Together they cost ``draws + 2`` gradients and ``2 * draws`` more forward
        passes.
    radius
        Half the side of the cube that `sensitivity_max` draws from, and standard deviation of the Gaussian noise of
        `infidelity`, in the units of x_t.
    """

    needs = ("gradient", "label", "objective")
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
        from captum.metrics import infidelity, sensitivity_max  # here: it loads matplotlib

        assert step.label is not None
        assert step.objective is not None
        objective, label = step.objective, step.label
        generator = torch.Generator().manual_seed(step.step)  # captum's own draws would move torch's global generator
        # Contiguous, for captum takes views; float64, whose range covers every float32 square.
        x_t = step.x_t.contiguous()
        options = {"n_perturb_samples": self.draws, "max_examples_per_batch": len(x_t)}

        def explain(inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (gradient(objective, inputs[0], label).double().contiguous(),)

        def in_cube(x: Tensor) -> tuple[Tensor]:
            return (x + torch.empty(x.shape).uniform_(-self.radius, self.radius, generator=generator).to(x),)

        def normal(x: Tensor) -> tuple[Tensor, Tensor]:
            noise = self.radius * torch.randn(x.shape, generator=generator).to(x)
            return noise, x - noise

        sensitivity = sensitivity_max(explain, x_t, in_cube, **options)
        nonzero = explain((x_t,))[0].flatten(1).any(dim=1)  # captum divides by 1 where the gradient is zero
        explained = step.gradient.double().contiguous()
        error = infidelity(lambda x: objective(x, label).double(), normal, x_t, explained, **options)
        return {"sensitivity_max": sensitivity.where(nonzero, torch.nan).float(), "infidelity": error.float()}, state
