"""The table of diagnostics: name, equation, units, probe, axis, and the thresholds of failure signatures.

Probes, store, analysis, plots, dashboard and documentation all read this table. No torch here. A user's own probe
brings its own rows, which the store keeps as attributes of the variables.
"""

from collections.abc import Mapping
from dataclasses import replace

from probes.variable import TENSOR, Variable

LAG_PARTS = 28
"""Number of parts of diffusion time; `gradient_lag_cosine` compares gradients of neighbouring parts."""


def _rows(probe: str, *variables: Variable) -> list[Variable]:
    """Rows of the variables that one entry under ``probes`` records."""
    return [replace(variable, probe=probe) for variable in variables]


def _tensor(name: str, long_name: str, equation: str) -> list[Variable]:
    return _rows(name, Variable(name, long_name, equation, dims=TENSOR))


def norm_of(tensor: str) -> Variable:
    """The row for the l2 norm of a tensor of the step."""
    return Variable(f"{tensor}_norm", f"l2 norm of the {tensor}", f"|{tensor}|_2", logarithmic=True, low=0.0)


def cosine_of(tensor: str) -> Variable:
    """The row for the cosine of a tensor with itself at the previous step."""
    about = f"cosine similarity of the {tensor} with that of the previous step"
    return _cosine(f"{tensor}_cosine", about, f"cos({tensor}_t, {tensor}_prev)")


def cosine_between(first: str, second: str) -> Variable:
    """The row for the cosine of two tensors of one step."""
    about = f"cosine similarity of the {first} with the {second}"
    return _cosine(f"{first}_{second}_cosine", about, f"cos({first}, {second})")


def _cosine(name: str, long_name: str, equation: str) -> Variable:
    return Variable(name, long_name, equation, low=-1.0, high=1.0)


_TABLE = [
    *_tensor(
        "gradient",
        "gradient of the guide's objective with respect to x_t",
        "g_t = grad_{x_t} log p(y | c(x_t))",
    ),
    *_tensor("update", "gradient after the stabiliser", "u_t = stabilizer(g_t)"),
    *_tensor("direction", "update after normalisation", "u_t / |u_t|_2 or u_t"),
    *_tensor("x_t", "noisy sample before the step", "x_t"),
    *_tensor(
        "pred_original_sample",
        "predicted clean sample x0-hat",
        "(x_t - noise * model_output) / signal, clamped where the scheduler clips",
    ),
    *_rows(
        "cosines",
        replace(cosine_of("gradient"), headline=True),
        replace(
            _cosine(
                "gradient_lag_cosine",
                f"cosine similarity of the gradient with that about 1/{LAG_PARTS} of diffusion time earlier",
                f"cos(g_t, g_s), t and s the first steps in neighbouring parts of T / {LAG_PARTS} timesteps, NaN at "
                "the others",
            ),
            on_a_grid=True,
            headline=True,
            thresholds={"unstable": 0.4, "frozen": 0.9999},
        ),
        replace(cosine_of("update"), headline=True),
        replace(
            _cosine(
                "gradient_first_cosine",
                "cosine similarity of the gradient with the first one of the sample",
                "cos(g_t, g_first), first: the first step whose gradient is finite and not zero",
            ),
            thresholds={"reversing": -0.3},
        ),
        replace(cosine_between("update", "gradient"), thresholds={"unrelated_update": 0.2}),
        replace(
            _cosine(
                "score_cosine",
                "cosine similarity of the gradient with the unconditional score",
                "cos(gradient, -model_output)",
            ),
            thresholds={"against_prior": -0.2},
        ),
    ),
    *_rows(
        "belief",
        Variable(
            "log_prob",
            "guide's log-probability of the target class",
            "log softmax(f(c))[y] = logsigmoid(margin)",
            units="nat",
            high=0.0,
            headline=True,
        ),
        Variable(
            "margin",
            "target's logit against the logsumexp of the others",
            "f(c)[y] - log sum_{k != y} exp f(c)[k]",
            units="nat",
        ),
        Variable("entropy", "entropy of the guide's prediction", "-sum_k p_k log p_k", units="nat", low=0.0),
        Variable("predicted_class", "class that the guide predicts", "argmax_k f(c)[k]", dtype="int16", low=0.0),
    ),
    *_rows(
        "classifier_free",
        Variable(
            "guidance_weight",
            "scale of classifier-free guidance",
            "w in u + w (c - u); 1 is no guidance",
            headline=True,
        ),
        Variable(
            "gradient_parallel_norm",
            "norm of the gradient's part along the conditional prediction",
            "|<g_t, x0_c>| / |x0_c|, x0_c the conditional x0-hat",
            logarithmic=True,
            low=0.0,
        ),
        Variable(
            "gradient_perpendicular_norm",
            "norm of the gradient's part across the conditional prediction",
            "|g_t - <g_t, x0_c> x0_c / |x0_c|^2|",
            logarithmic=True,
            low=0.0,
        ),
        Variable(
            "prediction_change",
            "change of the predicted noise by the condition, relative to the noise",
            "|eps_c - eps_u| / |eps_u|",
            logarithmic=True,
            low=0.0,
        ),
    ),
    *_rows(
        "energy",
        Variable(
            "energy",
            "value of the guide's objective",
            "log p(y | c(x_t)), its logit, an energy E(x_t, t, x_0), or sum_k weight_k objective_k",
        ),
    ),
    *_rows(
        "norms",
        Variable("gradient_norm", "l2 norm of the gradient", "|gradient|_2", logarithmic=True, low=0.0, headline=True),
        Variable("update_norm", "l2 norm of the update", "|update|_2", logarithmic=True, low=0.0),
    ),
    *_rows(
        "strength",
        Variable(
            "effective_strength",
            "shift relative to the step's noise",
            "|shift|_2 / (noise_added * sqrt(elements)), by sigma_t where noise_added is 0, NaN where both are",
            logarithmic=True,
            low=0.0,
            headline=True,
            thresholds={"inert": 1e-3, "off_manifold": 1.0},
        ),
        replace(cosine_between("shift", "direction"), thresholds={"misdirected": 0.9}),
        Variable(
            "noise_added",
            "standard deviation of the noise that the step adds",
            "sd of prev_sample given x_t",
            low=0.0,
        ),
        Variable(
            "unguided",
            "guidance could not act",
            "1 where the gradient is not finite or the shift is undefined, else 0",
            dtype="int8",
            low=0.0,
            high=1.0,
        ),
    ),
    *_rows(
        "fractions",
        Variable(
            "clipped_fraction",
            "share of elements of pred_original_sample at the scheduler's clamp",
            "mean(|pred_original_sample| >= clip_range), 0 where the scheduler does not clip",
            low=0.0,
            high=1.0,
            thresholds={"dead_by_clipping": 0.9},
        ),
        Variable(
            "zero_fraction",
            "share of elements of the gradient that are exactly zero",
            "mean(gradient == 0)",
            low=0.0,
            high=1.0,
            thresholds={"sparse": 0.9},
        ),
    ),
    *_rows(
        "sensitivity",
        Variable(
            "gradient_lipschitz",
            "difference quotient of the gradient over successive steps",
            "|g_t - g_prev|_2 / |x_t - x_prev|_2",
            logarithmic=True,
            low=0.0,
        ),
        Variable(
            "unit_gradient_lipschitz",
            "difference quotient of the unit gradient over successive steps",
            "|g_t/|g_t| - g_prev/|g_prev||_2 / |x_t - x_prev|_2",
            logarithmic=True,
            low=0.0,
        ),
    ),
    *_rows(
        "spectrum",
        Variable(
            "high_frequency_share",
            "share of the gradient's spectral power above half the Nyquist frequency",
            "sum_{|f| > 1/4} |FFT(g)|^2 / sum_f |FFT(g)|^2, NaN for a zero gradient",
            low=0.0,
            high=1.0,
            thresholds={"high_frequency": 0.5},
        ),
        Variable(
            "radial_spectrum",
            "share of the gradient's spectral power by radial frequency",
            "sum_{|f| in bin} |FFT(g)|^2 / sum_f |FFT(g)|^2, NaN for a zero gradient",
            dims=("radial_frequency",),
            low=0.0,
            high=1.0,
        ),
    ),
    *_rows(
        "reference",
        replace(
            _cosine(
                "reference_cosine",
                "cosine similarity of the gradient with that of the reference classifier at x_t",
                "cos(g_t, grad_{x_t} log p_ref(y | x_t)), NaN where either is zero or not finite",
            ),
            thresholds={"misaligned": 0.05},
        ),
    ),
    *_rows(
        "snr",
        Variable(
            "gradient_snr",
            "signal-to-noise ratio of the gradient over draws of the forward noise",
            "|mean_k g_k|^2 / (tr cov(g_k) / K), g_k = grad objective(signal pred_original_sample"
            " + noise noise_k), unbiased covariance",
            low=0.0,
            thresholds={"noise_dominated": 2.0},
        ),
    ),
    *_rows(
        "attribution",
        Variable(
            "sensitivity_max",
            "largest relative change of the objective's gradient in a small cube around x_t",
            "max_k |grad objective(x_t + u_k) - grad objective(x_t)|_2 / |grad objective(x_t)|_2,"
            " u_k uniform in [-radius, radius], NaN for a zero gradient",
            low=0.0,
        ),
        Variable(
            "infidelity",
            "mean squared error of the change of the objective that the step's gradient predicts",
            "mean_k (<u_k, g_t> - (objective(x_t) - objective(x_t - u_k)))^2, u_k normal with sd radius",
            low=0.0,
        ),
    ),
    *_rows(
        "layers",
        Variable(
            "layer_activation_norm",
            "l2 norm of the layer's output",
            "|h|_2, NaN where it did not run",
            dims=("layer",),
            low=0.0,
        ),
        Variable(
            "layer_gradient_norm",
            "l2 norm of the gradient of the objective with respect to the layer's output",
            "|d objective / d h|_2, NaN where the backward pass does not reach the layer",
            dims=("layer",),
            low=0.0,
        ),
    ),
    Variable(
        "finite_fraction",
        "share of finite elements of the gradient",
        "mean(isfinite(gradient))",
        low=0.0,
        high=1.0,
    ),
    Variable(
        "nonfinite_source",
        "where a value that is not finite appears first",
        "0 nowhere, 1 x_t, 2 model_output, 3 logits or energy, 4 gradient",
        dtype="int8",
        low=0.0,
        high=4.0,
    ),
]

CATALOGUE: Mapping[str, Variable] = {variable.name: variable for variable in _TABLE}
"""Rows by name. `finite_fraction` and `nonfinite_source` are always recorded."""


def row(variable: Variable) -> Variable:
    """The table's row of the same name; a variable that is not in the table is returned as it is."""
    return CATALOGUE.get(variable.name, variable)


def threshold(signature: str) -> float:
    """The threshold of a failure signature.

    Examples
    --------
    >>> threshold("unstable")
    0.4
    """
    return next(v.thresholds[signature] for v in CATALOGUE.values() if signature in v.thresholds)
