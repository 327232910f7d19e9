"""COCO's figures and the difficult flag against cases worked by hand."""

from __future__ import annotations

import copy
import json
import math

import pytest

from tests.evaluation.cases import guess, perfect, random_case, thing, truth_of, with_masks
from vertebra.evaluation.metrics.coco import FIGURES, coco_figures
from vertebra.ground.errors import UserError


def test_more_than_255_masks_without_boxes_are_scored():
    truth = truth_of([thing([10, 10, 50, 50])])
    truth, predictions = with_masks(truth, [guess([10, 10, 50, 50], 1 - i / 1000) for i in range(300)], boxes=False)
    assert coco_figures(truth, predictions, iou_type="segm")["AP"] == pytest.approx(100)


def test_files_score_as_what_they_hold(tmp_path):
    truth, predictions = random_case(1)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(predictions))
    from_files = coco_figures(tmp_path / "truth.json", str(tmp_path / "results.json"))
    assert from_files.to_dict() == coco_figures(truth, predictions).to_dict()


def test_scoring_prints_nothing_and_changes_nothing(capsys):
    truth, predictions = random_case(2)
    before = copy.deepcopy((truth, predictions))
    coco_figures(truth, predictions)
    assert capsys.readouterr().out == ""
    assert (truth, predictions) == before


def test_empty_predictions_score_0():
    truth, _ = random_case(2)
    figures = coco_figures(truth, [])
    assert figures["AP"] == figures["AP50"] == figures["AR100"] == 0


def test_perfect_predictions_score_100():
    truth, _ = random_case(2)
    figures = coco_figures(truth, perfect(truth))
    assert [figures[name] for name in FIGURES if name not in ("AR1", "AR10")] == pytest.approx([100] * 10)


def test_where_there_is_no_truth_there_is_no_figure():
    truth = truth_of([thing([0, 0, 10, 10])], classes=("cat", "dog"))
    figures = coco_figures(truth, [guess([0, 0, 10, 10], 0.9), guess([0, 0, 10, 10], 0.9, category=2)])
    assert figures["AP"] == pytest.approx(100)
    assert math.isnan(figures["APl"]) and math.isnan(figures.per_class["dog"]["AP"])
    assert figures.truths == {"cat": 1, "dog": 0}
    as_json = figures.to_dict()
    assert as_json["figures"]["APl"] is None and as_json["per_class"]["dog"]["AP"] is None
    json.dumps(as_json, allow_nan=False)
    assert math.isnan(coco_figures(truth_of([]), [])["AP"])


def test_an_annotation_with_id_0_can_be_found():
    # pycocotools alone takes a match with id 0 for none.
    truth = truth_of([thing([0, 0, 10, 10])])
    truth["annotations"][0]["id"] = 0
    assert coco_figures(truth, [guess([0, 0, 10, 10], 0.9)])["AP"] == pytest.approx(100)


def test_missing_area_and_iscrowd_are_filled_in():
    truth = truth_of([thing([0, 0, 10, 10])])
    del truth["annotations"][0]["area"], truth["annotations"][0]["iscrowd"]
    assert coco_figures(truth, [guess([0, 0, 10, 10], 0.9)])["APs"] == pytest.approx(100)


# Difficult: one ordinary object at the left, one difficult object at the right.
SCENE = truth_of([thing([0, 0, 20, 20]), thing([50, 50, 20, 20], difficult=1)])
FOUND = guess([0, 0, 20, 20], 0.5)


def test_a_detection_of_a_difficult_object_is_neither_right_nor_wrong():
    figures = coco_figures(SCENE, [guess([50, 50, 20, 20], 0.9), FOUND])
    assert figures["AP"] == pytest.approx(100)
    assert figures.truths == {"cat": 1}


def test_a_missed_difficult_object_costs_nothing_unless_counted():
    assert coco_figures(SCENE, [FOUND])["AP"] == pytest.approx(100)
    counted = coco_figures(SCENE, [FOUND], difficult="count")
    # Recall ends at 1/2: 51 of the 101 levels.
    assert counted["AP"] == pytest.approx(100 * 51 / 101)
    assert counted.truths == {"cat": 2}


def test_difficult_objects_keep_the_ordinary_iou_unlike_crowds():
    # A small box within the object: IoU 1/4, so it is a mistake; a crowd would swallow it (overlap / own area = 1).
    inside = guess([50, 50, 10, 10], 0.9)
    assert coco_figures(SCENE, [inside, FOUND])["AP"] == pytest.approx(50)
    crowd = truth_of([thing([0, 0, 20, 20]), thing([50, 50, 20, 20], iscrowd=1)])
    assert coco_figures(crowd, [inside, FOUND])["AP"] == pytest.approx(100)


def test_a_second_detection_of_a_difficult_object_is_a_mistake():
    # One match a truth, as for objects outside an area range; crowds alone absorb any number.
    twice = [guess([50, 50, 20, 20], 0.9), guess([50, 50, 20, 20], 0.8), FOUND]
    assert coco_figures(SCENE, twice)["AP"] == pytest.approx(50)


def test_an_ordinary_object_is_preferred_to_a_difficult_one():
    truth = truth_of([thing([0, 0, 20, 20], difficult=1), thing([0, 0, 20, 22])])
    assert coco_figures(truth, [guess([0, 0, 20, 20], 0.9)])["AP50"] == pytest.approx(100)


def test_masks_are_asked_for_by_name():
    with pytest.raises(UserError, match="has no segmentation in polygons or RLE; use boxes instead"):
        coco_figures(SCENE, [FOUND], iou_type="segm")
