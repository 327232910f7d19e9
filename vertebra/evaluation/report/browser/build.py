"""The browser of images: truth and two sides beside each other, drawn, sorted and filtered in the page.

The page gets the boxes with their verdicts as JSON and the pixels as small JPEGs; `browser.js` with `model.js`,
`boxes.js` and `viewer.js` draws what comes into view. Without JavaScript the first images are plain SVG.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from vertebra.evaluation.metrics.average_precision import FloatArray, IntArray
from vertebra.evaluation.metrics.files import Entry, Truth, class_names, read_truth
from vertebra.evaluation.metrics.summary import is_aside
from vertebra.evaluation.report.browser import stills
from vertebra.evaluation.report.browser.images import (
    KINDS,
    MATCH_IOU,
    SCORE_DIGITS,
    Detections,
    Shown,
    choose,
    gather,
    mark_detections,
)
from vertebra.evaluation.report.browser.photos import thumbnails
from vertebra.evaluation.report.content import Gallery, ImageFacts
from vertebra.evaluation.report.page import environment, text_of

FLOORS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MOST_DETECTIONS = 120_000  # in the page, of all sides together: about 4 MB
STILLS = 12
SCORE_UNITS = 10**SCORE_DIGITS  # scores travel as whole numbers


@dataclass(frozen=True)
class Browser:
    """The browser in figures, and its markup, style and script for the page."""

    gallery: Gallery
    markup: Markup
    style: Markup
    script: Markup


def build_browser(
    truth: Truth,
    sides: Sequence[tuple[str, Sequence[Entry]]],
    *,
    image_roots: Sequence[Path],
    max_images: int,
    pair: tuple[int, int],
    note: str,
) -> Browser:
    """Return the browser over checked truth and predictions; sides: names, each once, with COCO results.

    image_roots: directories to search for the truth's files, in turn. pair: places of the two sides that are shown
    first and by whose difference the `max_images` images are chosen (equal for one side alone). note: a sentence about
    the runs that are shown.
    """
    marked = [mark_detections(name, truth, predictions) for name, predictions in sides]
    first, second = pair
    f1_SI = np.stack([side.f1_I() for side in marked])
    difference_I = f1_SI[second] - f1_SI[first]
    objects_I = np.bincount(read_truth(truth).image_G, minlength=len(truth["images"]))
    places_N = choose(difference_I, objects_I, max_images)
    tops = [max([1.0, *side.score_D.tolist()]) for side in marked]  # scores may be percent
    floors = _floors(marked, places_N, tops)
    shown = gather(truth, marked, places_N, floors, image_roots)
    photos = thumbnails([image.path for image in shown], [(round(image.width), round(image.height)) for image in shown])
    gallery = Gallery(
        note=note,
        measure=f"F1 at IoU {MATCH_IOU}, each side from its own best score on",
        pair=[marked[first].name, marked[second].name],
        thresholds={side.name: side.threshold for side in marked},
        better_first=int((difference_I < -1e-9).sum()),
        better_second=int((difference_I > 1e-9).sum()),
        equal=int((np.abs(difference_I) <= 1e-9).sum()),
        images_not_found=sum(photo is None for photo in photos),
        images=_described(shown, marked, f1_SI, difference_I),
    )
    names = class_names(truth)
    data = _data(shown, marked, floors, tops, pair, names)
    drawn = [_stills(image, photo, marked, pair, names) for image, photo in zip(shown[:STILLS], photos)]
    markup = environment().get_template("browser.html.j2").render(
        gallery=gallery,
        sides=marked,
        total=len(truth["images"]),
        signs=stills.SIGNS,
        stills=drawn,
        data=script_text(data),
        photos=script_text(photos),
    )  # fmt: skip
    scripts = text_of("shared.js", "model.js", "boxes.js", "viewer.js", "browser.js")
    return Browser(gallery, Markup(markup), text_of("browser.css"), scripts)


def _floors(marked: Sequence[Detections], places_N: IntArray, tops: Sequence[float]) -> list[float]:
    """Return the score from which each side's detections are in the page: low, unless they are too many, and never
    above its threshold. tops: the score that each side calls certain."""
    scores = [side.score_D[np.isin(side.image_D, places_N)] for side in marked]
    for floor in FLOORS:
        floors = [min(floor * top, side.threshold) for side, top in zip(marked, tops)]
        if sum(int((score_N >= low).sum()) for score_N, low in zip(scores, floors)) <= MOST_DETECTIONS:
            break
    return floors


def _described(
    shown: Sequence[Shown], marked: Sequence[Detections], f1_SI: FloatArray, difference_I: FloatArray
) -> list[ImageFacts]:
    counts = [side.counts_3I() for side in marked]
    kinds = [side.kinds_KI() for side in marked]
    return [
        ImageFacts(
            id=image.id,
            file_name=image.file_name,
            F1={side.name: round(float(f1_I[image.place]), 2) for side, f1_I in zip(marked, f1_SI)},
            difference=round(float(difference_I[image.place]), 2),
            counts={
                side.name: dict(zip(("found", "false", "missed"), count_3I[:, image.place].tolist()))
                for side, count_3I in zip(marked, counts)
            },
            errors={
                side.name: {kind: int(n) for kind, n in zip(KINDS, kinds_KI[:, image.place]) if n and kind != "right"}
                for side, kinds_KI in zip(marked, kinds)
            },
        )
        for image in shown
    ]


def _data(
    shown: Sequence[Shown],
    marked: Sequence[Detections],
    floors: Sequence[float],
    tops: Sequence[float],
    pair: tuple[int, int],
    names: Mapping[int, str],
) -> dict[str, Any]:
    """Return what `model.js` reads.

    An image: [name, width, height, truths, each side's detections]. A truth: class, box and whether it is put aside (0,
    1 crowd, 2 difficult). A detection: class, score, box, kind, truth.
    """
    places = {category_id: place for place, category_id in enumerate(names)}
    images = [
        [
            image.file_name,
            image.width,
            image.height,
            [
                value
                for truth in image.truths
                for value in (places[truth["category_id"]], *_short(truth["bbox"]), _aside(truth))
            ],
            [
                [
                    value
                    for one in found
                    for value in (places[one.category_id], _units(one.score), *_short(one.bbox), one.kind, one.truth)
                ]
                for found in image.found
            ],
        ]
        for image in shown
    ]
    described = [
        {"name": side.name, "threshold": _units(side.threshold), "floor": _units(floor), "top": _units(top)}
        for side, floor, top in zip(marked, floors, tops)
    ]
    pairs = list(dict.fromkeys(pair))  # one side is its own pair
    return {
        "scoreUnits": SCORE_UNITS,
        "classes": list(names.values()),
        "kinds": list(KINDS),
        "signs": stills.SIGNS,
        "sides": described,
        "pair": pairs,
        "images": images,
    }


def _short(bbox: Sequence[float]) -> list[float | int]:
    """Round to a tenth of a pixel, without a needless .0."""
    return [int(value) if value == int(value) else value for value in (round(float(value), 1) for value in bbox)]


def _units(score: float) -> int:
    return round(score * SCORE_UNITS)


def _aside(truth: Entry) -> int:
    return (1 if truth.get("iscrowd") else 2) if is_aside(truth) else 0


def _stills(
    image: Shown, photo: str | None, marked: Sequence[Detections], pair: tuple[int, int], names: Mapping[int, str]
) -> dict[str, Any]:
    return {
        "name": image.file_name,
        "photo": stills.photo(image, photo),
        "truth": stills.truth_pane(image, names),
        "sides": [
            (marked[place].name, stills.side_pane(image, place, marked[place].threshold, names, marked[place].name))
            for place in dict.fromkeys(pair)
        ],
    }


def script_text(value: Any) -> Markup:
    """Return JSON that can stand in a <script>: no name in it ends the element."""
    return Markup(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))
