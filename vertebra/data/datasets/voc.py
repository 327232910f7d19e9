"""PASCAL VOC: VOCdevkit/VOC<year>/{Annotations,ImageSets/Main,JPEGImages}.

A set whose objects bear none of VOC's twenty names has classes of its own: all that occur in its Annotations, in
alphabetical order. From 2008 on the test sets' annotations are not published: they are images without truth.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vertebra.data.datasets.annotations import Classes, Parsed, parse_each, unite
from vertebra.data.datasets.xml_sets import Listed, XmlSet, images_by_stem, read_images, xml_dataset
from vertebra.ground.errors import DataError

SOURCE = re.compile(r"voc(\d{4})/(\w+)", re.IGNORECASE)
CLASS_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
LAST_PUBLIC_TEST = 2007
_PLACES = ("", "VOCdevkit/", "*/VOCdevkit/")
_FLAG = re.compile(r"\s+-?[01]$")


def find(root: Path) -> list[str]:
    """The sources that lie in `root`."""
    folders = (folder for place in _PLACES for folder in root.glob(f"{place}VOC[0-9][0-9][0-9][0-9]"))
    return [f"voc{folder.name[3:]}/{split}" for folder in folders for split in image_sets(folder)]


def image_sets(folder: Path) -> list[str]:
    """Names of the image sets of a year's folder, without those of single classes."""
    return sorted(path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt") if "_" not in path.stem)


def find_devkit(root: Path, year: str) -> Path:
    """The folder that holds VOC<year>: `root`, its parent, its VOCdevkit or that of a folder in it."""
    name = f"VOC{year}"
    places = [root / "VOCdevkit", root, *([root.parent] if root.name == name else [])]
    places += sorted(root.glob("*/VOCdevkit"))
    for place in places:
        if (place / name).is_dir():
            return place
    hint = f"unpack the VOC {year} archives there (python tools/prepare_data.py voc{year[-2:]} --data {root})"
    raise DataError(root, f"no {name} in it nor in its VOCdevkit", hint)


def parse_voc(root: Path, parts: Sequence[str], source: str, *, extras: bool = False) -> Parsed:
    """One image set or a union, such as voc2007/trainval and voc2012/trainval; they share their classes."""

    def read(part: str) -> tuple[str, XmlSet]:
        name, _, split = part.partition("/")
        year = name[3:]
        return part, read_image_set(find_devkit(root, year), year, split, extras=extras)

    found, faults = parse_each(parts, read)
    classes = Classes(class_names_of([one for _, one in found]))
    return unite([xml_dataset(one, part, classes, extras=extras) for part, one in found], source, faults)


def read_image_set(devkit: Path, year: str, split: str, *, extras: bool = False) -> XmlSet:
    """The images of VOC<year>/ImageSets/Main/<split>.txt. Raises DataError where the set itself is not there."""
    listed = list_image_set(devkit / f"VOC{year}", split, f"VOC{year}/")
    if int(year) > LAST_PUBLIC_TEST and split.startswith("test"):
        absent = sum(one.xml is not None and not one.xml.is_file() for one in listed)
        if 2 * absent > len(listed):  # a few have one, for the person layout competition
            bare = [replace(one, xml=None) for one in listed]
            return read_images(devkit, bare, labelled=False, extras=extras)
    return read_images(devkit, listed, extras=extras)


def list_image_set(folder: Path, split: str, prefix: str) -> list[Listed]:
    """The images of ImageSets/Main/<split>.txt, their names beginning with `prefix`. Raises DataError."""
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        there = image_sets(folder)
        raise DataError(path, "no such image set", f"it has {', '.join(there)}" if there else "there are none")
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    stems = list(dict.fromkeys(_stem(folder, line.strip()) for line in lines if line.strip()))
    if not stems:
        raise DataError(path, "lists no images", "there is nothing to train or test on")
    names = images_by_stem(folder / "JPEGImages")
    return [
        Listed(
            stem,
            folder / "Annotations" / f"{stem}.xml",
            f"{prefix}JPEGImages/{names.get(stem, f'{stem}.jpg')}",
            path.name,
        )
        for stem in stems
    ]


def class_names_of(parts: Sequence[XmlSet]) -> list[str]:
    """VOC's twenty, or, where none of them occurs, the names in all of the folders' annotations."""
    used = {one.name for part in parts for one in part.objects_K}
    if not used or used & set(CLASS_NAMES):
        return CLASS_NAMES
    folders = {listed.xml.parent for part in parts for listed in part.images if listed.xml is not None}
    return sorted(used | names_in(path for folder in folders for path in folder.glob("*.xml")))


def names_in(files: Iterable[Path]) -> set[str]:
    """All names that objects bear in these files; those that do not parse are passed over."""
    names: set[str] = set()
    for path in files:
        try:
            names |= {(element.findtext("name") or "").strip() for element in ET.parse(path).iter("object")}
        except (ET.ParseError, OSError):
            continue  # not of this image set, or among its faults already
    return names - {""}


def _stem(folder: Path, line: str) -> str:
    """A line's image: names with spaces are known by their annotation, else a class's flag follows the name."""
    words = line.split()
    if len(words) == 1 or (folder / "Annotations" / f"{line}.xml").is_file():
        return line
    return _FLAG.sub("", line) if len(words) > 2 else words[0]
