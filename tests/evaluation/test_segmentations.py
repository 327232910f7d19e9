"""Masks in files: pycocotools' own are taken, and what it would misread without a word is refused."""

from __future__ import annotations

import pytest
from pycocotools import mask as rle

from tests.evaluation.cases import thing, truth_of
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.files import read_predictions, read_truth
from vertebra.evaluation.metrics.segmentations import first_fault
from vertebra.ground.errors import UserError

SQUARE = [[10, 10, 50, 10, 50, 50, 10, 50]]
TRUTH = truth_of([thing([10, 10, 40, 40], segmentation=SQUARE)])


def message(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "sentence"),
    [
        (SQUARE, "has no segmentation in RLE (size and counts)"),
        ({"size": [100, 100], "counts": None}, "RLE counts that are neither a text nor a list of whole numbers"),
        ({"size": [100, 100], "counts": [9999.0, 1]}, "RLE counts that are neither a text nor a list of whole numbers"),
        ({"size": [100, 100], "counts": [-1, 10001]}, "RLE counts that are neither a text nor a list of whole numbers"),
        ({"size": None, "counts": "abc"}, "has no segmentation in RLE (size and counts)"),
        ({"size": [100, 100], "counts": [5, 10, 5]}, "cover 20 pixels in an image of [100, 100], 10000 pixels; encode"),
        ({"size": [100, 100], "counts": [5000, 5000, 50000]}, "cover 60000 pixels"),
        ({"size": [100, 100], "counts": "04"}, "cover 4 pixels"),
        ({"size": [100, 100], "counts": "!"}, "RLE counts that cannot be decoded"),
        ({"size": [100, 100], "counts": "\\"}, "RLE counts that cannot be decoded"),
        ({"size": [50, 100], "counts": "04"}, "a mask of height x width [50, 100] in an image of [100, 100]"),
    ],
)
def test_masks_of_predictions_that_would_be_misread_are_told(segmentation, sentence):
    found = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": segmentation}
    text = message(coco_figures, TRUTH, [found], iou_type="segm")
    assert text.startswith("the list of predictions: prediction 0 (counted from 0, image_id 1): ") and sentence in text


@pytest.mark.parametrize(
    ("segmentation", "sentence"),
    [
        (None, "has no segmentation in polygons or RLE; use boxes instead"),
        ([], "its polygons are not lists of finite numbers x, y, x, y"),
        ([[10, 10]], "its first polygon has fewer than 3 corners; correct or remove it"),
        ([[10, 10, 50, 10]], "its first polygon has fewer than 3 corners"),
        ([[10, 10, 50, 10], *SQUARE], "its first polygon has fewer than 3 corners"),
        ([10, 10, 50, 10, 50, 50], "its polygons are not lists of finite numbers"),
        ([[10, 10, 50, 10, 50, "50"]], "its polygons are not lists of finite numbers"),
        ([[10, 10, 50, 10, 50, float("inf")]], "its polygons are not lists of finite numbers"),
        ("abc", "has no segmentation in polygons or RLE"),
        ({"size": [100, 100], "counts": [5, 10, 5]}, "cover 20 pixels"),
    ],
)
def test_masks_of_the_truth_that_would_be_misread_are_told(segmentation, sentence):
    truth = truth_of([thing([10, 10, 40, 40], segmentation=segmentation)])
    text = message(coco_figures, truth, [], iou_type="segm")
    assert text.startswith("the truth: annotation 0 (counted from 0, image_id 1): ") and sentence in text
    assert read_truth(truth) is truth, "boxes can be scored"


@pytest.mark.parametrize("polygons", [SQUARE, [*SQUARE, [5, 5]], [*SQUARE, [60, 60, 70, 70]]])
def test_what_pycocotools_reads_is_taken_as_it_reads_it(polygons):
    """Official files have polygons of one or two corners among others."""
    truth = truth_of([thing([10, 10, 40, 40], segmentation=polygons)])
    mask = rle.merge(rle.frPyObjects(polygons, 100, 100))
    found = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": {**mask, "counts": mask["counts"].decode()}}
    assert coco_figures(truth, [found], iou_type="segm")["AP"] == pytest.approx(100)


def test_masks_need_the_sizes_of_images():
    truth = {**TRUTH, "images": [{"id": 1}]}
    assert "height x width [None, None] of the truth's image 1 are not whole numbers; masks need both" in message(
        read_truth, truth, needs="segmentation"
    )
    assert read_predictions([], truth, needs="segmentation") == []


def test_the_first_fault_of_many_is_found_beyond_the_first_chunk(monkeypatch):
    monkeypatch.setattr("vertebra.evaluation.metrics.segmentations.CHUNK", 3)
    good = {"size": [2, 2], "counts": "04"}
    values = [good] * 7 + [{"size": [2, 2], "counts": "05"}] + [good]
    place, reason, _ = first_fault(values, [(2, 2)] * 9, polygons=False)
    assert place == 7 and "cover 5 pixels" in reason
    assert first_fault([good] * 9, [(2, 2)] * 9, polygons=False) is None
