"""Small stores as of watched loops, with known gaps: what was seen can be counted by hand."""

import json

import numpy as np
import small_store
import xarray as xr

REASON = "the loop may change prev_sample, and what follows was not seen; call watched.final(x)"
SEEN = {"evaluations": 40, "scheduler_steps": 39, "gradients": 37, "calls": 80}
PROBLEM = "labels: got 3 for a batch of 4, so they are not recorded"


def classifier() -> xr.Dataset:
    """A loop guided by a classifier: some gradients, shifts and labels were not seen, and no update."""
    ds = small_store.recorded().drop_vars(["update", "update_norm", "update_gradient_cosine"], errors="ignore")
    ds = ds[["written", "label", "image", "gradient_norm", "effective_strength", "log_prob"]]
    rng = np.random.default_rng(0)
    gap = rng.random(ds["written"].shape) < 0.2
    ds["written"] = ds["written"].dims, np.where(gap, 0, ds["written"].values).astype(np.uint8)
    for name, share in {"effective_strength": 0.3, "log_prob": 0.1}.items():
        ds[name] = ds[name].where(rng.random(ds[name].shape) > share)
    about = {
        "watched": 1,
        "guidance_kind": "classifier",
        "seen": json.dumps(SEEN),
        "unseen": json.dumps({"shift": REASON, "pred_original_sample": "why not"}),
        "problems": json.dumps([PROBLEM]),
    }
    return ds.assign_attrs(about)


def classifier_free() -> xr.Dataset:
    """Classifier-free guidance with gaps; one cell has no gradient along the prediction."""
    ds = small_store.recorded()[["written", "label", "image", "gradient_norm"]]
    rng = np.random.default_rng(1)
    shape = ds["written"].shape
    for name in ("gradient_parallel_norm", "gradient_perpendicular_norm", "prediction_change"):
        values = np.exp(rng.normal(size=shape)) * 10.0 ** -rng.integers(0, 5, shape[:4])[..., None, None]
        ds[name] = ds["written"].dims, np.where(rng.random(shape) < 0.1, np.nan, values).astype(np.float32)
    ds["gradient_parallel_norm"][0, 0, 0, 0] = 0
    ds["guidance_weight"] = ds["written"].dims, np.full(shape, 7.5, dtype=np.float32)
    return ds.assign_attrs(watched=1, guidance_kind="classifier_free")
