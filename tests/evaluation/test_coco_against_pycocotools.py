"""Every flag of the matching and every figure made of them against COCOeval's own."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.cases import guess, random_case, thing, truth_of, with_masks
from tests.evaluation.cocoeval import cocoeval, percent
from vertebra.evaluation.metrics.coco import FIGURES, coco_figures, match_coco
from vertebra.evaluation.metrics.matching import SIZES, THRESHOLDS_T

BITS_T = 1 << np.arange(len(THRESHOLDS_T))
CASES = {
    "plain": {},
    "ties": {"levels": 3},
    "more than 100 detections": {"images": 4, "classes": 2, "most_guesses": 400},
    "crowded": {"images": 3, "classes": 2, "most_truths": 40, "most_guesses": 400, "levels": 20},
    "mostly empty": {"most_truths": 1, "most_guesses": 1, "images": 30},
}


def assert_same(truth, predictions, iou_type="bbox", difficult="ignore"):
    """Compare every figure and every flag with COCOeval's."""
    expected = cocoeval(truth, predictions, iou_type, difficult)
    assert_same_figures(coco_figures(truth, predictions, iou_type=iou_type, difficult=difficult), expected)
    assert_same_flags(match_coco(truth, predictions, iou_type=iou_type, difficult=difficult), truth, expected)


def assert_same_figures(figures, expected):
    precision_TRKA = expected.eval["precision"][..., -1]
    by_class = {
        "AP": precision_TRKA[:, :, :, 0],
        "AP50": precision_TRKA[:1, :, :, 0],
        **{name: precision_TRKA[..., a] for a, name in enumerate(("APs", "APm", "APl"), start=1)},
    }
    for name, value in zip(FIGURES, expected.stats):
        assert figures[name] == pytest.approx(percent(value), abs=1e-10, nan_ok=True), name
    for k, (class_name, values) in enumerate(figures.per_class.items()):
        for name, precision in by_class.items():
            assert values[name] == pytest.approx(percent(precision[..., k].mean()), abs=1e-10, nan_ok=True), name
        curve_R = precision_TRKA[0, :, k, 0]
        if curve_R[0] >= 0:
            assert figures.curves[class_name] == pytest.approx(curve_R.tolist(), abs=1e-10)


def assert_same_flags(matches, truth, expected):
    ids = sorted(image["id"] for image in truth["images"])
    place_of = {image["id"]: place for place, image in enumerate(truth["images"])}
    assert len(matches) == len(expected.params.catIds)
    for k, matched in enumerate(matches.values()):
        for a in range(len(SIZES)):
            start = (k * len(SIZES) + a) * len(ids)
            per_image = [entry for entry in expected.evalImgs[start : start + len(ids)] if entry is not None]
            truths_I = np.zeros(len(ids), dtype=int)
            for entry in per_image:
                truths_I[place_of[entry["image_id"]]] = (entry["gtIgnore"] == 0).sum()
            assert (matched.truths_AI[a] == truths_I).all()
            if not per_image:
                assert not len(matched.scores_D)
                continue
            scores_D = np.concatenate([entry["dtScores"] for entry in per_image])
            images_D = np.concatenate(
                [np.full(len(entry["dtScores"]), place_of[entry["image_id"]]) for entry in per_image]
            )
            taken_TD = np.concatenate([entry["dtMatches"] for entry in per_image], axis=1) > 0
            ignored_TD = np.concatenate([entry["dtIgnore"] for entry in per_image], axis=1).astype(bool)
            order_D = np.argsort(-scores_D, kind="mergesort")
            assert (matched.scores_D == scores_D[order_D]).all()
            assert (matched.image_D == images_D[order_D]).all()
            assert (matched.hit_AD[a] == BITS_T @ (taken_TD & ~ignored_TD)[:, order_D]).all()
            assert (matched.ignored_AD[a] == BITS_T @ ignored_TD[:, order_D]).all()


@pytest.mark.parametrize("difficult", ["ignore", "count"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", CASES)
def test_boxes(case, seed, difficult):
    truth, predictions = random_case(seed, **CASES[case])
    truth["images"] = truth["images"][::-1]  # the file's order is not that of the ids
    assert_same(truth, predictions, difficult=difficult)


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_masks_with_boxes_beside_them_and_without(seed, boxes):
    truth, predictions = with_masks(*random_case(seed, images=6, most_guesses=60), boxes=boxes)
    assert len(predictions) > 0
    for difficult in ("ignore", "count"):
        assert_same(truth, predictions, "segm", difficult)


def test_large_data_in_small_pieces_is_the_same(monkeypatch):
    truth, predictions = random_case(2, images=10)
    monkeypatch.setattr("vertebra.evaluation.metrics.overlaps._PAIRS_AT_ONCE", 1)
    assert_same(truth, predictions)


def test_equal_overlaps_go_to_the_last_truth_of_the_file():
    # The first guess covers both objects alike and takes the second one, so the next guess finds that one gone.
    truth = truth_of([thing([0, 0, 10, 10]), thing([0, 10, 10, 10])])
    found = [guess([0, 0, 10, 20], 0.9), guess([0, 10, 10, 10], 0.8), guess([0, 0, 10, 10], 0.7)]
    (matched,) = match_coco(truth, found).values()
    assert (matched.hit_AD[0] & 1).tolist() == [1, 0, 1]
    assert_same(truth, found)


def test_without_images_truths_or_detections():
    truth, predictions = random_case(1)
    assert all(not len(one.scores_D) and one.truths_AI.shape == (4, 12) for one in match_coco(truth, []).values())
    bare = {**truth, "annotations": []}
    for one in match_coco(bare, predictions).values():
        assert not one.truths_AI.any() and not one.hit_AD.any()
    assert match_coco(truth_of([], images=0), [])["cat"].truths_AI.shape == (4, 0)
