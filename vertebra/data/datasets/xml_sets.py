"""Many XML files of VOC's form as one data set: what VOC, ImageNet DET and loose folders of XML have in common.

Legend: I images, K objects.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from vertebra.data.datasets.annotations import Classes, Images, Objects, Parsed, build_dataset, twice
from vertebra.data.datasets.faults import Fault, judge_boxes
from vertebra.data.datasets.image_sizes import image_sizes
from vertebra.data.datasets.imagenet import images_below
from vertebra.data.datasets.xml_objects import Json, XmlImage, XmlObject, read_xml
from vertebra.ground.errors import DataError

_COCO_2014 = re.compile(r"COCO_(?:train|val|test)\d{4}_(\d{12})")


@dataclass(frozen=True)
class Listed:
    """One image of a set. stem: what the set calls it; xml: its annotation, None: it has none and no objects.

    file_name: relative to the set's root, with slashes. listing: the list that names it, for messages.
    """

    stem: str
    xml: Path | None
    file_name: str
    listing: str = ""


@dataclass
class XmlSet:
    """The images that could be read, their objects, and all that is wrong with any.

    root: what file names are relative to. labelled: False where the set's annotations are not published.
    """

    root: Path
    images: list[Listed] = field(default_factory=list)
    sizes_hw: list[tuple[int, int]] = field(default_factory=list)
    objects_K: list[XmlObject] = field(default_factory=list)
    owners_K: list[int] = field(default_factory=list)
    image_extras: list[dict[str, Json]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    labelled: bool = True

    def xml_of(self, k: int) -> Path:
        """The file of object k."""
        listed = self.images[self.owners_K[k]]
        return listed.xml or self.root / listed.file_name


def read_images(root: Path, listed: Sequence[Listed], *, labelled: bool = True, extras: bool = False) -> XmlSet:
    """Read each one's XML; images without one get their size from their header."""
    found = XmlSet(root, labelled=labelled)
    bare = [one for one in listed if one.xml is None]
    sizes_hw_B2, faults = image_sizes([root / one.file_name for one in bare])
    found.faults += faults
    size_of = {one.stem: (height, width) for one, (height, width) in zip(bare, sizes_hw_B2.tolist())}
    for one in listed:
        if one.xml is None:
            image = XmlImage(size_of[one.stem], (), "", {})
            if not min(image.size_hw):
                continue  # among the faults
        else:
            try:
                image = read_xml(one.xml, extras=extras)
            except FileNotFoundError:
                reason = f"no such annotation, but {one.listing} lists {one.stem}"
                found.faults.append(Fault(one.xml, reason, "restore it or unlist it"))
                continue
            except DataError as error:
                found.faults.append(Fault.of(error))
                continue
        found.owners_K += [len(found.images)] * len(image.objects)
        found.objects_K += image.objects
        found.images.append(one)
        found.sizes_hw.append(image.size_hw)
        found.image_extras.append(image.extras)
    return found


def xml_dataset(
    found: XmlSet, source: str, classes: Classes, *, titles: Sequence[str] = (), extras: bool = False
) -> Parsed:
    """Return images and objects as a data set; objects of other classes are faults.

    classes: as the XML has them. titles: names for people instead, the former becoming supercategories.
    """
    labels = {name: label for label, name in enumerate(classes.names, start=1)}
    labels_K = np.array([labels.get(one.name, 0) for one in found.objects_K], np.int64)
    owners_K = np.array(found.owners_K, np.int64)
    edges_K4 = np.array([one.edges for one in found.objects_K], np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is judged below
        xywh_K4 = np.concatenate([edges_K4[:, :2], np.round(edges_K4[:, 2:] - edges_K4[:, :2], 9)], axis=1)
    sizes_K2 = np.array(found.sizes_hw, np.int64).reshape(-1, 2)[owners_K]

    def name(k: int) -> str:
        return f"object {found.objects_K[k].name!r}"

    keep_K, box_faults = judge_boxes(xywh_K4, sizes_K2, name, found.xml_of)
    strange = f"which is not one of the {len(classes.names)} classes"
    name_faults = [
        Fault(found.xml_of(k), f"has an {name(k)}, {strange}", "correct the name")
        for k in np.flatnonzero(labels_K == 0).tolist()
    ]
    ids = [image_id(one.stem) for one in found.images]
    if titles:
        classes = Classes(titles, classes.ids, classes.names)
    dataset = build_dataset(
        found.root,
        source,
        classes,
        Images(
            ids,
            [one.file_name for one in found.images],
            found.sizes_hw,
            [json.dumps(more) for more in found.image_extras] if extras else None,
        ),
        Objects(
            owners_K,
            xywh_K4,
            labels_K,
            difficult_K=[one.difficult for one in found.objects_K],
            extras=[json.dumps(one.extras) for one in found.objects_K] if extras else None,
            keep_K=keep_K & (labels_K > 0),
        ),
        labelled=found.labelled,
    )
    return Parsed(dataset, [*found.faults, *name_faults, *box_faults, *twice(ids, source)])


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


def stem_of(file_name: str) -> str:
    """A file's name without its extension, folders kept."""
    return str(PurePosixPath(file_name).with_suffix(""))


def images_by_stem(folder: Path) -> dict[str, str]:
    """The images below a folder, by their names without extension; of two with one name the first, .jpg before .png."""
    found: dict[str, str] = {}
    for name in images_below(folder):
        found.setdefault(stem_of(name), name)
    return found
