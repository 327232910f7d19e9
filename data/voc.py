"""PASCAL VOC: VOCdevkit/VOC<year>/{Annotations,ImageSets/Main,JPEGImages}.

Corners in the files count pixels from 1 and include both ends; here they become x0 = xmin - 1, y0 = ymin - 1,
x1 = xmax, y1 = ymax. A set whose objects bear none of VOC's twenty names has classes of its own: all that
occur in its Annotations, in alphabetical order.
"""

from __future__ import annotations

import hashlib
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.annotations import Fault, build_dataset, judge_boxes, refuse, summarise
from data.errors import DataError
from data.records import DetectionDataset

CLASS_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]

VocObject = tuple[str, tuple[float, ...], bool]  # name, corners as written, difficult


@dataclass
class ParsedVoc:
    """The images of one image set, their objects, and all that is wrong with them."""

    folder: Path
    stems: list[str] = field(default_factory=list)
    sizes_hw: list[tuple[int, int]] = field(default_factory=list)
    names_K: list[str] = field(default_factory=list)
    owners_K: list[int] = field(default_factory=list)
    corners_K4: list[tuple[float, ...]] = field(default_factory=list)
    difficult_K: list[bool] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def find_devkit(root: Path, year: str) -> Path:
    """The folder that holds VOC<year>: `root`, its parent, its VOCdevkit or that of a folder in it."""
    name = f"VOC{year}"
    places = [root / "VOCdevkit", root, *([root.parent] if root.name == name else [])]
    places += sorted(root.glob("*/VOCdevkit"))
    for place in places:
        if (place / name).is_dir():
            return place
    raise DataError(
        f"{root}: no {name} in it nor in its VOCdevkit; unpack the VOC {year} archives there "
        f"(python tools/prepare_data.py voc{year[-2:]} --data {root})"
    )


def read_voc(root: Path, years_and_splits: Sequence[tuple[str, str]], source: str) -> DetectionDataset:
    """One image set or a union, such as (("2007", "trainval"), ("2012", "trainval")). Raises DataError."""
    devkits = [find_devkit(root, year) for year, _ in years_and_splits]
    if len(set(devkits)) > 1:
        raise DataError(f"{root}: the years lie in different folders {devkits}; put them into one VOCdevkit")
    parsed = [parse_voc(devkit / f"VOC{year}", split) for devkit, (year, split) in zip(devkits, years_and_splits)]
    class_names = class_names_of(parsed)
    faults = [fault for one in parsed for fault in one.faults]
    faults += [fault for one in parsed for fault in strange_names(one, class_names)]
    image_ids = [image_id(stem) for one in parsed for stem in one.stems]
    clashes = len(image_ids) - len(set(image_ids))
    if clashes:
        raise DataError(f"{source}: {clashes} images are in it twice; unite disjoint image sets")
    kept = [_judge(one) for one in parsed]
    faults += [fault for _, _, found in kept for fault in found]
    refuse(faults)
    xywh_K4 = np.concatenate([xywh for xywh, _, _ in kept])
    keep_K = np.concatenate([keep for _, keep, _ in kept])
    before = np.cumsum([0, *(len(one.stems) for one in parsed[:-1])])
    owners_K = np.concatenate([b + np.array(one.owners_K, np.int64) for b, one in zip(before, parsed)])
    labels_K = np.array([class_names.index(name) + 1 for one in parsed for name in one.names_K], np.int64)
    difficult_K = np.array([flag for one in parsed for flag in one.difficult_K], bool)
    xywh_K4 = xywh_K4[keep_K]
    return build_dataset(
        root=devkits[0],
        source=source,
        class_names=class_names,
        category_ids=range(1, len(class_names) + 1),
        image_ids=image_ids,
        file_names=[name for one in parsed for name in image_names(one.folder, one.stems)],
        sizes_hw_I2=np.array([size for one in parsed for size in one.sizes_hw]),
        owners_K=owners_K[keep_K],
        xywh_K4=xywh_K4,
        labels_K=labels_K[keep_K],
        crowd_K=np.zeros(keep_K.sum(), bool),
        difficult_K=difficult_K[keep_K],
        areas_K=xywh_K4[:, 2] * xywh_K4[:, 3],
        annotation_ids_K=np.arange(1, keep_K.sum() + 1),
        notes=summarise(faults),
    )


def parse_voc(folder: Path, split: str) -> ParsedVoc:
    """Reads and judges one image set. Raises DataError only where the set itself is not there."""
    parsed = ParsedVoc(folder)
    for stem in _image_set(folder, split):
        path = folder / "Annotations" / f"{stem}.xml"
        try:
            annotation = parse_annotation(path)
        except FileNotFoundError:
            parsed.faults.append(
                Fault(path, f"no such annotation, but {split}.txt lists {stem}", "restore it or unlist it")
            )
            continue
        if isinstance(annotation, Fault):
            parsed.faults.append(annotation)
            continue
        size_hw, objects = annotation
        for name, corners, difficult in objects:
            parsed.names_K.append(name)
            parsed.owners_K.append(len(parsed.stems))
            parsed.corners_K4.append(corners)
            parsed.difficult_K.append(difficult)
        parsed.stems.append(stem)
        parsed.sizes_hw.append(size_hw)
    return parsed


def parse_annotation(path: Path) -> tuple[tuple[int, int], list[VocObject]] | Fault:
    """One image's height and width and its objects, or what is wrong with the file. Raises FileNotFoundError."""
    try:
        tree = ET.parse(path).getroot()
        size_hw = (int(_number(tree, "size/height")), int(_number(tree, "size/width")))
        if min(size_hw) <= 0:
            raise ValueError(f"its size is {size_hw[1]} x {size_hw[0]}")
        return size_hw, [_object(element) for element in tree.findall("object")]
    except FileNotFoundError:
        raise
    except (ET.ParseError, ValueError) as error:
        return Fault(path, f"does not parse as VOC XML ({error})", "correct or restore it")
    except OSError as error:
        return Fault(path, f"cannot be read ({error.strerror})", "check its permissions")


def class_names_of(parsed: Iterable[ParsedVoc]) -> list[str]:
    """VOC's twenty, or, where none of them occurs, the names in all of the folders' annotations."""
    parsed = list(parsed)
    used = {name for one in parsed for name in one.names_K}
    if not used or used & set(CLASS_NAMES):
        return CLASS_NAMES
    every = set(used)
    for folder in {one.folder for one in parsed}:
        for path in sorted((folder / "Annotations").glob("*.xml")):
            try:
                every |= {element.findtext("name", "").strip() for element in ET.parse(path).iter("object")}
            except (ET.ParseError, OSError):
                continue  # not of this image set, or among its faults already
    return sorted(every - {""})


def strange_names(parsed: ParsedVoc, class_names: Sequence[str]) -> list[Fault]:
    return [
        Fault(
            parsed.folder / "Annotations" / f"{parsed.stems[owner]}.xml",
            f"has an object {name!r}, which is not one of the {len(class_names)} classes",
            "correct the name",
        )
        for name, owner in zip(parsed.names_K, parsed.owners_K)
        if name not in class_names
    ]


def box_faults(parsed: ParsedVoc) -> list[Fault]:
    return _judge(parsed)[2]


def image_id(stem: str) -> int:
    """000005 is 5 and 2008_000005 is 2008000005, unique over the years; other names become 48-bit hashes."""
    digits = stem.replace("_", "")
    if digits.isascii() and digits.isdigit() and len(digits) <= 15:
        return int(digits)
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:6], "big")


def image_names(folder: Path, stems: Sequence[str]) -> list[str]:
    """Names relative to the devkit: .jpg as VOC has it, or whatever image of that stem is there."""
    pictures = folder / "JPEGImages"
    present = sorted(os.listdir(pictures)) if pictures.is_dir() else []
    by_stem = {os.path.splitext(name)[0]: name for name in present}
    return [f"{folder.name}/JPEGImages/{by_stem.get(stem, f'{stem}.jpg')}" for stem in stems]


def _judge(parsed: ParsedVoc) -> tuple[np.ndarray, np.ndarray, list[Fault]]:
    corners_K4 = np.array(parsed.corners_K4, np.float64).reshape(-1, 4)
    corners_K4[:, :2] -= 1
    xywh_K4 = np.concatenate([corners_K4[:, :2], corners_K4[:, 2:] - corners_K4[:, :2]], axis=1)
    sizes_K2 = np.array(parsed.sizes_hw, np.int64).reshape(-1, 2)[np.array(parsed.owners_K, np.int64)]

    def path(k: int) -> Path:
        return parsed.folder / "Annotations" / f"{parsed.stems[parsed.owners_K[k]]}.xml"

    keep_K, faults = judge_boxes(xywh_K4, sizes_K2, lambda k: f"object {parsed.names_K[k]!r}", path)
    return xywh_K4, keep_K, faults


def _image_set(folder: Path, split: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.txt") if "_" not in p.stem)
        known = f"it has {', '.join(there)}" if there else "the folder has no image sets"
        raise DataError(f"{path}: no such image set; {known}")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    stems = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    if not stems:
        raise DataError(f"{path}: lists no images; there is nothing to train or test on")
    return stems


def _object(element: ET.Element) -> VocObject:
    """Name, corners as written, difficult. Only the object's own box: its parts have boxes as well."""
    name = element.findtext("name", "").strip()
    if not name or element.find("bndbox") is None:
        raise ValueError(f"object {name!r} lacks a name or a bndbox")
    corners = tuple(_number(element, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax"))
    return name, corners, element.findtext("difficult", "0").strip() == "1"


def _number(element: ET.Element, tag: str) -> float:
    text = element.findtext(tag)
    if text is None:
        raise ValueError(f"{tag} is missing")
    return float(text)
