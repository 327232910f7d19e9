"""The images' panes as plain SVG, for readers without JavaScript: photo, boxes and labels, nothing to click on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from vertebra.evaluation.metrics.summary import is_aside
from vertebra.evaluation.plots.svg import element
from vertebra.evaluation.report.browser.images import EXCUSED, KINDS, RIGHT, Shown
from vertebra.ground.formats import TIMES, counted

SIGNS = {
    "right": "",
    "localisation": "↔",
    "classification": "≠",
    "both": "≠↔",
    "duplicate": f"2{TIMES}",
    "background": "✕",
    "missed": "?",
    "excused": "",
}


def photo(image: Shown, data_uri: str | None) -> Markup:
    """Return the pixels, once for all panes that show them (`<use href="#still-0">`); grey where there are none."""
    name, width, height = f"still-{image.place}", image.width, image.height
    if data_uri is None:
        return element("rect", id=name, width=width, height=height, class_="no-photo")
    return element("image", id=name, href=data_uri, width=width, height=height, preserveAspectRatio="none")


def truth_pane(image: Shown, names: Mapping[int, str]) -> Markup:
    """Return the image with its true boxes; crowd and difficult ones are dotted and without a name."""
    boxes = [
        _box(image, truth["bbox"], "excused" if is_aside(truth) else "truth", names[truth["category_id"]])
        for truth in image.truths
    ]
    return _pane(image, boxes, f"{image.file_name}, truth: {counted(len(image.truths), 'object')}")


def side_pane(image: Shown, side: int, threshold: float, names: Mapping[int, str], label: str) -> Markup:
    """Return the image with one side's boxes from `threshold` on, and the objects that it misses."""
    shown = [detection for detection in image.found[side] if detection.score >= threshold]
    taken = {detection.truth for detection in shown if detection.kind == RIGHT}
    missed = [truth for g, truth in enumerate(image.truths) if not is_aside(truth) and g not in taken]
    boxes = [_box(image, truth["bbox"], "missed", names[truth["category_id"]]) for truth in missed]
    for detection in shown:
        text = f"{names[detection.category_id]} {detection.score:.2f}".replace(" 0.", " .")
        boxes.append(_box(image, detection.bbox, KINDS[detection.kind], text))
    wrong = sum(detection.kind not in (RIGHT, EXCUSED) for detection in shown)
    return _pane(image, boxes, f"{image.file_name}, {label}: {len(taken)} found, {wrong} false, {len(missed)} missed")


def _pane(image: Shown, boxes: Sequence[Markup], label: str) -> Markup:
    pixels = element("use", href=f"#still-{image.place}")
    box = f"0 0 {image.width:g} {image.height:g}"
    style = f"--unit:{_unit(image):.3f}"
    return element("svg", pixels, *boxes, viewBox=box, role="img", aria_label=label, style=style)


def _unit(image: Shown) -> float:
    """Return the size of a screen pixel in image pixels, for an image that is drawn about 350 pixels wide."""
    return max(image.width, 1.25 * image.height) / 350


def _box(image: Shown, bbox: Sequence[float], kind: str, text: str) -> Markup:
    """Return a box with a dark casing under its line, visible on any picture, and a label with a halo."""
    x, y, width, height = (float(value) for value in bbox)
    unit = _unit(image)
    frame = {"x": x, "y": y, "width": width, "height": height}
    label = Markup("")
    if kind != "excused":
        sign = SIGNS.get(kind, "")
        words = f"{sign} {text}" if sign else text
        at_x = max(1.0, min(x + 2 * unit, image.width - 7.2 * unit * len(words)))
        lowest = image.height - 3 * unit
        is_error = kind not in ("truth", "right", "missed")  # below, where the object's own label is not covered
        if is_error:
            at_y = min(y + height + 12 * unit, lowest)
        else:
            at_y = y - 4 * unit if y > 16 * unit else min(y + 13 * unit, lowest)
        label = element("text", words, x=at_x, y=at_y)
    lines = [element("rect", class_=line, **frame) for line in ("casing", "edge")]
    return element("g", *lines, label, class_=f"box {kind}")
