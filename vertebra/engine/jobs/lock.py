"""A lock on a directory: one process at a time works in it, for as long as it lives.

The lock is the kernel's, on the file `.lock` (POSIX, so that it holds over NFS, and children that are forked do not
share it): it ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

PATIENCE_S = 3.0  # a killed process, and what it started, take a moment to be gone

_held: dict[Path, int] = {}


class Taken(Exception):
    """Another process works there. process: its id as far as it is known."""

    def __init__(self, directory: Path, process: str):
        super().__init__(f"{directory} is taken by process {process}")
        self.process = process


def take(directory: Path) -> None:
    """Lock the directory for this process until `release` or its end; again is no harm.

    Raises Taken where another process has it, and still does after PATIENCE_S. A file system without locks is taken
    as it is.
    """
    place = directory.resolve()
    if place in _held:
        return
    file = os.open(place / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                break
            if time.monotonic() > deadline:
                process = os.read(file, 32).decode(errors="replace").strip() or "unknown"
                os.close(file)
                raise Taken(directory, process) from None
        time.sleep(0.1)
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
    _held[place] = file


def release(directory: Path) -> None:
    """Unlock the directory; nothing happens where this process does not have the directory."""
    file = _held.pop(directory.resolve(), None)
    if file is not None:
        os.close(file)
