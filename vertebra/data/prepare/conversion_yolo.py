"""The form of YOLO's text that vertebra.data.prepare.conversion writes: boxes, or an outline of every object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from vertebra.data.datasets.folders import stem_of
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.yolo import polygon_bounds, signed_area
from vertebra.data.datasets.yolo_layout import class_names, find_yaml, read_description
from vertebra.data.prepare.conversion_forms import Form, refuse_names, write_new, write_over
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted

BOX = ("box", "")  # that is not that of its outline
_SAME_PX = 1e-3
_DECIMALS = 12  # 1e-7 px of the largest images


class YoloForm(Form):
    """YOLO text: boxes, or with `polygons` outlines of all objects (others read files of both kinds wrongly)."""

    title = "YOLO text"
    opened_as, list_file, images = "yolo:{output}/{split}", "data.yaml", "images/{split}"

    def begin(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        """data.yaml with this split added. Raises DataError where one is there of other classes."""
        refuse_names(dataset)
        self.moved_px = 0.0
        found, own = find_yaml(self.output), f"images/{self.split}"
        self.description: dict[str, Any] = {self.split: own, "names": dict(enumerate(dataset.class_names))}
        if found is not None:
            value = read_description(found)
            if found != self.list_path or class_names(value, found) != tuple(dataset.class_names):
                raise DataError(found, "describes a set of other classes", "give another --output")
            self.description = {self.split: own, **value}

    def add(self, dataset: DetectionDataset, index: int, name: str) -> None:
        height, width = dataset.sizes_hw_I2[index].tolist()
        lines = []
        for k, box in self.objects(dataset, index):
            what = "(such regions become ordinary objects; --crowd drop leaves them out)"
            self.lost["crowd flag", what] += bool(dataset.crowd_K[k])
            self.lost["difficult flag", ""] += bool(dataset.difficult_K[k])
            self.extras(dataset.object_extras, k, (), "objects")
            numbers = self._outline(dataset, k, box, (height, width)) if self.polygons else self._box(dataset, k, box)
            scales = (width, height) * (len(numbers) // 2)
            fractions = (f"{number / scale:.{_DECIMALS}f}" for number, scale in zip(numbers, scales))
            lines.append(" ".join([str(dataset.labels_K[k] - 1), *map(_short, fractions)]) + "\n")
        self.extras(dataset.image_extras, index, (), "images")
        write_new(self.output / "labels" / self.split / f"{stem_of(name)}.txt", "".join(lines))

    def finish(self, dataset: DetectionDataset, names: Sequence[str]) -> None:
        self.lose_ids(dataset, names)
        if not self.polygons:
            self.lose_areas(dataset)
        self.lose_header(dataset)
        if self.moved_px > _SAME_PX:
            self.remarks.append(
                f"A polygon's box is its bounds: {counted(self.lost.pop(BOX), 'box')} unlike the object's, "
                f"by up to {self.moved_px:.3g} px."
            )
        write_over(self.list_path, yaml.safe_dump(self.description, sort_keys=False, allow_unicode=True).encode())

    def _box(self, dataset: DetectionDataset, k: int, box: Sequence[float]) -> list[float]:
        if dataset.segmentations is not None and dataset.segmentations[k]:
            self.lost["mask", "(--polygons writes outlines)"] += 1
        x, y, w, h = box
        return [x + w / 2, y + h / 2, w, h]

    def _outline(
        self, dataset: DetectionDataset, k: int, box: Sequence[float], size_hw: tuple[int, int]
    ) -> list[float]:
        text = dataset.segmentations[k] if dataset.segmentations is not None else ""
        value = json.loads(text) if text else None
        x, y, w, h = box
        polygons = [one for one in value if len(one) >= 6] if isinstance(value, list) else []
        if not polygons:
            noun, of = ("object", "without a mask ") if value is None else ("run-length mask", "")
            self.lost[noun, f"{of}(the box is written as an outline)"] += 1
            return [x, y, x + w, y, x + w, y + h, x, y + h]
        if len(polygons) > 1:
            self.lost["mask", "of several polygons as such (joined by lines without width)"] += 1
        outline = np.clip(np.reshape(join(polygons), (-1, 2)), 0, size_hw[::-1]).reshape(-1).tolist()
        x0, y0, width, height = polygon_bounds(outline)
        off_px = max(abs(x0 - x), abs(y0 - y), abs(x0 + width - x - w), abs(y0 + height - y - h))
        if off_px > _SAME_PX:
            self.lost[BOX] += 1
            self.moved_px = max(self.moved_px, off_px)
        return outline


def join(polygons: Sequence[Sequence[float]]) -> list[float]:
    """One outline of several polygons: out to each and back on the same line, which encloses nothing."""
    first = list(polygons[0])
    joined = first if len(polygons) == 1 else [*first, *first[:2]]
    turn = signed_area(first) < 0
    for polygon in polygons[1:]:
        corners = [list(polygon[i : i + 2]) for i in range(0, len(polygon) - 1, 2)]
        if (signed_area(polygon) < 0) != turn:  # all one way round, so that their areas add up
            corners.reverse()
        joined += [value for corner in (*corners, corners[0]) for value in corner] + first[:2]
    return joined


def _short(number: str) -> str:
    """Without the zeros at its end."""
    short = number.rstrip("0").rstrip(".")
    return "0" if short in ("", "-0") else short
