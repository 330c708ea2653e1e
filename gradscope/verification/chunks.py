"""Check that every chunk that a store marks as written exists and is sound."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscope.errors import GradscopeError
from gradscope.store.arrays import chunk_index, grid_of
from gradscope.store.chunks import Chunks, Index
from gradscope.store.dims import COORDINATES, REPEAT
from gradscope.store.locations.location import ROOT, Location
from gradscope.store.opening import open_arrays
from gradscope.store.replacement import JOURNAL
from gradscope.store.schema import WRITTEN
from gradscope.store.untrusted import chunk_bytes
from gradscope.verification.metadata import MOST, RECORD_AGAIN, Finding, Metadata, bounded

_THREADS = min(4, os.cpu_count() or 1)
_BATCH = 64  # chunks that are read together
_SLAB = 2**28  # elements of the marker that are checked together
_PARTIAL = ".partial"

Place = tuple[slice, ...]


@dataclass
class Integrity:
    """Findings about files and chunks, and what was read."""

    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """Remarks that are not about damage."""
    readable: bool = False
    """Whether metadata and coordinates are sound, so that values can be compared."""
    chunks: int = 0
    bytes: int = 0
    damaged: dict[str, dict[Index, Place]] = field(default_factory=dict)
    """By array, the stored objects that are damaged or missing: their index, and the slices that they cover."""


def examine(location: Location) -> Integrity:
    """Check the metadata, the files, and every chunk that is marked as written.

    Raises
    ------
    GradscopeError
        There is no store, or this version does not read it.
    """
    metadata, result = Metadata(location), Integrity()
    result.findings += bounded(metadata.findings())
    if metadata.refused:
        return result
    try:
        arrays: dict[str, Any] = dict(open_arrays(location).arrays())
    except Exception as error:  # zarr and its codecs raise errors of many types
        result.findings.append(Finding("", ROOT, f"zarr cannot open it: {error}", RECORD_AGAIN))
        return result
    result.findings += bounded(_unlisted(metadata, arrays, result.remarks))
    if unsummed := sorted(name for name, array in arrays.items() if not chunk_bytes.is_summed(array)):
        what = "no checksums are recorded" if len(unsummed) == len(arrays) else f"no checksums of {', '.join(unsummed)}"
        result.remarks.append(f"{what}: only lengths, compressed data and recomputed values were checked")
    if not metadata.is_copy and not metadata.is_summed:
        result.remarks.append(f"no checksum of {ROOT}: its attributes were compared with each other alone")
    if metadata.is_copy:
        what = "this is a copy that xarray wrote without chunks of fill values alone"
        result.remarks.append(f"{what}: missing chunks are not found")
        if left := sorted((metadata.recorded | metadata.evaluation | {*COORDINATES}) - arrays.keys()):
            result.remarks.append(f"the copy leaves out {', '.join(left)}")
    _Examination(location, metadata, arrays, result).run()
    result.findings = list(bounded(iter(result.findings)))
    result.readable = not any(name in result.damaged for name in COORDINATES) and (
        metadata.is_copy or arrays.keys() >= {*COORDINATES}
    )
    return result


def _unlisted(metadata: Metadata, arrays: Mapping[str, Any], remarks: list[str]) -> Iterator[Finding]:
    """Files that belong to no array; adds remarks about harmless ones."""
    leftovers, foreign = 0, set()
    for key in metadata.files:
        name, _, rest = key.partition("/")
        if key == ROOT or (name in arrays and (rest == ROOT or chunk_index(arrays[name], rest) is not None)):
            continue
        if name in metadata.being_replaced or name == JOURNAL:
            continue
        if key.endswith(_PARTIAL):
            leftovers += 1
        elif name in arrays:
            yield Finding(name, key, "it is not a chunk of the array's grid", "remove it")
        elif name not in foreign:
            foreign.add(name)
            what = f"an array that {ROOT} does not know" if rest else "a file that does not belong to the store"
            yield Finding(name, key, what, "remove it, unless a process is writing into the store")
    if metadata.being_replaced:
        what = "an evaluation is running or was interrupted: the previous one is complete, and the next evaluation"
        if metadata.being_replaced & metadata.recorded:
            what = "the store is being enlarged or was interrupted at that: it is complete, and the next evaluation"
        remarks.append(f"{what} removes the leftovers")
    if leftovers:
        remarks.append(f"{leftovers} files *{_PARTIAL}, of a process that is writing or was killed: harmless")


class _Examination:
    """Reads the chunks of a store and adds findings to a result."""

    def __init__(self, location: Location, metadata: Metadata, arrays: Mapping[str, Any], result: Integrity) -> None:
        self.location, self.metadata, self.arrays, self.result = location, metadata, arrays, result
        self.marker = arrays[WRITTEN.name]
        rows, repeat = (*metadata.cell_dims, "sample"), (REPEAT,) if REPEAT in _dims(self.marker) else ()
        self.over = (*rows, "timestep", *repeat)
        self.to_sample = len(rows)
        """Number of dimensions up to `sample`, included."""
        recorded = [name for name in arrays if name in metadata.recorded and name != WRITTEN.name]
        self.recorded = [name for name in recorded if _dims(arrays[name])[: self.to_sample] == rows]
        tensor = {*metadata.sample_dims, "timestep"}
        self.tensors = {name for name in self.recorded if tensor <= {*_dims(arrays[name])}}
        self.whole_run = "configuration" in metadata.attributes  # not a `Recorder` of a user's own sampler
        self.complete = self.whole_run and metadata.attributes.get("status") == "complete"
        self.samples, self.steps = self._numbers("sample", "sample"), self._numbers("step", "timestep")
        self.seen: dict[str, set[Index]] = {}
        """Chunks with marked elements, by array."""

    def run(self) -> None:
        """Check the marker, the chunks that it marks, and coordinates and evaluation, which are always complete."""
        if _dims(self.marker) != self.over:  # a copy of a selection of one value lacks dimensions
            self._check((name, index) for name in self.arrays for index in np.ndindex(grid_of(self.arrays[name])))
            return
        keys = (key.partition("/")[2] for key in self.metadata.files if key.startswith(f"{WRITTEN.name}/"))
        there = {index for key in keys if (index := chunk_index(self.marker, key)) is not None}
        absent = (index for index in np.ndindex(grid_of(self.marker)) if index not in there) if self.complete else ()
        self._check((WRITTEN.name, index) for index in chain(sorted(there), absent))
        self._check(self._marked(sorted({index[: self.to_sample] for index in there})))
        self._check(self._unmarked())
        others = [name for name in self.arrays if name not in self.recorded and name != WRITTEN.name]
        self._check((name, index) for name in others for index in np.ndindex(grid_of(self.arrays[name])))

    def _marked(self, corners: Iterable[Index]) -> Iterator[tuple[str, Index]]:
        """Chunks of recorded arrays with marked elements; `corners` are the marker's chunk indices up to `sample`."""
        rows, shape = self.to_sample, self.marker.shape
        damaged = {index[:rows] for index in self.result.damaged.get(WRITTEN.name, ())}
        seen = self.seen = {name: set[Index]() for name in self._given()}
        for corner in corners:
            where = _place(self.marker, (*corner, *(0,) * (len(shape) - rows)))[:rows]
            if prod(part.stop - part.start for part in where) * prod(shape[rows:]) > _SLAB:
                what = f"its chunks over {shape[rows]} timesteps are too large to be read"
                self._add(WRITTEN.name, WRITTEN.name, what, RECORD_AGAIN)
                return
            origin = [*(part.start for part in where), *(0,) * (len(shape) - rows)]
            if known := corner not in damaged:
                level = Chunks(self.location, self.marker).part(where)
                self._look(level, origin)
            else:  # the marker is damaged: check every chunk that exists
                level = np.full([*(part.stop - part.start for part in where), *shape[rows:]], 3, np.uint8)
            for name in seen:
                array = self.arrays[name]
                marked = level >= (3 if name in self.tensors else 1)
                if "timestep" not in _dims(array):
                    marked = marked[(..., -1, 0) if REPEAT in self.over else (..., -1)]
                over = marked.ndim
                for index in touched(marked, origin[:over], _size(array)[:over]):
                    for rest in np.ndindex(grid_of(array)[over:]):
                        chunk = (*index, *rest)
                        if chunk not in seen[name] and (known or self._key(name, chunk) in self.metadata.files):
                            seen[name].add(chunk)
                            yield name, chunk

    def _unmarked(self) -> Iterator[tuple[str, Index]]:
        """Other chunks of recorded arrays that exist. Nobody needs them, but plain xarray cannot read damaged ones."""
        for key in self.metadata.files:
            name, _, rest = key.partition("/")
            if name in self.seen and (index := chunk_index(self.arrays[name], rest)) is not None:
                if index not in self.seen[name]:
                    yield name, index

    def _given(self) -> Iterator[str]:
        """Recorded arrays; of final samples only those with files, because a user's own sampler may not give them."""
        for name in self.recorded:
            if self.whole_run or "timestep" in _dims(self.arrays[name]):
                yield name
            elif any(key.startswith(f"{name}/") and key != f"{name}/{ROOT}" for key in self.metadata.files):
                yield name
            else:
                self.result.remarks.append(f"{name}: never recorded")

    def _look(self, level: NDArray[Any], origin: list[int]) -> None:
        """Add findings where the marker has values that no recording writes."""
        if REPEAT in self.over:  # a timestep is recorded once a repetition is
            level, origin = level.max(axis=-1), origin[:-1]
        there, order = level > 0, np.argsort(self.steps, kind="stable")
        since = np.empty_like(there)
        since[..., order] = np.logical_and.accumulate(there[..., order], axis=-1)
        wrong = {
            "is neither 0, 1 nor 3": ~np.isin(level, (0, 1, 3)),
        }
        if not self.metadata.attributes.get("watched"):  # a loop that is watched may take no gradient at some steps
            wrong["is marked, but an earlier step is not"] = there & ~since
        samples, every = (self.metadata.recording.get(key) for key in ("tensor_samples", "tensor_every"))
        if not self.tensors:
            wrong["marks tensors, but the store has none"] = (level == 3) & (not self.metadata.is_copy)
        elif type(samples) is int and type(every) is int and every > 0:
            first = origin[self.to_sample - 1]
            rows = self.samples[first : first + level.shape[-2]]
            kept = (rows < samples)[:, None] & (self.steps % every == 0)
            wrong["marks a tensor that the configuration does not keep"] = (level == 3) & ~kept
            # Tensors are written later than scalars; after the last step all are.
            ended = there[..., order[-1:]] & (self.complete or not self.metadata.is_copy)
            wrong["does not mark a tensor that the configuration keeps"] = (level == 1) & kept & ended
        if self.complete:
            wrong["is not marked, but the store's status is complete"] = ~there
        for what, where in wrong.items():
            if where.any():
                at = tuple((np.argwhere(where)[0] + origin).tolist())
                cell, sample = self.to_sample - 1, at[self.to_sample - 1]
                place = f"{WRITTEN.name} at cell {at[:cell]}, sample {sample}, step {at[cell + 1]}"
                remedy = self._again(tuple(i // size for i, size in zip(at, _size(self.marker), strict=False)))
                self._add(WRITTEN.name, place, f"it {what} ({int(where.sum())} of its values)", remedy)

    def _check(self, wanted: Iterable[tuple[str, Index]]) -> None:
        """Read chunks in batches and add findings; an array with more than `MOST` of them is not read further."""
        counts: Counter[str] = Counter()
        fine = ((name, index) for name, index in wanted if counts[name] <= MOST)
        with ThreadPoolExecutor(_THREADS) as pool:
            while batch := list(islice(fine, _BATCH)):
                for (name, index), (size, what) in zip(batch, pool.map(self._flaw, batch), strict=True):
                    self.result.chunks += 1
                    self.result.bytes += size
                    if what:
                        counts[name] += 1
                        self.result.damaged.setdefault(name, {})[index] = _place(self.arrays[name], index)
                        self._add(name, self._key(name, index), what, self._remedy(name, index))

    def _flaw(self, chunk: tuple[str, Index]) -> tuple[int, str | None]:
        """Size of a stored chunk, and a text that says what is wrong with it, or None."""
        array, key = self.arrays[chunk[0]], self._key(*chunk)
        if (size := self.metadata.files.get(key, 0)) > (most := chunk_bytes.most_bytes(array)):
            return 0, f"it has {size} bytes; a chunk has at most {most}"
        try:
            content = self.location.read(key, most)
        except GradscopeError as error:
            return 0, str(error)
        if content is None:
            return 0, None if self.metadata.is_copy else "the chunk is missing, or cannot be read"
        place = _place(array, chunk[1])
        what = chunk_bytes.flaw(content, array, [part.stop - part.start for part in place])
        if what is None and not chunk_bytes.is_plain(array):
            try:
                Chunks(self.location, array).part(place)
            except GradscopeError as error:
                what = f"it cannot be decoded: {error.__cause__}"
        return len(content), what

    def _numbers(self, name: str, dim: str) -> NDArray[np.int64]:
        """Numbers of the samples or steps within the run; a copy may hold some of them, in any order."""
        length = dict(zip(_dims(self.marker), self.marker.shape, strict=True)).get(dim, 1)
        array = self.arrays.get(name)
        if not self.metadata.is_copy or array is None or array.shape != (length,):
            return np.arange(length)
        try:
            return np.asarray(Chunks(self.location, array).whole(), np.int64)
        except GradscopeError:  # damage is found later
            return np.arange(length)

    def _key(self, name: str, index: Index) -> str:
        return f"{name}/{self.arrays[name].metadata.encode_chunk_key(index)}"

    def _remedy(self, name: str, index: Index) -> str:
        if name not in self.recorded and name != WRITTEN.name:
            return self.metadata.remedy(name)
        first = [part.start for part in _place(self.arrays[name], index)][: self.to_sample]
        return self._again(tuple(i // size for i, size in zip(first, _size(self.marker), strict=False)))

    def _again(self, index: Index) -> str:
        """How to record the block of a marker's chunk again."""
        rest = len(self.marker.shape) - self.to_sample
        keys = self._key(WRITTEN.name, (*index[: self.to_sample], *(0,) * rest))[: 1 - 2 * rest] + "*"
        return f"remove {keys}; then `{self.metadata.resume}` records this block again"

    def _add(self, name: str, place: str, what: str, remedy: str) -> None:
        self.result.findings.append(Finding(name, place, what, remedy))


def touched(marked: NDArray[np.bool_], origin: list[int], size: Index) -> Iterator[Index]:
    """Indices of the chunks, of shape `size`, with marked elements; `marked` begins at `origin` of the array."""
    numbers = []
    for axis, (first, length) in enumerate(zip(origin, size, strict=True)):
        own = (first + np.arange(marked.shape[axis])) // max(1, length)
        starts = np.flatnonzero(np.diff(own, prepend=-1))
        if not len(starts):
            return
        marked = np.logical_or.reduceat(marked, starts, axis=axis)
        numbers.append(own[starts])
    for at in np.argwhere(marked):
        yield tuple(int(own[i]) for own, i in zip(numbers, at, strict=True))


def _dims(array: Any) -> tuple[str, ...]:
    return tuple(array.metadata.dimension_names or ())


def _size(array: Any) -> Index:
    """Shape of a stored object."""
    return tuple(array.shards or array.chunks)


def _place(array: Any, index: Index) -> Place:
    """Slices of the array that a stored object covers."""
    sizes = zip(index, _size(array), array.shape, strict=True)
    return tuple(slice(i * size, min((i + 1) * size, end)) for i, size, end in sizes)
