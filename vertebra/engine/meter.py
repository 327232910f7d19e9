"""Measures of a training as it goes on: mean losses, samples, times."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from vertebra.engine.distributed import World

logger = logging.getLogger(__name__)

Value = TypeVar("Value", float, Tensor)


def losses_in(values: Mapping[str, Value]) -> list[Value]:
    """Return the values whose names begin with "loss": their sum is minimised, the others are figures."""
    return [value for name, value in values.items() if name.startswith("loss")]


class LossMeter:
    """Sum the named scalars of each micro-batch on the device."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, values: dict[str, Tensor]) -> Tensor:
        """Add one micro-batch's values and return them in one float vector. No host wait.

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
        """Return the means over the period so far and over all processes. Waits for the device."""
        assert self._sums is not None, "nothing was added"
        means = world.all_reduce_sum(self._sums.clone()) / (self._count * world.size)
        return dict(zip(self.names, means.tolist()))

    def means(self, world: World) -> dict[str, float]:
        """Return the means over the period and over all processes, and begin a new period. Waits for the device."""
        means = self.peek(world)
        self._sums, self._count = None, 0
        return means

    def state_dict(self, world: World) -> dict[str, Any]:
        """Return the period so far, for a checkpoint in its midst: sums, in the mean over all processes."""
        if self._sums is None:
            return {}
        sums = world.all_reduce_sum(self._sums.clone()) / world.size
        return {"names": list(self.names), "sums": sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on with the period of `state_dict`."""
        if state:
            self.names, self._count = tuple(state["names"]), state["count"]
            self._sums = state["sums"].to(device)


class SampleCounter:
    """Counts samples, and those that were replaced because they were bad, over all processes."""

    def __init__(self) -> None:
        self._samples = 0
        self._skipped: list[str] = []
        self._named: set[str] = set()

    def add(self, batch: Any) -> None:
        """Count a batch of this process."""
        self._samples += len(batch.image_ids)
        self._skipped += batch.skipped

    def collect(self, world: World) -> tuple[int, int]:
        """Return all processes' samples and skipped samples since the last call; log names of the latter once."""
        here = [self._samples, len(self._skipped)]
        counts = torch.tensor(here, dtype=torch.int64, device=world.device)
        samples, skipped = world.all_reduce_sum(counts).tolist() if world.size > 1 else here
        if skipped:
            for name in [name for names in world.gather_objects(self._skipped) for name in names]:
                if name not in self._named:
                    logger.warning("Skipped a bad sample: %s", name)
                    self._named.add(name)
        self._samples, self._skipped = 0, []
        return samples, skipped


class Clock:
    """Time spent on training: in all, an iteration, waiting for data, and left. `paused` time does not count."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before_s = 0.0
        self._data_s = 0.0
        self._iterations = 0
        self._pace_s: float | None = None

    def fetch(self, batches: Iterator[Any]) -> Any:
        """Return the next batch, timed. Raises StopIteration at the end."""
        started = time.perf_counter()
        batch = next(batches)
        self._data_s += time.perf_counter() - started
        return batch

    def tick(self) -> None:
        """Count an iteration that is done."""
        self._iterations += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time that is spent inside (an evaluation, a checkpoint)."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - began

    def lap(self) -> tuple[float, float]:
        """Return seconds an iteration, and seconds of them spent waiting for data, since the last lap."""
        elapsed_s, count = time.perf_counter() - self._started, max(self._iterations, 1)
        time_s, data_s = elapsed_s / count, self._data_s / count
        # Early laps are slow (caches, autotuning), so newer ones weigh more in what is left.
        self._pace_s = time_s if self._pace_s is None else 0.5 * (self._pace_s + time_s)
        self._before_s += elapsed_s
        self._started, self._iterations, self._data_s = time.perf_counter(), 0, 0.0
        return time_s, data_s

    def total_s(self) -> float:
        """Return seconds of training since the clock was made."""
        return self._before_s + time.perf_counter() - self._started

    def eta_s(self, iterations_left: int) -> float:
        """Return seconds of training that are left."""
        return (self._pace_s or 0.0) * iterations_left
