"""Record a sampler from Python: one cell, without a configuration file."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from gradscope.errors import GradscopeError, whole_number
from gradscope.recording.load_probes import check_attaching, check_guide
from gradscope.recording.measure import check_probes
from gradscope.recording.provenance import provenance
from gradscope.recording.recorder import Recorder
from gradscope.recording.resume import resumption
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import GuidedSampler, class_labels, sample_seeds
from gradscope.stabilizers import Identity
from gradscope.store import Grid, open_store
from gradscope.store.creation import refuse_path
from gradscope.store.locations.location import StorePath
from probes import Probe


class SamplerRecorder:
    """Records one call of `sample` of a `GuidedSampler`. Use it as a context manager, see `record`."""

    def __init__(
        self,
        sampler: GuidedSampler,
        path: StorePath,
        probes: Sequence[Probe],
        names: tuple[str, str],
        sample_dims: tuple[str, ...],
        options: dict,
    ) -> None:
        check_probes(probes)
        self._sampler, self._path, self._probes = sampler, path, tuple(probes)
        self._names, self._sample_dims, self._options = names, sample_dims, options
        self._recorded = False
        if not options["resume"]:
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
        """Sample and record, in blocks of `batch_size` (default: all samples in one block).

        The store is created when the first step has been measured; an error before that leaves no store.

        Parameters
        ----------
        labels
            Target class of each sample.
        num_inference_steps
            Number of sampling steps.
        seed
            The generator of sample i is seeded by ``(seed, i)``.
        batch_size
            Samples that go through the sampler together.

        Returns
        -------
        Tensor
            ``(n, channel, height, width)``, as from `GuidedSampler.sample`.

        Raises
        ------
        GradscopeError
            The store cannot be created, resumed or written; labels or probes do not fit; or it was called before.
        """
        if self._recorded:
            raise GradscopeError(
                f"{self._path} holds one call of sample, and it is recorded; give all labels to one call "
                "(labels=[...], batch_size=...), or record this one into another store: gradscope.record(sampler, "
                "ANOTHER_PATH, probes)"
            )
        labels = class_labels(labels)
        sampler = self._sampler
        size = len(labels) if batch_size is None else whole_number(batch_size, "batch_size", least=1)
        check_guide(self._probes, sampler.guidance.classifier, self._names[0], "probes")
        check_attaching(self._probes, sampler.modules, "probes")
        grid = self._grid(labels, sampler.schedule(num_inference_steps), seed, size)
        attributes = self._attributes()
        if self._options["resume"]:
            attributes = resumption(self._path, attributes)
        cell, images = (0, 0, 0, 0), []
        with Recorder(
            self._path, grid, self._probes, device=sampler.device, attributes=attributes, **self._options
        ) as recorder:
            for block, done in enumerate(recorder.finished[cell]):
                rows = slice(block * grid.block, (block + 1) * grid.block)
                if done:
                    images.append(torch.from_numpy(open_store(self._path)["image"][(*cell, rows)].values))
                    continue
                with sampler.register_step_hook(recorder.trajectory(cell, rows.start)):
                    images.append(sampler.sample(labels[rows], num_inference_steps, seed, rows.start))
        self._recorded = True
        return torch.cat([image.to(sampler.device) for image in images])

    def _grid(self, labels: Sequence[int], schedule: Schedule, seed: int, batch_size: int) -> Grid:
        guidance = self._sampler.guidance
        times = schedule.coordinates()
        return Grid(
            classifier=(self._names[0],),
            classifier_input=(guidance.classifier_input,),
            stabilizer=(self._names[1],),
            guidance_scale=(guidance.guidance_scale,),
            label=np.array(labels),
            seed=sample_seeds(seed, range(len(labels))),
            sample_shape=self._sampler.image_shape,
            sample_dims=self._sample_dims,
            batch_size=batch_size,
            timestep=times["timestep"],
            alphas_cumprod=times["alphas_cumprod"],
            sigma=times["sigma"],
        )

    def _attributes(self) -> dict[str, Any]:
        sampler, guidance = self._sampler, self._sampler.guidance
        settings = {
            "objective": guidance.objective,
            "normalize": guidance.normalize,
            "weight": guidance.weight,
            "interval": guidance.interval,
            "smoothgrad": None if guidance.smoothgrad is None else asdict(guidance.smoothgrad),
            "takes_timestep": guidance.takes_timestep,
            "timestep_at_x0": guidance.timestep_at_x0,
            "stabilizer": repr(sampler.stabilizer),
            "autocast": None if sampler.autocast is None else str(sampler.autocast).removeprefix("torch."),
        }
        models = {"denoiser": sampler.unet, f"classifiers.{self._names[0]}": guidance.classifier}
        return provenance(settings, sampler.scheduler, models, (), sampler.device)


def record(
    sampler: GuidedSampler,
    path: StorePath,
    probes: Sequence[Probe],
    *,
    classifier_name: str | None = None,
    stabilizer_name: str | None = None,
    tensor_samples: int = 64,
    tensor_every: int = 1,
    dtype: str = "float32",
    codec: str = "none",
    sample_dims: Sequence[str] = (),
    overwrite: bool = False,
    resume: bool = False,
    durable: bool = False,
) -> SamplerRecorder:
    """Record the guided steps of a sampler into a new store.

    Parameters
    ----------
    sampler
        The sampler.
    path
        The store: a path, or a URL in an object store.
    probes
        What to measure at each step.
    classifier_name, stabilizer_name
        Coordinates of the cell; default: the store's name without its suffix, and the stabiliser's class in lower case
        (``none`` without a stabiliser, as in a configuration).
    tensor_samples, tensor_every, dtype, codec
        Which tensors are kept, and how; see `gradscope.recording.make_schema.make_schema`.
    sample_dims
        Names of a sample's dimensions in the store; default: channel, height and width.
    overwrite
        Replace a store that exists at `path`.
    resume
        Resume the store at `path`, which the same call began and did not finish.
    durable
        See `gradscope.recording.block_recorder.BlockRecorder`.

    Raises
    ------
    GradscopeError
        The probes cannot measure, or the path cannot be used.

    Examples
    --------
    >>> with gradscope.record(sampler, "mine.zarr", [Tensor("gradient"), Cosine("gradient")]) as recorder:
    ...     images = recorder.sample(labels=[0, 1, 2, 3], num_inference_steps=20, seed=0)
    """
    kind = "none" if isinstance(sampler.stabilizer, Identity) else type(sampler.stabilizer).__name__.lower()
    names = (classifier_name or Path(str(path)).stem, stabilizer_name or kind)
    options = {
        "tensor_samples": tensor_samples,
        "tensor_every": tensor_every,
        "dtype": dtype,
        "codec": codec,
        "overwrite": overwrite,
        "resume": resume,
        "durable": durable,
    }
    return SamplerRecorder(sampler, path, probes, names, tuple(sample_dims), options)
