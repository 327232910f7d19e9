"""CIFAR-10 as its owners publish it: `cifar-10-batches-py`, six pickles of arrays.

(CIFAR as image folders {train,test}/<class>/NNNN.jpg is read by datasets.imagenet.) A pickle can run any code
when it is read; these are read with nothing allowed but what plain arrays need.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.datasets.strings import Strings
from vertebra.ground.errors import DataError
from vertebra.ground.pickles import read_arrays

FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
SPLITS = {  # He et al. 2015, §4.2: 45k/5k to choose by, the test set for results
    "train": slice(0, 50_000),
    "train45k": slice(0, 45_000),
    "val5k": slice(45_000, 50_000),
    "val": slice(0, 10_000),
    "test": slice(0, 10_000),
}


def find(root: Path) -> list[str]:
    """The splits that lie in `root`."""
    return [] if find_batches(root) is None else ["train", "test"]


def find_batches(root: Path) -> Path | None:
    """The folder of python batches at or under `root`, or None."""
    return next((d for d in (root, root / FOLDER) if (d / TRAIN_FILES[0]).is_file()), None)


def read_batches(root: Path, split: str) -> ClassificationDataset:
    """CIFAR-10 from python batches, pixels in memory (180 MB for all). Raises DataError.

    Splits: train (50,000), train45k and val5k (its first 45,000 and last 5,000), val = test (10,000).
    """
    folder = find_batches(root)
    if folder is None:
        raise DataError(root / FOLDER, f"no {TRAIN_FILES[0]} there", f"unpack cifar-10-python.tar.gz into {root}")
    if split not in SPLITS:
        raise DataError(folder, f"no split {split!r}", f"CIFAR-10 has {', '.join(SPLITS)}")
    files = ("test_batch",) if split in ("val", "test") else TRAIN_FILES
    batches = [_read_batch(folder / name) for name in files]
    rows_ID = np.concatenate([rows for rows, _, _ in batches])[SPLITS[split]]
    labels_I = np.concatenate([labels for _, labels, _ in batches])[SPLITS[split]]
    names = [name for _, _, names in batches for name in names][SPLITS[split]]
    pixels_IHW3 = np.ascontiguousarray(rows_ID.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return ClassificationDataset(folder, split, _class_names(folder), Strings(names), labels_I, pixels_IHW3=pixels_IHW3)


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    value = _unpickle(path)
    try:
        rows_ID = np.asarray(value[b"data"], np.uint8)
        labels_I = np.asarray(value[b"labels"], np.int64)
        if rows_ID.shape != (len(labels_I), 3 * 32 * 32):
            raise ValueError(f"data of shape {rows_ID.shape} with {len(labels_I)} labels")
        names = value.get(b"filenames") or [f"{path.name}/{i:05}".encode() for i in range(len(labels_I))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(path, f"not a CIFAR-10 batch ({error})", "download it again") from error
    names = _texts(path, names)
    if len(names) != len(labels_I):
        raise DataError(path, f"{len(names)} file names for {len(labels_I)} images", "download it again")
    return rows_ID, labels_I, names


def _class_names(folder: Path) -> tuple[str, ...]:
    path = folder / "batches.meta"
    if not path.is_file():
        raise DataError(path, "missing", "it names the classes, unpack the archive again")
    return tuple(_texts(path, _unpickle(path).get(b"label_names", ())))


def _texts(path: Path, values: Any) -> list[str]:
    """Return names, which Python 2 pickled as bytes. Raises DataError where they are something else."""
    names = []
    for one in values if isinstance(values, (list, tuple)) else [None]:
        name = one.decode(errors="replace") if isinstance(one, bytes) else one
        if not isinstance(name, str):
            raise DataError(path, "its names are no texts", "download it again")
        names.append(name)
    return names


def _unpickle(path: Path) -> dict[bytes, Any]:
    if not path.is_file():
        raise DataError(path, "missing", "unpack the archive again")
    try:
        value = read_arrays(path, encoding="bytes")
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(path, f"does not read as a CIFAR-10 batch ({error})", "download it again") from error
    if not isinstance(value, dict):
        raise DataError(path, f"holds a {type(value).__name__}, not a CIFAR-10 batch", "download it again")
    return {key.encode() if isinstance(key, str) else key: one for key, one in value.items()}
