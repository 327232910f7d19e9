"""The forms that prepare.conversion writes: what they have in common, COCO's and VOC's; YOLO's is in conversion_yolo.

Legend: I images, K objects.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vertebra.data.datasets.faults import are_empty
from vertebra.data.datasets.folders import stem_of
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.xml_objects import IMAGE_FIELDS, OBJECT_FIELDS, xml_text
from vertebra.data.datasets.xml_sets import image_id
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted


class Form:
    """One form of a data set on disk. lost: counts of what it cannot carry, by (noun, what more to say of it); remarks:
    sentences beside them.

    opened_as: the result as open_detection takes it. list_file: what makes the split known, which is written last.
    images: the folder of the pictures.
    """

    title: ClassVar[str]
    opened_as: ClassVar[str]
    list_file: ClassVar[str]
    images: ClassVar[str]
    by_stem = True  # whether an image's annotation is a file of the image's name

    def __init__(self, output: Path, split: str, *, polygons: bool = False) -> None:
        self.output, self.split, self.polygons = output, split, polygons
        self.source = self.opened_as.format(output=output, split=split)
        self.list_path = output / self.list_file.format(split=split)
        self.lost: Counter[tuple[str, str]] = Counter()
        self.remarks: list[str] = []

    def image_path(self, name: str) -> Path:
        return self.output / self.images.format(split=self.split) / name

    def begin(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        """Refuse what is in the way before anything is written."""

    def add(self, dataset: DetectionDataset, index: int, name: str) -> None:
        """Image `index` and its objects."""

    def finish(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        """The list, and what it is that did not come along."""

    def objects(self, dataset: DetectionDataset, index: int) -> Iterator[tuple[int, list[float]]]:
        """Yield the place of each object of an image, and its box x y w h, clipped to the image."""
        start, stop = dataset.starts[index : index + 2].tolist()
        xywh_G4, (height, width) = dataset.bbox_xywh_K4[start:stop], dataset.sizes_hw_I2[index].tolist()
        for k, box, is_empty in zip(range(start, stop), xywh_G4.tolist(), are_empty(xywh_G4).tolist()):
            if is_empty:
                self.lost["object", "of zero size"] += 1
                continue
            x, y, w, h = box
            x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
            if (x0, y0, x1, y1) != (x, y, x + w, y + h):
                self.lost["part", "of boxes beyond the image's edge (clipped)"] += 1
                box = [x0, y0, x1 - x0, y1 - y0]
            yield k, box

    def extras(self, texts: Sequence[str] | None, place: int, known: Sequence[str], what: str) -> dict[str, Any]:
        """Those of an image or object; what is not known is counted as lost. what: "images" or "objects"."""
        fields = json.loads(texts[place]) if texts is not None else {}
        self.lost.update(("field", f"{tag!r} of {what}") for tag in fields if tag not in known)
        return fields

    def sentences(self) -> tuple[str, ...]:
        lost = [f"{counted(count, noun)} {rest}".rstrip() for (noun, rest), count in self.lost.items() if count]
        return (*([f"{self.title} cannot carry: {'; '.join(lost)}."] if lost else []), *self.remarks)

    def lose_ids(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        """Ids that a reader of this form would give otherwise."""
        ids = [image_id(stem_of(name)) for name in names]
        self.lost["image id", "(they follow from the files' names)"] = int(np.sum(dataset.image_ids_I != np.array(ids)))
        numbers = np.arange(1, len(dataset.labels_K) + 1)
        self.lost["annotation id", "(objects are numbered)"] = int(np.sum(dataset.annotation_ids_K != numbers))
        classes = range(1, len(dataset.class_names) + 1)
        self.lost["category id", "(classes are numbered)"] = sum(a != b for a, b in zip(dataset.category_ids, classes))
        self.lost["supercategory", ""] = sum(map(bool, dataset.supercategories))

    def lose_header(self, dataset: DetectionDataset) -> None:
        if header := json.loads(dataset.header):
            self.remarks.append(f"Of the file itself stayed behind: {', '.join(sorted(header))}.")

    def lose_areas(self, dataset: DetectionDataset) -> None:
        boxes_K = dataset.bbox_xywh_K4[:, 2] * dataset.bbox_xywh_K4[:, 3]
        self.lost["area", "unlike the box's"] = int(np.sum(~np.isclose(dataset.areas_K, boxes_K, rtol=1e-6)))


class CocoForm(Form):
    """COCO JSON, which carries everything."""

    title = "COCO JSON"
    opened_as, list_file, images = "coco/{split}", "annotations/instances_{split}.json", "{split}"
    by_stem = False

    def finish(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        value = dataset.coco_truth()
        for image, name in zip(value["images"], names):
            image["file_name"] = name
        write_new(self.list_path, json.dumps(value, ensure_ascii=False) + "\n")


class VocForm(Form):
    title = "VOC XML"
    opened_as, list_file, images = "vocxml:{output}/{split}", "ImageSets/Main/{split}.txt", "JPEGImages"

    def begin(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        refuse_names(dataset)
        write_new(self.output / "classes.txt", "".join(f"{name}\n" for name in dataset.class_names))

    def add(self, dataset: DetectionDataset, index: int, name: str) -> None:
        height, width = dataset.sizes_hw_I2[index].tolist()
        extras = self.extras(dataset.image_extras, index, (*IMAGE_FIELDS, "depth"), "images")
        objects = []
        for k, box in self.objects(dataset, index):
            more = self.extras(dataset.object_extras, k, OBJECT_FIELDS, "objects")
            if dataset.segmentations is not None and dataset.segmentations[k]:
                self.lost["mask", ""] += 1
            self.lost["crowd region", "(written as difficult)"] += bool(dataset.crowd_K[k])
            hard = bool(dataset.difficult_K[k] or dataset.crowd_K[k])
            class_name = dataset.class_names[dataset.labels_K[k] - 1]
            objects.append((class_name, box, hard, more))
        path = self.output / "Annotations" / f"{stem_of(name)}.xml"
        write_new(path, xml_text(os.path.basename(name), (height, width), objects, extras))

    def finish(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        self.lose_ids(dataset, names)
        self.lose_areas(dataset)
        self.lose_header(dataset)
        if (dataset.bbox_xywh_K4 % 1).any():
            self.remarks.append(
                "Corners have the decimals that they had, so that nothing is lost; VOC's own tools read whole pixels."
            )
        write_new(self.list_path, "".join(f"{stem_of(name)}\n" for name in names))


def write_new(path: Path, text: str) -> None:
    """Write a file whole; one of the same content is left alone. Raises DataError where another is there."""
    content = text.encode("utf-8", "surrogateescape")
    if path.exists():
        if path.read_bytes() == content:
            return
        raise DataError(path, "is there already with other content", "remove it, or give another --output")
    write_over(path, content)


def write_over(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, in the place of one that is there. Not synced: there may be 100,000 of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def refuse_names(dataset: DetectionDataset) -> None:
    """Raise DataError for class names that a line of text does not give back."""
    strange = next((name for name in dataset.class_names if name.strip() != name or len(name.splitlines()) != 1), None)
    if strange is not None:
        raise DataError(dataset.source, f"the class {strange!r} has a line break or outer spaces", "rename it")
