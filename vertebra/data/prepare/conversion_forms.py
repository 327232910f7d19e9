"""What the forms that prepare.conversion writes have in common, and those of COCO and VOC; YOLO: conversion_yolo.

Legend: I images, K objects.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.shards import scratch_beside
from vertebra.data.datasets.xml_objects import IMAGE_FIELDS, OBJECT_FIELDS, xml_text
from vertebra.data.datasets.xml_sets import image_id, stem_of
from vertebra.ground.errors import DataError


class Form:
    """One form of a data set on disk. lost: how many of what did not come along."""

    title = ""
    by_stem = True  # whether an image's annotation is a file of the image's name

    def __init__(self, output: Path, split: str, *, polygons: bool = False, crowd: str = "keep") -> None:
        self.output, self.split, self.polygons, self.drops_crowd = output, split, polygons, crowd == "drop"
        self.lost: Counter[str] = Counter()
        self.told: list[str] = []

    @property
    def source(self) -> str:
        """As what open_detection takes the result."""
        raise NotImplementedError

    @property
    def list_path(self) -> Path:
        """The file that makes the split known; it is written last."""
        raise NotImplementedError

    def image_path(self, name: str) -> Path:
        raise NotImplementedError

    def begin(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        """Refuses what is in the way before anything is written."""

    def add(self, dataset: DetectionDataset, index: int, name: str) -> None:
        """Image `index` and its objects."""

    def finish(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        """The list, and what it is that did not come along."""

    def objects(self, dataset: DetectionDataset, index: int) -> list[int]:
        """The places of an image's objects."""
        span = range(int(dataset.starts[index]), int(dataset.starts[index + 1]))
        if not self.drops_crowd:
            return list(span)
        kept = [k for k in span if not dataset.crowd_K[k]]
        self.lost["crowd regions (left out, as --crowd drop says)"] += len(span) - len(kept)
        return kept

    def sentences(self) -> tuple[str, ...]:
        lost = [f"{count} {what}" for what, count in self.lost.items() if count]
        return (*([f"{self.title} cannot carry: {'; '.join(lost)}."] if lost else []), *self.told)

    def lose_ids(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        """Ids that a reader of this form would give otherwise."""
        ids = [image_id(stem_of(name)) for name in names]
        self.lost["image ids (they follow from the files' names)"] = int(np.sum(dataset.image_ids_I != np.array(ids)))
        numbers = np.arange(1, len(dataset.labels_K) + 1)
        self.lost["annotation ids (objects are numbered)"] = int(np.sum(dataset.annotation_ids_K != numbers))
        classes = range(1, len(dataset.class_names) + 1)
        self.lost["category ids (classes are numbered)"] = sum(a != b for a, b in zip(dataset.category_ids, classes))
        self.lost["supercategories"] = sum(map(bool, dataset.supercategories))

    def lose_header(self, dataset: DetectionDataset) -> None:
        if header := json.loads(dataset.header):
            self.told.append(f"Of the file itself stayed behind: {', '.join(sorted(header))}.")

    def lose_areas(self, dataset: DetectionDataset) -> None:
        boxes_K = dataset.bbox_xywh_K4[:, 2] * dataset.bbox_xywh_K4[:, 3]
        self.lost["areas that are not their box's"] = int(np.sum(~np.isclose(dataset.areas_K, boxes_K, rtol=1e-6)))


class CocoForm(Form):
    """COCO JSON, which carries everything."""

    title = "COCO JSON"
    by_stem = False

    @property
    def source(self) -> str:
        return f"coco/{self.split}"

    @property
    def list_path(self) -> Path:
        return self.output / "annotations" / f"instances_{self.split}.json"

    def image_path(self, name: str) -> Path:
        return self.output / self.split / name

    def finish(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        value = dataset.coco_truth()
        for image, name in zip(value["images"], names):
            image["file_name"] = name
        if self.drops_crowd:
            kept = [one for one in value["annotations"] if not one["iscrowd"]]
            self.lost["crowd regions (left out, as --crowd drop says)"] = len(value["annotations"]) - len(kept)
            value["annotations"] = kept
        write_new(self.list_path, json.dumps(value, ensure_ascii=False) + "\n")


class VocForm(Form):
    """VOC XML."""

    title = "VOC XML"

    @property
    def source(self) -> str:
        return f"vocxml:{self.output}/{self.split}"

    @property
    def list_path(self) -> Path:
        return self.output / "ImageSets" / "Main" / f"{self.split}.txt"

    def image_path(self, name: str) -> Path:
        return self.output / "JPEGImages" / name

    def begin(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        refuse_names(dataset)
        write_new(self.output / "classes.txt", "".join(f"{name}\n" for name in dataset.class_names))

    def add(self, dataset: DetectionDataset, index: int, name: str) -> None:
        height, width = dataset.sizes_hw_I2[index].tolist()
        extras = json.loads(dataset.image_extras[index]) if dataset.image_extras is not None else {}
        self._lose_fields(extras, (*IMAGE_FIELDS, "depth"), "of images")
        objects = []
        for k in self.objects(dataset, index):
            more = json.loads(dataset.object_extras[k]) if dataset.object_extras is not None else {}
            self._lose_fields(more, OBJECT_FIELDS, "of objects")
            if dataset.segmentations is not None and dataset.segmentations[k]:
                self.lost["masks"] += 1
            self.lost["crowd regions (written as difficult objects)"] += bool(dataset.crowd_K[k])
            hard = bool(dataset.difficult_K[k] or dataset.crowd_K[k])
            class_name = dataset.class_names[dataset.labels_K[k] - 1]
            objects.append((class_name, dataset.bbox_xywh_K4[k].tolist(), hard, more))
        path = self.output / "Annotations" / f"{stem_of(name)}.xml"
        write_new(path, xml_text(os.path.basename(name), (height, width), objects, extras))

    def finish(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        self.lose_ids(dataset, names)
        self.lose_areas(dataset)
        self.lose_header(dataset)
        if (dataset.bbox_xywh_K4 % 1).any():
            self.told.append(
                "Corners have the decimals that they had, so that nothing is lost; VOC's own tools read whole pixels."
            )
        write_new(self.list_path, "".join(f"{stem_of(name)}\n" for name in names))

    def _lose_fields(self, fields: dict[str, Any], known: Sequence[str], where: str) -> None:
        for tag in fields:
            if tag not in known:
                self.lost[f"fields {tag!r} {where}"] += 1


def write_new(path: Path, text: str) -> None:
    """Writes a file whole; one that is there and says the same is left. Raises DataError where it says other things."""
    content = text.encode("utf-8", "surrogateescape")
    if path.exists():
        if path.read_bytes() == content:
            return
        raise DataError(path, "is there already and says other things", "remove it, or give another --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(path) as scratch:
        scratch.write_bytes(content)
        os.replace(scratch, path)


def refuse_names(dataset: DetectionDataset) -> None:
    """Raises DataError for class names that a line of text does not give back."""
    strange = next((name for name in dataset.class_names if name.strip() != name or len(name.splitlines()) != 1), None)
    if strange is not None:
        raise DataError(dataset.source, f"the class {strange!r} has a line break or outer spaces", "rename it")
