"""How long a call takes and how much memory it needs, measured in the process that also does other things."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what Linux resets the peak of resident memory with (proc_pid_clear_refs)


def timed_calls(
    call: Callable[[], Any],
    device: torch.device,
    *,
    enough: int,
    fewest: int | None = None,
    within_s: float = float("inf"),
    warmup: int = 1,
) -> list[float]:
    """Seconds of each of `enough` calls, the device's work included, after `warmup` calls that do not count.

    Where they take longer than `within_s` together, fewer are made, but never less than `fewest` (none: `enough`).
    """
    for _ in range(warmup):
        call()
    times_s: list[float] = []
    fewest = enough if fewest is None else fewest
    while len(times_s) < fewest or (len(times_s) < enough and sum(times_s) < within_s):
        wait_for(device)
        started = time.perf_counter()
        call()
        wait_for(device)
        times_s.append(time.perf_counter() - started)
    return times_s


def wait_for(device: torch.device) -> None:
    """Until all that the device was told to do is done; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Growth:
    """mb: what came on top of the memory in use at the beginning, at the highest point; None: not to be known here."""

    mb: float | None = None


@contextmanager
def memory_growth(device: torch.device) -> Iterator[Growth]:
    """How far memory in use rises inside: allocated on a GPU, resident for the process on a CPU.

    What a process holds already (a training's gradients and data, libraries, another model) is thus not counted. On a
    CPU freed memory is given back to the system first, since memory that is used again would not show. Known on a GPU
    and on Linux; elsewhere a process's peak is one for its whole life.
    """
    growth = Growth()
    gc.collect()
    if device.type == "cuda":
        wait_for(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield growth
        wait_for(device)
        growth.mb = (torch.cuda.max_memory_allocated(device) - before) / 2**20
        return
    began = _resident_from_here()
    yield growth
    if began is not None:
        growth.mb = max(0.0, _resident_mb("VmHWM") - began)


def weights_mb(module: nn.Module) -> float:
    """Memory of the parameters and buffers, MB; shared ones count once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(storages.values()) / 2**20


def _resident_from_here() -> float | None:
    """Resident memory, MB, from which on the peak is counted anew; None where the system cannot."""
    if sys.platform != "linux":
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        _CLEAR.write_text(_RESET_PEAK)
        return _resident_mb("VmRSS")
    except OSError:  # /proc is not there, or not to be written to
        return None


def _resident_mb(field: str) -> float:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**10
