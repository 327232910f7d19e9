"""Means over a log period, summed where they arise: losses on the device, times on the host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vertebra.engine.distributed import World


class LossMeter:
    """Sums the named scalars of each micro-batch on the device."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, values: dict[str, Tensor]) -> Tensor:
        """Adds one micro-batch's values and returns them in one float vector. No host wait.

        Raises ValueError where a model returns other names than before.
        """
        names = tuple(values)
        if self.names and names != self.names:
            raise ValueError(
                f"The model returned {', '.join(names)} after {', '.join(self.names)}; it must not change."
            )
        self.names = names
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self._sums = stacked if self._sums is None else self._sums + stacked
        self._count += 1
        return stacked

    def peek(self, world: World) -> dict[str, float]:
        """The means over the period so far and over all processes. Waits for the device."""
        assert self._sums is not None, "nothing was added"
        means = world.all_reduce_sum(self._sums.clone()) / (self._count * world.size)
        return dict(zip(self.names, means.tolist()))

    def means(self, world: World) -> dict[str, float]:
        """The means over the period and over all processes; begins a new period. Waits for the device."""
        means = self.peek(world)
        self._sums, self._count = None, 0
        return means

    def state_dict(self, world: World) -> dict[str, Any]:
        """The period so far, for a checkpoint in its midst: sums in the mean over all processes."""
        if self._sums is None:
            return {}
        sums = world.all_reduce_sum(self._sums.clone()) / world.size
        return {"names": list(self.names), "sums": sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Goes on with the period of `state_dict`."""
        if state:
            self.names, self._count = tuple(state["names"]), state["count"]
            self._sums = state["sums"].to(device)


class Clock:
    """Time spent on training: in all, an iteration, waiting for data, and left. `paused` time does not count."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before_s = 0.0
        self._data_s = 0.0
        self._iterations = 0
        self._pace_s: float | None = None

    def fetch(self, batches: Iterator[Any]) -> Any:
        """The next batch, timed. Raises StopIteration at the end."""
        started = time.perf_counter()
        batch = next(batches)
        self._data_s += time.perf_counter() - started
        return batch

    def tick(self) -> None:
        """One iteration is done."""
        self._iterations += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside (an evaluation, a checkpoint) does not count."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - began

    def lap(self) -> tuple[float, float]:
        """Seconds an iteration, and seconds of them spent waiting for data, since the last lap."""
        elapsed_s, count = time.perf_counter() - self._started, max(self._iterations, 1)
        time_s, data_s = elapsed_s / count, self._data_s / count
        # Early laps are slow (caches, autotuning), so newer ones weigh more in what is left.
        self._pace_s = time_s if self._pace_s is None else 0.5 * (self._pace_s + time_s)
        self._before_s += elapsed_s
        self._started, self._iterations, self._data_s = time.perf_counter(), 0, 0.0
        return time_s, data_s

    def total_s(self) -> float:
        """Seconds of training since the clock was made."""
        return self._before_s + time.perf_counter() - self._started

    def eta_s(self, iterations_left: int) -> float:
        """Seconds of training that are left."""
        return (self._pace_s or 0.0) * iterations_left
