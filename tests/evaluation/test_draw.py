"""Detections drawn on pictures: what is where, what can be read."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from vertebra.evaluation.predict.draw import (
    COVERED,
    Label,
    Pen,
    _contrast,
    class_colours,
    draw,
    drawn_size,
    enlargement,
    place_labels,
    plain_text,
)

NAMES = {3: "cat", 7: "spotted hyena", 90: "dog"}
COLOURS = class_colours(NAMES)


def picture(height=600, width=800, seed=0):
    return np.random.default_rng(seed).integers(90, 110, (height, width, 3), np.uint8)


def found(box, *, category=3, score=0.9, mask_HW=None):
    entry = {"image_id": 1, "category_id": category, "bbox": list(box), "score": score}
    if mask_HW is not None:
        runs = rle.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
        entry["segmentation"] = {"size": list(runs["size"]), "counts": runs["counts"].decode()}
    return entry


def lightness(colour):
    return cv2.cvtColor(np.float32([[colour]]) / 255, cv2.COLOR_RGB2LAB)[0, 0, 0]


def luminance(colour):
    channels = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def test_classes_that_follow_one_another_differ_without_their_hue():
    colours = list(class_colours(range(80)).values())
    assert len(set(colours)) == 80
    steps = [abs(lightness(one) - lightness(other)) for one, other in pairwise(colours)]
    assert min(steps) > 8


def test_text_reads_on_every_colour():
    for colour in class_colours(range(80)).values():
        one, other = sorted((luminance(colour), luminance(_contrast(colour))))
        assert (other + 0.05) / (one + 0.05) > 4.5  # WCAG 2, level AA


def test_without_detections_it_is_the_picture():
    pixels_HW3 = picture()
    assert np.array_equal(draw(pixels_HW3, [], NAMES, COLOURS), pixels_HW3)


def test_a_box_is_drawn_on_its_edge_and_the_given_picture_stays():
    pixels_HW3 = picture()
    before = pixels_HW3.copy()
    drawn_HW3 = draw(pixels_HW3, [found((100, 200, 300, 150))], NAMES, COLOURS)
    assert np.array_equal(pixels_HW3, before)
    for y, x in ((300, 100), (300, 399), (349, 250)):
        assert tuple(drawn_HW3[y, x]) == COLOURS[3]
    assert np.array_equal(drawn_HW3[260:300, 150:350], before[260:300, 150:350])
    assert np.array_equal(drawn_HW3[400:], before[400:])


def test_a_mask_tints_its_pixels_alone():
    mask_HW = np.zeros((600, 800), bool)
    mask_HW[250:320, 150:350] = True
    pixels_HW3 = picture()
    drawn_HW3 = draw(pixels_HW3, [found((100, 200, 300, 150), mask_HW=mask_HW)], NAMES, COLOURS).astype(float)
    inner = (slice(256, 314), slice(156, 344))
    nearer = np.abs(drawn_HW3[inner] - COLOURS[3]).sum() / np.abs(pixels_HW3[inner] - np.array(COLOURS[3], float)).sum()
    assert 0.4 < nearer < 0.8  # the picture shines through
    assert np.array_equal(drawn_HW3[330:340, 120:380], pixels_HW3[330:340, 120:380])


@pytest.mark.parametrize("size_hw", [(1, 1), (24, 32), (224, 256), (399, 120), (400, 300), (3000, 4000)])
def test_small_pictures_are_enlarged_and_labels_grow_with_large_ones(size_hw):
    drawn_HW3 = draw(np.zeros((*size_hw, 3), np.uint8), [], NAMES, COLOURS)
    assert drawn_HW3.shape[:2] == drawn_size(size_hw)
    assert max(drawn_size(size_hw)) >= min(400, 16 * max(size_hw))
    assert enlargement(size_hw) == 1 or max(drawn_size(size_hw)) < 800
    assert Pen.of(size_hw).text >= max(12, 0.015 * min(drawn_size(size_hw)))


def overlap(one: Label, other: Label) -> int:
    """The pixels that are in both."""
    pixels = [
        {(x, y) for x in range(left, left + width) for y in range(top, top + height)}
        for left, top, width, height in (one.place, other.place)
    ]
    return len(pixels[0] & pixels[1])


boxes = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))


@settings(max_examples=30)
@given(st.lists(boxes, max_size=30), st.sampled_from([(1, 1), (20, 30), (500, 40), (40, 500), (300, 410)]))
def test_labels_stay_in_the_picture_and_clear_of_surer_ones(parts, size_hw):
    height, width = size_hw
    entries = [
        found((x * width, y * height, w * (1 - x) * width, h * (1 - y) * height), category=c, score=1 / (n + 1))
        for n, ((x, y, w, h), c) in enumerate(zip(parts, [7, 3, 90] * 10))
    ]
    drawn_HW3 = draw(np.zeros((*size_hw, 3), np.uint8), entries, NAMES, COLOURS)
    labels = place_labels(entries, NAMES, Pen.of(size_hw))
    assert (
        bool(labels) == bool(entries) and [label.text for label in labels[:1]] == ["spotted hyena 1.00"][: len(labels)]
    )
    for n, label in enumerate(labels):
        x, y, label_w, label_h = label.place
        assert 0 <= x < x + label_w <= drawn_HW3.shape[1] + 12 and 0 <= y < y + label_h
        assert sum(overlap(label, other) for other in labels[:n]) <= COVERED * label_w * label_h


def test_the_surer_detection_is_named_where_two_are_in_one_place():
    entries = [found((100, 200, 300, 150), category=90, score=0.6), found((100, 200, 300, 150), score=0.9)]
    surer, other = place_labels(entries, NAMES, Pen.of((600, 800)))
    assert [surer.text, other.text] == ["cat 0.90", "dog 0.60"]
    assert surer.place[1] + surer.place[3] <= 200 and overlap(surer, other) == 0


def test_names_in_other_letters_are_written_in_those_of_the_font():
    assert plain_text("crème brûlée 0.50") == "creme brulee 0.50"
    assert plain_text("猫 0.50") == "? 0.50"
