"""Make a store of a given size, without any model, on which the dashboard's speed is measured.

    python tests/benchmarks/make_store.py big.zarr --tensor-samples 25
    python tests/benchmarks/make_store.py small.zarr --timesteps 100 --tensor-samples 2

The first is about 10 GB (8 cells, 1000 timesteps, 64 samples), the second about 100 MB. The scalars come from
`gradscope.analysis.synthetic`, with its faults. The tensors are smooth blobs in noise; the norms and cosines among the
scalars are computed from them.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from threading import Semaphore
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.synthetic import trajectories
from gradscope.store import CELL_DIMS, Array, Frame, Grid, Schema, StoreWriter, add_variables, create, set_attributes

CLASSES = ("baseball", "basketball", "soccer ball", "volleyball")
IMAGE_DIMS = ("channel", "height", "width")
TENSORS = {
    "gradient": "gradient of log p(y | input)",
    "update": "gradient after the stabiliser",
    "x_t": "noisy image",
    "pred_original_sample": "predicted clean image",
}
SCALARS = {
    "finite_fraction": "share of finite elements of the gradient",
    "gradient_norm": "l2 norm of the gradient",
    "update_norm": "l2 norm of the update",
    "gradient_cosine": "cosine similarity of the gradient with that of the previous step",
    "update_cosine": "cosine similarity of the update with that of the previous step",
    "score_cosine": "cosine similarity of the gradient with the unconditional score",
    "effective_strength": "shift relative to the noise of the DDPM posterior",
    "log_prob": "guide's log-probability of the target class",
    "entropy": "entropy of the guide's prediction",
    "predicted_class": "class that the guide predicts",
    "clipped_fraction": "share of elements of pred_original_sample at the clamp",
    "zero_fraction": "share of zero elements of the gradient",
}
UNITS = {"log_prob": "nat", "entropy": "nat"}
COSINE = {("robust", "x_t"): 0.7, ("robust", "x0"): 0.62, ("non_robust", "x_t"): 0.2, ("non_robust", "x0"): 0.6}
"""Expected cosine of successive gradients, by classifier and classifier_input."""
MEMORY = 0.9
"""Share of the update that a stabiliser keeps."""


@dataclass(frozen=True)
class Settings:
    timesteps: int = 1000
    samples: int = 64
    batch_size: int = 32
    tensor_samples: int = 25
    tensor_every: int = 1
    size: int = 32
    stabilizers: tuple[str, ...] = ("none", "adam")
    scales: tuple[float, ...] = (0.5,)
    codec: Literal["none", "lz4"] = "none"
    seed: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    for name in ("timesteps", "samples", "batch-size", "tensor-samples", "tensor-every", "size", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name.replace("-", "_")))
    parser.add_argument("--stabilizers", nargs="+", default=Settings.stabilizers)
    parser.add_argument("--scales", nargs="+", type=float, default=Settings.scales)
    parser.add_argument("--codec", choices=["none", "lz4"], default=Settings.codec)
    parser.add_argument("--step-seconds", type=float, default=0.0, help="seconds per step, to imitate a run")
    parser.add_argument("--overwrite", action="store_true")
    args = vars(parser.parse_args())
    path, step_seconds, overwrite = (args.pop(name) for name in ("path", "step_seconds", "overwrite"))
    lists = {name: tuple(args[name]) for name in ("stabilizers", "scales")}
    run = Run(Settings(**args | lists))
    print(f"{path}: {run.schema.bytes() / 1e9:.2f} GB")
    record(path, run, step_seconds, overwrite)


def record(path: Path, run: "Run", step_seconds: float = 0.0, overwrite: bool = False) -> Path:
    """Write the whole run, with the verdicts on its images."""
    create(path, run.schema, run.attributes(), overwrite)
    writer, ahead = StoreWriter(path, run.schema), Semaphore(16)
    for frame in run.frames():
        ahead.acquire()
        writer.submit(replace(frame, release=ahead.release))
        if frame.step == 0:
            print(f"cell {frame.cell}, from sample {frame.first_sample}: {writer.bytes / 1e9:.2f} GB", flush=True)
        time.sleep(step_seconds)
    writer.close()
    add_variables(path, run.verdicts())
    set_attributes(path, {"status": "complete"})
    return path


class Run:
    """The content of the store, frame by frame."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        reference = trajectories(samples=1, timesteps=settings.timesteps)
        self.grid = Grid(
            classifier=("robust", "non_robust"),
            classifier_input=("x_t", "x0"),
            stabilizer=settings.stabilizers,
            guidance_scale=settings.scales,
            label=np.arange(settings.samples) % len(CLASSES),
            seed=np.arange(settings.samples),
            timestep=reference["timestep"].values,
            alphas_cumprod=reference["alphas_cumprod"].values,
            sigma=reference["sigma"].values,
            sample_shape=(3, settings.size, settings.size),
            batch_size=settings.batch_size,
        )
        tensors = [Array(name, "tensor", about(name, text), dims=IMAGE_DIMS) for name, text in TENSORS.items()]
        scalars = [
            Array(name, "scalar", about(name, text), dtype="int16" if name == "predicted_class" else "float32")
            for name, text in SCALARS.items()
        ]
        image = Array("image", "final", about("image", "final sample"), dims=IMAGE_DIMS)
        self.schema = Schema(
            self.grid, (*tensors, *scalars, image), settings.tensor_samples, settings.tensor_every, settings.codec
        )

    def attributes(self) -> dict[str, object]:
        """The attributes that a store has while it is recorded."""
        settings = asdict(self.settings)
        recording = {name: settings[name] for name in ("tensor_samples", "tensor_every", "codec")}
        configuration = {
            "judge": "made up",
            "guidance": {"classifier_input": ["x_t", "x0"], "guidance_scale": settings["scales"], "interval": None},
            "stabilizers": {name: {} for name in settings["stabilizers"]},
            "sampling": {"num_inference_steps": settings["timesteps"], "samples": settings["samples"]},
            "recording": recording,
        }
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        return {
            "run_id": f"{digest[:8]}-0000-4000-8000-{digest[8:20]}",
            "configuration": json.dumps(configuration),
            "configuration_hash": digest[:16],
            "created": "2026-01-01T00:00:00+00:00",
            "versions": {"gradscope": "0.1.0"},
            "device": "none",
            "classes": list(CLASSES),
            "command": "python tests/benchmarks/make_store.py",
            "status": "recording",
        }

    def cells(self) -> Iterator[tuple[tuple[int, ...], dict[str, object], xr.Dataset]]:
        """Indices and names of each cell, and its scalars and verdicts."""
        for number, at in enumerate(product(*map(range, self.grid.cells))):
            cell = {dim: getattr(self.grid, dim)[i] for dim, i in zip(CELL_DIMS, at, strict=True)}
            yield at, cell, cell_scalars(cell, self.grid, self.settings.seed + number)

    def frames(self) -> Iterator[Frame]:
        """Every step of every block, in the order in which a run records them."""
        grid = self.grid
        for at, cell, drawn in self.cells():
            scalars = {name: drawn[name].values.reshape(grid.samples, grid.timesteps).copy() for name in SCALARS}
            for first in range(0, grid.samples, grid.batch_size):
                rows = slice(first, min(first + grid.batch_size, grid.samples))
                tensors = Tensors(self.schema, cell, rows, scalars, self.settings.seed)
                for step in range(grid.timesteps):
                    yield Frame(at, first, step, tensors.step(step))

    def verdicts(self) -> xr.Dataset:
        """The classes that the guide and the judge see in the final images."""
        shape = (*self.grid.cells, self.grid.samples)
        values = {name: np.full(shape, -1, dtype=np.int16) for name in ("own_prediction", "judge_prediction")}
        for at, _, drawn in self.cells():
            for name in values:
                values[name][at] = drawn[name].values.reshape(-1)
        return xr.Dataset({n: ((*CELL_DIMS, "sample"), v, about(n, n)) for n, v in values.items()})


def about(name: str, text: str) -> dict[str, str]:
    return {"long_name": text, "units": UNITS.get(name, "1"), "equation": "made up"}


def cell_scalars(cell: dict[str, object], grid: Grid, seed: int) -> xr.Dataset:
    """The scalars and verdicts of one cell, with the fault that its names suggest."""
    guide, sees = str(cell["classifier"]), str(cell["classifier_input"])
    fault = "adversarial" if (guide, sees) == ("non_robust", "x_t") else "none"
    ds = trajectories(fault, grid.samples, grid.timesteps, seed, COSINE[guide, sees], accuracy=0.85)
    ds["entropy"] = -ds["log_prob"] * np.exp(ds["log_prob"])
    return ds


@dataclass
class Tensors:
    """The tensors of one block, step after step.

    Norms and cosines of the samples that have tensors are computed from these and written into `scalars`.
    """

    schema: Schema
    cell: dict[str, object]
    rows: slice
    scalars: dict[str, NDArray]
    seed: int

    def __post_init__(self) -> None:
        grid, shape = self.schema.grid, self.schema.grid.sample_shape
        count = self.rows.stop - self.rows.start
        self.kept = self.schema.kept_samples(self.rows.start, count)
        self.rng = np.random.default_rng([self.seed, self.rows.start])
        self.image = np.stack([blobs(shape, int(grid.label[i]), i) for i in range(self.rows.start, self.rows.stop)])
        self.direction = unit(self.noise())
        self.update = np.zeros_like(self.direction)
        self.cosine = COSINE[str(self.cell["classifier"]), str(self.cell["classifier_input"])]

    def noise(self) -> NDArray:
        """Noise per pixel plus smooth noise, ``(kept, channel, height, width)``."""
        channel, height, width = self.schema.grid.sample_shape
        coarse = self.rng.standard_normal((self.kept, channel, height // 4, width // 4), dtype=np.float32)
        fine = self.rng.standard_normal((self.kept, channel, height, width), dtype=np.float32)
        return fine + coarse.repeat(4, axis=2).repeat(4, axis=3)

    def step(self, step: int) -> dict[str, NDArray]:
        arrays = {}
        if self.schema.keeps_tensor(step) and self.kept:
            arrays = self.tensors(step)
        if step == self.schema.grid.timesteps - 1:
            arrays["image"] = self.image
        return arrays | {name: values[self.rows, step] for name, values in self.scalars.items()}

    def tensors(self, step: int) -> dict[str, NDArray]:
        rows = slice(self.rows.start, self.rows.start + self.kept)
        direction = unit(self.cosine * self.direction + (1 - self.cosine**2) ** 0.5 * unit(self.noise()))
        gradient = direction * self.scalars["gradient_norm"][rows, step, None, None, None].astype(np.float32)
        memory = 0.0 if self.cell["stabilizer"] == "none" or step == 0 else MEMORY
        update = memory * self.update + (1 - memory) * gradient
        if step > 0:
            self.scalars["gradient_cosine"][rows, step] = (direction * self.direction).sum(axis=(1, 2, 3))
            self.scalars["update_cosine"][rows, step] = (unit(update) * unit(self.update)).sum(axis=(1, 2, 3))
        self.scalars["update_norm"][rows, step] = np.sqrt((update**2).sum(axis=(1, 2, 3)))
        self.direction, self.update = direction, update
        alpha = float(self.schema.grid.alphas_cumprod[step])
        image = self.image[: self.kept]
        guess = np.clip(alpha**0.25 * image + 0.1 * (1 - alpha) * direction * image[0].size ** 0.5, -1, 1)
        x_t = alpha**0.5 * image + (1 - alpha) ** 0.5 * self.noise()
        return {"gradient": gradient, "update": update, "x_t": x_t, "pred_original_sample": guess}


def unit(x: NDArray) -> NDArray:
    """Each sample divided by its norm."""
    length = np.sqrt((x**2).sum(axis=(1, 2, 3), keepdims=True))
    return x / np.where(length == 0, 1, length)


def blobs(shape: tuple[int, int, int], label: int, sample: int) -> NDArray[np.float32]:
    """A ball of the class's colour somewhere on a dark ground, in [-1, 1]."""
    rng = np.random.default_rng(sample)
    y, x = np.mgrid[: shape[1], : shape[2]] / shape[1]
    centre = rng.uniform(0.35, 0.65, size=2)
    ball = np.exp(-(((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.03))
    colour = np.array([[1, 1, 1], [1, 0.4, 0], [0.2, 0.2, 0.2], [1, 1, 0.2]])[label][: shape[0]]
    return (2 * (0.15 + 0.8 * ball * colour[:, None, None]) - 1).astype(np.float32)


if __name__ == "__main__":
    main()
