"""Processes for data: those of a pool, and loader processes, their start, the file that each is at, the shared memory
for their batches, and how they end.

A process that the kernel ends (memory ran out, a bus error) says nothing itself. So each keeps the name of the file
that it is at in memory that the main process sees as well.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import cv2

from vertebra.ground.cores import usable_cores
from vertebra.ground.errors import UserError

PREFETCH_BATCHES = 2  # a worker
FORK = "fork" if sys.platform.startswith("linux") else None  # how workers are started; None: the default
SHARED = Path("/dev/shm")
SHARED_HINT = "give fewer --workers, or more room: docker run --shm-size=8g"
OPEN_FILES = 1 << 16  # a batch on its way takes one a tensor, and the usual limit is 1024
_NAME_BYTES = 1024
_ENDS = {
    signal.SIGKILL: ", as the kernel does where memory runs out",
    signal.SIGBUS: ", as where /dev/shm or a disk is full, or a file shrinks while it is read",
}

_slot: memoryview | None = None  # of this process, where it is a loader process
_work_here: Callable[[Any], Any] | None = None  # of this process, where it is one of `in_processes`
_Task = TypeVar("_Task")
_Answer = TypeVar("_Answer")


def in_processes(
    work: Callable[[_Task], _Answer], tasks: Sequence[_Task], processes: int = 0
) -> Generator[_Answer, None, None]:
    """Yield work(task) of each task, in order, from as many processes as cores, or as are given."""
    processes = min(processes or usable_cores(), len(tasks))
    if processes < 2:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(processes, get_context(FORK), initializer=_begin, initargs=(work,)) as pool:
        try:
            yield from pool.map(_at_work, tasks)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C is answered at once


def _begin(work: Callable[[Any], Any]) -> None:
    global _work_here
    _work_here = work
    cv2.setNumThreads(0)  # one process, one core


def _at_work(task: Any) -> Any:
    assert _work_here is not None
    return _work_here(task)


def at_file(name: object) -> None:
    """Note that this process begins with that file, should it be a loader process."""
    if _slot is not None:
        text = os.fsencode(str(name))[: _NAME_BYTES - 1]
        _slot[: len(text) + 1] = text + b"\0"


def require_room(processes: int, needed: int) -> None:
    """Make sure, before they start, that what loader processes have on their way at a time finds room.

    needed: bytes, which each process of this machine asks for. Raises UserError where /dev/shm is too small.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if not SHARED.is_dir():
        return
    room = os.statvfs(SHARED)
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    share = min(room.f_bavail, room.f_blocks // sharing) * room.f_frsize
    if needed > share:
        each = f" for each of {sharing} processes" if sharing > 1 else ""
        reason = (
            f"too small: the batches of {processes} loader processes take {needed / 2**20:.0f} MB of shared "
            f"memory, and it has {share / 2**20:.0f} MB{each}"
        )
        raise UserError(SHARED, reason, SHARED_HINT)


class Crew:
    """The `count` loader processes of one loader."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._names = memoryview(mmap.mmap(-1, max(1, count) * _NAME_BYTES))  # shared with what is forked

    def __reduce__(self) -> tuple[object, ...]:  # where workers are not forked, they name no files
        return Crew, (self.count,)

    def start(self, worker: int) -> None:
        """Begin as loader process number `worker`: one core, no signals, a place for the name of its file."""
        global _slot
        cv2.setNumThreads(0)
        # Both may be sent to the whole group (a terminal's Ctrl-C, a cluster's SIGTERM): they are for the main process,
        # which saves its state and then ends its workers.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        _slot = self._slot_of(worker)

    def _slot_of(self, worker: int) -> memoryview:
        return self._names[worker * _NAME_BYTES : (worker + 1) * _NAME_BYTES]

    def file_of(self, worker: int) -> str:
        """Return the file that a process is at, or was when it ended; "the loader" before its first."""
        return os.fsdecode(self._slot_of(worker).tobytes().partition(b"\0")[0]) or "the loader"

    def failure(self, error: Exception, worker: int) -> UserError:
        """Return the sentence on an error in this process, which is number `worker`."""
        if isinstance(error, UserError):
            return error
        if "shared memory" in str(error) or "No space left" in str(error):
            return UserError(SHARED, "full: a loader process finds no room there for a batch", SHARED_HINT)
        reason = f"a loader process failed at it ({type(error).__name__}: {error})"
        return UserError(self.file_of(worker), reason, "VERTEBRA_TRACEBACK=1 shows where")

    def ended(self, processes: Sequence[BaseProcess]) -> UserError | None:
        """Return the sentence on the first of them that has ended by itself; None where none has within a second."""
        ended = wait([process.sentinel for process in processes], timeout=1)
        for worker, process in enumerate(processes):
            if process.sentinel in ended:
                process.join(1)  # how it ended is known a moment later
            if code := process.exitcode:
                how = f"ended with {code}"
                if code < 0:
                    how = f"was ended by {signal.Signals(-code).name}{_ENDS.get(signal.Signals(-code), '')}"
                reason = f"loader process {worker + 1} of {self.count} {how}; it was at this file"
                return UserError(self.file_of(worker), reason, "fewer --workers need less memory")
        return None
