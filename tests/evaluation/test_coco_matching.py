"""Every flag of the matching against COCOeval's own, detection by detection, and the figures made of them."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.evaluation.cases import guess, random_case, thing, truth_of
from vertebra.evaluation.metrics.coco import FIGURES, coco_figures, match_coco
from vertebra.evaluation.metrics.matching import SIZES, THRESHOLDS_T

BITS_T = 1 << np.arange(len(THRESHOLDS_T))


def judge(truth, predictions, iou_type="bbox", ignore_difficult=True):
    """COCOeval after `summarize`; with `ignore_difficult` difficult objects are ignored as crowds are."""
    index, results = COCO(), COCO()
    shared = {"images": truth["images"], "categories": truth["categories"]}
    annotations = [{**e, "id": i} for i, e in enumerate(truth["annotations"], start=1)]
    found = [{**e, "id": i, "iscrowd": 0} for i, e in enumerate(predictions, start=1)]
    for entry in found:
        area = entry["bbox"][2] * entry["bbox"][3] if iou_type == "bbox" else int(mask.area(entry["segmentation"]))
        entry["area"] = area
    index.dataset, results.dataset = {**shared, "annotations": annotations}, {**shared, "annotations": found}

    class Judge(COCOeval):
        def _prepare(self):
            super()._prepare()
            for entries in self._gts.values():
                for entry in entries:
                    entry["ignore"] = int(entry["ignore"] or (ignore_difficult and entry.get("difficult", 0)))

    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
        results.createIndex()
        made = Judge(index, results, iou_type)
        made.evaluate()
        made.accumulate()
        made.summarize()
    return made


def assert_same(truth, predictions, iou_type="bbox", difficult="ignore"):
    """Hold every flag and every figure against COCOeval."""
    made = judge(truth, predictions, iou_type, difficult == "ignore")
    assert_same_figures(coco_figures(truth, predictions, iou_type=iou_type, difficult=difficult), made)
    assert_same_flags(match_coco(truth, predictions, iou_type=iou_type, difficult=difficult), truth, made)


def assert_same_figures(figures, made):
    precision_TRKA = made.eval["precision"][..., -1]
    by_class = {
        "AP": precision_TRKA[:, :, :, 0],
        "AP50": precision_TRKA[:1, :, :, 0],
        **{name: precision_TRKA[..., a] for a, name in enumerate(("APs", "APm", "APl"), start=1)},
    }
    for name, value in zip(FIGURES, made.stats):
        assert figures[name] == pytest.approx(percent(value), abs=1e-10, nan_ok=True), name
    for k, values in enumerate(figures.per_class.values()):
        for name, precision in by_class.items():
            assert values[name] == pytest.approx(percent(precision[..., k].mean()), abs=1e-10, nan_ok=True), name


def percent(value):
    return math.nan if value == -1 else 100 * value


def assert_same_flags(matches, truth, made):
    ids = sorted(image["id"] for image in truth["images"])
    place_of = {image["id"]: place for place, image in enumerate(truth["images"])}
    assert len(matches) == len(made.params.catIds)
    for k, matched in enumerate(matches.values()):
        for a in range(len(SIZES)):
            start = (k * len(SIZES) + a) * len(ids)
            per_image = [entry for entry in made.evalImgs[start : start + len(ids)] if entry is not None]
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


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("seed", range(6))
def test_every_flag_is_that_of_cocoeval(seed, levels):
    truth, predictions = random_case(seed, images=8, levels=levels)
    truth["images"] = truth["images"][::-1]  # the file's order is not that of the ids
    assert_same(truth, predictions)


def test_difficult_objects_can_count():
    truth, predictions = random_case(7, images=8)
    assert_same(truth, predictions, difficult="count")


def test_crowded_images_with_more_than_100_detections():
    truth, predictions = random_case(1, images=3, classes=2, most_truths=40, most_guesses=400, levels=20)
    assert len(predictions) > 300
    assert_same(truth, predictions)


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


def test_masks_match_as_cocoeval_matches_them():
    random = np.random.default_rng(0)
    truth, predictions = random_case(3, images=5, classes=3)
    for image in truth["images"]:
        image["width"] = image["height"] = 260
    for entry in [*truth["annotations"], *predictions]:
        x, y, w, h = entry["bbox"]
        pixels = np.zeros((260, 260), dtype=np.uint8, order="F")
        pixels[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1] = 1
        pixels &= random.random((260, 260)) < 0.95
        entry["segmentation"] = mask.encode(pixels)
    for entry in truth["annotations"]:
        entry["area"] = int(mask.area(entry["segmentation"]))
    for entry in predictions:
        entry["segmentation"]["counts"] = entry["segmentation"]["counts"].decode()
    assert_same(truth, predictions, iou_type="segm")


def test_without_images_truths_or_detections():
    truth, predictions = random_case(1)
    assert all(not len(one.scores_D) and one.truths_AI.shape == (4, 12) for one in match_coco(truth, []).values())
    bare = {**truth, "annotations": []}
    for one in match_coco(bare, predictions).values():
        assert not one.truths_AI.any() and not one.hit_AD.any()
    assert match_coco(truth_of([], images=0), [])["cat"].truths_AI.shape == (4, 0)
