"""The browser of images for segmenters: picture, truth, two sides' maps, and where they differ.

The page gets each map as a small indexed PNG, with the counts of pixels that its figures follow from; `maps_model.js`
and `maps_panes.js` take the places of the detectors' `model.js` and `boxes.js`.

Legend: I images in the test set's order, N images that are shown, S sides, C classes, H W an image.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from PIL import Image

from vertebra.evaluation.metrics.average_precision import FloatArray
from vertebra.evaluation.metrics.pixels import PixelCounts, ratio
from vertebra.evaluation.report.browser.build import STILLS, Browser, script_text
from vertebra.evaluation.report.browser.images import choose
from vertebra.evaluation.report.browser.photos import find_image, thumbnails
from vertebra.evaluation.report.content import Gallery, MapFacts
from vertebra.evaluation.report.page import environment, text_of
from vertebra.evaluation.report.reading import SCORE_AGAIN, Labels, ReadMap
from vertebra.ground.cores import usable_cores
from vertebra.ground.errors import UserError
from vertebra.ground.labels import IGNORED

SIDES_PX = (360, 300, 240, 180, 120)  # of a small map, the longer, tried in turn until all fit into the page
MAPS_BYTES = 4_000_000  # of PNG; a third more as base64


@dataclass(frozen=True)
class MapSide:
    """A side's maps of classes, by the images' places in the test set, with their counts."""

    name: str
    read: ReadMap
    counts: PixelCounts

    def miou_I(self) -> FloatArray:
        """Mean IoU, 0..100, of each image, over the classes that it has in truth or answer; 100 where none counts."""
        right_IC = self.counts.right_IC
        iou_IC = ratio(right_IC, self.counts.given_IC + self.counts.true_IC - right_IC)
        known_IC = np.isfinite(iou_IC)
        classes_I = known_IC.sum(axis=1)
        return np.where(classes_I, np.where(known_IC, iou_IC, 0).sum(axis=1) / np.maximum(classes_I, 1), 100.0)

    def accuracy_I(self) -> FloatArray:
        """Share of each image's pixels that are right, 0..100; 100 where none counts."""
        true_I, right_I = self.counts.true_IC.sum(axis=1), self.counts.right_IC.sum(axis=1)
        return np.where(true_I, 100.0 * right_I / np.maximum(true_I, 1), 100.0)


@dataclass(frozen=True)
class Picture:
    """One image that is shown. pngs: its truth and each side's map, small.

    pairs: by two places of sides, how many pixels that count only the first has right, only the second, and neither.
    """

    size_hw: tuple[int, int]
    pngs: Sequence[bytes]
    pairs: Mapping[tuple[int, int], tuple[int, int, int]]
    ignored: int


def build_map_browser(
    sides: Sequence[MapSide],
    images: Sequence[Mapping[str, Any]],
    truth: ReadMap,
    class_names: Sequence[str],
    *,
    image_roots: Sequence[Path],
    max_images: int,
    pair: tuple[int, int],
    note: str,
) -> Browser:
    """Return the browser over maps that were scored.

    images: id and picture of each, in the order of the counts (see `evaluate_segmenter`); truth: their true maps.
    image_roots, max_images, pair, note: as of `build_browser`. Raises UserError where a map is missing.
    """
    first, second = pair
    miou_SI = np.stack([side.miou_I() for side in sides])
    accuracy_SI = np.stack([side.accuracy_I() for side in sides])
    difference_I = miou_SI[second] - miou_SI[first]
    worst_I = np.round(100 - miou_SI[[first, second]].min(axis=0)).astype(np.int64)
    places_N = choose(difference_I, worst_I, max_images)
    shown, palette_V3 = _look_at_all([truth, *(side.read for side in sides)], places_N.tolist())
    files = [str(images[place]["picture"]) for place in places_N]
    sizes_wh = [picture.size_hw[::-1] for picture in shown]
    photos = thumbnails([find_image(image_roots, name) for name in files], sizes_wh)
    gallery = Gallery(
        note=note,
        measure="mean IoU of an image over the classes that it has in truth or answer",
        pair=[sides[first].name, sides[second].name],
        better_first=int((difference_I < -1e-9).sum()),
        better_second=int((difference_I > 1e-9).sum()),
        equal=int((np.abs(difference_I) <= 1e-9).sum()),
        images_not_found=sum(photo is None for photo in photos),
        images=[
            MapFacts(
                id=images[place]["id"],
                file_name=name,
                mIoU={side.name: round(float(value), 2) for side, value in zip(sides, miou_SI[:, place])},
                pixel_accuracy={side.name: round(float(value), 2) for side, value in zip(sides, accuracy_SI[:, place])},
                difference=round(float(difference_I[place]), 2),
                pixels=dict(zip(("first_alone", "second_alone", "neither"), picture.pairs[first, second]))
                | {"ignored": picture.ignored},
            )
            for place, name, picture in zip(places_N.tolist(), files, shown)
        ],
    )
    pairs_of = [[value for places, counts in one.pairs.items() for value in (*places, *counts)] for one in shown]
    data = {
        "classes": list(class_names),
        "colours": palette_V3[: len(class_names)].tolist(),
        "sides": [{"name": side.name} for side in sides],
        "pair": list(dict.fromkeys(pair)),
        "images": [
            [name, *picture.size_hw[::-1], _class_rows(sides, place), pairs, picture.ignored]
            for place, name, picture, pairs in zip(places_N.tolist(), files, shown, pairs_of)
        ],
    }
    uris = [[f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in picture.pngs] for picture in shown]
    pixels = [[photo, *of_maps] for photo, of_maps in zip(photos, uris)]
    markup = environment().get_template("maps.html.j2").render(
        gallery=gallery,
        sides=sides,
        total=len(images),
        stills=[
            {"name": name, "panes": list(zip(("picture", "truth", *(side.name for side in sides)), uris))}
            for name, uris in zip(files[:STILLS], pixels)
        ],
        data=script_text(data),
        photos=script_text(pixels),
    )  # fmt: skip
    scripts = text_of("shared.js", "maps_model.js", "maps_panes.js", "viewer.js", "browser.js")
    return Browser(gallery, Markup(markup), text_of("browser.css", "maps.css"), scripts)


def _look_at_all(reads: Sequence[ReadMap], places_N: Sequence[int]) -> tuple[list[Picture], Labels]:
    """Return what is shown of each image, by what reads its true map and each side's, and the colours of the labels."""
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        sample = places_N[:: max(1, len(places_N) // 24)]
        for longer_px in SIDES_PX:
            look = partial(_look, reads, longer_px=longer_px)
            tried = sum(len(png) for picture in pool.map(look, sample) for png in picture.pngs)
            if tried * len(places_N) <= MAPS_BYTES * len(sample):
                break
        shown = list(pool.map(look, places_N))
    return shown, reads[0](places_N[0])[2]


def _look(reads: Sequence[ReadMap], place: int, *, longer_px: int) -> Picture:
    (true_path, truth_HW, palette_V3), *others = (read(place) for read in reads)
    maps = [map_HW for _, map_HW, _ in others]
    for path, map_HW, _ in others:
        if map_HW.shape != truth_HW.shape:
            raise UserError(path, f"is not of the size of {true_path}", SCORE_AGAIN)
    pairs = itertools.combinations_with_replacement(range(len(maps)), 2)
    return Picture(
        (truth_HW.shape[0], truth_HW.shape[1]),
        [small_png(labels_HW, palette_V3, longer_px) for labels_HW in (truth_HW, *maps)],
        {(a, b): agreement(truth_HW, maps[a], maps[b]) for a, b in pairs},
        int((truth_HW == IGNORED).sum()),
    )


def agreement(truth_HW: Labels, first_HW: Labels, second_HW: Labels) -> tuple[int, int, int]:
    """Return how many of the pixels that count only the first has right, only the second, and neither."""
    counts_HW = truth_HW != IGNORED
    first, second = (counts_HW & (side_HW == truth_HW) for side_HW in (first_HW, second_HW))
    return int((first & ~second).sum()), int((second & ~first).sum()), int((counts_HW & ~first & ~second).sum())


def small_png(labels_HW: Labels, palette_V3: Labels, longer_px: int) -> bytes:
    """Return the map, its longer side at most `longer_px`, in a palette of the labels that it has; IGNORED is clear."""
    scale = min(1.0, longer_px / max(labels_HW.shape))
    size_wh = [max(1, round(side * scale)) for side in labels_HW.shape[::-1]]
    labels, dense_HW = np.unique(cv2.resize(labels_HW, size_wh, interpolation=cv2.INTER_NEAREST), return_inverse=True)
    image, file = Image.fromarray(dense_HW.reshape(size_wh[::-1]).astype(np.uint8)), io.BytesIO()
    image.putpalette(palette_V3[np.minimum(labels, len(palette_V3) - 1)].tobytes())
    clear = {"transparency": int(len(labels) - 1)} if labels[-1] == IGNORED else {}
    bits = next(bits for bits in (1, 2, 4, 8) if len(labels) <= 1 << bits)
    image.save(file, "PNG", bits=bits, **clear)
    return file.getvalue()


def _class_rows(sides: Sequence[MapSide], place: int) -> list[int]:
    """Return, of each class in an image's truth or any answer: label, true pixels, each side's given and right ones."""
    true_C, given_SC = sides[0].counts.true_IC[place], np.stack([side.counts.given_IC[place] for side in sides])
    there_K = np.flatnonzero((true_C > 0) | (given_SC > 0).any(axis=0))
    columns = [there_K, true_C[there_K]]
    for side, given_C in zip(sides, given_SC):
        columns += [given_C[there_K], side.counts.right_IC[place][there_K]]
    return [int(value) for value in np.stack(columns, axis=1).ravel()]
