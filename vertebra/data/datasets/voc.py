"""PASCAL VOC, and anybody's XML of its form.

    vocYEAR/SPLIT          VOCdevkit/VOC<year>/{Annotations,ImageSets/Main,JPEGImages}
    vocxml:DIR[/SPLIT]     images and XML side by side, or in folders of their own (Annotations and JPEGImages, ...),
                           whole or for each split; or VOC's ImageSets/Main/SPLIT.txt
    vocxml0:DIR[/SPLIT]    the same, with corners that count pixels from 0

VOC's years have VOC's twenty classes. Where none of them occurs, and in other sets where any other does, the classes
are the names in all of the set's XML (all splits), in alphabetical order; or the lines of classes.txt or labels.txt
beside them. From 2008 on the test sets' annotations are not published: they are images without truth.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vertebra.data.datasets.annotations import Classes, Parsed, parse_each, unite
from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.folders import by_stem, files_below, holds, is_image, is_xml, read_lines, stem_of
from vertebra.data.datasets.xml_objects import names_in
from vertebra.data.datasets.xml_sets import Listed, XmlSet, read_images, xml_dataset
from vertebra.ground.errors import DataError

SOURCE = re.compile(r"voc(\d{4})/(\w+)", re.IGNORECASE)
ORIGINS = {"vocxml:": 1, "vocxml0:": 0}  # what a source's XML calls the first pixel
CLASS_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
YEARS, LAST_PUBLIC_TEST = range(2005, 2013), 2007
CLASS_FILES = ("classes.txt", "labels.txt")
XML_FOLDERS = ("Annotations", "annotations", "xmls", "labels", "xml")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs")
SPLITS = ("train", "training", "trainval", "val", "valid", "validation", "test", "testing")
_PLACES = ("", "VOCdevkit/", "*/VOCdevkit/")
_FLAG = re.compile(r"\s+-?[01]$")


def find(root: Path) -> list[str]:
    """The sources that lie in `root`."""
    years = (folder for place in _PLACES for folder in root.glob(f"{place}VOC[0-9][0-9][0-9][0-9]"))
    whole = holds(root, is_xml) or holds(root / "Annotations", is_xml)
    splits = [split for split in ("train", "val", "valid", "test") if holds(root / split, is_xml)]
    return [
        *(f"voc{folder.name[3:]}/{split}" for folder in years for split in image_sets(folder)),
        *([f"vocxml:{root.resolve()}"] if whole else []),
        *(f"vocxml:{split}" for split in splits),
    ]


def image_sets(folder: Path) -> list[str]:
    """Names of the image sets of a year's folder, without those of single classes."""
    files = (folder / "ImageSets" / "Main").glob("*.txt")
    return sorted(path.stem for path in files if "_" not in path.stem and not path.stem.startswith("."))


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
    found, faults = parse_each(parts, lambda part: (part, *_read_image_set(root, part, extras)))
    own = class_names_of([one for _, one, _ in found], all(int(part[3:7]) in YEARS for part, *_ in found))
    parsed = [
        xml_dataset(
            one, part, Classes(own), name_hint=f"correct the name, or read a set of other classes as vocxml:{folder}"
        )
        for part, one, folder in found
    ]
    return unite(parsed, source, faults)


def _read_image_set(root: Path, part: str, extras: bool) -> tuple[XmlSet, Path]:
    """The images of vocYEAR/SPLIT, and that set's place. Raises DataError where the set itself is not there."""
    year, split = int(part[3:7]), part[8:]
    devkit = find_devkit(root, str(year))
    place = devkit / f"VOC{year}" / split
    listed = list_image_set(place.parent, split, f"VOC{year}/")
    if year > LAST_PUBLIC_TEST and split.startswith("test"):
        absent = sum(one.xml is not None and not os.path.isfile(one.xml) for one in listed)
        if 2 * absent > len(listed):  # a few have one, for the person layout competition
            bare = [replace(one, xml=None) for one in listed]
            return read_images(XmlSet(devkit, labelled=False, extras=extras), bare), place
    return read_images(XmlSet(devkit, extras=extras, otherwise=f"vocxml0:{place}"), listed), place


def list_image_set(folder: Path, split: str, prefix: str) -> list[Listed]:
    """The images of ImageSets/Main/<split>.txt, their names beginning with `prefix`. Raises DataError."""
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        there = image_sets(folder)
        raise DataError(path, "no such image set", f"it has {', '.join(there)}" if there else "put them there")
    stems = list(dict.fromkeys(_stem(folder, line) for line in read_lines(path)))
    if not stems:
        raise DataError(path, "lists no images", "there is nothing to train or test on")
    xml_of = {stem: folder / "Annotations" / f"{stem}.xml" for stem in stems}
    return _listed(xml_of, by_stem(files_below(folder / "JPEGImages")), f"{prefix}JPEGImages/", path.name)


def _listed(xml_of: Mapping[str, Path], images: Mapping[str, list[str]], below: str, listing: str) -> list[Listed]:
    return [
        Listed(stem, path, [below + name for name in images.get(stem, [f"{stem}.jpg"])], listing)
        for stem, path in xml_of.items()
    ]


def class_names_of(parts: Sequence[XmlSet], official: bool) -> list[str]:
    """VOC's twenty, or those of the folders' annotations."""
    used = {one.name for part in parts for image in part.contents for one in image.objects}
    if used <= set(CLASS_NAMES) or (official and used & set(CLASS_NAMES)):
        return CLASS_NAMES
    folders = {listed.xml.parent for part in parts for listed in part.images if listed.xml is not None}
    return sorted(used | names_in(path for folder in folders for path in _xml_below(folder)))


def _stem(folder: Path, line: str) -> str:
    """A line's image: names with spaces are known by their annotation, else a class's flag follows the name."""
    words = line.split()
    if len(words) == 1 or os.path.isfile(folder / "Annotations" / f"{line}.xml"):
        return line
    return _FLAG.sub("", line) if len(words) > 2 else words[0]


def parse_xml_folder(folder: Path, source: str, *, extras: bool = False) -> Parsed:
    """folder: DIR, or DIR/SPLIT. Raises DataError where the set itself is not there."""
    prefix, colon, place = source.partition(":")
    origin = ORIGINS[prefix + colon]
    root, listed, faults = _list(folder)
    empty = XmlSet(root, extras=extras, origin=origin, otherwise=f"vocxml{'0' * origin}:{place}", faults=faults)
    found = read_images(empty, listed)
    hint = f"correct the name, or the list of classes in {folder}"
    return xml_dataset(found, source, Classes(folder_classes(folder)), name_hint=hint)


def _list(folder: Path) -> tuple[Path, list[Listed], list[Fault]]:
    """The root of a set, its images, and those without an annotation. Raises DataError."""
    if not folder.is_dir():
        home, split = folder.parent, folder.name
        if (home / "ImageSets" / "Main").is_dir():
            return home, list_image_set(home, split, ""), []
        for annotations, pictures in ((home / xml / split, home / im / split) for xml, im in _pairs(IMAGE_FOLDERS)):
            if annotations.is_dir() and pictures.is_dir():
                return home, *_pair(home, annotations, pictures)
        raise DataError(folder, "no such directory", "write vocxml:DIR of a folder with XML and images")
    if not holds(folder, is_xml):
        for annotations, pictures in ((folder / xml, folder / im) for xml, im in _pairs((*IMAGE_FOLDERS, ""))):
            if annotations.is_dir() and holds(pictures, is_image):
                return folder, *_pair(folder, annotations, pictures)
    return folder, *_pair(folder, folder, folder)


def _pairs(image_folders: Sequence[str]) -> Iterable[tuple[str, str]]:
    return ((xml, images) for xml in XML_FOLDERS for images in image_folders)


def _pair(root: Path, annotations: Path, pictures: Path) -> tuple[list[Listed], list[Fault]]:
    """A folder of XML and one of images, which may be one and the same."""
    xml_of = {stem_of(name): annotations / name for name in files_below(annotations, is_xml)}
    if not xml_of:
        raise DataError(annotations, "no XML in it", "put the annotations there, or name another folder")
    images = by_stem(files_below(pictures))
    below = "" if pictures == root else f"{pictures.relative_to(root).as_posix()}/"
    hint = "it is left out; an XML without objects makes it a negative"
    kind = "images without an annotation were left out"
    without = (pictures / names[0] for stem, names in images.items() if stem not in xml_of)
    faults = [Fault(path, "has no XML", hint, False, kind) for path in without]
    return _listed(xml_of, images, below, annotations.name), faults


def folder_classes(folder: Path) -> Sequence[str]:
    """The classes of DIR or DIR/SPLIT, the same for all of its splits. Raises DataError."""
    is_part = not folder.is_dir() or folder.name.lower() in SPLITS
    homes = [folder, folder.parent] if is_part else [folder]
    for path in (home / name for home in homes for name in CLASS_FILES):
        if path.is_file():
            names = read_lines(path, errors="replace")
            if not names or len(set(names)) < len(names):
                raise DataError(path, "names no class, or one twice", "write a name a line")
            return names
    places = [homes[-1]]
    if is_part and folder.is_dir():
        places = [one for one in sorted(folder.parent.iterdir()) if one.is_dir() and one.name.lower() in SPLITS]
    used = names_in(path for place in places for path in _xml_below(place))
    return CLASS_NAMES if used <= set(CLASS_NAMES) else sorted(used)


def _xml_below(folder: Path) -> Iterable[Path]:
    return (folder / name for name in files_below(folder, is_xml))
