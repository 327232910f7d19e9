"""How long a call takes and how much memory it needs, measured in the process that also does other things."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vertebra.engine.malloc import only_what_is_in_use

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


def memory_growth(call: Callable[[], Any], device: torch.device) -> float | None:
    """MB by which memory in use rises during `call`, at the highest point; None where the system does not tell.

    On a GPU what torch has allocated. On Linux what is resident for the process, with glibc whatever it held, freed and
    kept before (see `vertebra.engine.malloc`). `call` has run before: a first one loads code.
    """
    gc.collect()
    if device.type == "cuda":
        wait_for(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        wait_for(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with only_what_is_in_use():
        began = _resident_from_here()
        call()
        return None if began is None else max(0.0, _resident_mb("VmHWM") - began)


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
    try:
        _CLEAR.write_text(_RESET_PEAK)
        return _resident_mb("VmRSS")
    except OSError:  # /proc is not there, or not to be written to
        return None


def _resident_mb(field: str) -> float:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**10
