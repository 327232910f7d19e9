"""TIDE's kinds of error: each worked by hand, and all of them against the authors' `tidecv`."""

from __future__ import annotations

import importlib
import math
import sys
from unittest import mock

import numpy as np
import pytest

from tests.evaluation.cases import guess, random_case, thing, truth_of
from vertebra.evaluation.metrics.files import read_predictions, read_truth
from vertebra.evaluation.metrics.overlaps import measure
from vertebra.evaluation.why.errors import KINDS, classify, tide_errors
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json

OBJECT, FAR = [0, 0, 10, 10], [50, 50, 10, 10]
HALF = 100 * 51 / 101  # AP with every second object found and nothing wrong: recall levels 0 .. 0.50
TWO_THIRDS = 100 * (51 + 50 * 2 / 3) / 101  # right, wrong, right, of two objects
TIDECV_NAMES = dict(zip(KINDS, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")))


def errors(objects, guesses, classes=("cat", "dog"), **thresholds):
    truth = truth_of(objects, images=2, classes=classes)
    return tide_errors(classify(measure(truth, guesses, floor=0.05), **thresholds))


def only(kind, value):
    return {name: pytest.approx(value if name == kind else 0.0) for name in KINDS}


def one(kind):
    return {name: int(name == kind) for name in KINDS}


def test_a_perfect_detector_loses_nothing():
    found = errors([thing(OBJECT), thing(FAR)], [guess(OBJECT, 0.9), guess(FAR, 0.2)])
    assert found.ap == pytest.approx(100) and found.lost == only("none", 0) and not any(found.counts.values())
    assert found.special == {"false_positives": pytest.approx(0), "false_negatives": pytest.approx(0)}


def test_the_right_place_with_the_wrong_class_is_a_classification_error():
    found = errors([thing(OBJECT, category=1)], [guess(OBJECT, 0.9, category=2)])
    # Cat 0 (not found) and dog 0 (found where there is none); mended, cat has 100 and dog nothing to be asked for.
    assert found.ap == 0 and found.lost == only("classification", 100) and found.counts == one("classification")
    assert found.classes_without_truth == ["dog"] and list(found.per_class) == ["cat"]


def test_the_right_class_at_the_wrong_place_is_a_localisation_error():
    found = errors([thing(OBJECT)], [guess([0, 0, 10, 4], 0.9)])  # IoU 0.4
    assert found.ap == 0 and found.lost == only("localisation", 100) and found.counts == one("localisation")
    assert found.per_class["cat"]["localisation"] == pytest.approx(100)


def test_wrong_class_and_wrong_place_are_both():
    truths = [thing(OBJECT), thing(FAR, category=2)]
    found = errors(truths, [guess([0, 0, 10, 3], 0.99, category=2), guess(OBJECT, 0.9), guess(FAR, 0.5, category=2)])
    # Dog: wrong, right, of one object: precision 1/2 everywhere.
    assert found.ap == pytest.approx(75) and found.lost == only("both", 25) and found.counts == one("both")


def test_a_second_detection_of_an_object_is_a_duplicate():
    found = errors([thing(OBJECT), thing(FAR)], [guess(OBJECT, 0.9), guess([0, 0, 10, 9], 0.8), guess(FAR, 0.7)])
    assert found.ap == pytest.approx(TWO_THIRDS) and found.counts == one("duplicate")
    assert found.lost == only("duplicate", 100 - TWO_THIRDS)


def test_a_detection_of_nothing_is_background_and_costs_what_perfect_precision_regains():
    nothing = [80, 0, 10, 10]
    found = errors([thing(OBJECT), thing(FAR)], [guess(OBJECT, 0.9), guess(nothing, 0.8), guess(FAR, 0.7)])
    assert found.counts == one("background") and found.lost == only("background", 100 - TWO_THIRDS)
    assert found.special["false_positives"] == pytest.approx(100 - TWO_THIRDS)
    assert found.special["false_negatives"] == pytest.approx(0)


@pytest.mark.parametrize("where", [1, 2])
def test_an_object_without_any_detection_is_missed_in_its_image_or_in_an_empty_one(where):
    found = errors([thing(OBJECT), thing(FAR, image=where)], [guess(OBJECT, 0.9)])
    assert found.ap == pytest.approx(HALF) and found.counts == one("missed")
    assert found.lost == only("missed", 100 - HALF)
    assert found.special == {"false_positives": pytest.approx(0), "false_negatives": pytest.approx(100 - HALF)}


def test_one_object_is_mended_once_by_its_best_claimant():
    found = errors([thing(OBJECT)], [guess(OBJECT, 0.9, category=2), guess([0, 0, 10, 4], 0.8)])
    # The dog claims the cat first, so the localisation error cannot be mended into a right one, only go away.
    assert found.counts == {**one("classification"), "localisation": 1}
    # With the class mended the cat is right, the box behind it harmless, and no dog is asked for: from 0 to 100.
    assert found.lost == only("classification", 100)


def test_thresholds_belong_to_the_kinds_as_in_the_reference():
    """IoU 0.5 with the own class is right, 0.1 is localisation, and 0.1 with another class still background."""
    assert errors([thing(OBJECT)], [guess([0, 0, 10, 5], 0.9)]).ap == pytest.approx(100)
    tenth = [0, 0, 10, 1]
    assert errors([thing(OBJECT)], [guess(tenth, 0.9)]).counts["localisation"] == 1
    assert errors([thing(OBJECT)], [guess(tenth, 0.9, category=2)]).counts["background"] == 1
    stricter = errors([thing(OBJECT)], [guess([0, 0, 10, 5], 0.9)], iou=0.75)
    assert stricter.ap == 0 and stricter.counts["localisation"] == 1


def test_thresholds_out_of_order_end_in_a_sentence():
    with pytest.raises(UserError, match="background <= iou"):
        errors([thing(OBJECT)], [], iou=0.1, background=0.5)


@pytest.mark.parametrize("flag", ["iscrowd", "difficult"])
def test_what_lies_on_a_crowd_or_a_difficult_object_is_no_error(flag):
    found = errors([thing(OBJECT), thing(FAR, **{flag: 1})], [guess(FAR, 0.99), guess(OBJECT, 0.9)])
    assert found.ap == pytest.approx(100) and not any(found.counts.values())


def test_only_the_hundred_best_of_an_image_count_and_of_all_classes_together():
    guesses = [guess([50, 50, 5, 5], 0.9, category=2) for _ in range(100)] + [guess(OBJECT, 0.1)]
    found = errors([thing(OBJECT), thing([50, 50, 5, 5], category=2)], guesses)
    assert found.counts["duplicate"] == 99 and found.counts["missed"] == 1


def test_no_detections_and_no_truths():
    assert errors([thing(OBJECT)], []).ap == 0
    nothing = errors([], [])
    assert math.isnan(nothing.ap) and as_json(nothing)["ap"] is None


# ------------------------------------------------------------------------------------------------ against tidecv


@pytest.fixture(scope="module")
def tidecv():
    """The authors' package, whose drawing (never called here) asks for packages that we need not have."""
    drawing = ("matplotlib", "matplotlib.pyplot", "matplotlib.lines", "seaborn", "pandas", "appdirs")
    missing = {}
    for name in drawing:
        try:
            importlib.import_module(name)
        except ImportError:
            missing[name] = mock.MagicMock()
    with mock.patch.dict(sys.modules, missing):
        try:
            return importlib.import_module("tidecv")
        except ImportError as error:
            pytest.skip(f"{error}; for this test: pip install --no-deps --target DIR tidecv, and DIR in PYTHONPATH")


def reference(tidecv, truth, predictions, iou, background):
    """(AP and losses, counts) as tidecv has them."""
    objects, found = tidecv.Data("truth", max_dets=100), tidecv.Data("found")
    for image in truth["images"]:
        objects.add_image(image["id"], "")
    for category in truth["categories"]:
        objects.add_class(category["id"], category["name"])
    for entry in truth["annotations"]:
        add = objects.add_ignore_region if entry.get("iscrowd") else objects.add_ground_truth
        add(entry["image_id"], entry["category_id"], entry["bbox"])
    for entry in predictions:
        found.add_detection(entry["image_id"], entry["category_id"], entry["score"], entry["bbox"])
    tide = tidecv.TIDE(iou, background)
    run = tide.evaluate(objects, found)
    lost = tide.get_all_errors()
    counts = {
        kind.short_name: sum(not hasattr(e, "pred") or e.pred["used"] is not None for e in each)
        for kind, each in run.error_dict.items()
    }
    return {"AP": run.ap, **lost["main"]["found"], **lost["special"]["found"]}, counts


def assert_as_tidecv(tidecv, truth, predictions, iou=0.5, background=0.1):
    figures, counts = reference(tidecv, truth, predictions, iou, background)
    found = tide_errors(classify(measure(truth, predictions, difficult="count"), iou=iou, background=background))
    assert {"AP": found.ap, **{TIDECV_NAMES[kind]: found.lost[kind] for kind in KINDS}} == pytest.approx(
        {name: figures[name] for name in ("AP", *TIDECV_NAMES.values())}, abs=1e-9
    )
    assert found.special == pytest.approx(
        {"false_positives": figures["FalsePos"], "false_negatives": figures["FalseNeg"]}, abs=1e-9
    )
    assert {TIDECV_NAMES[kind]: found.counts[kind] for kind in KINDS} == counts


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("seed", range(8))
def test_figures_are_those_of_tidecv(tidecv, seed, levels):
    truth, predictions = random_case(seed, images=20, levels=levels)
    assert_as_tidecv(tidecv, truth, predictions)
    assert_as_tidecv(tidecv, truth, predictions, iou=0.75, background=0.2)


def test_figures_are_those_of_tidecv_beyond_the_hundred_best(tidecv):
    truth, predictions = random_case(3, images=4, most_truths=20, most_guesses=300)
    assert_as_tidecv(tidecv, truth, predictions)


def coco_hundred(fixtures_dir):
    folder = fixtures_dir / "coco_val2014_100"
    truth = read_truth(folder / "instances_val2014_100.json")
    return truth, read_predictions(folder / "instances_val2014_fakebbox100_results.json", truth)


def test_figures_on_coco_images_are_those_of_tidecv(tidecv, fixtures_dir):
    assert_as_tidecv(tidecv, *coco_hundred(fixtures_dir))


def test_figures_on_coco_images_are_those_that_tidecv_gave(fixtures_dir):
    """Version 1.0.1, noted down, so that this holds without it."""
    found = tide_errors(classify(measure(*coco_hundred(fixtures_dir))))
    figures = [found.ap, *found.lost.values(), *found.special.values()]
    assert np.round(figures, 4).tolist() == [64.2050, 22.2460, 0.2279, 0.0, 0.0190, 0.0, 8.5236, 6.8216, 17.6850]
    assert list(found.counts.values()) == [83, 1, 0, 1, 0, 97]
