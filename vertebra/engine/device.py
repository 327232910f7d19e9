"""The device that work runs on, from the word that a user gives, and its memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from typing import Literal

import torch

from vertebra.ground.cores import usable_cores
from vertebra.ground.errors import UserError

FEWEST_WORKERS, MOST_WORKERS = 2, 16  # of a process, where their number is "auto"


def resolve(name: str = "auto", *, local_rank: int = 0) -> torch.device:
    """Return the device of process `local_rank` on this machine. auto: CUDA where there is one, else the CPU.

    Raises UserError for `cuda` on a machine without one, and where there are more processes than GPUs.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "--device cuda was asked for, but torch sees no CUDA device on this machine; "
            "use --device cpu, or install a torch build and a driver that match."
        )
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise UserError(
            f"{local_rank + 1} processes were asked for, but this machine has {count} GPU(s); "
            f"use --gpus {count}, or --device cpu."
        )
    return torch.device("cuda", local_rank)


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory in use so far, MB: allocated on a GPU, resident for the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kilobytes on Linux


@contextlib.contextmanager
def memory_in_words(device: torch.device, hint: str) -> Iterator[None]:
    """Raise UserError for a device or a host that has no memory left inside. hint: what to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is among them
        words = " ".join(str(error).split())
        is_full = any(sign in words.lower() for sign in ("out of memory", "allocate memory", "not enough memory"))
        if not is_full and not isinstance(error, MemoryError):
            raise
        raise UserError(
            f"There is no memory left on {device}: {words[:200]} (the most in use so far: "
            f"{peak_memory_mb(device):.0f} MB). Try {hint}."
        ) from error


def keep_freed_memory() -> None:
    """Let this process keep the memory that tensors on the CPU free, for the next step's; with glibc alone.

    Otherwise each step's maps of a few megabytes go back to the system and are fetched, page by page and zeroed, at
    the next: a sixth of the time of a CIFAR net on a CPU. Maps above 32 MB (glibc's bound) still go back.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # of malloc.h
        library.mallopt(mmap_threshold, 32 << 20)
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(top_pad, 64 << 20)


def visible_gpus(name: str = "auto") -> list[str]:
    """Return this process's GPUs as CUDA_VISIBLE_DEVICES names them; none where the work goes to the CPU."""
    if resolve(name).type == "cpu":
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]


def own_cores(processes: int | None = None) -> int:
    """Return the cores of each of `processes` that share this machine; None: those of torchrun."""
    if processes is None:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, usable_cores() // processes)


def fit_threads() -> None:
    """Give torch as many threads as this process has cores: by itself it knows of no cgroup's quota.

    OMP_NUM_THREADS stands.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), own_cores()))


def loader_workers(asked: int | Literal["auto"] = "auto", *, processes: int | None = None) -> int:
    """Return the loader processes of each of `processes` that share this machine; None: those of torchrun.

    auto: the cores that are left over beside one for the process itself, 2 to 16.
    """
    if asked != "auto":
        return asked
    return max(FEWEST_WORKERS, min(MOST_WORKERS, own_cores(processes) - 1))
