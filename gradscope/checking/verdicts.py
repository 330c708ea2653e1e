"""The verdicts of `gradscope.check`: names, meanings, and advice."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["right", "fault", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """One answer to "is my gradient right?"."""

    name: str
    kind: Kind
    """``right``: no fault was found. ``fault``: the gradient is not that of the energy. ``undecided``: nothing could be
    compared."""
    meaning: str
    """In one sentence, where g is the gradient of the energy and c the one that the code uses."""
    advice: str
    needs: tuple[str, ...] = ()
    """Arguments of `check`, or ``check_loop``, without which it is not tested."""


_ALL = (
    Verdict("right", "right", "c = g within rounding, for every sample.", "Nothing to change."),
    Verdict(
        "flat", "right",
        "Both c and g are zero within rounding, so nothing was compared.",
        "Check at another x_t or timestep, where the energy changes with x_t.",
    ),
    Verdict(
        "undecided", "undecided",
        "Rounding of the energy hides its derivative.",
        "Give an energy that runs in float64, and pass the modules that it calls (denoiser=, guide=).",
    ),
    Verdict(
        "wrong_sign", "fault", "c = -g, or a negative multiple of g.",
        "Turn the sign: a log-probability is ascended, a loss descended, once.",
    ),
    Verdict(
        "doubled", "fault", "c = 2 g.",
        "Look for a gradient that is added twice: `backward` without zeroed `grad`, or guidance in two places.",
    ),
    Verdict(
        "batch_mean", "fault", "c = g / n, where n is the size of the batch.",
        "Differentiate the sum over the batch, not its mean: samples are independent.",
    ),
    Verdict(
        "scaled", "fault", "c is g times a constant; `cause` says which one it probably is.",
        "Remove the factor, or declare it (guidance_scale=).",
    ),
    Verdict(
        "scaled_by_sample", "fault", "c is g times a factor that differs between samples.",
        "Look for a division by a number of the sample (its loss, its norm, its probability).",
    ),
    Verdict(
        "probability", "fault", "c is the gradient of exp(energy): of p instead of log p.",
        "Differentiate log_softmax, not softmax: the gradient of p vanishes where p is small.",
    ),
    Verdict(
        "normalized", "fault", "c is g divided by its norm, which was not declared.",
        "Declare it (normalize=\"l2\"), or remove the normalisation: it discards how strongly the guide pulls.",
    ),
    Verdict(
        "sign_only", "fault", "c has the signs of g, and one magnitude.",
        "Remove `sign()`, which belongs to adversarial attacks.",
    ),
    Verdict(
        "not_normalized", "fault", "c = g, though normalisation was declared (normalize=\"l2\").",
        "Normalise after the gradient, per sample, or declare normalize=\"none\".",
    ),
    Verdict(
        "zero", "fault", "c is zero, though g is not.",
        "Look for detach(), torch.no_grad(), .data, argmax or rounding between x_t and the loss.",
    ),
    Verdict(
        "not_finite", "fault", "c has NaN or infinite elements.",
        "Look for roots, logarithms and divisions at zero, and for float16.",
    ),
    Verdict(
        "random", "fault", "Two calls at the same x_t give different gradients.",
        "Put the modules into eval mode; fix the generator of an estimator that draws noise, or check its mean.",
    ),
    Verdict(
        "float16_underflow", "fault", "c holds float16 numbers, and zeros where g is below float16's range.",
        "Take the gradient in float32, or scale the loss up and the gradient down again.",
    ),
    Verdict(
        "saturated", "fault",
        "In float64 the same code gives g; in its own type the gradient is lost in rounding.",
        "The guide is certain: 1 - p rounds to 0; or the gradient is a small difference of large numbers. Take it in "
        "float64, or of the margin z_y - logsumexp(others); a tempered or noise-aware guide saturates later.",
    ),
    Verdict(
        "batch_mixed", "fault", "The gradient of one sample depends on other samples.",
        "Look for batch statistics (BatchNorm in training mode), a norm over the whole batch, or a wrong dimension.",
    ),
    Verdict(
        "rows_permuted", "fault", "c has the rows of g in another order.",
        "Look for a reversed, rolled or sorted batch, or two halves in another order.",
    ),
    Verdict(
        "wrong_timestep", "fault", "c is the gradient at another timestep; `cause` says which.",
        "Pass the timestep itself, not its index in the schedule nor the next one.",
    ),
    Verdict(
        "stale_x", "fault", "c is the gradient at the x_t of the step before.",
        "Take the gradient after x_t was updated: look for a variable that keeps the old tensor.",
        ("previous",),
    ),
    Verdict(
        "at_mean", "fault", "c is the gradient at the predicted mean of x_{t-1}.",
        "Evaluate at x_t. Both forms are in use (guided-diffusion evaluates at x_t, algorithm 1 of arXiv 2105.05233 at "
        "the mean); declare the one that is meant.",
        ("denoiser", "scheduler"),
    ),
    Verdict(
        "at_another_point", "fault", "c is the gradient at another point than x_t; `cause` says which.",
        "Evaluate the guide where the energy does.",
    ),
    Verdict(
        "at_x0", "fault", "c is the derivative with respect to x0-hat, not x_t.",
        "Keep x_t and x0-hat in two variables, and pass x_t to autograd.grad.",
        ("denoiser", "scheduler"),
    ),
    Verdict(
        "jacobian_missing", "fault",
        "c is the gradient with the denoiser's output held constant, which was not declared.",
        "Remove detach() or no_grad() around the denoiser, or declare classifier_input=\"x0_detached\".",
        ("denoiser",),
    ),
    Verdict(
        "jacobian_present", "fault",
        "c passes through the denoiser, though classifier_input=\"x0_detached\" was declared.",
        "Detach the denoiser's output, or declare classifier_input=\"x0\".",
        ("denoiser",),
    ),
    Verdict(
        "wrong_target", "fault", "c is the gradient for other labels; `cause` says which.",
        "Check the order, the offset and the null label of the labels.",
        ("guide",),
    ),
    Verdict(
        "logit", "fault", "c is the gradient of the target's logit, not of its log-probability.",
        "Apply log_softmax before the target is selected.",
        ("guide",),
    ),
    Verdict(
        "wrong_range", "fault", "The guide gets images in another range; `cause` says which.",
        "Map x0-hat to the range that the guide was trained on, once.",
        ("guide",),
    ),
    Verdict(
        "dead_by_clamping", "fault", "c is zero where a clamp cuts, and the energy has no such clamp.",
        "Clamp without a gradient (straight-through), clamp later, or declare the clamp in the energy.",
        ("guide",),
    ),
    Verdict(
        "clamp_missing", "fault", "c is the gradient without the clamp of x0-hat that the energy has.",
        "Clamp x0-hat before the guide as the energy does.",
        ("denoiser", "scheduler", "guide"),
    ),
    Verdict(
        "noise_before_gradient", "fault", "c is the gradient at the samples after the step, noise included.",
        "Take the gradient before the step adds its noise, or declare the other order.",
        ("denoiser", "scheduler"),
    ),
    Verdict(
        "shift_misdirected", "fault", "The gradients are right, but the shift of the samples is not along them.",
        "Look between gradient and step: a clamp after guidance, a second scheduler step, a mask, a projection. "
        "Declare a stabiliser (stabilizer=).",
        ("loop",),
    ),
    Verdict(
        "order", "fault", "The shift follows from the gradients in another order of operations; `cause` says which.",
        "Apply the stabiliser to the raw gradients, keep its state from step to step, then normalise.",
        ("stabilizer",),
    ),
    Verdict(
        "clamped_twice", "fault", "c is what a clamp of x0-hat after guidance leaves of g.",
        "Clamp x0-hat before guidance only: where it is at the bound, a second clamp takes the push away, and in an "
        "epsilon step it can turn it.",
        ("denoiser", "scheduler"),
    ),
    Verdict(
        "not_the_gradient", "fault", "c is not g, and no tested cause fits.",
        "Pass denoiser=, scheduler=, guide= and previous= so that more causes are tested.",
    ),
)  # fmt: skip

VERDICTS = {verdict.name: verdict for verdict in _ALL}
"""By name, in the order of the documentation."""
