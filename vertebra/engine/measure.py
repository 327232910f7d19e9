"""The time that a call takes, and the memory that it needs."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def timed_calls(
    call: Callable[[], Any],
    device: torch.device,
    *,
    enough: int,
    fewest: int | None = None,
    within_s: float = float("inf"),
    warmup: int = 1,
) -> list[float]:
    """Return the seconds of each of `enough` calls, the device's work included, after `warmup` calls that do not count.

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
    """Wait until the device has done its work; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_growth(call: Callable[[], Any], device: torch.device) -> float:
    """Return the MB by which memory in use rises during `call`, at the highest point.

    On a GPU what torch allocates; on a CPU the tensors that are alive at once, without what an operation needs inside.
    """
    if device.type != "cuda":
        with _LiveTensors() as tensors:
            call()
        return tensors.most_bytes / 2**20
    gc.collect()
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    wait_for(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


class _LiveTensors(TorchDispatchMode):
    """Sums the storages that operations make, each from its first tensor's birth to its last one's end."""

    def __init__(self) -> None:
        super().__init__()
        self.most_bytes = 0
        self._bytes = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given | self._alive:  # neither a view nor changed in place
                    self._alive.add(storage._cdata)
                    self._bytes += storage.nbytes()
                    self.most_bytes = max(self.most_bytes, self._bytes)
                    weakref.finalize(storage, self._end, storage._cdata, storage.nbytes())
        return result

    def _end(self, place: int, size_bytes: int) -> None:
        self._alive.remove(place)
        self._bytes -= size_bytes


def weights_mb(module: nn.Module) -> float:
    """Return the memory of the parameters and buffers, MB; shared ones count once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(storages.values()) / 2**20
