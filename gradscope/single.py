"""Recording a sampler from Python: one cell, without a configuration file."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from gradscope.errors import GradscopeError
from gradscope.probe_loading import check_attaching
from gradscope.provenance import provenance
from gradscope.recorder import Recorder
from gradscope.sampler import GuidedSampler, sample_seeds
from gradscope.schedule import Schedule
from gradscope.store import Grid
from gradscope.store.creation import refuse_path
from probes import Probe


class SamplerRecorder:
    """Records one call of `sample` of a `GuidedSampler`; use it as a context manager, see `record`."""

    def __init__(
        self, sampler: GuidedSampler, path: str | Path, probes: Sequence[Probe], names: tuple[str, str], options: dict
    ) -> None:
        self._sampler, self._path, self._probes = sampler, Path(path), tuple(probes)
        self._names, self._options = names, options
        refuse_path(self._path, options["overwrite"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def sample(
        self, labels: Sequence[int], num_inference_steps: int, seed: int = 0, batch_size: int | None = None
    ) -> Tensor:
        """Sample and record, in blocks of `batch_size` (default: all at once).

        Returns
        -------
        Tensor
            ``(n, channel, height, width)``, as `GuidedSampler.sample` gives them.
        """
        sampler, size = self._sampler, batch_size or len(labels)
        if not labels:
            raise GradscopeError("labels: at least one sample is needed, got none")
        check_attaching(self._probes, sampler.modules, "probes")
        grid = self._grid(labels, Schedule(sampler.scheduler, num_inference_steps), seed, size)
        images = []
        with Recorder(
            self._path, grid, self._probes, device=sampler.device, attributes=self._attributes(), **self._options
        ) as recorder:
            for first in range(0, len(labels), size):
                with sampler.register_step_hook(recorder.trajectory((0, 0, 0, 0), first)):
                    images.append(sampler.sample(labels[first : first + size], num_inference_steps, seed, first))
        return torch.cat(images)

    def _grid(self, labels: Sequence[int], schedule: Schedule, seed: int, batch_size: int) -> Grid:
        guidance = self._sampler.guidance
        return Grid(
            classifier=(self._names[0],),
            classifier_input=(guidance.classifier_input,),
            stabilizer=(self._names[1],),
            guidance_scale=(guidance.guidance_scale,),
            label=np.array(labels),
            seed=sample_seeds(seed, range(len(labels))),
            image_shape=self._sampler.image_shape,
            batch_size=batch_size,
            **schedule.coordinates(),
        )

    def _attributes(self) -> dict[str, Any]:
        sampler, guidance = self._sampler, self._sampler.guidance
        settings = {
            "scheduler": type(sampler.scheduler).__name__,
            "objective": guidance.objective,
            "normalize": guidance.normalize,
            "weight": guidance.weight,
            "interval": guidance.interval,
            "smoothgrad": None if guidance.smoothgrad is None else asdict(guidance.smoothgrad),
            "stabilizer": repr(sampler.stabilizer),
            "autocast": None if sampler.autocast is None else str(sampler.autocast).removeprefix("torch."),
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        models = {"denoiser": sampler.unet, f"classifiers.{self._names[0]}": guidance.classifier}
        return provenance(settings, digest, models, (), sampler.device)


def record(
    sampler: GuidedSampler,
    path: str | Path,
    probes: Sequence[Probe],
    *,
    classifier_name: str | None = None,
    stabilizer_name: str | None = None,
    tensor_samples: int = 64,
    tensor_every: int = 1,
    dtype: str = "float32",
    codec: str = "none",
    overwrite: bool = False,
) -> SamplerRecorder:
    """Record what a sampler does into a new store.

    Parameters
    ----------
    sampler, path, probes
        What is recorded, where, and what is measured.
    classifier_name, stabilizer_name
        Coordinates of the cell; default: the store's stem, and the stabiliser's class in lower case.
    tensor_samples, tensor_every, dtype, codec
        Which tensors are kept and how, see `gradscope.recorder.make_schema`.
    overwrite
        Replace a store at `path`.

    Examples
    --------
    >>> with gradscope.record(sampler, "mine.zarr", [Tensor("gradient"), Cosine("gradient")]) as recorder:
    ...     images = recorder.sample(labels=[0, 1, 2, 3], num_inference_steps=100, seed=0)
    """
    names = (classifier_name or Path(path).stem, stabilizer_name or type(sampler.stabilizer).__name__.lower())
    options = {
        "tensor_samples": tensor_samples,
        "tensor_every": tensor_every,
        "dtype": dtype,
        "codec": codec,
        "overwrite": overwrite,
    }
    return SamplerRecorder(sampler, path, probes, names, options)
