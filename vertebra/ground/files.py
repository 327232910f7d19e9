"""Files that are either whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic_core import to_json

from vertebra.ground.errors import UserError


def require_weights(path: Path) -> None:
    """Raise UserError where no file of weights is."""
    if not path.is_file():
        raise UserError(f"The weights {path} do not exist; check the path.")


class DiskFull(OSError):
    """There was no room for a file; whatever stood there before is untouched."""


class _WatchedFile:
    """A file that remembers why a write failed.

    Libraries that write through native code (torch's zip writer) turn an OSError into errors of their own.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as failure:
            self.failure = failure
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def write_atomically(path: Path, write: Callable[[BinaryIO], Any], *, sync: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, and move it to `path` once it is on the disk.

    A crash at any moment leaves either the old file or the new one. Raises DiskFull, with `path` as it was before.
    sync: False for many small files that are soon made again: a kill leaves as much, a power cut may not.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    failure: OSError | None = None
    try:
        with open(temporary, "wb") as file:
            watched = _WatchedFile(file)
            try:
                write(cast(BinaryIO, watched))
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            except BaseException:
                failure = watched.failure
                raise
        os.replace(temporary, path)
        if sync:
            _sync_directory(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_full(failure or error):
            raise _disk_full(path) from error
        raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file. Raises DiskFull; what was there stays, with a part of the line at worst."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        if is_full(error):
            raise _disk_full(path) from error
        raise


def is_full(error: BaseException | None) -> bool:
    """Return True for the error of a full disk or a used-up quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _disk_full(path: Path) -> DiskFull:
    return DiskFull(
        errno.ENOSPC,
        f"The disk is full: {path} could not be written (what stood there before is kept). "
        "Free some space and run the same command again, with --resume for a training.",
    )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """Write `value` as JSON, atomically: readable, or `compact` where it is long and nobody reads it."""
    if compact:
        write_atomically(path, lambda file: file.write(to_json(value) + b"\n"))  # a quarter of the time of json.dumps
    else:
        write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut, where the system lets directories be synced."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
