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
from dataclasses import dataclass
from pathlib import Path

from vertebra.data.datasets.annotations import Fault
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.xml_sets import Listed, ParsedXml, build_xml_set, parse_images
from vertebra.ground.errors import DataError

HOMES = ("ILSVRC", "", "ILSVRC2015", "ILSVRC2017_DET/ILSVRC")
MAPS = ("map_det.txt", "devkit/data/map_det.txt", "../map_det.txt", "../devkit/data/map_det.txt")
EXTENSION = ".JPEG"
_NAME = re.compile(rb"<name>\s*([^<]*?)\s*</name>")
_CLASS_LIST = re.compile(r"train_\d+\.txt")


@dataclass(frozen=True)
class DetClasses:
    """wnids in the order of labels, the ids that results bear, and names for people."""

    wnids: tuple[str, ...]
    ids: tuple[int, ...]
    titles: tuple[str, ...]


def find_ilsvrc(root: Path) -> Path | None:
    """The folder with Data/DET: ILSVRC in `root`, `root` itself, or as older releases call it; None: none of them."""
    return next((root / home for home in HOMES if (root / home / "Data" / "DET").is_dir()), None)


def read_imagenet_det(root: Path, split: str, source: str, *, extras: bool = False) -> DetectionDataset:
    """One split: train, val, test, or any list in ImageSets/DET. Raises DataError."""
    parsed = parse_imagenet_det(root, split, extras=extras)
    classes = det_classes(root)
    return build_xml_set(
        [parsed], source, classes.wnids, category_ids=classes.ids, titles=classes.titles, extras=extras
    )


def parse_imagenet_det(root: Path, split: str, *, extras: bool = False) -> ParsedXml:
    """Reads and judges one split. Raises DataError only where the set itself is not there."""
    home = find_ilsvrc(root)
    if home is None:
        raise DataError(
            root,
            "no ILSVRC/Data/DET in it",
            f"unpack ILSVRC2017_DET.tar.gz there (python tools/prepare_data.py imagenet_det --data {root})",
        )
    folder = next(name for name in ("train", "test", "val") if split.startswith(name) or name == "val")
    stems = _listed(home, split, folder)
    pictures, annotations = home / "Data" / "DET" / folder, home / "Annotations" / "DET" / folder
    prefix, labelled = f"Data/DET/{folder}", folder != "test"
    listed: list[Listed] = []
    faults: list[Fault] = []
    kind = "images listed as having objects have no XML and were taken as without"
    for stem, positive in stems.items():
        xml: Path | None = annotations / f"{stem}.xml"
        if not labelled or not os.path.isfile(xml):  # type: ignore[arg-type]
            xml = None
            picture = pictures / f"{stem}{EXTENSION}"
            if labelled and not picture.is_file():
                faults.append(_absent(picture, split, fatal=folder != "train"))
                continue
            if labelled and positive and folder == "train":
                faults.append(Fault(picture, "is listed as having objects, but has no XML", "restore it", False, kind))
        listed.append(Listed(stem, xml, f"{prefix}/{stem}{EXTENSION}", f"{split}.txt"))
    if not listed:
        raise DataError(pictures, f"holds none of the {len(stems)} images of {split}", "unpack the images there")
    parsed = parse_images(home, listed, labelled=labelled, extras=extras)
    parsed.faults[:0] = faults
    return parsed


def det_classes(root: Path) -> DetClasses:
    """From the devkit's map_det.txt, lines `wnid number name`, where it is found, else from all XML.

    Raises DataError.
    """
    home = find_ilsvrc(root) or root
    for path in (home / place for place in MAPS):
        if path.is_file():
            return _read_map(path)
    annotations = home / "Annotations" / "DET"
    files = (path for split in ("train", "val") for path in (annotations / split).rglob("*.xml"))
    wnids = sorted(_names_in(files))
    if not wnids:
        raise DataError(annotations, "no XML with an object", f"put the devkit's map_det.txt into {home}")
    return DetClasses(tuple(wnids), tuple(range(1, len(wnids) + 1)), ())


def _absent(picture: Path, split: str, *, fatal: bool) -> Fault:
    hint = "restore it, or unlist it" if fatal else "it is left out"
    reason = f"neither this image nor its XML is there, but {split} lists it"
    return Fault(picture, reason, hint, fatal, "listed images that are not there were left out")


def _listed(home: Path, split: str, folder: str) -> dict[str, bool]:
    """The split's images in order, and of each whether any list has it with 1 or 0, which is: with objects."""
    lists = home / "ImageSets" / "DET"
    whole = lists / f"{split}.txt"
    files = [whole] if whole.is_file() else []
    if not files and split == "train":
        found = [path for path in lists.glob("train_*.txt") if _CLASS_LIST.fullmatch(path.name)]
        files = sorted(found, key=lambda path: int(path.stem.rpartition("_")[2]))
    if not files and split == folder:
        return dict.fromkeys(_walk(home / "Data" / "DET" / folder), False)
    if not files:
        there = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))[:8]) or "nothing"
        raise DataError(whole, "no such list", f"the folder has {there}")
    per_class = files != [whole]
    positive: dict[str, bool] = {}
    for path in files:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if words:  # of train.txt and val.txt the second word is a number of the image
                is_positive = per_class and len(words) > 1 and words[1] != "-1"
                positive[words[0]] = positive.get(words[0], False) or is_positive
    if not positive:
        raise DataError(files[0], "lists no images", "there is nothing to train or test on")
    return positive


def _walk(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix().removesuffix(EXTENSION) for path in folder.rglob(f"*{EXTENSION}"))


def _read_map(path: Path) -> DetClasses:
    rows = [line.split(None, 2) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    rows = sorted((row for row in rows if row), key=lambda row: int(row[1]) if _is_row(row) else 0)
    if not rows or not all(map(_is_row, rows)) or len({row[0] for row in rows}) < len(rows):
        raise DataError(path, "is not the devkit's list of classes", "its lines are `wnid number name`")
    wnids = tuple(row[0] for row in rows)
    titles = [row[2].strip() for row in rows]
    unique = tuple(f"{title} ({wnid})" if titles.count(title) > 1 else title for title, wnid in zip(titles, wnids))
    return DetClasses(wnids, tuple(int(row[1]) for row in rows), unique)


def _is_row(row: list[str]) -> bool:
    return len(row) == 3 and row[1].isdigit()


def _names_in(files: Iterable[Path]) -> set[str]:
    """All names in XML files, by a search that is some ten times as fast as parsing hundreds of thousands."""
    names: set[str] = set()
    for path in files:
        try:
            names.update(match.decode("utf-8", "replace") for match in _NAME.findall(path.read_bytes()))
        except OSError:
            continue  # among the split's faults, if it is of the split
    return names - {""}
