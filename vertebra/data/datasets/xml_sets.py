"""Many XML files of VOC's form as one data set: what VOC, ImageNet DET and loose folders of XML have in common.

Legend: I images, K objects.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from vertebra.data.datasets.annotations import Extras, Fault, build_dataset, judge_boxes, refuse, summarise
from vertebra.data.datasets.image_sizes import image_sizes
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.xml_objects import Json, XmlObject, read_xml
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
class ParsedXml:
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

    @property
    def names_K(self) -> list[str]:
        return [one.name for one in self.objects_K]


def parse_images(root: Path, listed: Sequence[Listed], *, labelled: bool = True, extras: bool = False) -> ParsedXml:
    """Reads and judges each one's XML; images without one get their size from their header."""
    parsed = ParsedXml(root, labelled=labelled)
    bare = [one for one in listed if one.xml is None]
    sizes_hw_B2, faults = image_sizes([root / one.file_name for one in bare])
    parsed.faults += faults
    size_of = {one.stem: (int(height), int(width)) for one, (height, width) in zip(bare, sizes_hw_B2)}
    for one in listed:
        if one.xml is None:
            if min(size_of[one.stem]):
                parsed.images.append(one)
                parsed.sizes_hw.append(size_of[one.stem])
                parsed.image_extras.append({})
            continue
        try:
            found = read_xml(one.xml, extras=extras)
        except FileNotFoundError:
            reason = f"no such annotation, but {one.listing} lists {one.stem}"
            parsed.faults.append(Fault(one.xml, reason, "restore it or unlist it"))
            continue
        except OSError as error:
            parsed.faults.append(Fault(one.xml, f"cannot be read ({error.strerror})", "check its permissions"))
            continue
        except ValueError as error:
            parsed.faults.append(Fault(one.xml, f"does not parse as VOC XML ({error})", "correct or restore it"))
            continue
        parsed.owners_K += [len(parsed.images)] * len(found.objects)
        parsed.objects_K += found.objects
        parsed.images.append(one)
        parsed.sizes_hw.append(found.size_hw)
        parsed.image_extras.append(found.extras)
    return parsed


def strange_names(parsed: ParsedXml, class_names: Sequence[str]) -> list[Fault]:
    """A fault for each object that is of none of the classes."""
    known = set(class_names)
    return [
        Fault(
            parsed.xml_of(k),
            f"has an object {name!r}, which is not one of the {len(class_names)} classes",
            "correct the name",
        )
        for k, name in enumerate(parsed.names_K)
        if name not in known
    ]


def box_faults(parsed: ParsedXml) -> list[Fault]:
    return _judge(parsed)[2]


def build_xml_set(
    parts: Sequence[ParsedXml],
    source: str,
    class_names: Sequence[str],
    *,
    category_ids: Sequence[int] = (),
    titles: Sequence[str] = (),
    extras: bool = False,
) -> DetectionDataset:
    """One or several parts, of one root, as a data set.

    class_names: as the XML has them. titles: names for people instead, the former becoming supercategories. Raises
    DataError.
    """
    faults = [fault for part in parts for fault in (*part.faults, *strange_names(part, class_names))]
    image_ids = [image_id(one.stem) for part in parts for one in part.images]
    clashes = len(image_ids) - len(set(image_ids))
    if clashes:
        raise DataError(source, f"{clashes} images are in it twice", "unite disjoint image sets")
    if len({part.labelled for part in parts}) > 1:
        raise DataError(source, "some of its parts have no annotations", "unite sets that all have them")
    judged = [_judge(part) for part in parts]
    faults += [fault for _, _, found in judged for fault in found]
    refuse(faults)
    keep_K = np.concatenate([keep for _, keep, _ in judged])
    xywh_K4 = np.concatenate([xywh for xywh, _, _ in judged])[keep_K]
    before = np.cumsum([0, *(len(part.images) for part in parts[:-1])])
    owners_K = np.concatenate([b + np.array(part.owners_K, np.int64) for b, part in zip(before, parts)])
    place = {name: label for label, name in enumerate(class_names, start=1)}
    objects_K = [one for part in parts for one in part.objects_K]
    kept_K = [one for one, keep in zip(objects_K, keep_K.tolist()) if keep]
    return build_dataset(
        root=parts[0].root,
        source=source,
        class_names=titles or class_names,
        category_ids=category_ids or range(1, len(class_names) + 1),
        supercategories=class_names if titles else (),
        image_ids=image_ids,
        file_names=[one.file_name for part in parts for one in part.images],
        sizes_hw_I2=np.array([size for part in parts for size in part.sizes_hw]),
        owners_K=owners_K[keep_K],
        xywh_K4=xywh_K4,
        labels_K=np.array([place[one.name] for one in kept_K], np.int64),
        crowd_K=np.zeros(len(kept_K), bool),
        difficult_K=np.array([one.difficult for one in kept_K], bool),
        areas_K=xywh_K4[:, 2] * xywh_K4[:, 3],
        annotation_ids_K=np.arange(1, len(kept_K) + 1),
        labelled=parts[0].labelled,
        extras=_extras(parts, kept_K) if extras else None,
        notes=summarise(faults),
    )


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


def _extras(parts: Sequence[ParsedXml], kept_K: Iterable[XmlObject]) -> Extras:
    return Extras(
        images=[json.dumps(more) for part in parts for more in part.image_extras],
        objects=[json.dumps(one.extras) for one in kept_K],
    )


def _judge(parsed: ParsedXml) -> tuple[np.ndarray, np.ndarray, list[Fault]]:
    """x y w h, which boxes to keep, and what is wrong with any."""
    edges_K4 = np.array([one.edges for one in parsed.objects_K], np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is judged below
        xywh_K4 = np.concatenate([edges_K4[:, :2], np.round(edges_K4[:, 2:] - edges_K4[:, :2], 9)], axis=1)
    sizes_K2 = np.array(parsed.sizes_hw, np.int64).reshape(-1, 2)[np.array(parsed.owners_K, np.int64)]
    keep_K, faults = judge_boxes(xywh_K4, sizes_K2, lambda k: f"object {parsed.objects_K[k].name!r}", parsed.xml_of)
    return xywh_K4, keep_K, faults
