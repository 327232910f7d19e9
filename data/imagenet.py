"""ImageNet-style folders: DIR/{train,val}/<class>/*, a label being its folder's place in the alphabet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.records import ClassificationDataset, Strings

EXTENSIONS = frozenset([".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"])
SPLIT_FOLDERS = {  # what a split may be called on disk, best first
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
    "test": ("test", "val"),
}


def find_split(root: Path, split: str) -> Path | None:
    """The folder that holds `split`, or None."""
    return next((root / name for name in SPLIT_FOLDERS.get(split, (split,)) if (root / name).is_dir()), None)


def read_folders(root: Path, split: str) -> ClassificationDataset:
    """Classes are those of the training folder where there is one, so that a validation folder in which a
    class is missing cannot shift the labels. Raises DataError."""
    folder = find_split(root, split)
    if folder is None:
        raise DataError(f"{root / split}: no such folder; expected {root}/{split}/<class>/<image>")
    found = _class_folders(folder)
    if not found:
        loose = any(is_image(entry.name) for entry in os.scandir(folder))
        seen = "images that lie in no class folder" if loose else "no class folders"
        raise DataError(f"{folder}: holds {seen}; sort the images into {folder}/<class>/")
    train = find_split(root, "train")
    names = found if train is None or train == folder else _class_folders(train)
    strangers = sorted(set(found) - set(names))
    if strangers:
        raise DataError(
            f"{folder / strangers[0]}: a class that {train} does not have "
            f"({len(strangers)} such); remove it or add it to {train}"
        )
    files: list[str] = []
    labels: list[int] = []
    for name in found:
        images = sorted(entry.name for entry in os.scandir(folder / name) if is_image(entry.name))
        files += [f"{folder.name}/{name}/{image}" for image in images]
        labels += [names.index(name)] * len(images)
    if not files:
        raise DataError(f"{folder}: no images in its {len(found)} class folders; put some there")
    empty = len(names) - len(set(labels))
    notes = (f"{folder}: {empty} of {len(names)} classes have no image",) if empty else ()
    return ClassificationDataset(root, split, tuple(names), Strings(files), np.asarray(labels, np.int64), notes=notes)


def _class_folders(folder: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))


def is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
