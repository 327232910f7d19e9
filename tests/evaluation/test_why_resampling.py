"""Errors of resamples against files in which images really are repeated, scored anew."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.cases import guess, random_case, repeated, thing, truth_of
from tests.evaluation.test_resampling import untied_within_images
from vertebra.evaluation.metrics.overlaps import measure
from vertebra.evaluation.metrics.summary import is_aside
from vertebra.evaluation.statistics.comparison import compare_sides
from vertebra.evaluation.statistics.resampling import draw_counts
from vertebra.evaluation.why.errors import KINDS, SPECIAL, classify, tide_errors
from vertebra.evaluation.why.explain import judge
from vertebra.evaluation.why.resampling import compare_errors, resample_errors
from vertebra.ground.errors import UserError


def same(value):
    return pytest.approx(value, abs=1e-4, rel=0, nan_ok=True)  # resamples are weighed in float32


def assert_row_is(resampled, row, expected, names):
    """One row of every figure, and of every class's, is what tide_errors returns."""
    assert list(resampled) == ["AP", *KINDS, *SPECIAL]
    assert {name: one.mean_S[row] for name, one in resampled.items()} == {
        "AP": same(expected.ap),
        **{name: same(value) for name, value in (expected.lost | expected.special).items()},
    }
    for name in names:
        if name in expected.per_class:
            found = {kind: resampled[kind].of(name)[row] for kind in ("AP", *KINDS)}
            assert found == {kind: same(expected.per_class[name][kind.replace("AP", "ap")]) for kind in found}
        else:
            assert all(np.isnan(one.of(name)[row]) for one in resampled.values())


@pytest.mark.parametrize("difficult", ["ignore", "count"])
@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("seed", range(3))
def test_a_resample_has_the_errors_of_repeated_images(seed, levels, difficult):
    truth, predictions = random_case(seed, levels=levels, images=8, classes=5, most_truths=3)
    predictions = untied_within_images(predictions)
    counts_SI = draw_counts(8, 6, seed)
    resampled = resample_errors(judge(truth, predictions, difficult=difficult).verdicts, counts_SI)
    names = [category["name"] for category in truth["categories"]]
    lost_truths = detections_alone = 0
    for row, counts_I in enumerate(np.concatenate([np.ones((1, 8), int), counts_SI])):
        expected = tide_errors(classify(measure(*repeated(truth, predictions, counts_I), difficult=difficult)))
        assert_row_is(resampled, row, expected, names)
        lost_truths += len(expected.per_class) < 4
        detections_alone += bool(expected.classes_without_truth)
    assert detections_alone and (lost_truths or difficult == "count")


def test_thresholds_are_those_that_are_asked_for():
    truth, predictions = random_case(7, images=10)
    resampled = resample_errors(judge(truth, predictions, iou=0.75, background=0.05).verdicts, draw_counts(10, 1, 0))
    expected = tide_errors(classify(measure(truth, predictions, floor=0.05), iou=0.75, background=0.05))
    assert_row_is(resampled, 0, expected, [category["name"] for category in truth["categories"]])
    with pytest.raises(UserError, match="background <= iou"):
        judge(truth, predictions, iou=0.1, background=0.5)


def test_only_the_hundred_best_of_an_image_count_however_often_it_is_drawn():
    truth, predictions = random_case(3, images=3, most_truths=20, most_guesses=300)
    counts_SI = np.array([[2, 1, 0], [0, 3, 0]])
    resampled = resample_errors(judge(truth, predictions).verdicts, counts_SI)
    for row, counts_I in enumerate(counts_SI, start=1):
        expected = tide_errors(classify(measure(*repeated(truth, predictions, counts_I))))
        assert_row_is(resampled, row, expected, [])


def test_chosen_classes_are_those_of_a_truth_of_these_alone():
    """Where classes never meet: otherwise leaving one out changes what a detection of another may be taken for."""
    objects = [thing([60 * c, 0, 10, 10], image=i, category=c) for i in (1, 2, 3) for c in (1, 2)]
    shifts = (6, 0, 40, 6, 0, 3)
    found = [
        guess([60 * e["category_id"], shift, 10, 10], 0.9 - place / 100, image=e["image_id"], category=e["category_id"])
        for place, (e, shift) in enumerate(zip(objects, shifts))
    ]
    counts_SI = draw_counts(3, 5, 0)
    both = resample_errors(judge(truth_of(objects, images=3, classes=("cat", "dog")), found).verdicts, counts_SI)
    cats = [[e for e in part if e["category_id"] == 1] for part in (objects, found)]
    alone = resample_errors(judge(truth_of(cats[0], images=3), cats[1]).verdicts, counts_SI)
    for name, one in both.items():
        assert one.of("cat") == same(alone[name].of("cat"))
    assert both["localisation"].mean_S.max() > 0


def test_sides_of_several_runs_differ_by_the_mean_of_theirs_and_kinds_are_corrected_together():
    truth, predictions = random_case(2, images=30)
    counts_SI = draw_counts(30, 20, 0)
    parts = [[e for e in predictions if e["score"] > least] for least in (0.0, 0.05, 0.4, 0.5)]
    runs = [resample_errors(judge(truth, part).verdicts, counts_SI) for part in parts]
    differences = compare_errors(runs[:2], runs[2:])
    assert list(differences) == ["AP", *KINDS, *SPECIAL] and differences["AP"].adjusted_p is None
    sides = [np.stack([run["background"].mean_S for run in side]) for side in (runs[:2], runs[2:])]
    alone = compare_sides(*sides, images=len({e["image_id"] for e in truth["annotations"] if not is_aside(e)}))
    assert differences["background"].estimate == alone.estimate < 0 and differences["background"].low == alone.low
    assert differences["background"].adjusted_p >= differences["background"].p_value == alone.p_value
    nothing = [resample_errors(judge(truth_of([], images=3), []).verdicts, counts_SI[:, :3])]
    assert set(compare_errors(nothing, nothing).values()) == {None}
