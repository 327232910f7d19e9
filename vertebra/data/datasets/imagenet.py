"""ImageNet-style folders: DIR/{train,val}/<class>/*, a label being its folder's place in the alphabet.

And folders of images without classes, as ILSVRC's test images come.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vertebra.data.datasets.faults import Fault, summarise
from vertebra.data.datasets.folders import is_hidden, is_image, is_xml
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.datasets.strings import Strings
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted

SPLIT_FOLDERS = {  # what a split may be called on disk, best first
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
    "test": ("test", "val"),
}

# Parts of the training folder to choose by: the folder, and from which to which tenth of each class, by file name.
# He et al. 2015, §4.2, split CIFAR's 50,000 images so.
FOLDER_PARTS = {"train45k": ("train", 0, 9), "val5k": ("train", 9, 10)}


def find(root: Path) -> list[str]:
    """The splits that lie in `root` as folders, but for those of a YOLO set."""
    splits = [root / split for split in SPLIT_FOLDERS]
    return [split.name for split in splits if split.is_dir() and not (split / "labels").is_dir()]


def find_split(root: Path, split: str) -> Path | None:
    """The folder that holds `split`, or None."""
    return next((root / name for name in SPLIT_FOLDERS.get(split, (split,)) if (root / name).is_dir()), None)


def read_folders(root: Path, split: str) -> ClassificationDataset:
    """Classes are those of the training folder where there is one, so that a validation folder in which a
    class is missing cannot shift the labels. train45k and val5k: see FOLDER_PARTS. Raises DataError."""
    whole, first_tenth, end_tenth = FOLDER_PARTS.get(split, (split, 0, 10))
    folder = find_split(root, whole)
    if folder is None:
        raise DataError(root / split, "no such folder", f"expected {root}/{split}/<class>/<image>")
    found = class_folders(folder)
    if not found:
        if any(entry.name.endswith(".tar") for entry in os.scandir(folder)):
            command = f"python tools/prepare_data.py shard --index-only --data {root} --split {whole}"
            raise DataError(
                folder,
                "holds tar files and no class folders",
                f"unpack each into a folder of its own, or index them if they are shards ({command})",
            )
        seen = "images that lie in no class folder" if loose_images(folder) else "no class folders"
        raise DataError(folder, f"holds {seen}", f"sort the images into {folder}/<class>/")
    train = find_split(root, "train")
    names = found if train is None or train == folder else class_folders(train)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(
            folder / unknown[0],
            f"a class that {train} does not have ({len(unknown)} such)",
            f"remove it or add it to {train}",
        )
    files: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    for name in found:
        entries = sorted(os.listdir(folder / name))
        images = list(filter(is_image, entries))
        others += [f"{name}/{entry}" for entry in sorted({*entries} - {*images})]  # of millions, the few
        images = images[len(images) * first_tenth // 10 : len(images) * end_tenth // 10]
        files += [f"{folder.name}/{name}/{image}" for image in images]
        labels += [names.index(name)] * len(images)
    if not files:
        raise DataError(folder, f"no images in its {counted(len(found), 'class folder')}", "put some there")
    empty = len(names) - len(set(labels))
    notes = list(summarise(not_images(folder, others)))
    if empty:
        notes.append(f"{folder}: no image in {empty} of {counted(len(names), 'class')}")
    return ClassificationDataset(
        root, split, tuple(names), Strings(files), np.asarray(labels, np.int64), notes=tuple(notes)
    )


def not_images(folder: Path, names: Iterable[str]) -> list[Fault]:
    """A fault for each of these CLASS/NAME that may be meant to be an image or to hold some, and is left out."""
    hint = "it is left out; rename it if it is an image, and put images into the class's folder itself"
    kind = "files and folders among the classes' images are left out, not having an image's name"
    others = (
        name
        for name, base in ((name, os.path.basename(name)) for name in names)
        if not (is_image(base) or is_hidden(base) or is_xml(base))
    )
    return [Fault(folder / name, "does not have an image's name", hint, False, kind) for name in others]


def read_loose(folder: Path, split: str) -> ClassificationDataset:
    """All images that lie in `folder` itself, by name, without labels (-1) and classes. Raises DataError."""
    files = loose_images(folder)
    if not files:
        raise DataError(folder, "no images in it", "unlabelled images are to lie in the folder itself")
    return ClassificationDataset(folder, split, (), Strings(files), np.full(len(files), -1, np.int64))


def loose_images(folder: Path) -> list[str]:
    """Names of the images in the folder itself, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if is_image(entry.name) and entry.is_file())


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in it, sorted."""
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not is_hidden(e.name))
