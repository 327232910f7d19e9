"""The three forms that data.conversion writes, each with what it cannot carry.

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
import yaml

from data.errors import DataError
from data.records import DetectionDataset
from data.shards import scratch_beside
from data.xml_objects import IMAGE_FIELDS, OBJECT_FIELDS, xml_text
from data.xml_sets import image_id, stem_of
from data.yolo import polygon_bounds
from data.yolo_layout import find_yaml

_SAME_PX = 1e-3
_YOLO_DECIMALS = 12  # 1e-7 px of the largest images


class Form:
    """One form of a data set on disk. lost: how many of what did not come along."""

    title = ""
    by_stem = True  # whether an image's annotation is a file of the image's name

    def __init__(self, output: Path, split: str, *, polygons: bool = False, crowd: str = "keep") -> None:
        self.output, self.split, self.polygons, self.drops_crowd = output, split, polygons, crowd == "drop"
        self.lost: Counter[str] = Counter()
        self.told: list[str] = []

    source = ""

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
        if dataset.extras is not None and (header := json.loads(dataset.extras.header)):
            self.told.append(f"Of the file itself stayed behind: {', '.join(sorted(header))}.")

    def lose_areas(self, dataset: DetectionDataset) -> None:
        boxes_K = dataset.bbox_xywh_K4[:, 2] * dataset.bbox_xywh_K4[:, 3]
        self.lost["areas that are not their box's"] = int(np.sum(~np.isclose(dataset.areas_K, boxes_K, rtol=1e-6)))


class CocoForm(Form):
    """COCO JSON, which carries everything."""

    title = "COCO JSON"
    by_stem = False

    @property
    def source(self) -> str:  # type: ignore[override]
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
    def source(self) -> str:  # type: ignore[override]
        return f"vocxml:{self.output}/{self.split}"

    @property
    def list_path(self) -> Path:
        return self.output / "ImageSets" / "Main" / f"{self.split}.txt"

    def image_path(self, name: str) -> Path:
        return self.output / "JPEGImages" / name

    def begin(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        _refuse_names(dataset)
        write_new(self.output / "classes.txt", "".join(f"{name}\n" for name in dataset.class_names))

    def add(self, dataset: DetectionDataset, index: int, name: str) -> None:
        height, width = dataset.sizes_hw_I2[index].tolist()
        extras = json.loads(dataset.extras.images[index]) if dataset.extras is not None else {}
        self._lose_fields(extras, (*IMAGE_FIELDS, "depth"), "of images")
        objects = []
        for k in self.objects(dataset, index):
            more = json.loads(dataset.extras.objects[k]) if dataset.extras is not None else {}
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


class YoloForm(Form):
    """YOLO text: boxes, or with `polygons` outlines of all objects (others read files of both kinds wrongly)."""

    title = "YOLO text"

    @property
    def source(self) -> str:  # type: ignore[override]
        return f"yolo:{self.output}/{self.split}"

    @property
    def list_path(self) -> Path:
        return self.output / "data.yaml"

    def image_path(self, name: str) -> Path:
        return self.output / "images" / self.split / name

    def begin(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        _refuse_names(dataset)
        self.description = self._description(dataset)
        self.moved_px = 0.0

    def add(self, dataset: DetectionDataset, index: int, name: str) -> None:
        height, width = dataset.sizes_hw_I2[index].tolist()
        lines = []
        for k in self.objects(dataset, index):
            self.lost["crowd flags (such regions become ordinary objects; --crowd drop leaves them out)"] += bool(
                dataset.crowd_K[k]
            )
            self.lost["difficult flags"] += bool(dataset.difficult_K[k])
            if dataset.extras is not None:
                self.lost.update(f"fields {tag!r} of objects" for tag in json.loads(dataset.extras.objects[k]))
            numbers = self._outline(dataset, k, (height, width)) if self.polygons else self._box(dataset, k)
            scales = (width, height) * (len(numbers) // 2)
            fractions = (f"{number / scale:.{_YOLO_DECIMALS}f}" for number, scale in zip(numbers, scales))
            lines.append(" ".join([str(dataset.labels_K[k] - 1), *map(_short, fractions)]) + "\n")
        if dataset.extras is not None:
            self.lost.update(f"fields {tag!r} of images" for tag in json.loads(dataset.extras.images[index]))
        write_new(self.output / "labels" / self.split / f"{stem_of(name)}.txt", "".join(lines))

    def finish(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        self.lose_ids(dataset, names)
        if not self.polygons:
            self.lose_areas(dataset)
        self.lose_header(dataset)
        if self.moved_px > _SAME_PX:
            self.told.append(
                f"A polygon's box is its bounds: {self.lost.pop('boxes')} boxes differ from their object's, "
                f"by up to {self.moved_px:.3g} px."
            )
        self.list_path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_beside(self.list_path) as scratch:
            scratch.write_text(yaml.safe_dump(self.description, sort_keys=False, allow_unicode=True), encoding="utf-8")
            os.replace(scratch, self.list_path)

    def _description(self, dataset: DetectionDataset) -> dict[str, Any]:
        """data.yaml with this split added. Raises DataError where one is there of other classes."""
        names = dict(enumerate(dataset.class_names))
        found = find_yaml(self.output)
        if found is None:
            return {self.split: f"images/{self.split}", "names": names}
        value = yaml.safe_load(found.read_text(encoding="utf-8"))
        theirs = value["names"] if isinstance(value["names"], dict) else dict(enumerate(value["names"]))
        if found != self.list_path or theirs != names:
            raise DataError(f"{found}: describes a set of other classes; give another --output")
        return {self.split: f"images/{self.split}", **value}

    def _box(self, dataset: DetectionDataset, k: int) -> list[float]:
        if dataset.segmentations is not None and dataset.segmentations[k]:
            self.lost["masks (--polygons writes outlines)"] += 1
        x, y, w, h = dataset.bbox_xywh_K4[k].tolist()
        return [x + w / 2, y + h / 2, w, h]

    def _outline(self, dataset: DetectionDataset, k: int, size_hw: tuple[int, int]) -> list[float]:
        text = dataset.segmentations[k] if dataset.segmentations is not None else ""
        value = json.loads(text) if text else None
        x, y, w, h = dataset.bbox_xywh_K4[k].tolist()
        polygons = [one for one in value if len(one) >= 6] if isinstance(value, list) else []
        if not polygons:
            if value is not None:
                self.lost["run-length masks (their box is written as an outline)"] += 1
            else:
                self.lost["objects without a mask (their box is written as an outline)"] += 1
            return [x, y, x + w, y, x + w, y + h, x, y + h]
        if len(polygons) > 1:
            self.lost["masks of several polygons as such (they are joined by lines without width)"] += 1
        outline = join(polygons)
        x0, y0, width, height = polygon_bounds(outline)
        off_px = max(abs(x0 - x), abs(y0 - y), abs(x0 + width - x - w), abs(y0 + height - y - h))
        if off_px > _SAME_PX:
            self.lost["boxes"] += 1
            self.moved_px = max(self.moved_px, off_px)
        return outline


FORMS: dict[str, type[Form]] = {"coco": CocoForm, "voc": VocForm, "yolo": YoloForm}


def join(polygons: Sequence[Sequence[float]]) -> list[float]:
    """One outline of several polygons: out to each and back on the same line, which encloses nothing."""
    first = list(polygons[0])
    joined = first if len(polygons) == 1 else [*first, *first[:2]]
    turn = _signed_area(first) < 0
    for polygon in polygons[1:]:
        corners = [list(polygon[i : i + 2]) for i in range(0, len(polygon) - 1, 2)]
        if (_signed_area(polygon) < 0) != turn:  # all one way round, so that their areas add up
            corners.reverse()
        joined += [value for corner in (*corners, corners[0]) for value in corner] + first[:2]
    return joined


def write_new(path: Path, text: str) -> None:
    """Writes a file whole; one that is there and says the same is left. Raises DataError where it says other things."""
    content = text.encode("utf-8", "surrogateescape")
    if path.exists():
        if path.read_bytes() == content:
            return
        raise DataError(f"{path}: is there already and says other things; remove it, or give another --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(path) as scratch:
        scratch.write_bytes(content)
        os.replace(scratch, path)


def _refuse_names(dataset: DetectionDataset) -> None:
    """Raises DataError for class names that a line of text does not give back."""
    strange = next((name for name in dataset.class_names if name.strip() != name or len(name.splitlines()) != 1), None)
    if strange is not None:
        raise DataError(f"{dataset.source}: the class {strange!r} has a line break or outer spaces; rename it")


def _signed_area(polygon: Sequence[float]) -> float:
    x_P, y_P = np.reshape(polygon[: len(polygon) // 2 * 2], (-1, 2)).T
    return float(x_P @ np.roll(y_P, -1) - y_P @ np.roll(x_P, -1))


def _short(number: str) -> str:
    """Without the zeros at its end."""
    short = number.rstrip("0").rstrip(".")
    return "0" if short in ("", "-0") else short
