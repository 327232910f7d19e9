"""AP by size and crowding and recall of proposals against pycocotools; matching against a plain loop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.evaluation.cases import guess, perfect, random_case, thing, truth_of
from tests.evaluation.cocoeval import cocoeval
from vertebra.evaluation.metrics.average_precision import COCO_LEVELS, Matched, average_precision
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.matching import take
from vertebra.evaluation.metrics.overlaps import Pairs, measure, neighbours
from vertebra.evaluation.why.proposals import LIMITS, proposal_recall
from vertebra.evaluation.why.slices import Slice, by_crowding, by_size, slice_figures
from vertebra.ground.errors import UserError


def without_difficult(truth):
    return {**truth, "annotations": [{**entry, "difficult": 0} for entry in truth["annotations"]]}


def mean_percent(values):
    return 100 * values[values > -1].mean()


@pytest.mark.parametrize("seed", range(20))
def test_proposals_in_rounds_are_the_greedy_matching(seed):
    random = np.random.default_rng(seed)
    iou_DG = np.round(random.random((12, 6)), 1) * (random.random((12, 6)) < 0.5)
    shared_G = random.random(6) < 0.2
    free_G, expected = np.ones(6, dtype=bool), []
    for row_G in iou_DG:
        best = int(np.argmax(np.where(free_G, row_G, -1)))
        taken = row_G[best] > 0 and bool(free_G[best])
        expected.append(best if taken else -1)
        free_G[best] &= not taken or shared_G[best]
    d, g = np.nonzero(iou_DG)
    order = np.lexsort((g, -iou_DG[d, g], d))
    pairs = Pairs(d[order], g[order], iou_DG[d, g][order])
    assert take(pairs, 12, 6, shared_G).tolist() == expected


@pytest.mark.parametrize("difficult", ["ignore", "count"])
@pytest.mark.parametrize("seed", range(4))
def test_three_sizes_are_those_of_coco(seed, difficult):
    truth, predictions = random_case(seed, images=20)
    figures = coco_figures(truth, predictions, difficult=difficult)
    sizes, _ = by_size(measure(truth, predictions, difficult=difficult))
    assert [one.ap for one in sizes] == pytest.approx([figures[name] for name in ("APs", "APm", "APl")], abs=1e-9)


def test_fifths_by_area_hold_equal_numbers_and_are_what_pycocotools_makes_of_such_ranges():
    truth, predictions = random_case(5, images=40)
    truth = without_difficult(truth)
    _, fifths = by_size(measure(truth, predictions))
    counts = [one.truths for one in fifths]
    assert len(counts) == 5 and max(counts) - min(counts) <= 1
    areas = [entry["area"] for entry in truth["annotations"] if not entry["iscrowd"]]
    edges = [0, *np.quantile(areas, [0.2, 0.4, 0.6, 0.8]), 1e10]
    ranges = [[low, np.nextafter(high, 0)] for low, high in pairwise(edges)]
    expected = cocoeval(truth, predictions, areaRng=ranges, areaRngLbl=list("abcde"), maxDets=[100])
    precision_TRKAM = expected.eval["precision"]
    assert [one.ap for one in fifths] == pytest.approx([mean_percent(precision_TRKAM[..., a, 0]) for a in range(5)])
    assert [one.ap50 for one in fifths] == pytest.approx(
        [mean_percent(precision_TRKAM[0, :, :, a, 0]) for a in range(5)]
    )


def test_crowding_parts_truths_by_their_neighbours():
    truth = truth_of(
        [
            thing([0, 0, 10, 10]),
            thing([0, 0, 10, 8], category=2),  # IoU 0.8 with the first
            thing([50, 50, 10, 10]),
            thing([0, 0, 10, 10], image=2),
        ],
        images=2,
        classes=("cat", "dog"),
    )
    crowding = by_crowding(measure(truth, perfect(truth, 0.9)), truth)
    assert {name: [one.truths for one in figures] for name, figures in crowding.items()} == {
        "overlap": [2, 0, 0, 0, 2],
        "overlap_in_class": [4, 0, 0, 0, 0],
        "neighbours": [1, 3, 0, 0],
    }
    assert crowding["overlap"][4].ap == pytest.approx(100) and crowding["overlap"][4].recall50 == 100
    assert np.isnan(crowding["overlap"][1].ap)


def test_neighbours_see_each_other_from_both_sides_whatever_the_order_of_the_file():
    truth = truth_of([thing([0, 0, 10, 10], image=2), thing([0, 0, 9, 9]), thing([0, 0, 10, 5], image=2)], images=2)
    others_G, pairs = neighbours(truth)
    assert others_G.tolist() == [1, 0, 1]
    assert sorted(zip(pairs.detection_P, pairs.truth_P, pairs.iou_P)) == [(0, 2, 0.5), (2, 0, 0.5)]


def test_equal_detection_in_every_part_gives_equal_normalised_figures():
    """Three quarters of the truths in one part, found like the others: only normalising makes the figures equal."""
    objects, guesses = [], []
    for image in range(1, 801):
        objects.append(thing([0, 0, 10, 10], image=image))
        if image % 8 < 4:
            guesses.append(guess([0, 0, 10, 10], 1 - image / 10000, image=image))
        guesses.append(guess([50, 50, 10, 10], 1 - image / 10000 - 1e-5, image=image))
    truth = truth_of(objects, images=800)
    overlaps = measure(truth, guesses)
    part_G, every_D = np.arange(800) % 4 == 0, np.ones(len(guesses), dtype=bool)
    for normalised in (True, False):
        few, many = slice_figures(
            overlaps,
            [Slice(name, wanted_G, every_D, normalised) for name, wanted_G in (("few", part_G), ("many", ~part_G))],
        )
        assert (few.truths, many.truths) == (200, 600)
        assert (abs(few.ap50 - many.ap50) < 2) == normalised


@pytest.mark.parametrize("weight", [1.0, 3.5])
def test_weighted_ap_is_the_sum_over_recall_levels(weight):
    hit_D = np.random.default_rng(1).random(60) < 0.4
    found, curve = 0, []
    for place, hit in enumerate(hit_D):
        found += int(hit)
        curve.append((found / 30, weight * found / (weight * found + place + 1 - found) if found else 0.0))
    expected = np.mean([max((p for r, p in curve if r >= level), default=0.0) for level in np.linspace(0, 1, 101)])
    none_1D, truths_11 = np.zeros((1, 60), np.uint16), np.array([[30]])
    matched = Matched(np.zeros(60, int), np.linspace(1, 0, 60), hit_D.astype(np.uint16)[None], none_1D, truths_11, 1)
    assert matched.precision_at(COCO_LEVELS, weight=weight).mean() == pytest.approx(expected)
    if weight == 1:
        assert average_precision(matched, COCO_LEVELS) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_recall_of_proposals_is_pycocotools_without_classes(seed):
    truth, predictions = random_case(seed, images=6, most_truths=30, most_guesses=800)
    truth = without_difficult(truth)
    recall_TKAM = cocoeval(truth, predictions, useCats=0, maxDets=list(LIMITS)).eval["recall"]
    nameless = [{key: value for key, value in entry.items() if key != "category_id"} for entry in predictions]
    for a, row in enumerate(proposal_recall(truth, nameless)):
        assert list(row.average.values()) == pytest.approx((100 * recall_TKAM[:, 0, a]).mean(axis=0))
        assert list(row.at50.values()) == pytest.approx(100 * recall_TKAM[0, 0, a])


def test_a_proposal_without_a_score_ends_in_a_sentence():
    with pytest.raises(UserError, match="has no score"):
        proposal_recall(truth_of([thing([0, 0, 5, 5])]), [{"image_id": 1, "bbox": [0, 0, 5, 5]}])
