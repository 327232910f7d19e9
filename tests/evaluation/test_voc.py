"""VOC average precision against a loop that follows the devkit line by line, and cases worked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.cases import guess, perfect, random_case, thing, truth_of
from vertebra.evaluation.metrics.voc import match_voc, voc_figures
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json


def devkit(truths, detections, metric, threshold, plus):
    """One class as VOCevaldet does it: truths (image, corners, ignored), detections (image, corners, score)."""
    taken = set()
    hits, misses = [], []
    for image, box, _ in sorted(detections, key=lambda detection: -detection[2]):
        best, which = -math.inf, None
        for number, (truth_image, other, _) in enumerate(truths):
            if truth_image != image:
                continue
            width = min(box[2], other[2]) - max(box[0], other[0]) + plus
            height = min(box[3], other[3]) - max(box[1], other[1]) + plus
            overlap = 0.0
            if width > 0 and height > 0:
                area = (box[2] - box[0] + plus) * (box[3] - box[1] + plus)
                union = area + (other[2] - other[0] + plus) * (other[3] - other[1] + plus) - width * height
                overlap = width * height / union
            if overlap > best:
                best, which = overlap, number
        hit = miss = 0
        if best >= threshold:
            if not truths[which][2]:
                hit, miss = (0, 1) if which in taken else (1, 0)
                taken.add(which)
        else:
            miss = 1
        hits.append(hit)
        misses.append(miss)
    positives = sum(not ignored for _, _, ignored in truths)
    if positives == 0:
        return math.nan
    found, wrong = np.cumsum(hits), np.cumsum(misses)
    recall, precision = found / positives, found / np.maximum(found + wrong, 1)
    if metric == "voc07":
        return float(np.mean([max(precision[recall >= t], default=0.0) for t in np.arange(0, 1.1, 0.1)]))
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for place in range(len(precision) - 2, -1, -1):
        precision[place] = max(precision[place], precision[place + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def devkit_figures(truth, predictions, metric, threshold, plus):
    def corners(box):
        return box[0], box[1], box[0] + box[2], box[1] + box[3]

    figures = {}
    for category in truth["categories"]:
        mine = [entry for entry in truth["annotations"] if entry["category_id"] == category["id"]]
        figures[category["name"]] = 100 * devkit(
            [(e["image_id"], corners(e["bbox"]), bool(e["iscrowd"] or e.get("difficult"))) for e in mine],
            [
                (e["image_id"], corners(e["bbox"]), e["score"])
                for e in predictions
                if e["category_id"] == category["id"]
            ],
            metric,
            threshold,
            plus,
        )
    return figures


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(["voc07", "voc10"]),
    threshold=st.sampled_from([0.1, 0.3, 0.5, 0.75]),
    pixels=st.sampled_from(["exact", "inclusive"]),
    levels=st.sampled_from([None, 3]),
)
def test_figures_equal_the_devkits_loop(seed, metric, threshold, pixels, levels):
    truth, predictions = random_case(seed, levels=levels)
    expected = devkit_figures(truth, predictions, metric, threshold, plus=pixels == "inclusive")
    figures = voc_figures(truth, predictions, metric=metric, iou=threshold, pixels=pixels)
    assert figures.per_class == pytest.approx(expected, abs=1e-9, nan_ok=True)
    present = [value for value in expected.values() if not math.isnan(value)]
    assert figures.mAP == pytest.approx(np.mean(present), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("metric", ["voc07", "voc10"])
def test_boxes_from_the_reader_score_as_the_devkit_scores_the_xml(voc2007_dir: Path, metric):
    # The devkit: whole corners counted from 1, both ends inside, IoU with the +1. Here: "exact" on what the reader
    # makes of them, xmin - 1, ymin - 1, xmax, ymax.
    random = np.random.default_rng(0)
    objects, truths, guesses, detections = [], [], [], []
    names = (voc2007_dir / "ImageSets" / "Main" / "test.txt").read_text().split()
    for image, name in enumerate(names, start=1):
        root = ElementTree.parse(voc2007_dir / "Annotations" / f"{name}.xml").getroot()
        for element in root.iter("object"):
            if element.findtext("name") != "person":
                continue
            corners = [int(float(element.findtext(f"bndbox/{key}"))) for key in ("xmin", "ymin", "xmax", "ymax")]
            difficult = int(element.findtext("difficult"))
            truths.append((image, corners, bool(difficult)))
            objects.append(thing(edges(corners), image=image, difficult=difficult))
            for _ in range(3):
                found = [int(value) for value in np.array(corners) + random.integers(-25, 26, 4)]
                if found[2] > found[0] and found[3] > found[1]:
                    score = float(random.random())
                    detections.append((image, found, score))
                    guesses.append(guess(edges(found), score, image=image))
    expected = 100 * devkit(truths, detections, metric, 0.5, plus=1)
    figures = voc_figures(truth_of(objects, images=len(names), classes=("person",)), guesses, metric=metric)
    assert 10 < expected < 90
    assert figures.mAP == pytest.approx(expected, abs=1e-9)


def edges(corners):
    return [corners[0] - 1, corners[1] - 1, corners[2] - corners[0] + 1, corners[3] - corners[1] + 1]


@pytest.mark.parametrize("metric", ["voc07", "voc10"])
def test_perfect_predictions_score_100_and_none_score_0(metric):
    truth, _ = random_case(3)
    assert voc_figures(truth, perfect(truth), metric=metric, iou=1.0).mAP == pytest.approx(100)
    assert voc_figures(truth, [], metric=metric).mAP == 0


def test_a_second_detection_of_one_truth_is_a_false_positive():
    truth = truth_of([thing([0, 0, 10, 10]), thing([50, 50, 10, 10])])
    boxes = [guess([0, 0, 10, 10], 0.9), guess([0, 0, 10, 10], 0.8), guess([50, 50, 10, 10], 0.7)]
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1; the curve is the best precision from each recall on.
    figures = voc_figures(truth, boxes, metric="voc10")
    assert figures.mAP == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))
    assert figures.curves["cat"] == pytest.approx([1.0] * 51 + [2 / 3] * 50)
    assert match_voc(truth, boxes)["cat"].hit_AD.tolist() == [[1, 0, 1]]
    eleven = voc_figures(truth, boxes, metric="voc07")
    assert eleven.mAP == pytest.approx(100 * (6 * 1 + 5 * 2 / 3) / 11)
    assert eleven.curves == figures.curves


def test_an_iou_of_exactly_the_threshold_is_a_match():
    truth = truth_of([thing([0, 0, 10, 10])])
    half = [guess([0, 0, 10, 5], 0.9)]
    assert voc_figures(truth, half, iou=0.5, pixels="exact").mAP == pytest.approx(100)
    assert voc_figures(truth, half, iou=0.5, pixels="inclusive").mAP == pytest.approx(100)  # 66 / 121
    assert voc_figures(truth, half, iou=0.51, pixels="exact").mAP == 0


@pytest.mark.parametrize("flag", ["difficult", "iscrowd"])
def test_difficult_objects_are_neither_found_nor_punished(flag):
    truth = truth_of([thing([0, 0, 10, 10]), thing([50, 50, 10, 10], **{flag: 1})])
    boxes = [guess([50, 50, 10, 10], 0.9), guess([50, 50, 10, 10], 0.8), guess([0, 0, 10, 10], 0.7)]
    figures = voc_figures(truth, boxes)
    assert figures.mAP == pytest.approx(100)
    assert figures.truths == {"cat": 1}


def test_difficult_objects_can_be_counted():
    truth = truth_of([thing([0, 0, 10, 10]), thing([50, 50, 10, 10], difficult=1)])
    figures = voc_figures(truth, [guess([0, 0, 10, 10], 0.9)], metric="voc10", difficult="count")
    assert figures.mAP == pytest.approx(50)
    assert figures.truths == {"cat": 2}


def test_equal_scores_keep_the_order_of_the_file():
    truth = truth_of([thing([0, 0, 10, 10])])
    right, wrong = guess([0, 0, 10, 10], 0.5), guess([50, 50, 10, 10], 0.5)
    assert voc_figures(truth, [right, wrong]).mAP == pytest.approx(100)
    assert voc_figures(truth, [wrong, right]).mAP == pytest.approx(50)


def test_a_class_without_truths_is_nan_and_not_in_the_mean():
    truth = truth_of([thing([0, 0, 10, 10])], classes=("cat", "dog"))
    figures = voc_figures(truth, [guess([0, 0, 10, 10], 0.9), guess([0, 0, 10, 10], 0.9, category=2)])
    assert figures.mAP == pytest.approx(100)
    assert math.isnan(figures.per_class["dog"])
    assert as_json(figures)["per_class"] == {"cat": pytest.approx(100), "dog": None}


def test_crowded_images_are_matched_in_parts(monkeypatch):
    truth, predictions = random_case(5, most_truths=20, most_guesses=40)
    whole = voc_figures(truth, predictions)
    monkeypatch.setattr("vertebra.evaluation.metrics.overlaps._PAIRS_AT_ONCE", 7)
    assert voc_figures(truth, predictions).per_class == pytest.approx(whole.per_class, nan_ok=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "voc12"}, "unknown VOC metric 'voc12'; choose voc07"),
        ({"iou": 0.0}, "an IoU threshold is above 0 and at most 1, not 0.0"),
        ({"iou": 1.5}, "at most 1, not 1.5"),
        ({"pixels": "half"}, "pixels is exact or inclusive, .* got 'half'"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        voc_figures(truth_of([]), [], **options)
