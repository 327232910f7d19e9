"""Seconds that a step of the real training loop takes, and the places at which the host waits for a GPU in it."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import common  # noqa: F401 (first: it makes the rooms importable)
import torch
from torch import nn
from torch.optim import Optimizer

from vertebra.engine import loop
from vertebra.engine.distributed import World
from vertebra.engine.measure import wait_for
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.schedule import Constant

WAIT = "called a synchronizing CUDA operation"  # torch's words


class Stopwatch:
    """Seconds a step, taken between two fetches of a batch: after `warm` steps, and after `steps` more.

    One more step ends the training with its log line and its checkpoint, which do wait for the device.
    waits: file:line of each wait of the host for a GPU in the timed steps.
    """

    def __init__(
        self, warm: int, steps: int, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.warm, self.steps, self.device, self.clock = warm, steps, device, clock
        self.iterations = warm + steps + 1
        self.step_s = 0.0
        self.waits: list[str] = []

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Give the batches, and take the time meanwhile."""
        fetched = iter(batches)
        yield from islice(fetched, self.warm)
        wait_for(self.device)
        began = self.clock()
        with waits_noted(self.device) as self.waits:
            yield from islice(fetched, self.steps)
        wait_for(self.device)
        self.step_s = (self.clock() - began) / self.steps
        yield from islice(fetched, 1)


@contextmanager
def waits_noted(device: torch.device) -> Iterator[list[str]]:
    """Give a list that is filled, in the end, with file:line of each wait for the GPU that torch knows of."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
            found += [f"{Path(one.filename).name}:{one.lineno}" for one in heard if WAIT in str(one.message)]


def train(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[Any],
    stopwatch: Stopwatch,
    *,
    precision: str,
    compile: bool = False,
) -> Stopwatch:
    """Train for as long as the stopwatch says, by `loop` as every command does; return the stopwatch."""
    with tempfile.TemporaryDirectory() as folder:
        loop.train(
            model=model,
            optimizer=optimizer,
            schedule=Constant(),
            loader=stopwatch.watch(batches),
            run=RunDirectory.open(Path(folder) / "run", {"precision": precision}, tensorboard=False),
            iterations=stopwatch.iterations,
            world=World(device=stopwatch.device),
            precision=precision,
            log_period=stopwatch.iterations,
            compile=compile,
        )
    return stopwatch
