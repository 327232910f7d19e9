"""Large annotation files, kept as flat arrays: the first process of a machine parses, the others map what it wrote.

COCO's training set takes half a minute and gigabytes to parse, in every process of every job. What is kept is found by
the files' paths, sizes and times, what was asked of them, and the code that reads them: nothing stale is ever used.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vertebra import __version__
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.strings import Strings

SMALLEST = 8 << 20  # bytes; what is smaller is parsed within a second
VARIABLE = "VERTEBRA_CACHE"
_USED: dict[Path, BinaryIO] = {}  # what this process has mapped, with a shared lock that ends with it


def cache_folder() -> Path | None:
    """Return VERTEBRA_CACHE, else `vertebra` in the user's cache directory; None where the variable is empty."""
    if (named := os.environ.get(VARIABLE)) is not None:
        return Path(named) if named else None
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "vertebra"


def cached(files: Sequence[Path], asked: Sequence[object], read: Callable[[], DetectionDataset]) -> DetectionDataset:
    """Return read(), or the same to the bit as another process has kept it; small files are read.

    files: what `read` reads. asked: all else that its result depends on. Processes that come at once wait for the
    first. Where nothing can be written this is read().
    """
    folder, states = cache_folder(), []
    with suppress(OSError):
        states = [(os.path.realpath(file), (found := file.stat()).st_size, found.st_mtime_ns) for file in files]
        if folder is not None and sum(size for _, size, _ in states) >= SMALLEST:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = None
    if folder is None or not os.access(folder, os.W_OK):
        return read()
    subject = _digest([path for path, _, _ in states], [str(one) for one in asked])
    place = folder / f"{subject}-{_digest(states, __version__, _code())}"
    with _locked(folder / f"{subject}.lock"):
        if (found_set := _load(place)) is not None:
            return found_set
        dataset = read()
        with suppress(OSError):  # a full disk
            _store(dataset, place)
        for older in folder.glob(f"{subject}-*"):
            if older != place and not _is_used(older):
                shutil.rmtree(older, ignore_errors=True)
        return _load(place) or dataset


def _store(dataset: DetectionDataset, place: Path) -> None:
    """Write all at once: whoever sees the directory sees it whole."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f"{place.name}.") as name:
        made = Path(name) / "made"
        made.mkdir()
        plain: dict[str, Any] = {}
        for field in fields(dataset):
            value = getattr(dataset, field.name)
            if isinstance(value, np.ndarray):
                np.save(made / f"{field.name}.npy", value)
            elif isinstance(value, Strings):
                for part, array in zip(("starts", "bytes"), value.arrays):
                    np.save(made / f"{field.name}.{part}.npy", array)
            else:
                plain[field.name] = str(value) if isinstance(value, Path) else value
        (made / "plain.json").write_text(json.dumps(plain), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)  # damaged, or it would have been used
        made.rename(place)


def _load(place: Path) -> DetectionDataset | None:
    """Return what is kept there; None where nothing is, or it is damaged, or the images are elsewhere by now."""
    try:
        values: dict[str, Any] = json.loads((place / "plain.json").read_text(encoding="utf-8"))
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        values["root"] = Path(values["root"])
        for name in {field.name for field in fields(DetectionDataset)} - set(values):
            if (whole := place / f"{name}.npy").exists():
                values[name] = _mapped(whole)
            else:
                values[name] = Strings.of(*(_mapped(place / f"{name}.{part}.npy") for part in ("starts", "bytes")))
        dataset = DetectionDataset(**values)
        if not dataset.path(0).is_file():
            return None
        _USED[place] = use = open(place / "plain.json", "rb")  # noqa: SIM115 - for the life of this process
        with suppress(OSError):
            fcntl.flock(use, fcntl.LOCK_SH)
        return dataset
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(file: Path) -> np.ndarray:
    """Pages of the file, which all processes share, and which are copied where one is written."""
    try:
        return np.asarray(np.load(file, mmap_mode="c"))
    except ValueError:  # there is no map of nothing
        array = np.load(file)
        if array.size:
            raise
        return array


def _is_used(place: Path) -> bool:
    """Tell whether a process may have that mapped: over a network, what is removed would end it (SIGBUS)."""
    with suppress(OSError), open(place / "plain.json", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return (place / "plain.json").exists()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with ExitStack() as stack:
        with suppress(OSError):  # a file system without locks: then several may parse
            fcntl.flock(stack.enter_context(open(path, "ab")), fcntl.LOCK_EX)
        yield


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:24]


@functools.cache
def _code() -> str:
    """Stands for the readers: a clone changes between two versions."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
