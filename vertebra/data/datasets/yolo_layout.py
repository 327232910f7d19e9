"""Where the images and labels of a YOLO data set lie, and what its classes are called.

`yolo:data.yaml/train` or `yolo:DIR/train`, where DIR holds a data.yaml, or images/train and labels/train, or
train/images and train/labels; `yolo:DIR` where it holds images and labels of one set. A label file has its image's
name with .txt, in the folder `labels` that stands where the image's path has `images`, else beside the image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vertebra.data.datasets.imagenet import images_below
from vertebra.ground.errors import DataError

PREFIX = "yolo:"
CLASS_FILES = ("classes.txt", "labels/classes.txt", "obj.names", "names.txt")
ALIASES = {"val": ("val", "valid", "validation"), "valid": ("valid", "val"), "train": ("train", "training")}
_NO_SPLITS = frozenset({"path", "names", "nc", "download", "kpt_shape", "flip_idx", "channels"})


@dataclass(frozen=True)
class YoloSet:
    """home: what file names are relative to. names: by class number. named_in: the file that has them.

    keypoints: how many numbers of key points follow each box.
    """

    home: Path
    split: str
    names: tuple[str, ...]
    named_in: Path
    images: tuple[Path, ...]
    keypoints: int = 0


def find(root: Path) -> list[str]:
    """The sources that lie in `root`."""
    description = find_yaml(root)
    return [] if description is None else [f"{PREFIX}{description.name}/{split}" for split in splits_of(description)]


def find_yolo(given: Path) -> YoloSet:
    """The set at DIR, DIR/SPLIT or FILE.yaml/SPLIT. Raises DataError saying what it looked for."""
    if given.is_file():
        splits = splits_of(given)
        raise DataError(given, "names no split", f"write {PREFIX}{given}/{splits[0] if splits else 'train'}")
    if given.parent.is_file():
        return _from_yaml(given.parent, given.name)
    if given.parent.suffix in (".yaml", ".yml"):
        raise DataError(given.parent, "no such file", "check the path")
    description = find_yaml(given.parent)
    if description is not None and _key(_read(description), given.name) is not None:
        return _from_yaml(description, given.name)
    for home, pictures in _folders(given):
        if pictures.is_dir():
            return _from_folder(home, given, pictures)
    if (own := find_yaml(given)) is not None and (splits := splits_of(own)):
        raise DataError(given, "names no split", f"write {PREFIX}{given}/{splits[0]}")
    looked = ", ".join(str(pictures) for _, pictures in _folders(given))
    known = f"{description} has {', '.join(splits_of(description))}; " if description is not None else ""
    raise DataError(given, f"{known}no images in {looked}", f"write {PREFIX}data.yaml/SPLIT or {PREFIX}DIR/SPLIT")


def find_yaml(folder: Path) -> Path | None:
    """The folder's data.yaml, or the first other YAML that names classes; None: there is none."""
    if not folder.is_dir():
        return None
    files = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")), key=lambda path: (path.stem != "data", path.name))
    for path in files:
        try:
            if "names" in _read(path):
                return path
        except DataError:
            if path.stem == "data":
                raise
    return None


def splits_of(description: Path) -> list[str]:
    """The splits that a data.yaml names. Raises DataError."""
    return [str(key) for key, value in _read(description).items() if key not in _NO_SPLITS and value]


def label_path(image: Path) -> Path:
    """The label file of an image."""
    parts = list(image.parent.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts, image.stem + ".txt")


def _folders(given: Path) -> list[tuple[Path, Path]]:
    """Home and images of the layouts without a data.yaml."""
    return [
        (given.parent, given.parent / "images" / given.name),
        (given.parent, given / "images"),
    ]


def _from_folder(home: Path, given: Path, pictures: Path) -> YoloSet:
    images = [pictures / name for name in images_below(pictures)]
    if pictures == given / "images" and not any(path.parent == pictures for path in images):
        inner = sorted({path.relative_to(pictures).parts[0] for path in images})
        hint = f"name a split, such as {PREFIX}{given}/{inner[0]}" if inner else "put the images there"
        raise DataError(pictures, "no images in the folder itself", hint)
    if not images:
        raise DataError(pictures, "no images in it", "put them there")
    for folder in (given, home):
        description = find_yaml(folder)
        if description is not None:
            value = _read(description)
            return _set(home, given.name, _names(value["names"], value, description), description, images, value)
        for path in (folder / name for name in CLASS_FILES):
            if path.is_file():
                lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
                return _set(home, given.name, _names([one for one in lines if one], {}, path), path, images, {})
    raise DataError(home, "no data.yaml in it", "write one with `names: [...]`, or classes.txt with a name a line")


def _from_yaml(path: Path, split: str) -> YoloSet:
    value = _read(path)
    key = _key(value, split)
    if key is None:
        raise DataError(path, f"has no split {split!r}", f"it has {', '.join(splits_of(path)) or 'none'}")
    names = _names(value.get("names"), value, path)
    entries = value[key] if isinstance(value[key], list) else [value[key]]
    images = [image for entry in entries for image in _entry(path, value.get("path"), entry)]
    if not images:
        raise DataError(path, f"there are no images in {', '.join(map(str, entries))}", "put them there")
    return _set(path.parent, split, names, path, images, value)


def _set(
    home: Path, split: str, names: tuple[str, ...], named_in: Path, images: Iterable[Path], value: dict[str, Any]
) -> YoloSet:
    absolute = [Path(os.path.abspath(image)) for image in images]
    folders = {str(image.parent) for image in absolute}
    root = Path(os.path.commonpath([os.path.abspath(home), *folders]))
    shape = value.get("kpt_shape")
    count = int(shape[0]) * int(shape[1]) if isinstance(shape, list) and len(shape) == 2 else 0
    return YoloSet(root, split, names, named_in, tuple(dict.fromkeys(absolute)), count)


def _entry(description: Path, base: Any, entry: Any) -> list[Path]:
    """The images of one entry: a folder, or a text file that lists images. Raises DataError."""
    if not isinstance(entry, str) or not entry.strip():
        raise DataError(description, f"has {entry!r} in the place of a folder of images", "correct it")
    homes = [description.parent]
    if isinstance(base, str) and base:
        homes = [description.parent / base, Path(base), *homes]
    inner = (entry, entry.removeprefix("../"))  # some exporters write ../train/images for train/images
    for place in (home / one for one in inner for home in homes):
        if place.is_dir():
            return [place / name for name in images_below(place)]
        if place.is_file() and place.suffix == ".txt":
            return _listed(place, homes)
    looked = " or ".join(dict.fromkeys(str(home / entry) for home in homes))
    raise DataError(description, f"there is no {looked}", "correct the entry, or put the images there")


def _listed(path: Path, homes: list[Path]) -> list[Path]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()]
    bases = [path.parent, *homes]
    found = []
    for line in filter(None, lines):
        places = [base / line for base in bases]
        found.append(next((place for place in places if place.is_file()), places[0]))
    return found


def _key(value: dict[str, Any], split: str) -> str | None:
    return next((name for name in ALIASES.get(split, (split,)) if value.get(name) and name not in _NO_SPLITS), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(path, f"is not YAML ({' '.join(str(error).split())})", "correct it") from error
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    if not isinstance(value, dict):
        raise DataError(path, "is no YOLO data set's description", "it needs `train`, `val` and `names`")
    return value


def _names(names: Any, value: dict[str, Any], path: Path) -> tuple[str, ...]:
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(path, f"its `names` are not numbered 0 to {len(names) - 1}", "number all classes")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(path, "has no `names`", "list the classes there")
    classes = [str(name).strip() for name in names]
    if not all(classes) or len(set(classes)) < len(classes):
        twice = next((name for name in classes if classes.count(name) > 1), "")
        raise DataError(path, f"its `names` have {twice!r} twice or an empty one", "give each class a name of its own")
    if "nc" in value and value["nc"] != len(classes):
        raise DataError(path, f"says nc: {value['nc']}, but names {len(classes)} classes", "correct one of them")
    return tuple(classes)
