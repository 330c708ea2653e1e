"""What a watched loop showed, and what follows for its findings."""

import json
from collections.abc import Mapping
from dataclasses import replace

import xarray as xr

from gradscope.analysis.cells import Cell
from gradscope.analysis.findings import Finding, cell_fields

NOT_AT_X_T = {"at_x0": "x0-hat", "elsewhere": "a tensor that is neither x_t nor x0-hat"}
"""Values of `classifier_input` for gradients that are not taken at x_t."""
_FIELDS = {
    "log_prob": "label",
    "margin": "label",
    "entropy": "label",
    "predicted_class": "label",
    "effective_strength": "shift",
    "shift_direction_cosine": "shift",
    "score_cosine": "pred_original_sample",
    "clipped_fraction": "pred_original_sample",
    "pred_original_sample": "pred_original_sample",
    "gradient_lag_cosine": "num_train_timesteps",
    "image": "image",
}
"""What the loop must show for a variable."""
_WITHOUT_LOGITS = {
    "classifier_free": "classifier-free guidance has no classifier, so no logits",
    "energy": "the guide is an energy, which has no logits",
}
_PREDICTIONS = {
    "unstable": "the difference of the two predictions changes its direction from one part of the run to the next: do "
    "both passes run in the same precision and mode? in half precision a small prediction_change is mostly rounding",
    "frozen": "the difference of the two predictions hardly changes: is one of them cached, or the condition ignored?",
    "high_frequency": "the difference of the two predictions is texture: lower the scale, guide in an interval of "
    "noise levels, or project it (gradscope.stabilizers.classifier_free)",
    "sparse": "the two predictions differ in few elements: does the condition reach the whole sample?",
    "non_finite": "a prediction is not finite: run both passes in a wider type",
    "off_manifold": "guidance moves the sample further than the step's own noise: lower the scale, rescale or project "
    "the difference, or guide in an interval of noise levels (gradscope.stabilizers.classifier_free)",
}
_ENERGY = {
    "unstable": "gradients hardly agree from one part of the run to the next: give the energy x0-hat, or average it "
    "over draws of the noise; a stabiliser averages the noise but adds no signal",
    "frozen": "the gradient does not react to the sample: is the energy's input detached, or the energy linear?",
    "high_frequency": "the gradient is texture: give the energy x0-hat, or smooth it",
    "sparse": "few elements influence the energy: does it take a maximum, or a part of the sample?",
    "non_finite": "check the energy for logarithms of zero, roots of zero and divisions; record x_t there with the "
    "probe `x_t`",
}
_WITHOUT_UPDATE = (
    "the step does not move along the gradient: does the loop change the gradient after autograd (a stabiliser, "
    "clipping, a projection)? then call watched.update(u); else check how the guided prediction is changed afterwards "
    "(a second clamp, another order of operations, a reversed sign, rounding in half precision)"
)
_ADVICE: Mapping[str, Mapping[str, str]] = {"classifier_free": _PREDICTIONS, "energy": _ENERGY}
"""Advice in place of that for classifiers, by the kind of guidance and the signature."""


def unseen(ds: xr.Dataset, name: str) -> str:
    """Why a watched loop did not show what a variable needs; empty if the store is of no such loop.

    Examples
    --------
    >>> ds = xr.Dataset(attrs={"unseen": '{"shift": "the loop calls no scheduler.step"}'})
    >>> unseen(ds, "effective_strength")
    'effective_strength is not in this store: the loop calls no scheduler.step'
    """
    if "unseen" not in ds.attrs:
        return ""
    field = _FIELDS.get(name, "update" if name.startswith("update") else "")
    reasons = json.loads(ds.attrs["unseen"])
    kind = str(ds.attrs.get("guidance_kind"))
    if field == "label" and kind in _WITHOUT_LOGITS:
        reason = _WITHOUT_LOGITS[kind]
    elif field == "update":
        reason = "the loop has no stabiliser, or does not call watched.update(u)"
    else:
        reason = reasons.get(field, "")
    return f"{name} is not in this store: {reason}" if reason else ""


def in_its_terms(ds: xr.Dataset, finding: Finding) -> Finding:
    """The finding with advice for the store's kind of guidance."""
    advice = _ADVICE.get(str(ds.attrs.get("guidance_kind")), {}).get(finding.signature)
    if finding.signature == "misdirected" and ds.attrs.get("watched") and "update_norm" not in ds:
        advice = _WITHOUT_UPDATE
    return finding if advice is None else replace(finding, advice=advice)


def not_at_x_t(cell: xr.Dataset, where: Cell) -> Finding | None:
    """The loop takes its gradient at another point than x_t. This is seen, not tested."""
    point = NOT_AT_X_T.get(str(where["classifier_input"]))
    if point is None:
        return None
    there = (cell["written"] > 0).transpose("sample", "timestep", ...).values
    samples = int(there.reshape(len(there), -1).any(axis=1).sum())
    timestep = cell["timestep"].values
    return Finding(
        signature="not_at_x_t",
        severity="warning",
        **cell_fields(where),
        first_timestep=timestep[0].item(),
        last_timestep=timestep[-1].item(),
        affected=samples,
        samples=samples,
        effect=1.0,
        low=1.0,
        high=1.0,
        threshold=0.0,
        evidence=f"the loop takes its gradient with respect to {point}, at every step",
        advice="the denoiser's Jacobian is left out. This is MPGD's design (arXiv 2311.16424); DPS, FreeDoM and "
        "classifier guidance differentiate with respect to x_t: was the variable reassigned before autograd.grad?",
    )
