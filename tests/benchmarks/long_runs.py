"""Memory, open files and threads that a long recording holds after its first cell and after its last."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from measure import Case, Extent, Result, Work, alone, judged
from memory import PROBES

from gradscope.config import RunConfig, check
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

HELD: dict[str, Callable[[psutil.Process], float]] = {
    "memory": lambda process: process.memory_info().rss,
    "files": lambda process: process.num_fds(),
    "threads": lambda process: process.num_threads(),
}
CELLS = 8


def results(extent: Extent) -> Iterator[Result]:
    """Whether anything grows with the length of a run."""
    timesteps = extent.size(1000, 50)
    (grown,) = alone(Case("long_runs:growth", {"timesteps": timesteps, "device": extent.device}))
    about = f"after {CELLS} cells of {timesteps:,} timesteps, beyond those after one"
    yield judged(f"memory {about}", [grown["memory"] / 1e6], "<= 16", "MB")
    yield judged(f"open files {about}", [grown["files"]], "<= 1", "files")
    yield judged(f"threads {about}", [grown["threads"]], "<= 0", "threads")


def held_by_cell(path: Path, timesteps: int, cells: int, device: str = "cpu") -> dict[str, list[float]]:
    """Bytes, files and threads of this process, `HELD`, at the end of each cell of a recording."""
    settings = {
        "denoiser": "memory:denoiser32",
        "classifiers": {f"means{i}": "memory:Means" for i in range(cells // 2)},
        "guidance": {"guidance_scale": [0.5]},
        "stabilizers": {"none": {}, "adam": {}},
        "sampling": {"samples": 2, "batch_size": 2, "num_inference_steps": timesteps},
        "probes": PROBES,
        "recording": {"path": str(path), "codec": "none", "tensor_samples": 2},
    }
    run, process = prepare(check(RunConfig, settings, "long_runs"), device), psutil.Process()
    found: dict[str, list[float]] = {name: [] for name in HELD}

    def on_step(cell, step) -> None:
        if step.step == timesteps - 1:
            for name, count in HELD.items():
                found[name].append(count(process))

    record_run(run, on_step=on_step)
    return found


def growth(timesteps: int, device: str) -> Work:
    """Growth of each of `HELD` from the end of the first cell to the end of the last."""

    def work() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            found = held_by_cell(Path(folder) / "run.zarr", timesteps, CELLS, device)
        return {name: values[-1] - values[0] for name, values in found.items()}

    return work
