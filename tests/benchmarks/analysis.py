"""Analysing a store of many gigabytes: time beside that of reading its bytes, memory, growth, and a dask cluster."""

import io
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import dask
import make_store
from measure import Case, Extent, Result, Work, Worker, alone, interleaved, judged, ratios
from stores import forget, read_raw

import gradscope
from gradscope.analysis.tensors import from_tensors
from gradscope.store.dims import sample_dims

SIZES = {0.1: (100, 8, 3), 1.0: (320, 20, 8), 10.0: (1000, 64, 25)}
"""Timesteps, samples and samples with tensors by gigabytes, in 8 cells with four tensors."""
SMALL = 0.1
WORKERS = 2
TORCH_MB = 1000
"""Memory that `evaluate` may take: torch, its models, and batches of images."""


def results(extent: Extent) -> Iterator[Result]:
    """A large store, beside the smallest one."""
    sizes = {"small": SIZES[SMALL], "large": SIZES[extent.gigabytes]}
    if extent.quick:
        sizes = {"small": (20, 4, 1), "large": (40, 8, 2)}
    rounds = min(3, extent.rounds)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: f"{folder}/{name}.zarr" for name in sizes}
        written = {
            name: alone(Case("analysis:made", {"path": paths[name], "size": size}))[0] for name, size in sizes.items()
        }
        times = {
            name: interleaved({act: Case("analysis:acting", {"path": path, "act": act}) for act in ACTS}, rounds)
            for name, path in paths.items()
        }
        about = f"{written['large'] / 1e9:.2g} GB"
        for act in ACTS:
            if act == "reading":
                continue
            large, small = times["large"][act], times["small"][act]
            detail = f"{sum(large) / rounds:.2f} s"
            yield judged(
                f"{act} / reading the bytes, cold: {about}", ratios(large, times["large"]["reading"]), detail=detail
            )
            growth = [x / written["large"] * written["small"] for x in ratios(large, small)]
            yield judged(f"{act}, seconds per byte: {about} / {written['small'] / 1e9:.2g} GB", growth, "<= 1")
            with Worker(Case("analysis:acting", {"path": paths["large"], "act": act})) as worker:
                worker.run()
                yield judged(f"memory of {act}: {about}", [worker.grown / 1e6], f"<= {TORCH_MB}", "MB")
        yield from on_dask(paths["large"], about, rounds)


def on_dask(path: str, about: str, rounds: int) -> Iterator[Result]:
    """The same on a cluster, whose workers are other processes."""
    found = alone(Case("analysis:clustered", {"path": path}), rounds, warm=True)
    for act in ON_DASK:
        detail = f"{sum(times[act] for times in found) / rounds:.2f} s"
        values = [times[act] / times["reading"] for times in found]
        yield judged(f"{act} on {WORKERS} dask workers / reading the bytes, cold: {about}", values, detail=detail)
    memory = [max(times["memory"] for times in found) / 1e6]
    yield judged(f"memory of a dask worker: {about}", memory, "<= 1000", "MB")


def made(path: str, size: tuple[int, int, int]) -> Work:
    """Making the store; returns its bytes."""
    timesteps, samples, tensor_samples = size
    settings = make_store.Settings(timesteps, samples, tensor_samples=tensor_samples)

    def work() -> float:
        with redirect_stdout(io.StringIO()):
            make_store.record(Path(path), make_store.Run(settings))
        return float(sum(file.stat().st_size for file in _files(path)))

    return work


def acting(path: str, act: str) -> Work:
    """One of `ACTS` on a store that is not in the page cache."""

    def work() -> float:
        forget(_files(path))
        start = time.perf_counter()
        ACTS[act](path)
        return time.perf_counter() - start

    return work


def clustered(path: str) -> Work:
    """Each of `ON_DASK` on a cluster, and reading the bytes without it."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
    client = Client(cluster)

    def work() -> dict[str, float]:
        found = {act: acting(path, act)() for act in ("reading", *ON_DASK)}
        return found | {"memory": float(max(client.run(_peak).values()))}

    return work


def _peak() -> float:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _files(path: str) -> list[Path]:
    return [file for file in sorted(Path(path).rglob("*")) if file.is_file()]


def _signatures(path: str) -> None:
    gradscope.signatures(gradscope.open(path))


def _report(path: str) -> None:
    gradscope.report(gradscope.open(path))


def _evaluate(path: str) -> None:
    """Judge, own accuracy, and distances to real images."""
    import torch

    from gradscope.models.classifiers import load_classifier

    zoo = "zoo:sportballs32"
    guides = {
        name: load_classifier(f"{zoo}/{name}", name, (3, 32, 32), torch.device("cpu")).module
        for name in ("robust", "non_robust")
    }
    gradscope.evaluate(
        path,
        guides,
        judge=f"{zoo}/judge",
        extractor=f"{zoo}/extractor",
        data={"name": "sportballs", "size": 32},
        samples=256,
        replicates=8,
        tell=lambda text: None,
    )


def _norms(path: str) -> None:
    """The l2 norm of every gradient, by xarray and dask."""
    gradient = gradscope.open(path)["gradient"]
    norm = (gradient**2).sum(sample_dims(gradient.to_dataset())) ** 0.5
    dask.compute(norm.mean("timestep"))


ACTS: dict[str, Callable[[str], object]] = {
    "reading": lambda path: read_raw(_files(path)),
    "signatures": _signatures,
    "report": _report,
    "evaluate": _evaluate,
    "all diagnostics from tensors": lambda path: from_tensors(gradscope.open(path)),
    "norms of all gradients by xarray": _norms,
}
ON_DASK = ("signatures", "report", "norms of all gradients by xarray")
