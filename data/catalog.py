"""From what a user names to a data set: the only place that knows how data directories are laid out."""

from __future__ import annotations

from pathlib import Path

from data.cifar import find_batches, read_batches
from data.errors import DataError
from data.imagenet import find_split, read_folders
from data.records import ClassificationDataset

SAMPLE_OBJECTS = "objects"  # the sample set's single-object images, beside its scenes


def open_classification(root: Path | str, split: str) -> ClassificationDataset:
    """Images with a label each: ImageNet-style folders, CIFAR-10 (python batches or folders), the sample set.

    split: "train", "val" or "test" (of the latter two the one that is there); CIFAR-10 also has "train45k" and
    "val5k". Raises DataError.
    """
    root = Path(root)
    check_root(root)
    if find_batches(root) is not None:
        return read_batches(root, split)
    if find_split(root, "train") is None and find_split(root / SAMPLE_OBJECTS, "train") is not None:
        root = root / SAMPLE_OBJECTS
    if find_split(root, split) is None:
        archives = sorted(
            p.name for p in root.iterdir() if ".tar" in p.suffixes or p.suffix in (".tgz", ".zip")
        )
        if archives:
            raise DataError(f"{root / archives[0]}: an archive; unpack it first (tar xf {archives[0]})")
        raise DataError(
            f"{root}: no folder {split!r}; expected {root}/{split}/<class>/<image>, or CIFAR-10's python batches"
        )
    return read_folders(root, split)


def check_root(root: Path) -> None:
    if not root.exists():
        raise DataError(f"{root}: no such directory; give the data's place with --data")
    if not root.is_dir():
        raise DataError(f"{root}: a file, not a directory; unpack it and give the directory with --data")
