"""Resampled figures against pycocotools and the VOC metric on data in which images really are repeated."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.cases import guess, random_case, repeated, thing, truth_of
from vertebra.evaluation.metrics.average_precision import (
    COCO_LEVELS,
    ELEVEN_LEVELS,
    Matched,
    average_precision,
    average_precisions,
)
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.voc import voc_figures
from vertebra.evaluation.statistics.resampling import COCO_FIGURES, Resampled, draw_counts, resample_coco, resample_voc
from vertebra.evaluation.why.errors import LEVELS as TIDE_LEVELS
from vertebra.ground.errors import UserError

PER_CLASS = ("AP", "AP50", "APs", "APm", "APl")


TO_ROUNDING = {"abs": 1e-4, "rel": 0, "nan_ok": True}  # resamples are weighed in float32


@pytest.fixture
def reached_exactly(monkeypatch):
    """A recall that is a level reaches it, as for resamples: pycocotools' rounding takes ten levels for a bit more."""
    for name, levels_L in {"coco.COCO_LEVELS": COCO_LEVELS, "voc.ELEVEN_LEVELS": ELEVEN_LEVELS}.items():
        monkeypatch.setattr(f"vertebra.evaluation.metrics.{name}", levels_L - 1e-12)


def ones(truth):
    return np.ones((1, len(truth["images"])), dtype=np.int64)


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("seed", range(4))
def test_of_the_images_as_they_are_every_figure_is_pycocotools(seed, levels):
    truth, predictions = random_case(seed, levels=levels, images=15, most_guesses=30)
    reference = coco_figures(truth, predictions)
    resampled = resample_coco(truth, predictions, ones(truth), figures=list(COCO_FIGURES))
    for name in COCO_FIGURES:
        assert resampled[name].mean_S[0] == pytest.approx(reference[name], abs=1e-12, rel=0, nan_ok=True)
    for name in PER_CLASS:
        expected = [values[name] for values in reference.per_class.values()]
        assert resampled[name].per_class_SC[0].tolist() == pytest.approx(expected, abs=1e-12, rel=0, nan_ok=True)


def untied_within_images(predictions):
    """Equal scores between images, none between detections of one image and class: their order is a convention."""
    seen: dict[tuple[int, int], set[float]] = {}
    return [
        entry
        for entry in predictions
        if entry["score"] not in seen.setdefault((entry["image_id"], entry["category_id"]), set())
        and not seen[entry["image_id"], entry["category_id"]].add(entry["score"])
    ]


@pytest.mark.parametrize("levels", [None, 6])
@pytest.mark.parametrize("seed", range(2))
def test_a_resample_is_pycocotools_on_repeated_images(seed, levels, reached_exactly):
    truth, predictions = random_case(seed, levels=levels, images=6, classes=5, most_truths=2)
    predictions = untied_within_images(predictions)
    counts_SI = draw_counts(6, 5, seed)
    resampled = resample_coco(truth, predictions, counts_SI, figures=list(COCO_FIGURES))
    missed = 0
    for row, counts_I in enumerate(counts_SI, start=1):
        reference = coco_figures(*repeated(truth, predictions, counts_I))
        for name in COCO_FIGURES:
            assert resampled[name].mean_S[row] == pytest.approx(reference[name], **TO_ROUNDING)
        for name in PER_CLASS:
            expected = [values[name] for values in reference.per_class.values()]
            found = resampled[name].per_class_SC[row].tolist()
            assert found == pytest.approx(expected, **TO_ROUNDING)
            missed += np.isnan(found).sum() > np.isnan(resampled[name].per_class_SC[0]).sum()
    assert missed  # in some resample a class has lost its truths


@pytest.mark.parametrize("metric", ["voc07", "voc10"])
@pytest.mark.parametrize("seed", range(3))
def test_voc_figures_of_resamples_are_those_of_repeated_images(metric, seed, reached_exactly):
    truth, predictions = random_case(seed)
    counts_SI = draw_counts(12, 4, seed)
    resampled = resample_voc(truth, predictions, counts_SI, metric=metric)
    for row, counts_I in enumerate(counts_SI, start=1):
        figures = voc_figures(*repeated(truth, predictions, counts_I), metric=metric)
        assert resampled.mean_S[row] == pytest.approx(figures.mAP, **TO_ROUNDING)
        expected = list(figures.per_class.values())
        assert resampled.per_class_SC[row].tolist() == pytest.approx(expected, **TO_ROUNDING)


@pytest.mark.parametrize("levels_L", [ELEVEN_LEVELS, COCO_LEVELS, TIDE_LEVELS])
def test_a_recall_that_is_a_level_reaches_it_and_no_other(levels_L):
    truths_S, found_S = np.repeat(np.arange(1, 301), 301), np.tile(np.arange(301), 300)
    counts_SI = np.stack([found_S, truths_S - found_S], axis=1)[found_S <= truths_S]
    hit = np.ones((1, 1), np.uint16)
    matched = Matched(
        np.zeros(1, int), np.ones(1), hit, 0 * hit, np.ones((1, 2), int), 1
    )  # the second image's is missed
    reached_S = 1 + counts_SI[:, 0] * (len(levels_L) - 1) // counts_SI.sum(axis=1)
    expected_S = np.where(counts_SI[:, 0], reached_S, 0) / len(levels_L)
    assert average_precisions(matched, counts_SI, levels_L)[:, 0] == pytest.approx(expected_S, rel=1e-6)


@pytest.mark.parametrize("levels_L", [ELEVEN_LEVELS, COCO_LEVELS, TIDE_LEVELS])
def test_average_precision_is_the_mean_of_the_precision_at_the_levels(levels_L):
    random = np.random.default_rng(0)
    for _ in range(20):
        detections, images = int(random.integers(0, 40)), 9
        hit_1D, ignored_1D = random.random((2, 1, detections)) < 0.5
        matched = Matched(
            random.integers(0, images, detections),
            np.sort(random.random(detections))[::-1],
            (hit_1D & ~ignored_1D).astype(np.uint16),
            ignored_1D.astype(np.uint16),
            random.integers(3, 9, (1, images)),
            1,
        )
        assert average_precision(matched, levels_L) == pytest.approx(matched.precision_at(levels_L).mean(), abs=1e-14)


@pytest.mark.parametrize("hits", [1, 63, 64, 500])  # summed up in one go, and in blocks
@pytest.mark.parametrize("levels_L", [None, COCO_LEVELS])
def test_a_resample_that_draws_each_image_once_is_the_images_as_they_are(levels_L, hits):
    random = np.random.default_rng(hits)
    hit_1D = np.repeat(random.permutation([1] * hits + [0] * 2 * hits), 2)[None].astype(np.uint16)
    ignored_1D = (random.random(hit_1D.shape) < 0.2).astype(np.uint16) * (1 - hit_1D)
    image_D, score_D = random.integers(0, 9, hit_1D.shape[1]), np.arange(hit_1D.shape[1])[::-1]
    matched = Matched(image_D, score_D, hit_1D, ignored_1D, np.full((1, 9), hits), 1)
    expected = average_precision(matched, levels_L)
    assert average_precisions(matched, np.ones((2, 9)), levels_L) == pytest.approx(expected, rel=1e-5)


def test_one_threshold_alone_is_that_of_all():
    truth, predictions = random_case(5)
    counts_SI = draw_counts(12, 6, 0)
    together = resample_coco(truth, predictions, counts_SI, figures=["AP", "AP50", "AP75"])
    for name in ("AP50", "AP75"):
        alone = resample_coco(truth, predictions, counts_SI, figures=[name])[name]
        assert np.array_equal(alone.per_class_SC, together[name].per_class_SC, equal_nan=True)


def test_without_any_truth_there_is_no_figure():
    truth = truth_of([], images=3)
    assert np.isnan(resample_coco(truth, [], draw_counts(3, 2, 0))["AP"].mean_S).all()


def test_a_figure_knows_its_classes():
    shown_CI = np.array([[True, False, True, False], [False, False, True, True]])
    one = Resampled(("cat", "dog"), np.array([[10.0, 30.0], [np.nan, 50.0]]), shown_CI)
    assert one.mean_S.tolist() == [20, 50] and one.of("dog").tolist() == [30, 50]
    assert (one.images, one.images_of("cat"), one.images_of("dog")) == (3, 2, 2)


def test_unknown_figures_are_named():
    with pytest.raises(UserError, match=r"unknown figures \['AP95'\]; choose from AP, AP50"):
        resample_coco(*random_case(1), draw_counts(12, 1, 0), figures=["AP95"])


def test_every_resample_has_as_many_images_as_there_are():
    counts_SI = draw_counts(30, 50, 0)
    assert counts_SI.shape == (50, 30) and (counts_SI.sum(axis=1) == 30).all()
    assert (counts_SI == draw_counts(30, 50, 0)).all() and (counts_SI != draw_counts(30, 50, 1)).any()


def test_a_class_that_a_resample_misses_is_left_out_of_its_mean():
    # One image has the only dog. Cats are all found, the dog is not: without it the mean is 100.
    objects = [thing([0, 0, 10, 10], image=1), thing([0, 0, 10, 10], image=2, category=2)]
    truth = truth_of(objects, images=2, classes=("cat", "dog"))
    found = resample_voc(truth, [guess([0, 0, 10, 10], 0.9)], np.array([[2, 0], [1, 1], [0, 2]]))
    assert found.mean_S.tolist() == pytest.approx([50, 100, 50, 0])


def test_a_thousand_resamples_of_many_detections_stay_within_memory(monkeypatch):
    truth, predictions = random_case(1)
    counts_SI = draw_counts(12, 150, 0)
    whole = resample_voc(truth, predictions, counts_SI)
    monkeypatch.setattr("vertebra.evaluation.metrics.average_precision._AT_ONCE", 10)
    assert np.array_equal(resample_voc(truth, predictions, counts_SI).mean_S, whole.mean_S)


@pytest.mark.parametrize("images, resamples", [(0, 5), (5, 0)])
def test_draws_need_images_and_resamples(images, resamples):
    with pytest.raises(UserError, match="needs images and resamples"):
        draw_counts(images, resamples, 0)
