"""Memory, open files and threads that a long recording holds after its first cell and after its last."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
from measure import Work
from memory import PROBES

from gradscope.config import RunConfig, check
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

HELD: dict[str, Callable[[psutil.Process], float]] = {
    "memory": lambda process: process.memory_info().rss,
    "files": lambda process: process.num_fds(),
    "threads": lambda process: process.num_threads(),
}


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


def growth(what: str, timesteps: int, cells: int, device: str) -> Work:
    """Growth of one of `HELD` from the end of the first cell to the end of the last."""

    def work() -> float:
        with tempfile.TemporaryDirectory() as folder:
            found = held_by_cell(Path(folder) / "run.zarr", timesteps, cells, device)[what]
        return found[-1] - found[0]

    return work
