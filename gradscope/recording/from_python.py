"""Record a sampler from Python: one cell or a grid of them, without a configuration file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import torch
import xarray as xr
from torch import Tensor, nn

from gradscope.errors import GradscopeError
from gradscope.evaluation.from_python import Spec
from gradscope.recording.call_recorder import CallRecorder, Cell
from gradscope.recording.cells import cells_of
from gradscope.recording.progress_bar import OnProgress
from gradscope.sampling.sampler import GuidedSampler
from gradscope.stabilizers import Identity
from gradscope.store import open_store
from gradscope.store.dims import final_samples
from gradscope.store.locations.location import StorePath
from probes import Probe


class _Options(TypedDict, total=False):
    """The options of `record` that do not change what it returns."""

    classes: Sequence[str]
    judge: nn.Module | Spec | None
    progress: bool | OnProgress
    classifier_name: str | None
    stabilizer_name: str | None
    tensor_samples: int
    tensor_every: int
    dtype: str
    codec: str
    sample_dims: Sequence[str]
    overwrite: bool
    resume: bool
    stop_on_nonfinite: bool
    durable: bool


class SamplerRecorder(CallRecorder):
    """Records one call of `sample` of a `GuidedSampler`. Use it as a context manager, see `record`."""

    def sample(
        self, labels: Sequence[int], num_inference_steps: int, seed: int = 0, batch_size: int | None = None
    ) -> Tensor:
        """Sample and record, in blocks of `batch_size` (default: all samples in one block).

        The store is created when the first step has been measured; an error before that leaves no store.

        Parameters
        ----------
        labels
            Target class of each sample. For an energy, which knows no classes, their number alone counts.
        num_inference_steps
            Number of sampling steps.
        seed
            The generator of sample i is seeded by ``(seed, i)``.
        batch_size
            Samples that go through the sampler together.

        Returns
        -------
        Tensor
            ``(n, *sample)``, as from `GuidedSampler.sample`.

        Raises
        ------
        GradscopeError
            The store cannot be created, resumed or written; labels, probes, classes or judge do not fit; or it was
            called before.
        """
        blocks: dict[int, Tensor] = {}

        def keep(cell: Cell, first: int, images: Tensor) -> None:
            blocks[first] = images

        targets = self._record(labels, num_inference_steps, seed, batch_size, keep)
        size = batch_size or len(targets)
        if missing := [first for first in range(0, len(targets), size) if first not in blocks]:
            stored = final_samples(open_store(self._path))[0, 0, 0, 0]  # an interrupted call recorded them
            for first in missing:
                images = torch.from_numpy(stored[first : first + size].values)
                blocks[first] = images.to(self._cells.sampler.device)
        return torch.cat([blocks[first] for first in sorted(blocks)])


class GridRecorder(CallRecorder):
    """Records a grid of cells by one call of `sample`. Use it as a context manager, see `record`."""

    def sample(
        self, labels: Sequence[int], num_inference_steps: int, seed: int = 0, batch_size: int | None = None
    ) -> xr.Dataset:
        """Sample and record every cell, cell by cell and block by block.

        Every cell has the same labels, initial noise and step noise. The first step of each classifier and input is
        taken before the store is created. An error before that leaves no store.

        Parameters
        ----------
        labels, num_inference_steps, seed, batch_size
            See `SamplerRecorder.sample`.

        Returns
        -------
        xarray.Dataset
            The store, opened.

        Raises
        ------
        GradscopeError
            See `SamplerRecorder.sample`.
        """
        self._record(labels, num_inference_steps, seed, batch_size, lambda cell, first, images: None)
        return open_store(self._path)


@overload
def record(
    sampler: GuidedSampler,
    path: StorePath,
    probes: Sequence[Probe | str | Mapping[str, Any]],
    *,
    cells: None = None,
    **options: Unpack[_Options],
) -> SamplerRecorder: ...
@overload
def record(
    sampler: GuidedSampler,
    path: StorePath,
    probes: Sequence[Probe | str | Mapping[str, Any]],
    *,
    cells: Mapping[str, Any],
    **options: Unpack[_Options],
) -> GridRecorder: ...
def record(
    sampler: GuidedSampler,
    path: StorePath,
    probes: Sequence[Probe | str | Mapping[str, Any]],
    *,
    cells: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
    judge: nn.Module | Spec | None = None,
    progress: bool | OnProgress = False,
    classifier_name: str | None = None,
    stabilizer_name: str | None = None,
    tensor_samples: int = 64,
    tensor_every: int = 1,
    dtype: str = "float32",
    codec: str = "none",
    sample_dims: Sequence[str] = (),
    overwrite: bool = False,
    resume: bool = False,
    stop_on_nonfinite: bool = False,
    durable: bool = False,
) -> SamplerRecorder | GridRecorder:
    """Record the guided steps of a sampler into a new store: of one cell, or of a grid of cells.

    Parameters
    ----------
    sampler
        The sampler.
    path
        The store: a path, or a URL in an object store.
    probes
        What to measure at each step: probes, or their names as in a configuration (``"norms"``,
        ``{"snr": {"draws": 8}}``).
    cells
        Values along each dimension of a grid; every combination is a cell. A dimension that is left out has the
        sampler's own value. Possible keys:

        - ``classifier``: guides by name: modules, or values of the configuration's key `classifiers`;
        - ``classifier_input``: ``x_t``, ``x0``, ``x0_detached``;
        - ``stabilizer``: stabilisers by name, or their settings, or a list of names of methods;
        - ``guidance_scale``: finite numbers.
    classes
        Names of the classes, in the order of the labels; the store keeps them. Default: those on a guide's card.
    judge
        Judges the final samples and guides none of them: a module, or a value of the configuration's key `judge`. The
        store gets its verdicts and those of the guides that are classifiers. ``"none"``: those of the guides alone.
        None: no verdicts; `gradscope.evaluate` can add them later.
    progress
        True shows a progress bar; a function is called after each step with the number of recorded steps and that of
        all steps.
    classifier_name, stabilizer_name
        Names of the sampler's own classifier and stabiliser; default: the store's name without its suffix, and the
        stabiliser's class in lower case (``none`` without a stabiliser, as in a configuration).
    tensor_samples, tensor_every, dtype
        Which tensors are kept, and how; see `gradscope.recording.make_schema.make_schema`.
    codec
        Compression of tensors: ``none``, ``lz4``, or ``auto``: lz4 if it makes the first gradients more than 1.5 times
        smaller.
    sample_dims
        Names of a sample's dimensions in the store; default: channel, height and width.
    overwrite
        Replace a store that exists at `path`.
    resume
        Resume the store at `path`, which the same call began and did not finish.
    stop_on_nonfinite, durable
        See `gradscope.recording.block_recorder.BlockRecorder`.

    Returns
    -------
    SamplerRecorder or GridRecorder
        Its method `sample` records. With `cells` it returns the store, without the final samples.

    Raises
    ------
    GradscopeError
        The probes cannot measure, a cell, a class or the judge is wrong, or the path cannot be used.

    Examples
    --------
    >>> with gradscope.record(sampler, "mine.zarr", ["norms", Tensor("gradient"), Cosine("gradient")]) as recorder:
    ...     images = recorder.sample(labels=[0, 1, 2, 3], num_inference_steps=20, seed=0)

    A grid of cells, judged:

    >>> cells = {"classifier_input": ["x_t", "x0"], "stabilizer": ["none", "adam"], "guidance_scale": [0, 0.4]}
    >>> with gradscope.record(sampler, "grid.zarr", ["norms"], cells=cells, judge=judge) as recorder:
    ...     ds = recorder.sample(labels=[0, 1, 2, 3], num_inference_steps=5)
    >>> dict(ds.judge_accuracy.sizes)
    {'classifier': 1, 'classifier_input': 2, 'stabilizer': 2, 'guidance_scale': 2}
    """
    for option, name, dim in (
        ("classifier_name", classifier_name, "classifier"),
        ("stabilizer_name", stabilizer_name, "stabilizer"),
    ):
        if name is not None and cells is not None and dim in cells:
            raise GradscopeError(
                f'{option}: names the sampler\'s own {dim}, but cells["{dim}"] has others; leave it out'
            )
    kind = "none" if isinstance(sampler.stabilizer, Identity) else type(sampler.stabilizer).__name__.lower()
    names = (classifier_name or Path(str(path)).stem, stabilizer_name or kind)
    make = SamplerRecorder if cells is None else GridRecorder
    return make(
        cells_of({} if cells is None else cells, sampler, names),
        path,
        probes,
        classes=classes,
        judge=judge,
        progress=progress,
        sample_dims=sample_dims,
        options={
            "tensor_samples": tensor_samples,
            "tensor_every": tensor_every,
            "dtype": dtype,
            "codec": codec,
            "overwrite": overwrite,
            "resume": resume,
            "stop_on_nonfinite": stop_on_nonfinite,
            "durable": durable,
        },
    )
