"""What hooks saw of a watched loop, step by step; what they did not see, and what would show it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import xarray as xr

from gradscope.store.untrusted.checks import parsed

FIELDS: Mapping[str, tuple[str, ...]] = {
    "update": ("update_norm",),
    "shift": ("effective_strength", "shift_direction_cosine"),
    "x0-hat": ("zero_fraction",),  # its probe needs x0-hat, and it is a number wherever it was measured
    "target classes": ("log_prob",),
    "two predictions": ("guidance_weight",),
}
"""What a step may show besides the gradient, each with diagnostics that are numbers only where it was seen."""
_REASONS = {"shift": "shift", "x0-hat": "pred_original_sample", "target classes": "label"}
"""Key of the attribute ``unseen`` for a field."""
_NOT_OF_KIND = {
    "classifier": ("two predictions",),
    "energy": ("target classes", "two predictions"),
    "classifier_free": ("target classes",),
}
"""Fields that a kind of guidance does not have."""
_ADVICE = {
    "gradient": "Nothing, if the loop guides at some steps only. Otherwise give the module whose output it "
    "differentiates (guide=).",
    "update": "Nothing, if the loop has no stabiliser of its own. Otherwise call watched.update(u) after it, from the "
    "first step on.",
    "shift": "Give the object whose step the loop calls (scheduler=), and call watched.final(x) right after the loop.",
    "label": "Give labels=, or call watched.labels(y) in the block.",
    "pred_original_sample": "Give the scheduler, or alphas_cumprod= and prediction_type=.",
    "num_train_timesteps": "Give the scheduler, or alphas_cumprod=.",
    "image": "Call watched.final(x) right after the loop.",
    "further gradients": "Nothing: the store has the last gradient of each step. A loop that adds them up can "
    "differentiate the sum.",
}
FINAL = "final samples"
_WORDS = {
    "label": "target classes",
    "pred_original_sample": "x0-hat",
    "num_train_timesteps": "range of timesteps",
    "image": FINAL,
}
_COUNTED = {
    "evaluations": "evaluations",
    "calls": "calls of the denoiser",
    "guide_calls": "calls of the guide",
    "scheduler_steps": "steps of the scheduler",
    "gradients": "gradients",
    "repeated": "repeated evaluations at a timestep",
    "without_gradient": "evaluations without a gradient",
    "undecidable": "steps that could not be read",
}
_MOST, _LONGEST = 100, 2000
"""Texts of a store that are read, and their longest length: a store may be a stranger's."""


class Unseen(NamedTuple):
    """What was not seen at some step, or at all."""

    what: str
    why: str
    advice: str
    """What to do about it; may be empty."""


def is_watched(ds: xr.Dataset) -> bool:
    """Whether the store is of a watched loop."""
    return bool(ds.attrs.get("watched"))


def seen(ds: xr.Dataset) -> xr.Dataset:
    """Which steps show what: for each sample and timestep of each cell, whether it was seen.

    Parameters
    ----------
    ds
        A store of a watched loop, or the scalars of one.

    Returns
    -------
    xarray.Dataset
        ``gradient`` and those of `FIELDS` that the kind of guidance has; bool, over the dimensions of ``written``. A
        diagnostic that is not a number counts as not seen. A field is left out where the store has none of its
        diagnostics and does not say why, as with chosen probes.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> int(seen(synthetic.trajectories(samples=4, timesteps=5)).gradient.sum())
    20
    """
    gradient = ds["written"] > 0
    found = {"gradient": gradient}
    reasons = _embedded(ds, "unseen", dict)
    for name in fields(ds):
        known = [ds[diagnostic].notnull() for diagnostic in FIELDS[name] if diagnostic in ds]
        if known:
            found[name] = gradient & (known[0] | known[-1]).transpose(*gradient.dims)
        elif name == "update" or _REASONS.get(name) in reasons:
            found[name] = xr.zeros_like(gradient)
    return xr.Dataset(found)


def fields(ds: xr.Dataset) -> list[str]:
    """Those of `FIELDS` that the store's kind of guidance has."""
    left_out = _NOT_OF_KIND.get(str(ds.attrs.get("guidance_kind")), ())
    return [name for name in FIELDS if name not in left_out]


def counted(ds: xr.Dataset) -> dict[str, int]:
    """How often hooks saw what, in words; empty before the watch ends.

    Examples
    --------
    >>> counted(xr.Dataset(attrs={"seen": '{"scheduler_steps": 24, "mine": 1}'}))
    {'steps of the scheduler': 24}
    """
    facts = _embedded(ds, "seen", dict)
    return {words: facts[name] for name, words in _COUNTED.items() if type(facts.get(name)) is int}


def unseen(ds: xr.Dataset) -> list[Unseen]:
    """What was not seen, why, and what would show it.

    Examples
    --------
    >>> ds = xr.Dataset(attrs={"unseen": '{"image": "the final samples were not seen; call watched.final(x)"}'})
    >>> [(each.what, each.why) for each in unseen(ds)]
    [('update', 'the loop has no stabiliser, or does not call watched.update(u)'),
    ('final samples', 'the final samples were not seen')]
    """
    reasons = {str(name): str(why)[:_LONGEST] for name, why in [*_embedded(ds, "unseen", dict).items()][:_MOST]}
    if "update_norm" not in ds:
        reasons = {"update": "the loop has no stabiliser, or does not call watched.update(u)"} | reasons
    return [
        Unseen(
            _WORDS.get(name, name[:_LONGEST]), why.partition("; ")[0] if name in _ADVICE else why, _ADVICE.get(name, "")
        )
        for name, why in reasons.items()
    ]


def problems(ds: xr.Dataset) -> list[str]:
    """What could not be watched, in the sentences of the warnings.

    Examples
    --------
    >>> problems(xr.Dataset(attrs={"problems": '["labels: got 3 for a batch of 4, so they are not recorded"]'}))
    ['labels: got 3 for a batch of 4, so they are not recorded']
    """
    return [str(text)[:_LONGEST] for text in _embedded(ds, "problems", list)[:_MOST]]


def _embedded(ds: xr.Dataset, name: str, kind: type) -> Any:
    """An attribute that is JSON text; empty where it is missing or something else."""
    try:
        value = parsed(ds.attrs.get(name, ""), name)
    except (TypeError, ValueError):
        return kind()
    return value if isinstance(value, kind) else kind()
