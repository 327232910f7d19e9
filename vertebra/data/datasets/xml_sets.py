"""Many XML files of VOC's form as one data set: what VOC, ImageNet DET and loose folders of XML have in common.

Legend: I images, K objects.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vertebra.data.datasets.annotations import Classes, Images, Objects, Parsed, build_dataset, repeated_ids
from vertebra.data.datasets.faults import Fault, judge_boxes
from vertebra.data.datasets.image_sizes import image_sizes
from vertebra.data.datasets.xml_objects import XmlImage, XmlObject, read_xml
from vertebra.ground.boxes import corners_to_sizes
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted

FROM_ONE = 3  # boxes at pixel 1 and none at 0: so many are no accident where objects reach beyond the picture
_COCO_2014 = re.compile(r"COCO_(?:train|val|test)\d{4}_(\d{12})")


@dataclass(frozen=True)
class Listed:
    """One image of a set. stem: what the set calls it; xml: its annotation, None: it has none and no objects.

    file_names: relative to the set's root, with slashes; of several the XML says which is meant, else it is the first.
    listing: the list that names it, for messages.
    """

    stem: str
    xml: Path | None
    file_names: Sequence[str]
    listing: str = ""


@dataclass
class XmlSet:
    """The images that could be read, their objects, and all that is wrong with any.

    root: what file names are relative to. labelled: False where the set's annotations are not published. extras: True
    where further fields were read. origin: what the corners call the first pixel, 0 or 1. otherwise: the source that
    reads them with the other one, where the set may be such a one.
    """

    root: Path
    labelled: bool = True
    extras: bool = False
    origin: int = 1
    otherwise: str = ""
    images: list[Listed] = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)
    contents: list[XmlImage] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_images(found: XmlSet, listed: Sequence[Listed]) -> XmlSet:
    """Read each one's XML into an empty set; images without one get their size from their header."""
    root = found.root
    bare = [one for one in listed if one.xml is None]
    sizes_hw_B2, faults = image_sizes([root / one.file_names[0] for one in bare])
    found.faults += faults
    size_of = {one.stem: (height, width) for one, (height, width) in zip(bare, sizes_hw_B2.tolist())}
    for one in listed:
        try:
            image = XmlImage(size_of[one.stem]) if one.xml is None else read_xml(one.xml, found.origin, found.extras)
        except FileNotFoundError:
            reason = f"no such annotation, but {one.listing} lists {one.stem}"
            found.faults.append(Fault(one.xml or root, reason, "restore it or unlist it"))
            continue
        except DataError as error:
            found.faults.append(Fault.of(error))
            continue
        if not min(image.size_hw):
            continue  # among the faults
        meant = [name for name in one.file_names if os.path.basename(name) == image.file_name]
        name = (meant or one.file_names)[0]
        if one.file_names[1:]:
            reason = f"lies beside {', '.join(os.path.basename(other) for other in one.file_names if other != name)}"
            kind = "images lie beside others of the same name, which were left out"
            found.faults.append(Fault(root / name, reason, "the others are left out", False, kind))
        found.images.append(one)
        found.file_names.append(name)
        found.contents.append(image)
    return found


def xml_dataset(
    found: XmlSet, source: str, classes: Classes, *, titles: Sequence[str] = (), name_hint: str = "correct the name"
) -> Parsed:
    """Return images and objects as a data set; objects of other classes are faults.

    classes: as the XML has them. titles: names for people instead, the former becoming supercategories.
    """
    objects_K: list[XmlObject] = [one for image in found.contents for one in image.objects]
    owners_K = np.repeat(np.arange(len(found.images)), [len(image.objects) for image in found.contents])
    labels = {name: label for label, name in enumerate(classes.names, start=1)}
    labels_K = np.array([labels.get(one.name, 0) for one in objects_K], np.int64)
    edges_K4 = np.array([one.edges for one in objects_K], np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is judged below
        xywh_K4 = np.concatenate([edges_K4[:, :2], np.round(corners_to_sizes(edges_K4)[:, 2:], 9)], axis=1)
    sizes_hw_I2 = np.array([image.size_hw for image in found.contents], np.int64).reshape(-1, 2)

    def xml_of(k: int) -> Path:
        return found.images[owners_K[k]].xml or found.root / found.file_names[owners_K[k]]

    def name(k: int) -> str:
        return f"object {objects_K[k].name!r}"

    keep_K, box_faults = judge_boxes(xywh_K4, sizes_hw_I2[owners_K], name, xml_of)
    strange = f"which is not one of the {counted(len(classes.names), 'class')}"
    name_faults = [
        Fault(xml_of(k), f"has an {name(k)}, {strange}", name_hint) for k in np.flatnonzero(labels_K == 0).tolist()
    ]
    origin_faults = _origin_faults(found, edges_K4[:, :2].min(axis=1, initial=np.inf), name, xml_of)
    ids = image_ids([one.stem for one in found.images], found.file_names)
    if titles:
        classes = Classes(titles, classes.ids, classes.names)
    dataset = build_dataset(
        found.root,
        source,
        classes,
        Images(
            ids,
            found.file_names,
            sizes_hw_I2,
            [json.dumps(image.extras) for image in found.contents] if found.extras else None,
        ),
        Objects(
            owners_K,
            xywh_K4,
            labels_K,
            difficult_K=[one.difficult for one in objects_K],
            extras=[json.dumps(one.extras) for one in objects_K] if found.extras else None,
            keep_K=keep_K & (labels_K > 0),
        ),
        labelled=found.labelled,
    )
    return Parsed(dataset, [*found.faults, *name_faults, *box_faults, *origin_faults, *repeated_ids(ids, source)])


def _origin_faults(
    found: XmlSet, starts_K: np.ndarray, name: Callable[[int], str], xml_of: Callable[[int], Path]
) -> list[Fault]:
    """What speaks for corners that count from another pixel. starts_K: of x0 and y0 the lesser."""
    if not found.otherwise:
        return []
    if found.origin:
        hint = f"read it as {found.otherwise} if its tool counts from 0 (as CVAT, Roboflow and others)"
        kind = f"boxes begin at pixel 0, but VOC's first is 1; {hint}"
        reason, places = "begins at pixel 0, but VOC's first is 1", np.flatnonzero(starts_K == -1)
        return [Fault(xml_of(k), f"{name(k)} {reason}", hint, False, kind) for k in places.tolist()]
    at_one_K = starts_K == 1
    if at_one_K.sum() < FROM_ONE or starts_K.min() < 1:
        return []
    reason = f"{at_one_K.sum()} boxes begin at pixel 1 and none at pixel 0"
    return [Fault(found.root, reason, f"read it as {found.otherwise} if its tool counts from 1, as VOC's", False)]


def image_ids(*spellings: Sequence[str]) -> list[int]:
    """An id for each image, of its name: by the first spelling of all names that keeps every two images apart."""
    ids: list[int] = []
    for names in spellings:
        ids = [image_id(name) for name in names]
        if len(set(ids)) == len(ids):
            break
    return ids


def image_id(stem: str) -> int:
    """000005 is 5 and 2008_000005 is 2008000005, unique over the years; other names become 48-bit hashes.

    COCO_val2014_000000000042, as COCO named its images of 2014, is 42.
    """
    if match := _COCO_2014.fullmatch(stem):
        return int(match[1])
    digits = stem.replace("_", "")
    if digits.isascii() and digits.isdigit() and len(digits) <= 15:
        return int(digits)
    return int.from_bytes(hashlib.sha256(stem.encode("utf-8", "surrogateescape")).digest()[:6], "big")
