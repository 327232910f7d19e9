"""Resampled figures against files in which the images really are repeated, and the intervals' sense."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from tests.evaluation.cases import guess, random_case, thing, truth_of
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.files import EvaluationError
from vertebra.evaluation.metrics.voc import voc_figures
from vertebra.evaluation.statistics.bootstrap import bootstrap_difference, bootstrap_interval, bootstrap_steps
from vertebra.evaluation.statistics.resampling import draw_counts


def figure(truth, predictions, metric):
    if metric.startswith("coco"):
        return coco_figures(truth, predictions)["AP50" if metric == "coco50" else "AP"]
    return voc_figures(truth, predictions, metric=metric).mAP


def repeated(truth, predictions, counts_I):
    """The truth and the predictions in which image i occurs counts_I[i] times, under new ids."""
    ids = [image["id"] for image in truth["images"]]
    images, annotations, copies = [], [], []
    for id_, count in zip(ids, counts_I):
        for _ in range(count):
            new = len(images) + 1
            images.append({"id": new})
            annotations += [{**e, "image_id": new} for e in truth["annotations"] if e["image_id"] == id_]
            copies += [{**e, "image_id": new} for e in predictions if e["image_id"] == id_]
    return {**truth, "images": images, "annotations": annotations}, copies


@pytest.mark.parametrize("metric", ["voc07", "voc10", "coco", "coco50"])
def test_the_estimate_is_the_figure_itself(metric):
    truth, predictions = random_case(0, levels=5)
    interval = bootstrap_interval(truth, predictions, metric=metric, resamples=2)
    assert interval.estimate == pytest.approx(figure(truth, predictions, metric), abs=1e-12)


@pytest.mark.parametrize("metric", ["voc07", "voc10", "coco", "coco50"])
@pytest.mark.parametrize("seed", range(3))
def test_a_resample_scores_as_files_with_repeated_images(metric, seed):
    truth, predictions = random_case(seed)
    counts_SI = draw_counts(len(truth["images"]), 4, seed)
    naive = [figure(*repeated(truth, predictions, counts_I), metric) for counts_I in counts_SI]
    interval = bootstrap_interval(truth, predictions, metric=metric, resamples=4, seed=seed, level=0.9)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(naive, [0.05, 0.95])), abs=1e-6)


def test_every_resample_has_as_many_images_as_there_are():
    counts_SI = draw_counts(30, 50, 0)
    assert counts_SI.shape == (50, 30) and (counts_SI.sum(axis=1) == 30).all()
    assert (counts_SI == draw_counts(30, 50, 0)).all() and (counts_SI != draw_counts(30, 50, 1)).any()


def test_the_interval_holds_the_estimate_and_narrows_with_images():
    def width(images):
        objects = [thing([0, 0, 10, 10], image=image) for image in range(1, images + 1)]
        found = [guess([0, 0, 10, 10], 0.5, image=image) for image in range(1, images + 1, 2)]
        interval = bootstrap_interval(truth_of(objects, images=images), found, metric="voc10", resamples=400)
        assert interval.low <= interval.estimate <= interval.high
        assert interval.estimate == pytest.approx(50)
        return interval.high - interval.low

    # Half found without a mistake: AP is the share of found images, whose 95 % interval is +-1.96 sqrt(1/4n).
    assert width(100) == pytest.approx(2 * 196 * math.sqrt(0.25 / 100), rel=0.15)
    assert width(400) == pytest.approx(2 * 196 * math.sqrt(0.25 / 400), rel=0.15)


def test_a_detector_does_not_differ_from_itself():
    truth, predictions = random_case(1)
    interval = bootstrap_difference(truth, predictions, predictions, resamples=50)
    assert (interval.estimate, interval.low, interval.high, interval.above_zero) == (0, 0, 0, 0)


def test_a_paired_difference_is_second_minus_first_on_the_same_draws():
    truth, second = random_case(1, images=20)
    first = second[: len(second) // 2]
    counts_SI = draw_counts(20, 12, seed=3)
    naive = [
        figure(*repeated(truth, second, counts_I), "voc07") - figure(*repeated(truth, first, counts_I), "voc07")
        for counts_I in counts_SI
    ]
    interval = bootstrap_difference(truth, first, second, resamples=12, seed=3)
    assert interval.estimate == pytest.approx(figure(truth, second, "voc07") - figure(truth, first, "voc07"))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])))
    assert interval.above_zero == np.mean(np.array(naive) > 0)


def test_pairing_narrows_the_interval_of_two_detectors_that_err_alike():
    objects = [thing([0, 0, 10, 10], image=image) for image in range(1, 101)]
    truth = truth_of(objects, images=100)
    first = [guess([0, 0, 10, 10], 0.5, image=image) for image in range(1, 51)]
    second = [guess([0, 0, 10, 10], 0.5, image=image) for image in range(1, 56)]
    paired = bootstrap_difference(truth, first, second, metric="voc10", resamples=300)
    apart = bootstrap_interval(truth, second, metric="voc10", resamples=300)
    assert paired.estimate == pytest.approx(5)
    assert paired.low > 0
    assert paired.high - paired.low < (apart.high - apart.low) / 2


def test_steps_are_the_differences_of_neighbours():
    truth, third = random_case(1)
    rows = [third[: len(third) // 3], third[: len(third) // 2], third]
    steps = bootstrap_steps(truth, rows, metric="coco50", resamples=9, seed=2)
    assert steps == [
        bootstrap_difference(truth, before, after, metric="coco50", resamples=9, seed=2)
        for before, after in pairwise(rows)
    ]


def test_classes_can_be_chosen():
    truth, predictions = random_case(1)
    interval = bootstrap_interval(truth, predictions, classes=["class2"], resamples=5)
    assert interval.estimate == pytest.approx(voc_figures(truth, predictions).per_class["class2"])
    assert interval.classes == 1
    with pytest.raises(EvaluationError, match=r"\['zebra'\] are not in the truth; it has class1, class2"):
        bootstrap_interval(truth, predictions, classes=["zebra"])


def test_a_class_that_a_resample_misses_is_left_out_of_its_mean():
    # One image has the only dog. Cats are all found, the dog is not: without it the mean is 100.
    objects = [thing([0, 0, 10, 10], image=1), thing([0, 0, 10, 10], image=2, category=2)]
    truth = truth_of(objects, images=2, classes=("cat", "dog"))
    interval = bootstrap_interval(truth, [guess([0, 0, 10, 10], 0.9)], resamples=200)
    assert interval.estimate == pytest.approx(50)
    assert (interval.low, interval.high) == pytest.approx((0, 100))


def test_a_thousand_resamples_of_many_detections_stay_within_memory(monkeypatch):
    truth, predictions = random_case(1)
    whole = bootstrap_interval(truth, predictions, resamples=64)
    monkeypatch.setattr("vertebra.evaluation.statistics.reweighting._CHUNK", 10)
    assert bootstrap_interval(truth, predictions, resamples=64) == whole


def test_empty_predictions_have_an_interval_of_0():
    truth, _ = random_case(1)
    interval = bootstrap_interval(truth, [], metric="coco", resamples=10)
    assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)


@pytest.mark.parametrize("wrong", [{"metric": "map"}, {"resamples": 0}, {"level": 1.0}])
def test_unknown_options_are_refused(wrong):
    with pytest.raises(EvaluationError):
        bootstrap_interval(*random_case(1), **wrong)
