"""A cluster's job on its node: it runs the command, and saves and goes back into the queue at the time limit.

Every job imports this module before it can be told to save, so it imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from vertebra.engine.jobs.local import launch
from vertebra.ground.errors import UserError

POLL_S = 0.2


def submitit() -> Any:
    """Return the library. Raises UserError with a hint where it is not installed."""
    try:
        import submitit
    except ImportError:
        raise UserError(
            'jobs reach a SLURM cluster through submitit, which is not installed: pip install "vertebra[slurm]"'
        ) from None
    return submitit


class Task:
    """Runs the command on a node, in a process of its own whose output goes to `console`."""

    def __init__(self, command: Sequence[str], console: Path):
        self.command, self.console = tuple(command), console
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        # At the time limit the cluster signals all processes of a job, but this one decides what the training gets to
        # know.
        self._process = launch(self.command, self.console, ignoring=[signal.SIGUSR2])
        signal.signal(signal.SIGTERM, self._end)  # scancel
        while (code := self._process.poll()) is None:
            time.sleep(POLL_S)
        if code:
            raise RuntimeError(f"the command ended with {code}: {self.console} says why")

    def _end(self, number: int, frame: FrameType | None) -> None:
        assert self._process is not None
        self._process.terminate()

    def checkpoint(self) -> Any:
        """Return what to queue again once the training has saved; submitit calls this near the time limit."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(ChildProcessError):  # looked at without Popen's lock, which this may interrupt
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit().helpers.DelayedSubmission(Task(self.command, self.console))
