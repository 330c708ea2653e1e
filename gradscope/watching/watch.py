"""`gradscope.watch`: record the guidance of a loop that is not ours."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.recording.load_probes import load_probes
from gradscope.recording.make_schema import check_options
from gradscope.recording.measure import check_probes
from gradscope.sampling.process import PREDICTIONS
from gradscope.store import CELL_DIMS
from gradscope.store.creation import refuse_path
from gradscope.store.locations.location import StorePath, locate
from gradscope.watching.growing_store import GrowingStore
from gradscope.watching.pipeline import dims_of, parts_of_pipeline
from gradscope.watching.process import Process
from gradscope.watching.watched import Watched
from probes import Probe


def watch(
    path: StorePath,
    pipe: Any = None,
    *,
    denoiser: nn.Module | None = None,
    guide: nn.Module | None = None,
    scheduler: Any = None,
    alphas_cumprod: Any = None,
    timesteps: Sequence[float] | None = None,
    steps: int | None = None,
    prediction_type: str | None = None,
    labels: Any = None,
    minimize: bool | None = None,
    repeats: int = 0,
    probes: Sequence[Probe | str] | None = None,
    classifier: str | None = None,
    stabilizer: str | None = None,
    guidance_scale: float | None = None,
    classes: Sequence[str] = (),
    sample_dims: Sequence[str] = (),
    tensor_samples: int = 64,
    tensor_every: int = 1,
    dtype: str = "float32",
    codec: str = "none",
    overwrite: bool = False,
) -> Watched:
    """Record the guidance of any sampling loop, of which no line changes.

    Hooks see the denoiser, the guide, autograd's gradients and the scheduler's steps. The samples are the same, bit for
    bit, with and without. The store is made at the first step. What fails while watching gives a warning and ends the
    watch; the loop goes on.

    Parameters
    ----------
    path
        The new store: a path, or a URL in an object store.
    pipe
        A diffusers pipeline; its denoiser and scheduler are found by themselves.
    denoiser
        The module that the loop calls with the noisy samples ``(n, *sample)`` and the time.
    guide
        The module whose output the loop differentiates: a classifier that gives logits ``(n, classes)``, or an energy
        that gives ``(n,)``. It may be left out if the gradient passes through the denoiser to x_t.
    scheduler
        The object whose ``step`` the loop calls, or one with ``alphas_cumprod``: a diffusers scheduler, or
        guided-diffusion's process.
    alphas_cumprod
        Table by timestep, if there is no scheduler.
    timesteps, steps
        The timesteps in sampling order, or their number, if no scheduler has them. Each evaluation of the denoiser at a
        new time is a step.
    prediction_type
        What the denoiser predicts: ``epsilon``, ``sample``, ``v_prediction`` or ``flow_prediction``; default: what the
        scheduler says.
    labels
        Target classes, ``(n,)``. Without them they are read off the gradient with respect to the guide's logits, where
        there are more than two classes.
    minimize
        Whether the loop descends the guide's output, a loss: then the gradient recorded is the negative of autograd's.
        Default: read off the logits' gradient, else no.
    repeats
        Largest number of evaluations of one timestep that are recorded, for methods with recurrence. 0: of several, the
        last one counts.
    probes
        What to measure: probes, or names as under ``probes`` in a configuration. Default: all usual ones that the first
        step allows.
    classifier, stabilizer, guidance_scale
        Coordinates of the cell; see also `Watched.cell`. By default the guide is named after the store, or
        ``condition`` for classifier-free guidance, whose scale w in u + w (c - u) is found by itself. For other loops
        the scale is 1 unless given.
    classes
        Names of the classes.
    sample_dims
        Names of a sample's dimensions.
    tensor_samples, tensor_every, dtype, codec
        Which tensors are kept, and how; see `gradscope.recording.make_schema.make_schema`.
    overwrite
        Replace a store that exists at `path`.

    Returns
    -------
    Watched
        A context manager.

    Raises
    ------
    GradscopeError
        An argument cannot be used; raised before the loop begins.

    Examples
    --------
    >>> with gradscope.watch("w.zarr", denoiser=unet, guide=classifier, scheduler=scheduler) as watched:
    ...     images = my_loop()
    >>> gradscope.open("w.zarr").gradient.sizes["timestep"]
    4
    """
    about: dict[str, Any] = {"classes": list(classes)} if classes else {}
    found = None
    if pipe is not None:
        found = parts_of_pipeline(pipe)
        denoiser = found.denoiser if denoiser is None else denoiser
        scheduler = found.scheduler if scheduler is None else scheduler
        about |= {"latent": int(found.latent), "pipeline": type(pipe).__name__}
    for name, module in (("denoiser", denoiser), ("guide", guide)):
        if module is not None and not isinstance(module, nn.Module):
            raise GradscopeError(
                f"{name}: takes the torch.nn.Module that the loop calls, got {type(module).__name__}; put a function "
                "into the forward of a module, and let the loop call that"
            )
    if denoiser is None:
        raise GradscopeError(
            "denoiser: give the module that the loop calls, or a diffusers pipeline as second argument"
        )
    if prediction_type is not None and prediction_type not in PREDICTIONS:
        raise GradscopeError(f"prediction_type: got {prediction_type!r}; {one_of(prediction_type, PREDICTIONS)}")
    if steps is not None:
        whole_number(steps, "steps", least=1)
    if scheduler is not None and (isinstance(scheduler, type) or not hasattr(scheduler, "__dict__")):
        raise GradscopeError(f"scheduler: takes the object whose step the loop calls, got {scheduler!r:.80}")
    if guidance_scale is not None and not (isinstance(guidance_scale, int | float) and math.isfinite(guidance_scale)):
        raise GradscopeError(f"guidance_scale: takes a number, got {guidance_scale!r:.80}")
    if scheduler is None and timesteps is None and steps is None:
        raise GradscopeError(
            "steps: the number of the loop's steps is not known; give steps=, timesteps= or scheduler="
        )
    check_options(tensor_samples, tensor_every, dtype, codec)
    process = Process(scheduler, alphas_cumprod, timesteps, steps, prediction_type)
    if not overwrite and locate(path).exists():
        raise GradscopeError(f"{path} exists; choose another path, or overwrite it (overwrite=True)")
    refuse_path(path, overwrite)
    store = GrowingStore(
        path,
        process,
        None if probes is None else _made(probes),
        lambda rank: tuple(sample_dims) or (() if found is None else dims_of(found, rank)),
        whole_number(repeats, "repeats"),
        {
            "tensor_samples": tensor_samples,
            "tensor_every": tensor_every,
            "dtype": dtype,
            "codec": codec,
            "overwrite": overwrite,
        },
    )
    cell = dict(zip(CELL_DIMS, (classifier, None, stabilizer, guidance_scale), strict=True))
    return Watched(
        path,
        denoiser,
        guide,
        process,
        store,
        labels=labels,
        cell=cell,
        minimize=minimize,
        repeats=repeats,
        about=about,
    )


def _made(probes: Sequence[Probe | str]) -> list[Probe]:
    """Probes, of which some are given by name."""

    def no_module(spec: Any, where: str) -> nn.Module:
        raise GradscopeError(f"{where}: pass the probe itself, with its module")

    if isinstance(probes, str):
        raise GradscopeError(f"probes: takes a list of probes or names, got {probes!r}")
    made = [p for entry in probes for p in (load_probes(entry, no_module) if isinstance(entry, str) else [entry])]
    if not made:
        raise GradscopeError("probes: takes at least one probe, got none")
    check_probes(made)
    return made
