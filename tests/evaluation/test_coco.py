"""COCO's figures and the difficult flag against cases worked by hand."""

from __future__ import annotations

import copy
import json
import math

import pytest

from tests.evaluation.cases import guess, perfect, random_case, thing, truth_of, with_masks
from vertebra.evaluation.metrics.coco import FIGURES, coco_figures
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json


def test_more_than_255_masks_without_boxes_are_scored():
    truth = truth_of([thing([10, 10, 50, 50])])
    truth, predictions = with_masks(truth, [guess([10, 10, 50, 50], 1 - i / 1000) for i in range(300)], boxes=False)
    assert coco_figures(truth, predictions, iou_type="segm")["AP"] == pytest.approx(100)


def test_files_score_as_what_they_hold(tmp_path):
    truth, predictions = random_case(1)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(predictions))
    from_files = coco_figures(tmp_path / "truth.json", str(tmp_path / "results.json"))
    assert as_json(from_files) == as_json(coco_figures(truth, predictions))


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
    written = as_json(figures)
    assert written["figures"]["APl"] is None and written["per_class"]["dog"]["AP"] is None
    json.dumps(written, allow_nan=False)
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


# One ordinary object at the left, one that is difficult, or a crowd, at the right.
LEFT, RIGHT = [0, 0, 20, 20], [50, 50, 20, 20]
SCENE = truth_of([thing(LEFT), thing(RIGHT, difficult=1)])
CROWD = truth_of([thing(LEFT), thing(RIGHT, iscrowd=1)])
FOUND, WITHIN = guess(LEFT, 0.5), guess([50, 50, 10, 10], 0.9)
DIFFICULT = [  # the truth, predictions, AP
    (SCENE, [guess(RIGHT, 0.9), FOUND], 100),  # found: neither right nor wrong
    (SCENE, [FOUND], 100),  # missed: costs nothing
    # One match a truth, as for objects outside an area range; crowds alone absorb any number.
    (SCENE, [guess(RIGHT, 0.9), guess(RIGHT, 0.8), FOUND], 50),
    # IoU 1/4 is a mistake; a crowd swallows a box within it (overlap / own area = 1).
    (SCENE, [WITHIN, FOUND], 50),
    (CROWD, [WITHIN, FOUND], 100),
]


@pytest.mark.parametrize(("truth", "predictions", "ap"), DIFFICULT)
def test_difficult_objects_are_neither_to_be_found_nor_punished(truth, predictions, ap):
    figures = coco_figures(truth, predictions)
    assert figures["AP"] == pytest.approx(ap) and figures.truths == {"cat": 1}


def test_difficult_objects_can_be_counted():
    counted = coco_figures(SCENE, [FOUND], difficult="count")
    # Recall ends at 1/2: 51 of the 101 levels.
    assert counted["AP"] == pytest.approx(100 * 51 / 101) and counted.truths == {"cat": 2}


def test_an_ordinary_object_is_preferred_to_a_difficult_one():
    truth = truth_of([thing(LEFT, difficult=1), thing([0, 0, 20, 22])])
    assert coco_figures(truth, [guess(LEFT, 0.9)])["AP50"] == pytest.approx(100)


def test_masks_are_asked_for_by_name():
    with pytest.raises(UserError, match="has no segmentation in polygons or RLE; use boxes instead"):
        coco_figures(SCENE, [FOUND], iou_type="segm")
