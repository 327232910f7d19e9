"""Waits of processes for one another that end: in a report of where each of them is, not in silence.

A rank that is gone, stuck, or in another collective than the others leaves them inside C++, where Python can raise
nothing. So two threads of each process look on: one knows how long its main thread has been waiting, the other tells
it to the others through torchrun's store, so that all write down where they are, and end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist

PATIENCE_S = float(os.environ.get("VERTEBRA_PATIENCE_S", 600))  # with a step, and with what all do alike
LONG_PATIENCE_S = max(4 * 3600.0, PATIENCE_S)  # while rank 0 scores and writes
FRAMES = 12  # of each stack


class Wait(NamedTuple):
    """What the main thread is about, since when, and for how long it may be."""

    what: str
    since: float
    patience_s: float

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self.since > self.patience_s


class Watch:
    """Looks whether this process gets on. `name`: of the process, for people; the key is the same on all ranks."""

    def __init__(self, name: str, *, rank: int, size: int, key: str, patience_s: float = PATIENCE_S):
        self._name, self._rank, self._size, self._key = name, rank, size, key
        self._patience_s = patience_s
        self._answer_s = min(20.0, patience_s)  # for the others' stacks
        self._wait: Wait | None = None
        self._ended = threading.Event()
        self._main = threading.get_ident()

    def start(self) -> Watch:
        for look in (self._look, self._listen):
            threading.Thread(target=look, name=f"watch{look.__name__}", daemon=True).start()
        return self

    def stop(self) -> None:
        self._ended.set()

    def step(self, what: str | None) -> None:
        """Count from here until the next step; None: nothing is waited for until then."""
        self._wait = Wait(what, time.monotonic(), self._patience_s) if what else None

    @contextlib.contextmanager
    def waiting(self, what: str, patience_s: float | None = None) -> Iterator[None]:
        """Count what happens inside; afterwards what was counted before has all its time again."""
        before = self._wait
        self._wait = Wait(what, time.monotonic(), patience_s or self._patience_s)
        try:
            yield
        finally:
            self._wait = before and before._replace(since=time.monotonic())

    def _look(self) -> None:
        """End this process where nobody can be asked: the store is gone, or does not answer."""
        while not self._ended.wait(min(1.0, self._patience_s / 10)):
            wait = self._wait
            if wait and wait._replace(patience_s=wait.patience_s + 2 * self._answer_s).is_over:
                self._end(f"{self._about(wait)} The other processes cannot be asked.\n{self._stack()}")

    def _listen(self) -> None:
        """Tell the others that this process has waited too long, or hear it from them; then report and end."""
        period_s = min(5.0, self._patience_s / 10)
        with contextlib.suppress(RuntimeError, dist.DistError):  # the store has gone with its process: see `_look`
            store = dist.PrefixStore(self._key, _own_connection(self._answer_s))
            while not self._ended.wait(period_s):
                wait = self._wait
                if wait and wait.is_over and store.add("overdue", 1) == 1:
                    store.set("reason", self._about(wait))
                elif not store.check(["reason"]):
                    continue
                self._report(store)

    def _report(self, store: dist.Store) -> None:
        """Write down where this process is; the first to come here prints what all have written. All end."""
        try:
            store.set(f"stack{self._rank}", f"{self._name}\n{self._stack()}")
            if store.add("reporters", 1) > 1:
                self._wait_for(store, ["told"], 2 * self._answer_s)
            else:
                self._print_all(store)
                store.set("told", "1")
                time.sleep(min(1.0, self._answer_s))  # the store may be this process's: let the others read that
        finally:
            self._end("")

    def _print_all(self, store: dist.Store) -> None:
        keys = [f"stack{rank}" for rank in range(self._size)]
        self._wait_for(store, keys, self._answer_s)
        parts = [store.get("reason").decode()]
        for rank, key in enumerate(keys):
            silent = f"rank {rank} does not answer: its process or its host is gone, or its Python is held up"
            parts.append(store.get(key).decode() if store.check([key]) else silent)
        print("\n".join(parts), file=sys.stderr, flush=True)

    def _wait_for(self, store: dist.Store, keys: list[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not store.check(keys) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _about(self, wait: Wait) -> str:
        waited_s = time.monotonic() - wait.since
        return (
            f"error: {self._name} has waited {waited_s:.0f} s in {wait.what}. All processes end here; what was saved "
            "stays: continue with --resume. Where they were:"
        )

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._main)
        return "".join(traceback.format_stack(frame)[-FRAMES:]) if frame else "  (its main thread has ended)\n"

    def _end(self, sentence: str) -> None:
        """Leave at once: the main thread cannot be called back. Files are written whole or not at all."""
        if not self._ended.is_set():
            if sentence:
                print(sentence, file=sys.stderr, flush=True)
            os._exit(1)


def _own_connection(timeout_s: float) -> dist.TCPStore:
    """Return a connection of one's own to torchrun's store: the main thread's is held while that waits."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=max(timeout_s, 5.0)))


def process_name(rank: int) -> str:
    """`rank 3 on node7 (process 812)`."""
    return f"rank {rank} on {socket.gethostname()} (process {os.getpid()})"
