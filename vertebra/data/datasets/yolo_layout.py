"""Where the images and labels of a YOLO data set lie, and what its classes are called.

`yolo:data.yaml/train` or `yolo:DIR/train`, where DIR holds a data.yaml, or images/train and labels/train, or
train/images and train/labels; `yolo:DIR` where it holds images and labels of one set. A label file has its image's
name with .txt, in the folder `labels` that stands where the image's path has `images`, or beside the image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.folders import by_stem, files_below, read_lines
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted
from vertebra.ground.parse import parse_yaml

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
    faults: tuple[Fault, ...] = ()


def find(root: Path) -> list[str]:
    """The sources that lie in `root`."""
    description = find_yaml(root)
    return [] if description is None else [f"{PREFIX}{description.name}/{split}" for split in splits_of(description)]


def find_yolo(given: Path) -> YoloSet:
    """The set at DIR, DIR/SPLIT or FILE.yaml/SPLIT. Raises DataError saying what it looked for."""
    home = given.parent
    if given.is_file():
        raise DataError(given, "names no split", f"write {PREFIX}{given}/{_first_split(given)}")
    if home.is_file():
        return _from_yaml(home, given.name)
    if home.suffix in (".yaml", ".yml"):
        raise DataError(home, "no such file", "check the path")
    description = find_yaml(home)
    if description is not None and _key(read_description(description), given.name) is not None:
        return _from_yaml(description, given.name)
    folders = (home / "images" / given.name, given / "images")  # the layouts without a data.yaml
    for pictures in folders:
        if pictures.is_dir():
            return _from_folder(given, pictures)
    if (own := find_yaml(given)) is not None and splits_of(own):
        raise DataError(given, "names no split", f"write {PREFIX}{given}/{_first_split(own)}")
    known = f"{description} has {', '.join(splits_of(description))}; " if description is not None else ""
    looked = ", ".join(map(str, folders))
    raise DataError(given, f"{known}no images in {looked}", f"write {PREFIX}data.yaml/SPLIT or {PREFIX}DIR/SPLIT")


def find_yaml(folder: Path) -> Path | None:
    """The folder's data.yaml, or the first other YAML that names classes; None: there is none."""
    if not folder.is_dir():
        return None
    files = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")), key=lambda path: (path.stem != "data", path.name))
    for path in files:
        try:
            if "names" in read_description(path):
                return path
        except DataError:
            if path.stem == "data":
                raise
    return None


def splits_of(description: Path) -> list[str]:
    """The splits that a data.yaml names. Raises DataError."""
    return [str(key) for key, value in read_description(description).items() if key not in _NO_SPLITS and value]


def _first_split(description: Path) -> str:
    return (splits_of(description) or ["train"])[0]


def find_label(image: Path) -> tuple[Path, bool]:
    """The label file of an image, or the first place where it may be; and whether it is there."""
    beside = Path(f"{os.path.splitext(image)[0]}.txt")
    parts = list(beside.parts)
    if "images" not in parts[:-1]:
        return beside, os.path.isfile(beside)
    parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    apart = Path(*parts)
    found = next((path for path in (apart, beside) if os.path.isfile(path)), None)
    return found or apart, found is not None


def _from_folder(given: Path, pictures: Path) -> YoloSet:
    home = given.parent
    images = files_below(pictures)
    if pictures == given / "images" and all("/" in name for name in images):
        split = images[0].partition("/")[0] if images else ""
        hint = f"name a split, such as {PREFIX}{given}/{split}" if split else "put the images there"
        raise DataError(pictures, "no images in the folder itself", hint)
    if not images:
        raise DataError(pictures, "no images in it", "put them there")
    paths = [pictures / name for name in images]
    for folder in (given, home):
        if (description := find_yaml(folder)) is not None:
            return _set(home, given.name, read_description(description), description, paths)
        for path in (folder / name for name in CLASS_FILES):
            if path.is_file():
                return _set(home, given.name, {"names": read_lines(path, errors="replace")}, path, paths)
    raise DataError(home, "no data.yaml in it", "write one with `names: [...]`, or classes.txt with a name a line")


def _from_yaml(path: Path, split: str) -> YoloSet:
    value = read_description(path)
    key = _key(value, split)
    if key is None:
        raise DataError(path, f"has no split {split!r}", f"it has {', '.join(splits_of(path)) or 'none'}")
    entries = value[key] if isinstance(value[key], list) else [value[key]]
    images = [image for entry in entries for image in _entry(path, value.get("path"), entry)]
    if not images:
        raise DataError(path, f"there are no images in {', '.join(map(str, entries))}", "put them there")
    return _set(path.parent, split, value, path, images)


def _set(home: Path, split: str, value: dict[str, Any], named_in: Path, images: Iterable[Path]) -> YoloSet:
    """value: the description, or what stands for it. Of images that would share a label file one is taken."""
    names = class_names(value, named_in)
    unique = dict.fromkeys(os.path.abspath(image) for image in images)
    same = [paths for paths in by_stem(unique).values() if paths[1:]]
    kind = "images lie beside others of the same name, which were left out"
    names_of = [", ".join(map(os.path.basename, paths[1:])) for paths in same]
    hint = "the others are left out"
    faults = [Fault(Path(paths[0]), f"lies beside {more}", hint, False, kind) for paths, more in zip(same, names_of)]
    left_out = {path for paths in same for path in paths[1:]}
    absolute = tuple(Path(path) for path in unique if path not in left_out)
    root = Path(os.path.commonpath([os.path.abspath(home), *{str(image.parent) for image in absolute}]))
    shape = value.get("kpt_shape")
    keypoints = 0
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(one, int) for one in shape):
        keypoints = shape[0] * shape[1]
    return YoloSet(root, split, names, named_in, absolute, keypoints, tuple(faults))


def _entry(description: Path, base: Any, entry: Any) -> list[Path]:
    """The images of one entry: a folder, or a text file that lists images. Raises DataError."""
    if not isinstance(entry, str) or not entry.strip():
        raise DataError(description, f"has a {type(entry).__name__} in the place of a folder of images", "correct it")
    homes = [description.parent]
    if isinstance(base, str) and base:
        homes = [description.parent / base, Path(base), *homes]
    inner = (entry, entry.removeprefix("../"))  # some exporters write ../train/images for train/images
    for place in (home / one for one in inner for home in homes):
        if os.path.isdir(place):
            return [place / name for name in files_below(place)]
        if place.suffix == ".txt" and os.path.isfile(place):
            listed = ([base / line for base in (place.parent, *homes)] for line in read_lines(place))
            return [next((path for path in paths if os.path.isfile(path)), paths[0]) for paths in listed]
    looked = " or ".join(dict.fromkeys(str(home / entry) for home in homes))
    raise DataError(description, f"there is no {looked}", "correct the entry, or put the images there")


def _key(value: dict[str, Any], split: str) -> str | None:
    return next((name for name in ALIASES.get(split, (split,)) if value.get(name) and name not in _NO_SPLITS), None)


def read_description(path: Path) -> dict[str, Any]:
    """Return what a data.yaml holds. Raises DataError."""
    try:
        value = parse_yaml(path.read_bytes())
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    except ValueError as error:
        raise DataError(path, f"is not YAML ({error})", "correct it") from error
    if not isinstance(value, dict):
        raise DataError(path, "is no YOLO data set's description", "it needs `train`, `val` and `names`")
    return value


def class_names(value: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The classes by number. Raises DataError."""
    names = value.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(path, f"its `names` are not numbered 0 to {len(names) - 1}", "number all classes")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(path, "has no `names`", "list the classes there")
    if any(isinstance(name, list | dict) for name in names):
        raise DataError(path, "its `names` are not texts", "give each class a name of its own")
    classes = [str(name).strip() for name in names]
    if not all(classes) or len(set(classes)) < len(classes):
        twice = next((name for name in classes if classes.count(name) > 1), "")
        raise DataError(path, f"its `names` have {twice!r} twice or an empty one", "give each class a name of its own")
    count = value.get("nc", len(classes))
    if count != len(classes):
        said = count if isinstance(count, int | str) else f"a {type(count).__name__}"
        raise DataError(path, f"says nc: {said}, but names {counted(len(classes), 'class')}", "correct one of them")
    return tuple(classes)
