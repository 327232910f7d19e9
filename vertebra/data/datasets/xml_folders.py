"""Anybody's XML of VOC's form: `vocxml:DIR` or `vocxml:DIR/SPLIT`.

DIR may hold images and XML side by side, or in folders of their own (Annotations and JPEGImages, annotations and
images, ...), whole or for each split; or VOC's ImageSets/Main/<SPLIT>.txt. Classes are the lines of classes.txt or
labels.txt where DIR has one, else the names that occur in it (all splits), in alphabetical order; VOC's twenty where
none is of another kind.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vertebra.data.datasets.annotations import Classes, Parsed
from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.imagenet import is_image
from vertebra.data.datasets.voc import CLASS_NAMES, list_image_set, names_in
from vertebra.data.datasets.xml_sets import Listed, XmlSet, images_by_stem, read_images, stem_of, xml_dataset
from vertebra.ground.errors import DataError

PREFIX = "vocxml:"
CLASS_FILES = ("classes.txt", "labels.txt")
XML_FOLDERS = ("Annotations", "annotations", "xmls", "labels", "xml")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs")
SPLITS = ("train", "training", "trainval", "val", "valid", "validation", "test", "testing")


def find(root: Path) -> list[str]:
    """The sources that lie in `root`."""
    whole = any(root.glob("*.xml")) or any(root.glob("Annotations/*.xml"))
    splits = [split for split in ("train", "val", "valid", "test") if any(root.glob(f"{split}/*.xml"))]
    return [*([f"{PREFIX}{root.resolve()}"] if whole else []), *(f"{PREFIX}{split}" for split in splits)]


def parse_xml_folder(folder: Path, source: str, *, extras: bool = False) -> Parsed:
    """folder: DIR, or DIR/SPLIT. Raises DataError where the set itself is not there."""
    found = _read(folder, extras)
    return xml_dataset(found, source, Classes(folder_classes(folder)), extras=extras)


def _read(folder: Path, extras: bool) -> XmlSet:
    if not folder.is_dir():
        home, split = folder.parent, folder.name
        if (home / "ImageSets" / "Main").is_dir():
            return read_images(home, list_image_set(home, split, ""), extras=extras)
        pairs = [(home / xml / split, home / images / split) for xml in XML_FOLDERS for images in IMAGE_FOLDERS]
        for annotations, pictures in pairs:
            if annotations.is_dir() and pictures.is_dir():
                return _read_pair(home, annotations, pictures, extras)
        raise DataError(folder, "no such directory", f"write {PREFIX}DIR of a folder with XML and images")
    if not any(folder.glob("*.xml")):
        for xml in XML_FOLDERS:
            for images in (*IMAGE_FOLDERS, ""):
                if (folder / xml).is_dir() and _holds_images(folder / images):
                    return _read_pair(folder, folder / xml, folder / images, extras)
    return _read_pair(folder, folder, folder, extras)


def _read_pair(root: Path, annotations: Path, pictures: Path, extras: bool) -> XmlSet:
    """A folder of XML and one of images, which may be one and the same."""
    xml_of = {stem_of(path.relative_to(annotations).as_posix()): path for path in sorted(annotations.rglob("*.xml"))}
    if not xml_of:
        raise DataError(annotations, "no XML in it", "put the annotations there, or name another folder")
    images = images_by_stem(pictures)
    below = "" if pictures == root else f"{pictures.relative_to(root).as_posix()}/"
    listed = [
        Listed(stem, path, below + images.get(stem, f"{stem}.jpg"), annotations.name) for stem, path in xml_of.items()
    ]
    found = read_images(root, listed, extras=extras)
    hint, kind = (
        "it is left out; an XML without objects makes it a negative",
        "images without an annotation were left out",
    )
    without = (pictures / name for stem, name in images.items() if stem not in xml_of)
    found.faults += [Fault(path, "has no XML", hint, False, kind) for path in without]
    return found


def folder_classes(folder: Path) -> Sequence[str]:
    """The classes of DIR or DIR/SPLIT, the same for all of its splits. Raises DataError."""
    is_part = not folder.is_dir() or folder.name.lower() in SPLITS
    homes = [folder, folder.parent] if is_part else [folder]
    for path in (home / name for home in homes for name in CLASS_FILES):
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if not names or len(set(names)) < len(names):
                raise DataError(path, "names no class, or one twice", "write a name a line")
            return names
    places = [homes[-1]]
    if is_part and folder.is_dir():
        places = [one for one in sorted(folder.parent.iterdir()) if one.is_dir() and one.name.lower() in SPLITS]
    used = names_in(path for place in places for path in place.rglob("*.xml"))
    return CLASS_NAMES if used <= set(CLASS_NAMES) else sorted(used)


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(is_image(entry.name) for entry in os.scandir(folder))
