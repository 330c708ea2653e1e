"""Small recorded stores whose scalars follow from their tensors, and ways to damage them. No torch."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from gradscope.store import CELL_DIMS, Array, Frame, Grid, Schema, StoreWriter, add_variables, create, set_attributes
from gradscope.store.untrusted import checksum

CELLS, SAMPLES, TIMESTEPS, TENSORS, BLOCK = (2, 1, 1, 2), 5, 7, 3, 2
IMAGE = ("channel", "height", "width")
ABOUT = {"long_name": "something", "units": "1", "equation": "x"}
SCALARS = (
    "finite_fraction gradient_norm update_norm gradient_cosine update_cosine clipped_fraction zero_fraction "
    "gradient_lipschitz unit_gradient_lipschitz high_frequency_share score_cosine effective_strength"
).split()
NAMES = ("gradient", "update", "x_t", "pred_original_sample")


class Kind(NamedTuple):
    codec: str = "none"
    sharded: bool = False
    dtype: str = "float32"
    tensor_every: int = 1
    blocks: float = np.inf
    """Number of recorded blocks; a fraction is a block that is recorded in part."""
    evaluated: bool = True
    summed: bool = True


KINDS = {
    "plain": Kind(),
    "lz4": Kind(codec="lz4"),
    "sharded": Kind(sharded=True),
    "half": Kind(dtype="float16"),
    "sparse": Kind(tensor_every=3),
    "interrupted": Kind(blocks=4.5, evaluated=False),
    "just begun": Kind(blocks=0, evaluated=False),
    "unevaluated": Kind(evaluated=False),
    "old": Kind(summed=False),
    "old lz4": Kind(codec="lz4", summed=False),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Sound stores by kind, the same for all modules; tests must not change them."""

    def store(kind: str) -> Path:
        if kind not in _made:
            _made[kind] = make(tmp_path_factory.mktemp("sound") / "s.zarr", KINDS[kind])
        return _made[kind]

    return store


_made: dict[str, Path] = {}


def make(path: Path, kind: Kind) -> Path:
    """Record a store as a run does, with made-up tensors."""
    rng = np.random.default_rng(0)
    grid = Grid(
        classifier=("robust", "non_robust"),
        classifier_input=("x_t",),
        stabilizer=("none",),
        guidance_scale=(0.0, 0.5),
        label=np.arange(SAMPLES) % 2,
        seed=np.arange(SAMPLES) + 100,
        timestep=np.arange(TIMESTEPS)[::-1] * 100,
        alphas_cumprod=np.linspace(0.05, 0.95, TIMESTEPS),
        sigma=np.append(np.linspace(1, 0.5, TIMESTEPS - 1), 0),
        sample_shape=(3, 8, 8),
        batch_size=BLOCK,
    )
    half = kind.dtype == "float16"
    arrays = [Array(name, "tensor", ABOUT, kind.dtype, IMAGE) for name in NAMES]
    arrays += [Array(f"{name}_exponent", "scalar", ABOUT, "int16") for name in NAMES if half]
    arrays += [Array(name, "scalar", ABOUT) for name in SCALARS]
    arrays += [Array("predicted_class", "scalar", ABOUT, "int16"), Array("image", "final", ABOUT, dims=IMAGE)]
    schema = Schema(grid, tuple(arrays), TENSORS, kind.tensor_every, kind.codec, kind.sharded)
    configuration = {
        "judge": "none",
        "guidance": {"normalize": "l2", "weight": "one", "interval": [100, 600]},
        "sampling": {"scheduler": "ddpm"},
        "recording": {"path": "x", "durable": False, "tensor_samples": TENSORS, "tensor_every": kind.tensor_every},
    }
    hashed = configuration | {"recording": {"tensor_samples": TENSORS, "tensor_every": kind.tensor_every}}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]
    attributes = {"configuration": json.dumps(configuration), "configuration_hash": digest, "classes": ["a", "b"]}
    create(path, schema, {**attributes, "status": "recording"})
    writer = StoreWriter(path, schema)
    blocks = [(cell, first) for cell in np.ndindex(CELLS) for first in range(0, SAMPLES, BLOCK)]
    for number, (cell, first) in enumerate(blocks):
        last = int(min(1, kind.blocks - number) * TIMESTEPS)
        if last > 0:
            for frame in _frames(rng, schema, cell, first, half)[:last]:
                writer.submit(frame)
    writer.close()
    set_attributes(path, {"status": "complete" if np.isinf(kind.blocks) else "interrupted"})
    if kind.evaluated:
        _evaluate(path)
    if not kind.summed:
        _make_old(path)
    return path


def _frames(rng: np.random.Generator, schema: Schema, cell: tuple, first: int, half: bool) -> list[Frame]:
    grid = schema.grid
    rows = min(BLOCK, SAMPLES - first)
    kept = schema.kept_samples(first, rows)
    frames, before = [], None
    for step in range(TIMESTEPS):
        scale = 10.0 ** (-3 * step) * (1e-20 if cell == (1, 0, 0, 1) else 1)
        tensors = {name: rng.normal(size=(rows, 3, 8, 8)).astype("float32") for name in NAMES}
        tensors["gradient"] *= np.float32(scale)
        if cell == (1, 0, 0, 0) and step == 3:
            tensors["gradient"][0, 0, 0, 0] = np.nan
            tensors["gradient"][-1] = 0
        original = tensors["pred_original_sample"]  # clamped in the first block, small in the others
        tensors["pred_original_sample"] = np.clip(original, -1, 1) if first == 0 else original / 9
        now = {name: value.astype("float64").reshape(rows, -1) for name, value in tensors.items()}
        values = _scalars(now, before, step, cell, grid)
        before = now
        arrays = {name: value.astype("float32") for name, value in values.items()}
        arrays["predicted_class"] = rng.integers(0, 2, rows).astype("int16")
        for name, value in tensors.items():
            stored = value
            if half:
                peak = np.abs(value).max(axis=(1, 2, 3))
                exponent = np.frexp(np.where(np.isfinite(peak), peak, 1))[1]
                arrays[f"{name}_exponent"] = exponent.astype("int16")
                stored = np.ldexp(value.astype("float64"), -exponent[:, None, None, None]).astype("float16")
            if schema.keeps_tensor(step) and kept:
                arrays[name] = stored[:kept]
        if step == TIMESTEPS - 1:
            arrays["image"] = tensors["x_t"]
        frames.append(Frame(cell, first, step, arrays))
    return frames


def _scalars(now: dict, before: dict | None, step: int, cell: tuple, grid: Grid) -> dict[str, np.ndarray]:
    """Scalars by plain formulas, sample by sample."""
    out: dict[str, list[float]] = {name: [] for name in SCALARS}
    scale, alpha = grid.guidance_scale[cell[3]], grid.alphas_cumprod[step]
    for i in range(len(now["gradient"])):
        g, u, x, x_0 = (now[name][i] for name in NAMES)
        finite = bool(np.isfinite(g).all())
        with np.errstate(invalid="ignore", divide="ignore"):
            out["finite_fraction"].append(np.isfinite(g).mean())
            out["zero_fraction"].append((g == 0).mean())
            out["clipped_fraction"].append((abs(x_0) >= 1).mean())
            out["gradient_norm"].append(np.linalg.norm(g))
            out["update_norm"].append(np.linalg.norm(u))
            score = alpha**0.5 * x_0 - x
            out["score_cosine"].append(g @ score / np.linalg.norm(g) / np.linalg.norm(score))
            power = abs(np.fft.fft2(g.reshape(3, 8, 8))) ** 2
            radius = np.hypot(np.fft.fftfreq(8)[:, None], np.fft.fftfreq(8))
            out["high_frequency_share"].append(power[:, radius > 0.25].sum() / power.sum())
            guided = finite and 100 <= grid.timestep[step] < 600
            sigma = grid.sigma[step]
            out["effective_strength"].append(guided * scale / sigma / 192**0.5 if sigma else np.nan)
            for name, v in {"gradient": g, "update": u}.items():
                w = np.full_like(v, np.nan) if before is None else before[name][i]
                out[f"{name}_cosine"].append(v @ w / np.linalg.norm(v) / np.linalg.norm(w))
            if before is None:
                out["gradient_lipschitz"].append(np.nan)
                out["unit_gradient_lipschitz"].append(np.nan)
                continue
            old, moved = before["gradient"][i], np.linalg.norm(x - before["x_t"][i])
            unit = [v / (np.linalg.norm(v) or 1) for v in (g, old)]
            out["gradient_lipschitz"].append(np.linalg.norm(g - old) / moved)
            out["unit_gradient_lipschitz"].append(np.linalg.norm(unit[0] - unit[1]) / moved)
    return {name: np.array(values) for name, values in out.items()}


def _evaluate(path: Path) -> None:
    shape = (*CELLS, SAMPLES)
    found = xr.Dataset(
        {
            "own_prediction": ((*CELL_DIMS, "sample"), np.zeros(shape, "int16"), ABOUT),
            "own_accuracy": (CELL_DIMS, np.full(CELLS, 0.5), ABOUT),
            "confusion": ((*CELL_DIMS, "class"), np.ones((*CELLS, 2), "int32"), ABOUT),
        },
        coords={"class": ("class", np.array(["a", "b"], dtype=object), ABOUT)},
    )
    about = {"judge": "none", "variables": sorted(map(str, found.variables))}
    add_variables(path, found.assign_attrs(evaluation=json.dumps(about)))


def _make_old(path: Path) -> None:
    """Rewrite a store as earlier versions did: without checksums and the list of recorded arrays."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name, array in list(group.arrays()):
        values, about = array[...], array.metadata
        blosc = [codec for codec in about.codecs if isinstance(codec, BloscCodec)]
        attributes, chunks = dict(array.attrs), array.chunks
        del group[name]
        new = group.create_array(
            name, shape=values.shape, chunks=chunks, dtype=str if name in ("class", *CELL_DIMS[:3]) else values.dtype,
            fill_value=about.fill_value, compressors=blosc, filters=None, dimension_names=about.dimension_names,
            attributes=attributes, chunk_key_encoding={"name": "default", "separator": "."},
            config={"write_empty_chunks": True},
        )  # fmt: skip
        new[...] = values
    for name in ("recorded", checksum.KEY):
        del group.attrs[name]
    group.attrs["schema_version"] = 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path)


def chunk(path: Path, name: str, number: int = 0) -> Path:
    """One of an array's chunk files, by number in the order of their names."""
    return sorted(file for file in (path / name).iterdir() if file.name != "zarr.json")[number]


def edit(file: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)


def edit_json(file: Path, change: Callable[[dict], object]) -> None:
    """Change metadata; those of a root keep a right checksum."""
    content = json.loads(file.read_text())
    change(content)
    if checksum.KEY in content["attributes"]:
        content["attributes"][checksum.KEY] = checksum.checksum(content)
    file.write_text(json.dumps(content))


def write(path: Path, name: str, at: tuple, value: float) -> None:
    """Set values of an array through zarr, which writes right checksums."""
    zarr.open_group(path, mode="r+")[name][at] = value


def copied(store: Path, to: Path) -> Path:
    return Path(shutil.copytree(store, to / "damaged.zarr"))
