"""Anybody's XML of VOC's form: `vocxml:DIR` or `vocxml:DIR/SPLIT`.

DIR may hold images and XML side by side, or in folders of their own (Annotations and JPEGImages, annotations and
images, ...), whole or for each split; or VOC's ImageSets/Main/<SPLIT>.txt. Classes are the lines of classes.txt or
labels.txt where DIR has one, else the names that occur in it (all splits), in alphabetical order; VOC's twenty where
none is of another kind.
"""

from __future__ import annotations

import os
from pathlib import Path

from vertebra.data.datasets.annotations import Fault
from vertebra.data.datasets.imagenet import is_image
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.voc import CLASS_NAMES, list_image_set, names_in
from vertebra.data.datasets.xml_sets import Listed, ParsedXml, build_xml_set, parse_images, stem_of
from vertebra.ground.errors import DataError

PREFIX = "vocxml:"
CLASS_FILES = ("classes.txt", "labels.txt")
XML_FOLDERS = ("Annotations", "annotations", "xmls", "labels", "xml")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs")
SPLITS = ("train", "training", "trainval", "val", "valid", "validation", "test", "testing")


def read_xml_folder(folder: Path, source: str, *, extras: bool = False) -> DetectionDataset:
    """folder: DIR, or DIR/SPLIT. Raises DataError."""
    parsed = parse_xml_folder(folder, extras=extras)
    return build_xml_set([parsed], source, folder_classes(folder), extras=extras)


def parse_xml_folder(folder: Path, *, extras: bool = False) -> ParsedXml:
    """Reads and judges it. Raises DataError only where the set itself is not there."""
    if not folder.is_dir():
        home, split = folder.parent, folder.name
        if (home / "ImageSets" / "Main").is_dir():
            return parse_images(home, list_image_set(home, split, ""), extras=extras)
        pairs = [(home / xml / split, home / images / split) for xml in XML_FOLDERS for images in IMAGE_FOLDERS]
        for annotations, pictures in pairs:
            if annotations.is_dir() and pictures.is_dir():
                return _parse(home, annotations, pictures, extras)
        raise DataError(folder, "no such directory", f"write {PREFIX}DIR of a folder with XML and images")
    if not any(folder.glob("*.xml")):
        for xml in XML_FOLDERS:
            for images in (*IMAGE_FOLDERS, ""):
                if (folder / xml).is_dir() and _holds_images(folder / images):
                    return _parse(folder, folder / xml, folder / images, extras)
    return _parse(folder, folder, folder, extras)


def folder_classes(folder: Path) -> list[str]:
    """The classes of DIR or DIR/SPLIT, the same for all of its splits. Raises DataError."""
    is_part = not folder.is_dir() or folder.name.lower() in SPLITS
    homes = [folder, folder.parent] if is_part else [folder]
    for path in (home / name for home in homes for name in CLASS_FILES):
        if path.is_file():
            names = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
            names = [name for name in names if name]
            if not names or len(set(names)) < len(names):
                raise DataError(path, "names no class, or one twice", "write a name a line")
            return names
    places = [homes[-1]]
    if is_part and folder.is_dir():
        places = [one for one in sorted(folder.parent.iterdir()) if one.is_dir() and one.name.lower() in SPLITS]
    names = sorted(names_in(path for place in places for path in sorted(place.rglob("*.xml"))))
    return CLASS_NAMES if set(names) <= set(CLASS_NAMES) else names


def _parse(root: Path, annotations: Path, pictures: Path, extras: bool) -> ParsedXml:
    xml_of = {stem_of(path.relative_to(annotations).as_posix()): path for path in sorted(annotations.rglob("*.xml"))}
    if not xml_of:
        raise DataError(annotations, "no XML in it", "put the annotations there, or name another folder")
    images: dict[str, str] = {}
    for name in _images_below(pictures):
        images.setdefault(stem_of(name), name)
    below = "" if pictures == root else f"{pictures.relative_to(root).as_posix()}/"
    listed = [
        Listed(stem, path, below + images.get(stem, f"{stem}.jpg"), annotations.name) for stem, path in xml_of.items()
    ]
    parsed = parse_images(root, listed, extras=extras)
    parsed.faults += [
        Fault(
            pictures / name,
            "has no XML",
            "it is left out; an XML without objects makes it a negative",
            False,
            "images without an annotation were left out",
        )
        for stem, name in images.items()
        if stem not in xml_of
    ]
    return parsed


def _images_below(folder: Path) -> list[str]:
    found = [
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
        if is_image(name)
    ]
    return sorted(Path(name).as_posix() for name in found)


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(is_image(entry.name) for entry in os.scandir(folder))
