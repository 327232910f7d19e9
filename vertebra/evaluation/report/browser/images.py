"""A side's detections image by image: what each is, how well each image does, and which images the browser shows.

The verdicts are those of `why.errors` (TIDE's kinds at IoU 0.5, the 100 best detections of an image). The AP
figures do not come from here (they are COCO's and VOC's); this is one operating point, the score threshold.

Legend: I images in the truth's order, N images that are shown, D detections by image and falling score, G truths in
the file's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra.evaluation.metrics.average_precision import BoolArray, FloatArray, IntArray
from vertebra.evaluation.metrics.files import Entry, Truth, read_predictions
from vertebra.evaluation.metrics.overlaps import measure
from vertebra.evaluation.report.browser.photos import find_image
from vertebra.evaluation.why import errors
from vertebra.evaluation.why.operating import best_of

MATCH_IOU = 0.5
BACKGROUND_IOU = 0.1
SCORE_DIGITS = 4  # of the scores that are shown, compared and cut at: the page has no others
KINDS = ("right", *errors.KINDS[:-1], "excused")  # errors.KINDS ends with "missed", which no detection is
RIGHT, EXCUSED = KINDS.index("right"), KINDS.index("excused")


@dataclass(frozen=True)
class Detections:
    """A side's detections: category, box, rounded score, verdict; and the side's best score threshold.

    kind_D: a place in KINDS; truth_D: the truth that a detection takes or is about, -1 for none. Matches are greedy by
    score, so that verdicts stay what they are at any score threshold.
    """

    name: str
    image_D: IntArray
    category_id_D: IntArray
    xywh_D4: FloatArray
    score_D: FloatArray
    kind_D: IntArray
    truth_D: IntArray
    wanted_I: IntArray
    threshold: float

    def counts_3I(self, threshold: float | None = None) -> IntArray:
        """(found, false, missed) of each image among detections with score >= threshold (none: the side's own)."""
        shown_D = self.score_D >= (self.threshold if threshold is None else threshold)
        found_I = self._per_image(shown_D & (self.kind_D == RIGHT))
        false_I = self._per_image(shown_D & (self.kind_D != RIGHT) & (self.kind_D != EXCUSED))
        return np.stack([found_I, false_I, self.wanted_I - found_I])

    def kinds_KI(self) -> IntArray:
        """How many detections of each kind each image has, from the side's own threshold on."""
        shown_D = self.score_D >= self.threshold
        return np.stack([self._per_image(shown_D & (self.kind_D == kind)) for kind in range(len(KINDS))])

    def f1_I(self, threshold: float | None = None) -> FloatArray:
        """2 TP / (2 TP + FP + FN) on a 0-100 scale; 100 where there is nothing to find and nothing was found."""
        found_I, false_I, missed_I = self.counts_3I(threshold)
        asked_I = 2 * found_I + false_I + missed_I
        return np.where(asked_I > 0, 200.0 * found_I / np.maximum(asked_I, 1), 100.0)

    def _per_image(self, chosen_D: BoolArray) -> IntArray:
        return np.bincount(self.image_D[chosen_D], minlength=len(self.wanted_I))


def mark_detections(name: str, truth: dict[str, Any], predictions: Sequence[Entry]) -> Detections:
    """Return the verdicts on checked predictions, and the score from which F1 over all images is highest.

    Each detector gets its own threshold, because detectors are calibrated differently and one score for all favours
    one of them.
    """
    found = read_predictions(predictions, truth)
    assert found.category_id_K is not None and found.xywh_K4 is not None
    overlaps = measure(truth, found, floor=BACKGROUND_IOU)
    verdicts = errors.classify(overlaps, iou=MATCH_IOU, background=BACKGROUND_IOU)
    overlaps = verdicts.overlaps
    kind_D = np.where(verdicts.excused_D, EXCUSED, verdicts.kind_D - errors.RIGHT)
    score_D = np.round(overlaps.score_D, SCORE_DIGITS)
    counted_D = kind_D != EXCUSED
    wanted_G = ~overlaps.aside_G
    return Detections(
        name,
        image_D=overlaps.image_D,
        category_id_D=found.category_id_K[overlaps.source_D],
        xywh_D4=found.xywh_K4[overlaps.source_D],
        score_D=score_D,
        kind_D=kind_D,
        truth_D=np.where(verdicts.excused_D, -1, verdicts.truth_D),
        wanted_I=np.bincount(overlaps.image_G[wanted_G], minlength=overlaps.images),
        threshold=best_of(score_D[counted_D], kind_D[counted_D] == RIGHT, int(wanted_G.sum())),
    )


@dataclass(frozen=True)
class Detection:
    """A detection; `kind` a place in KINDS, `truth` a place among its image's truths (-1: none)."""

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


def choose(difference_I: FloatArray, objects_I: IntArray, most: int) -> IntArray:
    """Return the places of the `most` images that differ most, but up to a third of them for each side.

    In falling order of the difference; among equals, those with more objects first.
    """
    order_I = np.lexsort((np.arange(len(difference_I)), -objects_I, -np.round(np.abs(difference_I), 6)))
    signs = np.sign(difference_I[order_I])
    is_kept_I = np.zeros(len(order_I), dtype=bool)
    for sign in (1, -1):
        is_kept_I[np.flatnonzero(signs == sign)[: most // 3]] = True
    rest = np.flatnonzero(~is_kept_I)
    is_kept_I[rest[: most - int(is_kept_I.sum())]] = True
    return order_I[is_kept_I]


def gather(
    truth: Truth, sides: Sequence[Detections], places_N: IntArray, floors: Sequence[float], roots: Sequence[Path]
) -> list[Shown]:
    """Return the images at these places with the detections of each side from its floor on."""
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


def _detections(side: Detections, floor: float, places_N: IntArray, local_G: IntArray) -> list[list[Detection]]:
    starts = np.searchsorted(side.image_D, places_N)
    ends = np.searchsorted(side.image_D, places_N, side="right")
    return [
        [
            Detection(
                int(side.category_id_D[d]),
                float(side.score_D[d]),
                side.xywh_D4[d].tolist(),
                int(side.kind_D[d]),
                int(local_G[side.truth_D[d]]) if side.truth_D[d] >= 0 else -1,
            )
            for d in range(start, end)
            if side.score_D[d] >= floor
        ]
        for start, end in zip(starts, ends)
    ]


def size_of(image: Entry, path: Path | None, boxes: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return width and height from the truth, else from the file, else from the reach of the boxes."""
    if image.get("width") and image.get("height"):
        return image["width"], image["height"]
    if path is not None:
        with suppress(OSError), Image.open(path) as opened:
            return opened.size
    return max([x + w for x, _, w, _ in boxes] + [1.0]), max([y + h for _, y, _, h in boxes] + [1.0])
