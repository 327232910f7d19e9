"""Ctrl-C, SIGTERM, and SLURM's warning SIGUSR1: finish the step, save, leave, all processes at the same iteration.

An evaluation, before which all is saved, is left at once; a resumed run does it again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from vertebra.engine.distributed import World

PATIENCE_S = 3.0


class Interrupted(KeyboardInterrupt):
    """A training was asked to stop and has saved its state.

    exit_code: a shell's for the signal, 130 for SIGINT, 138 for SIGUSR1, 143 for SIGTERM: queue the command again.
    """

    def __init__(self, iteration: int, received: int, *, evaluating: bool = False):
        name, place = signal.Signals(received).name, "in the evaluation at" if evaluating else "at"
        super().__init__(f"{name}: stopped {place} iteration {iteration}, state saved; continue with --resume.")
        self.iteration = iteration
        self.exit_code = 128 + received


class StopSignals:
    """Inside, the first such signal is noted instead of obeyed; one that comes PATIENCE_S later is obeyed.

    Only the main thread can catch signals; in another one nothing is caught.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self, world: World):
        self._world = world
        self._received = 0
        self._received_at = 0.0
        self._evaluating: int | None = None  # the iteration
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def agreed(self) -> int:
        """Return the signal that any process has got, 0 for none; the same on all. A tiny all-reduce."""
        if self._world.size == 1:
            return self._received
        flag = torch.tensor(float(self._received), device=self._world.device)
        return int(self._world.all_reduce_max(flag).item())

    @contextmanager
    def at_once(self, iteration: int) -> Iterator[None]:
        """Raise Interrupted wherever inside a signal finds this process: for an evaluation, with all state saved."""
        self._evaluating = iteration
        try:
            self._obey()
            yield
        finally:
            self._evaluating = None

    def _obey(self) -> None:
        if self._received and self._evaluating is not None and os.getpid() == self._process:
            raise Interrupted(self._evaluating, self._received, evaluating=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Launchers and terminals often send the same signal twice within a moment, so a second one counts only
        # after a while. Loader workers are forked with this handler: they let the first pass, too, as the training
        # process still needs them for its step.
        now = time.monotonic()
        if not self._received:
            self._received, self._received_at = number, now
            self._obey()
        elif now - self._received_at >= PATIENCE_S:
            self._restore()
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
