"""The browser of images: which ones are shown, their thumbnails, and the boxes drawn over them as SVG.

An image's measure is its F1 at IoU 0.5, each run at its own best score threshold (`matching.best_threshold`); images
are chosen by how far the two compared runs differ in it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from evaluation.report.matching import ImageMatch, is_ignored
from evaluation.report.svg import element

# Longer side in pixels and JPEG quality, tried in turn until all thumbnails fit into the page.
THUMBNAILS = ((640, 82), (512, 78), (400, 74), (320, 68), (224, 60), (160, 50))
THUMBNAIL_BYTES = 3_200_000  # of JPEG; a third more as base64: the page stays below 5 MB


@dataclass(frozen=True)
class Case:
    """One image of the gallery: the match of every run, and the difference in F1 (0-100), second minus first."""

    image: Mapping[str, Any]
    matches: Sequence[ImageMatch]
    f1: Sequence[float]
    difference: float


def all_cases(
    truth: Mapping[str, Any],
    matches: Sequence[Mapping[int, ImageMatch]],
    thresholds: Sequence[float],
    pair: tuple[int, int],
) -> list[Case]:
    """A case for every image, the ones that differ most first; among equals, those with more objects."""
    cases = []
    for image in truth["images"]:
        mine = [by_image[image["id"]] for by_image in matches]
        f1 = [match.f1(threshold) for match, threshold in zip(mine, thresholds)]
        cases.append(Case(image, mine, f1, f1[pair[1]] - f1[pair[0]]))
    return sorted(cases, key=_by_difference)


def _by_difference(case: Case) -> tuple[float, int, int]:
    return -round(abs(case.difference), 6), -len(case.matches[0].truths), case.image["id"]


def choose(cases: Sequence[Case], most: int) -> list[Case]:
    """The `most` cases that differ most, but up to a third of them for each side, so that both can be looked at."""
    share = most // 3
    sides = [[case for case in cases if case.difference * sign > 0][:share] for sign in (1, -1)]
    kept = {case.image["id"] for side in sides for case in side}
    for case in cases:
        if len(kept) >= most:
            break
        kept.add(case.image["id"])
    return [case for case in cases if case.image["id"] in kept][:most]


def find_image(root: str | None, run_directory: Path, file_name: str) -> Path | None:
    """The image's path: below `root` as it is, or relative to the run's directory; None where it is not there."""
    base = Path(root or ".")
    for candidate in (base / file_name, run_directory / base / file_name):
        if candidate.is_file():
            return candidate
    return None


def thumbnails(paths: Sequence[Path | None], sizes_wh: Sequence[tuple[int, int]]) -> list[str | None]:
    """A data URI of each image as a small JPEG, None where it cannot be read; together they fit into the page."""
    import cv2

    loaded = [_load(path, size) if path else None for path, size in zip(paths, sizes_wh)]
    encoded: list[bytes | None] = []
    for longer_side, quality in THUMBNAILS:
        encoded = []
        for pixels in loaded:
            if pixels is None:
                encoded.append(None)
                continue
            scale = min(1.0, longer_side / max(pixels.shape[:2]))
            size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
            small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
            done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
            encoded.append(data.tobytes() if done else None)
        if sum(len(data) for data in encoded if data) <= THUMBNAIL_BYTES:
            break
    return [f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else None for data in encoded]


def _load(path: Path, size_wh: tuple[int, int]):
    """BGR pixels no larger than the largest thumbnail, turned as the truth's width and height have it; or None."""
    import cv2

    pixels: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        return None
    if pixels.shape[1::-1] != size_wh and pixels.shape[:2] == size_wh:  # the truth does not follow EXIF's turn
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    scale = THUMBNAILS[0][0] / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def photo(index: int, case: Case, data_uri: str | None) -> Markup:
    """The pixels, once for all panes that show them (`<use href="#photo-0">`); a grey field where there are none."""
    width, height = case.image["width"], case.image["height"]
    if data_uri is None:
        return element("rect", id=f"photo-{index}", width=width, height=height, class_="no-photo")
    return element("image", id=f"photo-{index}", href=data_uri, width=width, height=height, preserveAspectRatio="none")


def truth_pane(index: int, case: Case, names: Mapping[int, str]) -> Markup:
    """The image with its true boxes; crowd and difficult ones are dotted."""
    boxes = []
    for truth in case.matches[0].truths:
        ignored = is_ignored(truth)
        note = (" (crowd)" if truth.get("iscrowd") else " (difficult)") if ignored else ""
        text = names[truth["category_id"]]
        kind, label = ("ignored", "") if ignored else ("truth", text)
        boxes.append(_box(case, truth["bbox"], kind, label, f"truth: {text}{note}"))
    count = len(case.matches[0].truths)
    objects = "1 object" if count == 1 else f"{count} objects"
    return _pane(index, case, boxes, f"{case.image['file_name']}, truth: {objects}")


def run_pane(index: int, case: Case, run: int, threshold: float, names: Mapping[int, str], label: str) -> Markup:
    """The image with one run's boxes from `threshold` on: hits solid, false positives dashed, misses dotted."""
    match = case.matches[run]
    boxes, found = [], set()
    for detection, score, taken, ignored in zip(match.detections, match.scores_D, match.taken_D, match.ignored_D):
        if score < threshold:
            continue
        found.add(int(taken))
        name, text = names[detection["category_id"]], f"{score:.2f}".lstrip("0")
        if taken >= 0:
            boxes.append(_box(case, detection["bbox"], "hit", f"{name} {text}", f"hit: {name}, score {score:.2f}"))
        elif ignored:
            title = f"not counted (crowd or difficult): {name}, score {score:.2f}"
            boxes.append(_box(case, detection["bbox"], "ignored", "", title))
        else:
            title = f"false positive: {name}, score {score:.2f}"
            boxes.append(_box(case, detection["bbox"], "false", f"✕ {name} {text}", title))
    missed = [g for g, wanted in enumerate(match.wanted_G) if wanted and g not in found]
    for g in missed:
        name = names[match.truths[g]["category_id"]]
        boxes.insert(0, _box(case, match.truths[g]["bbox"], "missed", f"? {name}", f"missed: {name}"))
    hits, false, misses = match.counts(threshold)
    told = f"{case.image['file_name']}, {label}: {hits} found, {false} false, {misses} missed"
    return _pane(index, case, boxes, told)


def _pane(index: int, case: Case, boxes: Sequence[Markup], label: str) -> Markup:
    width, height = case.image["width"], case.image["height"]
    image = element("use", href=f"#photo-{index}")
    return element(
        "svg",
        image,
        *boxes,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
        style=f"--unit:{_unit(case):.3f}px",
    )


def _unit(case: Case) -> float:
    """A font unit that comes out alike on screen for images of any size, drawn about 350 px wide."""
    return max(case.image["width"], 1.25 * case.image["height"]) / 350


def _box(case: Case, bbox: Sequence[float], kind: str, text: str, title: str) -> Markup:
    """A box with a dark casing under its line, so that it is seen on any picture, and a label with a halo, if any."""
    x, y, width, height = (float(value) for value in bbox)
    unit = _unit(case)
    font = 12 * unit
    reach = 0.6 * font * len(text)  # about the label's width
    label_x = max(1.0, min(x + 2 * unit, case.image["width"] - reach - 1))
    if kind == "false":  # below, where it does not cover the label of the object that was there
        below = y + height + font
        label_y = below if below < case.image["height"] else case.image["height"] - 3 * unit
    else:
        above = y - 4 * unit
        label_y = above if above - font > 0 else min(y + font + 1 * unit, case.image["height"] - 3 * unit)
    frame = {"x": x, "y": y, "width": width, "height": height}
    return element(
        "g",
        element("title", title),
        element("rect", class_="casing", **frame),
        element("rect", class_="edge", **frame),
        element("text", text, x=label_x, y=label_y) if text else "",
        class_=f"box {kind}",
    )
