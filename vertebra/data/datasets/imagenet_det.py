"""ImageNet DET: ILSVRC/{Data,Annotations,ImageSets}/DET, 200 classes, XML of VOC's form with wnids as names.

train is united from the lists of each class (train_<number>.txt): an image that is only listed with -1 is a verified
negative and has no XML. Where map_det.txt of the owner's devkit is found, classes have its names and numbers; else
they are the wnids of all XML there is, sorted, so that small subsets work. Test truth is not published. Corners are
taken to be VOC's, as the owner's readme says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from vertebra.data.datasets.annotations import Classes, Parsed
from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.folders import files_below, is_xml, read_lines, stem_of
from vertebra.data.datasets.xml_sets import Listed, XmlSet, read_images, xml_dataset
from vertebra.ground.errors import DataError

SOURCE = re.compile(r"imagenet_det/([\w-]+)", re.IGNORECASE)
HOMES = ("ILSVRC", "", "ILSVRC2015", "ILSVRC2017_DET/ILSVRC")
MAPS = ("map_det.txt", "devkit/data/map_det.txt", "../map_det.txt", "../devkit/data/map_det.txt")
EXTENSION = ".JPEG"
_NAME = re.compile(rb"<name>\s*([^<]*?)\s*</name>")
_CLASS_LIST = re.compile(r"train_\d+\.txt")


def find(root: Path) -> list[str]:
    """The sources that lie in `root`."""
    home = find_ilsvrc(root)
    folders = () if home is None else (home / "Data" / "DET").iterdir()
    return [f"imagenet_det/{folder.name}" for folder in folders if folder.is_dir()]


def find_ilsvrc(root: Path) -> Path | None:
    """The folder with Data/DET: ILSVRC in `root`, `root` itself, or as older releases call it; None: none of them."""
    return next((root / home for home in HOMES if (root / home / "Data" / "DET").is_dir()), None)


def parse_imagenet_det(root: Path, split: str, source: str, *, extras: bool = False) -> Parsed:
    """One split: train, val, test, or any list in ImageSets/DET. Raises DataError where the set itself is not there."""
    home = find_ilsvrc(root)
    if home is None:
        hint = f"unpack ILSVRC2017_DET.tar.gz there (python tools/prepare_data.py imagenet_det --data {root})"
        raise DataError(root, "no ILSVRC/Data/DET in it", hint)
    folder = next((name for name in ("train", "test") if split.startswith(name)), "val")
    pictures, annotations = home / "Data" / "DET" / folder, home / "Annotations" / "DET" / folder
    stems = _list(home, split, folder)
    listed: list[Listed] = []
    faults: list[Fault] = []
    kind = "images listed as having objects have no XML and were taken as without"
    reason = "is listed as having objects, but has no XML and was taken as without"
    for stem, positive in stems.items():
        xml, picture = annotations / f"{stem}.xml", pictures / f"{stem}{EXTENSION}"
        has_xml = folder != "test" and os.path.isfile(xml)
        if not has_xml and folder != "test":
            if not os.path.isfile(picture):
                faults.append(_absent(picture, split, fatal=folder != "train"))
                continue
            if positive and folder == "train":
                faults.append(Fault(picture, reason, "restore it", False, kind))
        name = f"Data/DET/{folder}/{stem}{EXTENSION}"
        listed.append(Listed(stem, xml if has_xml else None, [name], f"{split}.txt"))
    if not listed:
        raise DataError(pictures, f"holds none of the {len(stems)} images of {split}", "unpack the images there")
    found = read_images(XmlSet(home, labelled=folder != "test", extras=extras, faults=faults), listed)
    classes, titles = det_classes(home)
    return xml_dataset(found, source, classes, titles=titles)


def det_classes(home: Path) -> tuple[Classes, tuple[str, ...]]:
    """wnids with the ids that results bear, and names for people, from the devkit's map_det.txt.

    Where that is not found, the wnids of all XML, without names. Raises DataError.
    """
    for path in (home / place for place in MAPS):
        if path.is_file():
            return _read_map(path)
    annotations = home / "Annotations" / "DET"
    wnids = sorted(_names_in(annotations / name for name in files_below(annotations, is_xml)))
    if not wnids:
        raise DataError(annotations, "no XML with an object", f"put the devkit's map_det.txt into {home}")
    return Classes(wnids), ()


def _absent(picture: Path, split: str, *, fatal: bool) -> Fault:
    hint = "restore it, or unlist it" if fatal else "it is left out"
    reason = f"neither this image nor its XML is there, but {split} lists it"
    return Fault(picture, reason, hint, fatal, "listed images that are not there were left out")


def _list(home: Path, split: str, folder: str) -> dict[str, bool]:
    """The split's images in order, and of each whether any list has it with 1 or 0, which is: with objects."""
    lists = home / "ImageSets" / "DET"
    whole = lists / f"{split}.txt"
    files = [whole] if whole.is_file() else []
    if not files and split == "train":
        per_class = [path for path in lists.glob("train_*.txt") if _CLASS_LIST.fullmatch(path.name)]
        files = sorted(per_class, key=lambda path: int(path.stem.rpartition("_")[2]))
    if not files and split == folder:
        pictures = home / "Data" / "DET" / folder
        return {stem_of(name): False for name in files_below(pictures) if name.endswith(EXTENSION)}
    if not files:
        there = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))[:8]) or "nothing"
        raise DataError(whole, "no such list", f"the folder has {there}")
    positive: dict[str, bool] = {}
    for path in files:
        for words in map(str.split, read_lines(path)):  # of train.txt and val.txt the second is the image's number
            is_positive = files != [whole] and len(words) > 1 and words[1] != "-1"
            positive[words[0]] = positive.get(words[0], False) or is_positive
    if not positive:
        raise DataError(files[0], "lists no images", "there is nothing to train or test on")
    return positive


def _read_map(path: Path) -> tuple[Classes, tuple[str, ...]]:
    """Lines `wnid number name`, by number; names that occur twice bear their wnid."""
    rows = [line.split(None, 2) for line in read_lines(path, errors="replace")]
    whole = all(len(row) == 3 and row[1].isdecimal() for row in rows)
    if not rows or not whole or len({row[0] for row in rows}) < len(rows):
        raise DataError(path, "is not the devkit's list of classes", "its lines are `wnid number name`")
    rows.sort(key=lambda row: int(row[1]))
    names = [name.strip() for _, _, name in rows]
    titles = tuple(f"{name} ({row[0]})" if names.count(name) > 1 else name for name, row in zip(names, rows))
    return Classes([row[0] for row in rows], [int(row[1]) for row in rows]), titles


def _names_in(files: Iterable[Path]) -> set[str]:
    """All names in XML files, by a search that is some ten times as fast as parsing hundreds of thousands."""
    names: set[str] = set()
    for path in files:
        try:
            names.update(match.decode("utf-8", "replace") for match in _NAME.findall(path.read_bytes()))
        except OSError:
            continue  # among the split's faults, if it is of the split
    return names - {""}
