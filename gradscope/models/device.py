"""The device of a run."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gradscope.errors import GradscopeError

_SMALL = 20_000_000
"""Number of parameters below which threads wait for each other longer than they compute, at few samples."""


def set_device(name: str) -> torch.device:
    """Choose a device by name (``auto``: CUDA if there is a device) and set it up for reproducible runs.

    On the CPU, denormals are flushed to zero (gradients of saturated classifiers are full of them, and they are slow),
    and the process keeps freed memory. On CUDA, deterministic algorithms are on.

    Raises
    ------
    GradscopeError
        The name is unknown, or this machine lacks the device.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdigit()):
        raise GradscopeError(f"device: got {name!r}; one of: auto, cpu, cuda, cuda:INDEX")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(index or 0) >= available:
        raise GradscopeError(f"device: {name} is not there; CUDA devices found: {available}; cpu works anywhere")
    if kind == "cpu" or not available:
        torch.set_flush_denormal(True)
        _keep_freed_memory()
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda", int(index or 0))


def _keep_freed_memory() -> None:
    """Keep freed memory: every step allocates the same large activations again, and fresh pages cost page faults."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc, mmap_threshold, trim_threshold = ctypes.CDLL(None), -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    if libc.mallopt(mmap_threshold, 2**30):
        libc.mallopt(trim_threshold, 2**31 - 1)


@contextmanager
def few_threads(*models: nn.Module) -> Iterator[None]:
    """One thread while small models run on few samples, and the number of threads as before afterwards."""
    threads = torch.get_num_threads()
    if sum(p.numel() for model in models for p in model.parameters()) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def device_name(device: torch.device) -> str:
    """Name of the device, for cards and stores."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"
