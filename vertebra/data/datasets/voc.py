"""PASCAL VOC: VOCdevkit/VOC<year>/{Annotations,ImageSets/Main,JPEGImages}.

A set whose objects bear none of VOC's twenty names has classes of its own: all that occur in its Annotations, in
alphabetical order. From 2008 on the test sets' annotations are not published: they are images without truth.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.xml_sets import Listed, ParsedXml, build_xml_set, parse_images
from vertebra.ground.errors import DataError

CLASS_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
LAST_PUBLIC_TEST = 2007
_FLAG = re.compile(r"\s+-?[01]$")


def find_devkit(root: Path, year: str) -> Path:
    """The folder that holds VOC<year>: `root`, its parent, its VOCdevkit or that of a folder in it."""
    name = f"VOC{year}"
    places = [root / "VOCdevkit", root, *([root.parent] if root.name == name else [])]
    places += sorted(root.glob("*/VOCdevkit"))
    for place in places:
        if (place / name).is_dir():
            return place
    raise DataError(
        root,
        f"no {name} in it nor in its VOCdevkit",
        (f"unpack the VOC {year} archives there (python tools/prepare_data.py voc{year[-2:]} --data {root})"),
    )


def read_voc(
    root: Path, years_and_splits: Sequence[tuple[str, str]], source: str, *, extras: bool = False
) -> DetectionDataset:
    """One image set or a union, such as (("2007", "trainval"), ("2012", "trainval")). Raises DataError."""
    devkits = [find_devkit(root, year) for year, _ in years_and_splits]
    if len(set(devkits)) > 1:
        raise DataError(root, f"the years lie in different folders {devkits}", "put them into one VOCdevkit")
    parts = [parse_voc(devkit, *one, extras=extras) for devkit, one in zip(devkits, years_and_splits)]
    return build_xml_set(parts, source, class_names_of(parts), extras=extras)


def parse_voc(devkit: Path, year: str, split: str, *, extras: bool = False) -> ParsedXml:
    """Reads and judges one image set. Raises DataError only where the set itself is not there."""
    folder = devkit / f"VOC{year}"
    listed = list_image_set(folder, split, f"{folder.name}/")
    if int(year) > LAST_PUBLIC_TEST and split.startswith("test"):
        absent = sum(one.xml is not None and not one.xml.is_file() for one in listed)
        if 2 * absent > len(listed):  # a few have one, for the person layout competition
            bare = [Listed(one.stem, None, one.file_name, one.listing) for one in listed]
            return parse_images(devkit, bare, labelled=False, extras=extras)
    return parse_images(devkit, listed, extras=extras)


def list_image_set(folder: Path, split: str, prefix: str) -> list[Listed]:
    """The images of ImageSets/Main/<split>.txt, their names beginning with `prefix`. Raises DataError."""
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.txt") if "_" not in p.stem)
        known = f"it has {', '.join(there)}" if there else "the folder has no image sets"
        raise DataError(path, "no such image set", known)
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    stems = list(dict.fromkeys(_stem(folder, line.strip()) for line in lines if line.strip()))
    if not stems:
        raise DataError(path, "lists no images", "there is nothing to train or test on")
    names = image_names(folder / "JPEGImages", stems)
    return [
        Listed(stem, folder / "Annotations" / f"{stem}.xml", f"{prefix}JPEGImages/{name}", path.name)
        for stem, name in zip(stems, names)
    ]


def class_names_of(parts: Iterable[ParsedXml]) -> list[str]:
    """VOC's twenty, or, where none of them occurs, the names in all of the folders' annotations."""
    parts = list(parts)
    used = {name for one in parts for name in one.names_K}
    if not used or used & set(CLASS_NAMES):
        return CLASS_NAMES
    folders = {listed.xml.parent for one in parts for listed in one.images if listed.xml is not None}
    return sorted(used | names_in(path for folder in folders for path in sorted(folder.glob("*.xml"))))


def names_in(files: Iterable[Path]) -> set[str]:
    """All names that objects bear in these files; those that do not parse are passed over."""
    names: set[str] = set()
    for path in files:
        try:
            names |= {(element.findtext("name") or "").strip() for element in ET.parse(path).iter("object")}
        except (ET.ParseError, OSError):
            continue  # not of this image set, or among its faults already
    return names - {""}


def image_names(pictures: Path, stems: Sequence[str]) -> list[str]:
    """Names in the folder: .jpg as VOC has it, or whatever image of that stem is there."""
    by_stem: dict[str, str] = {}
    for inner in dict.fromkeys(os.path.dirname(stem) for stem in stems):
        folder = pictures / inner
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            path = os.path.join(inner, name)
            by_stem[os.path.splitext(path)[0]] = path
    return [by_stem.get(stem, f"{stem}.jpg") for stem in stems]


def _stem(folder: Path, line: str) -> str:
    """A line's image: names with spaces are known by their annotation, else a class's flag follows the name."""
    words = line.split()
    if len(words) == 1 or (folder / "Annotations" / f"{line}.xml").is_file():
        return line
    return _FLAG.sub("", line) if len(words) > 2 else words[0]
