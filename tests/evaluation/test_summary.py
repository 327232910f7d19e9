"""What stands in a run's evaluation.json and in its log."""

from __future__ import annotations

import copy
import math

import pytest

from tests.evaluation.cases import random_case, with_masks
from vertebra.evaluation.metrics.coco import FIGURES, coco_figures
from vertebra.evaluation.metrics.summary import log_figures, summarise


@pytest.fixture
def masked():
    return with_masks(*random_case(0, images=5), boxes=True)


def test_masks_are_scored_beside_the_boxes(masked):
    summary = summarise(*masked)
    for key, iou_type in (("coco", "bbox"), ("coco_segm", "segm")):
        expected = coco_figures(*masked, iou_type=iou_type)
        assert tuple(summary[key]) == FIGURES
        assert summary[key] == {n: None if math.isnan(v) else v for n, v in expected.figures.items()}
    masks = coco_figures(*masked, iou_type="segm").per_class["class1"]
    row = summary["per_class"]["class1"]
    assert (row["segm_AP"], row["segm_AP50"]) == (masks["AP"], masks["AP50"])
    assert summary["coco"] != summary["coco_segm"]


def test_the_log_has_the_masks_figures_under_their_own_names(masked):
    summary = summarise(*masked)
    figures = log_figures(summary)
    assert figures["AP"] == summary["coco"]["AP"] and figures["VOC"] == summary["voc"]["mAP"]
    assert figures["segm_AP"] == summary["coco_segm"]["AP"] and figures["segm_AP50"] == summary["coco_segm"]["AP50"]
    assert None not in figures.values()


@pytest.mark.parametrize("where", ["truth", "predictions"])
def test_without_all_masks_there_are_boxes_alone(masked, where):
    truth, predictions = copy.deepcopy(masked)
    del (truth["annotations"] if where == "truth" else predictions)[0]["segmentation"]
    summary = summarise(truth, predictions)
    assert "coco_segm" not in summary and "segm_AP" not in summary["per_class"]["class1"]
    assert not any(name.startswith("segm") for name in log_figures(summary))


def test_polygons_among_the_predictions_leave_the_boxes(masked):
    """COCO results have masks in RLE; other tools write their polygons beside the boxes."""
    truth, predictions = copy.deepcopy(masked)
    predictions[0]["segmentation"] = [[10, 10, 50, 10, 50, 50]]
    assert "coco_segm" not in summarise(truth, predictions)
    truth["annotations"][0]["segmentation"] = [[10, 10, 50, 10, 50, 50]]
    assert "coco_segm" in summarise(truth, masked[1])


def test_no_predictions_at_all_score_0_on_masks_too(masked):
    assert summarise(masked[0], [])["coco_segm"]["AP"] == 0
