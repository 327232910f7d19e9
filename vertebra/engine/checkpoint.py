"""Training state on disk: whole files only, the last few and the best, read without running code in them.

A file holds a checksum of each of its parts: torch.save writes zip files, with CRC-32, which torch.load never looks at.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from vertebra.ground.errors import UserError, first_line
from vertebra.ground.files import write_atomically
from vertebra.ground.pickles import read_arrays

logger = logging.getLogger(__name__)

State = dict[str, Any]  # plain values, lists, dicts and tensors only
_SMALL_BYTES = 1 << 26  # a file below this that asks for more memory than there is, is damaged
AGAIN = "fetch it again, or use another"


class CheckpointError(UserError):
    """A checkpoint that cannot, or must not, be read."""


class Checkpoints:
    """The checkpoints of one run: `0000379.pt` by iteration, and `best.pt`.

    `keep` of the newest are kept, two at least by default, so that a damaged one costs a period and not the run.
    Leaving the context waits for the write in flight.
    """

    def __init__(self, directory: Path, *, keep: int = 2):
        self.directory = directory
        self.keep = keep
        self._thread: ThreadPoolExecutor | None = None
        self._write: Future[Path] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def save_in_background(self, state: State, *, best: bool = False) -> None:
        """Copy `state` and `save` the copy while the caller goes on; a write that is still in flight is waited for.

        The caller learns of an error from the next call of `wait`, `raise_failure` or this.
        """
        self.wait()
        self._thread = self._thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        on_host = tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), state)
        self._write = self._thread.submit(self.save, on_host, best=best)

    def wait(self) -> None:
        """Return once nothing is being written any more; raise what went wrong in the last write."""
        if self._write is not None:
            self._write.result()
            self._write = None

    def raise_failure(self) -> None:
        """Raise what went wrong in the last write, without waiting for one in flight."""
        if self._write is not None and self._write.done():
            self.wait()

    def save(self, state: State, *, best: bool = False) -> Path:
        """Write `state` (which names its `iteration`); of all up to it, keep the newest `keep`.

        What there is of later iterations goes: damaged ones, over which `latest` passed to continue from before them.
        best: also as best.pt. Raises files.DiskFull, with all earlier checkpoints in their place.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.path(state["iteration"])
        write_atomically(path, lambda file: torch.save(state, file))
        if best:
            self.mark_best(path)
        paths = self.paths()
        kept = [one for one in paths if one <= path][-self.keep :]
        for one in set(paths) - set(kept):
            one.unlink(missing_ok=True)
        for abandoned in self.directory.glob(".*.tmp"):  # by a process that was killed while it wrote
            abandoned.unlink(missing_ok=True)
        return path

    def save_aside(self, state: State, reason: str) -> Path:
        """Write `state` under a name that `latest` passes over, to find out later what went wrong."""
        self.wait()  # at its end that write clears away what looks half-written
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{reason}_{state['iteration']:07d}.pt"
        write_atomically(path, lambda file: torch.save(state, file))
        return path

    def mark_best(self, path: Path) -> Path:
        """Make `best.pt` a second name of `path`'s content, which so outlives `path` (a copy without links)."""
        best, temporary = self.directory / "best.pt", self.directory / ".best.pt.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
            os.replace(temporary, best)
        except OSError:
            temporary.unlink(missing_ok=True)
            write_atomically(best, lambda file: file.write(path.read_bytes()))
        return best

    def path(self, iteration: int) -> Path:
        """Return where the checkpoint of that iteration is, or would be."""
        return self.directory / f"{iteration:07d}.pt"

    def paths(self) -> list[Path]:
        """Return all checkpoints, the oldest first."""
        return sorted(p for p in self.directory.glob("*.pt") if re.fullmatch(r"\d+\.pt", p.name))

    def latest(self) -> State | None:
        """Return the newest checkpoint that can be read, None where there is none at all.

        A damaged one is passed over with a warning. Raises CheckpointError where every one is damaged, and
        UnsafeCheckpoint at once.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return _load_intact(path)
            except UnsafeCheckpoint:
                raise
            except CheckpointError as error:
                logger.warning("%s Reading the one before it.", error)
        if paths:
            raise CheckpointError(
                f"None of the {len(paths)} checkpoint(s) in {self.directory} can be read; "
                "start again with another --output."
            )
        return None

    def best(self) -> State | None:
        """Return the checkpoint with the best figure so far, None before the first evaluation."""
        path = self.directory / "best.pt"
        return _load_intact(path) if path.exists() else None


class UnsafeCheckpoint(CheckpointError):
    """A file that would run code when read."""


def load_checkpoint(path: Path) -> State:
    """Read a file of tensors and plain values onto the CPU; of a bare pickle (.pkl) numpy's arrays, as tensors.

    Raises UnsafeCheckpoint for a pickle with anything else in it, CheckpointError for a damaged or missing file.
    """
    try:
        if path.suffix == ".pkl":
            return _as_tensors(read_arrays(path, encoding="latin1"))
        # Namespace: in which others keep their settings; it holds attributes and runs nothing.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore", UserWarning)  # on foreign pickles: our own sentence follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; check the path.") from error
    except pickle.UnpicklingError as error:
        if _asks_for_more_than_values(path, str(error)):
            raise UnsafeCheckpoint(
                f"{path} holds more than tensors and plain values, and reading it could run code; it is "
                "refused. Save its state_dict alone, as safetensors or with torch.save."
            ) from error
        raise CheckpointError(f"{path} is damaged or not a torch file; {AGAIN}") from error
    except Exception as error:  # torch reads a damaged pickle with errors of any kind
        if isinstance(error, MemoryError) and path.stat().st_size > _SMALL_BYTES:
            raise
        raise CheckpointError(f"{path} is truncated or damaged ({first_line(error, 120)}); {AGAIN}") from error


def _as_tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value))
    return {name: _as_tensors(one) for name, one in value.items()} if isinstance(value, dict) else value


def _load_intact(path: Path) -> State:
    """`load_checkpoint`, and CheckpointError where a checksum in the file does not hold: asked first, as damage can
    look like code."""
    try:
        with open(path, "rb") as file:
            part = zipfile.ZipFile(file).testzip() if file.read(2) == b"PK" else None
        damage = part and f"the checksum of {part} does not hold"
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as error:
        damage = first_line(error, 120)
    if damage:
        raise CheckpointError(f"{path} is truncated or damaged ({damage}); {AGAIN}")
    return load_checkpoint(path)


def _asks_for_more_than_values(path: Path, reason: str) -> bool:
    """Tell whether a pickle was not read because of what is in it, rather than because it is damaged."""
    if "Unsupported operand" in reason:  # newer pickle protocols; other files hold bytes that look like one
        with open(path, "rb") as file:
            return file.read(1) == pickle.PROTO
    return any(word in reason for word in ("Unsupported", "GLOBAL", "harmful"))
