"""Confusion and calibration: worked by hand, by plain loops, and by what must add up."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from tests.evaluation.cases import guess, random_case, thing, truth_of
from tests.evaluation.naive_matching import best_threshold, match_images
from vertebra.evaluation.metrics.files import read_predictions
from vertebra.evaluation.metrics.overlaps import measure
from vertebra.evaluation.why.calibration import calibration
from vertebra.evaluation.why.confusion import confusion
from vertebra.evaluation.why.operating import best_score, hits
from vertebra.ground.parse import as_json

OBJECT, OTHER, FAR = [0, 0, 10, 10], [30, 30, 10, 10], [70, 70, 10, 10]


def test_each_detection_and_each_object_has_its_cell():
    truth = truth_of([thing(OBJECT), thing(OTHER, category=2), thing(FAR, category=2)], classes=("cat", "dog"))
    predictions = [
        guess(OBJECT, 0.9),  # right
        guess(OBJECT, 0.8, category=2),  # the cat is found already: background
        guess(OTHER, 0.7, category=1),  # dog taken for cat
        guess(FAR, 0.2, category=2),  # below the score: missed
        guess([50, 0, 5, 5], 0.6, category=1),  # nothing there
    ]
    found = confusion(measure(truth, predictions), 0.5)
    assert found.counts.tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0]]
    assert found.to_dict()["most_confused"] == [["dog", "cat", 1]]
    counts = found.to_dict()
    assert (counts["right"], counts["wrong_class"], counts["background"], counts["missed"]) == (1, 1, 2, 1)


def test_a_detection_prefers_its_own_class_to_a_better_overlap():
    truth = truth_of([thing(OBJECT), thing([0, 0, 10, 7], category=2)], classes=("cat", "dog"))
    found = confusion(measure(truth, [guess(OBJECT, 0.9, category=2)]), 0.0)
    assert found.counts.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_rows_add_up_to_the_objects_and_columns_to_the_detections(seed):
    truth, predictions = random_case(seed)
    overlaps = measure(truth, predictions)
    counts = confusion(overlaps, 0.3).counts
    _, counted_D = hits(overlaps)
    shown_D = counted_D & (overlaps.score_D >= 0.3)
    assert counts[:-1].sum(axis=1).tolist() == overlaps.truths_by_class(~overlaps.aside_G).tolist()
    assert counts[:, :-1].sum() == shown_D.sum()
    taken_D, _ = hits(overlaps)
    assert np.trace(counts[:-1, :-1]) == (taken_D[shown_D] >= 0).sum()


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_score_to_show_from_is_the_one_that_a_loop_finds(seed, levels):
    truth, predictions = random_case(seed, levels=levels)
    for entry in truth["annotations"]:
        entry.update(iscrowd=0, difficult=0)  # the loop lets a crowd's neighbours off more generously
    expected = best_threshold(list(match_images(truth, predictions).values()))
    assert best_score(measure(truth, predictions)) == expected


def test_expected_calibration_error_of_a_case_worked_by_hand():
    truth = truth_of([thing(OBJECT, image=image) for image in (1, 2, 3)], images=4)
    predictions = [
        guess(OBJECT, 0.95, image=1),
        guess(OBJECT, 0.93, image=2),
        guess(OBJECT, 0.91, image=4),  # bin 0.9 to 1.0: score 0.93, precision 2/3
        guess(OBJECT, 0.35, image=3),  # bin 0.3 to 0.4: score 0.35, precision 1
    ]
    found = calibration(measure(truth, predictions), truth, read_predictions(predictions, truth))
    assert found.ece == pytest.approx(100 * (3 * (0.93 - 2 / 3) + 0.65) / 4)
    assert found.per_class == {"cat": (4, pytest.approx(found.ece))}
    assert (found.bins[9].detections, found.bins[9].score, found.bins[9].precision) == (
        3,
        pytest.approx(0.93),
        pytest.approx(2 / 3),
    )
    assert math.isnan(found.bins[0].score) and as_json(found)["bins"][0]["score"] is None
    assert math.isnan(found.d_ece) and found.d_ece_share == 0  # no bin of eight


def test_errors_over_bins_are_those_of_a_plain_loop():
    truth, predictions = random_case(2, images=60, most_guesses=40)
    for image in truth["images"]:
        image.update(width=400, height=400)
    overlaps = measure(truth, predictions)
    found = calibration(overlaps, truth, read_predictions(predictions, truth))
    taken_D, asked_D = hits(overlaps)
    by_score, by_class, by_box = defaultdict(list), defaultdict(list), defaultdict(list)
    for d in np.flatnonzero(asked_D):
        entry = predictions[overlaps.source_D[d]]
        pair = (entry["score"], taken_D[d] >= 0)
        x, y, width, height = (value / 400 for value in entry["bbox"])
        by_score[min(int(entry["score"] * 10), 9)].append(pair)
        by_class[entry["category_id"], min(int(entry["score"] * 10), 9)].append(pair)
        where = (entry["score"], x + width / 2, y + height / 2, width, height)
        by_box[tuple(min(int(value * 5), 4) for value in where)].append(pair)

    def error(bins):
        gaps = [len(b) * abs(np.mean([s for s, _ in b]) - np.mean([r for _, r in b])) for b in bins]
        return 100 * sum(gaps) / sum(map(len, bins))

    assert found.ece == pytest.approx(error(list(by_score.values())))
    for k, name in enumerate(overlaps.names, start=1):
        bins = [b for (category, _), b in by_class.items() if category == k]
        assert found.per_class[name] == (sum(map(len, bins)), pytest.approx(error(bins)))
    full = [b for b in by_box.values() if len(b) >= 8]
    assert full and found.d_ece == pytest.approx(error(full))
    assert found.d_ece_share == pytest.approx(sum(map(len, full)) / asked_D.sum())


def test_scores_that_are_no_probabilities_have_no_calibration():
    truth = truth_of([thing(OBJECT)])
    predictions = [guess(OBJECT, 3.2)]
    assert calibration(measure(truth, predictions), truth, read_predictions(predictions, truth)) is None
