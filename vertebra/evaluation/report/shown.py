"""Which images the browser shows, and each of them with its boxes: what its drawings and its data are made of.

Legend: I images in the truth's order, N images that are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.evaluation.metrics.average_precision import FloatArray, IntArray
from vertebra.evaluation.metrics.files import Entry, Truth
from vertebra.evaluation.report.matching import Side
from vertebra.evaluation.report.photos import find_image


@dataclass(frozen=True)
class Detection:
    """A detection; `kind` a place in matching.KINDS, `truth` a place among its image's truths (-1: none)."""

    category_id: int
    score: float
    bbox: Sequence[float]
    kind: int
    truth: int


@dataclass(frozen=True)
class Shown:
    """One image: its truths, and each side's detections by falling score."""

    place: int
    id: Any
    file_name: str
    path: Path | None
    width: float
    height: float
    truths: Sequence[Entry]
    found: Sequence[Sequence[Detection]]


def is_aside(truth: Mapping[str, Any]) -> bool:
    """Crowd and difficult objects are neither to be found nor punished."""
    return bool(truth.get("iscrowd")) or bool(truth.get("difficult"))


def choose(difference_I: FloatArray, objects_I: IntArray, most: int) -> IntArray:
    """Places of the `most` images that differ most, but up to a third of them for each side, so that both can be
    looked at. In falling order of the difference; among equals, those with more objects first."""
    order_I = np.lexsort((np.arange(len(difference_I)), -objects_I, -np.round(np.abs(difference_I), 6)))
    signs = np.sign(difference_I[order_I])
    is_kept_I = np.zeros(len(order_I), dtype=bool)
    for sign in (1, -1):
        is_kept_I[np.flatnonzero(signs == sign)[: most // 3]] = True
    rest = np.flatnonzero(~is_kept_I)
    is_kept_I[rest[: most - int(is_kept_I.sum())]] = True
    return order_I[is_kept_I]


def gather(
    truth: Truth, sides: Sequence[Side], places_N: IntArray, floors: Sequence[float], roots: Sequence[Path]
) -> list[Shown]:
    """The images at these places with the detections of each side from its floor on."""
    wanted = {int(place): n for n, place in enumerate(places_N)}
    image_place = {image["id"]: place for place, image in enumerate(truth["images"])}
    truths: list[list[Entry]] = [[] for _ in wanted]
    local_G = np.full(len(truth["annotations"]), -1)
    for g, entry in enumerate(truth["annotations"]):
        n = wanted.get(image_place[entry["image_id"]])
        if n is not None:
            local_G[g] = len(truths[n])
            truths[n].append(entry)
    found = [_detections(side, floor, places_N, local_G) for side, floor in zip(sides, floors)]
    shown = []
    for n, place in enumerate(places_N):
        image = truth["images"][place]
        name = str(image.get("file_name", image["id"]))
        path = find_image(roots, name)
        mine = [by_image[n] for by_image in found]
        width, height = size_of(image, path, [entry["bbox"] for entry in truths[n]])
        shown.append(Shown(int(place), image["id"], name, path, width, height, truths[n], mine))
    return shown


def _detections(side: Side, floor: float, places_N: IntArray, local_G: IntArray) -> list[list[Detection]]:
    starts = np.searchsorted(side.image_D, places_N)
    ends = np.searchsorted(side.image_D, places_N, side="right")
    return [
        [
            Detection(
                side.predictions[side.source_D[d]]["category_id"],
                float(side.score_D[d]),
                side.predictions[side.source_D[d]]["bbox"],
                int(side.kind_D[d]),
                int(local_G[side.truth_D[d]]) if side.truth_D[d] >= 0 else -1,
            )
            for d in range(start, end)
            if side.score_D[d] >= floor
        ]
        for start, end in zip(starts, ends)
    ]


def size_of(image: Entry, path: Path | None, boxes: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Width and height as the truth, else the file, else the reach of the boxes has them."""
    if image.get("width") and image.get("height"):
        return image["width"], image["height"]
    if path is not None:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as opened:
                return opened.size
        except (OSError, UnidentifiedImageError):
            pass
    return max([x + w for x, _, w, _ in boxes] + [1.0]), max([y + h for _, y, _, h in boxes] + [1.0])
