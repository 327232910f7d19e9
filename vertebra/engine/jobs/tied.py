"""Processes that do not outlive the one that started them, not even where that was killed outright.

A training whose study is gone would go on beside the one that takes its place. On Linux the kernel ends it: a process
may ask to be killed when its parent ends. Elsewhere nothing is tied, and a run directory's lock (`jobs.lock`) is what
is left.

As a program, `python engine/tied.py PARENT IGNORED COMMAND...`, it ties itself to the process PARENT that started it
and becomes the command, with the signals IGNORED ("9,12" or "-"); it is run without site-packages, so it imports the
standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

_forking: int | None = None
_forks_are_tied = False


def tied(command: Sequence[str], *, ignoring: Sequence[signal.Signals] = ()) -> tuple[str, ...]:
    """Return the command that runs `command` in a process that dies with this one (strictly: with the calling thread).

    ignoring: signals that neither it nor what it starts will notice, unless they say otherwise.
    """
    ignored = ",".join(str(int(number)) for number in ignoring) or "-"
    return (sys.executable, "-IS", os.path.abspath(__file__), str(os.getpid()), ignored, *command)


def die_with(parent: int) -> None:
    """From now on this process is killed when `parent`, which started it, ends; at once where it has ended already."""
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def tie_forks() -> None:
    """Let all that this process forks in its main thread from now on (loader workers) die with it."""
    global _forks_are_tied
    if not _forks_are_tied and _LIBC is not None:
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
        _forks_are_tied = True


def _before_fork() -> None:
    global _forking
    _forking = os.getpid() if threading.current_thread() is threading.main_thread() else None


def _after_fork() -> None:
    if _forking is not None:
        die_with(_forking)


def main() -> None:
    parent, ignored, *command = sys.argv[1:]
    for number in ignored.split(",") if ignored != "-" else ():
        signal.signal(int(number), signal.SIG_IGN)
    die_with(int(parent))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"error: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
