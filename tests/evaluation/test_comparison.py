"""Differences between backbones: hand-worked cases, and how often intervals hold in a world whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.evaluation.cases import guess, random_case, thing, truth_of
from vertebra.evaluation.statistics.comparison import (
    compare_sides,
    corrected,
    figure_interval,
    holm,
    mean_and_spread,
    t_of_p,
    two_sided_p,
)
from vertebra.evaluation.statistics.resampling import compare, draw_counts, resample_voc
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json


def side(*values: float, resamples: int = 5) -> np.ndarray:
    """Runs whose figure no resample changes."""
    return np.repeat(np.array(values)[:, None], 1 + resamples, axis=1)


@pytest.mark.parametrize("freedom, t", [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (120, 1.980)])
def test_quantiles_are_those_of_the_tables(freedom, t):
    assert t_of_p(0.05, freedom) == pytest.approx(t, abs=5e-4)
    assert two_sided_p(t_of_p(0.05, freedom), freedom) == pytest.approx(0.05, abs=1e-9)


def test_tails_have_their_closed_forms():
    for t in (0.0, 0.3, 1.0, 2.5, 40.0):
        assert two_sided_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-12)
        assert two_sided_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)
        assert two_sided_p(-t, 1e7) == pytest.approx(two_sided_p(t, math.inf), abs=1e-6)
    assert t_of_p(0.05, math.inf) == pytest.approx(1.959964, abs=1e-6)


def test_seeds_alone_give_welchs_test():
    # Variances 2 and 8 over two seeds each: 1 + 4 = 5 of the difference, with 25 / (1 + 16) degrees of freedom.
    one = compare_sides(side(10, 12), side(15, 19))
    assert one.estimate == 6 and one.standard_error == pytest.approx(math.sqrt(5))
    assert one.freedom == pytest.approx(25 / 17) and one.covers == "seeds and images"
    half = t_of_p(0.05, 25 / 17) * math.sqrt(5)
    assert (one.low, one.high) == pytest.approx((6 - half, 6 + half))
    assert one.p_value > 0.05 and not one.distinguishable


@pytest.mark.parametrize("taste, counted", [(0.0, 1.0), (3.0, 1.0), (3.6, 0.4), (4.0, 0.0), (5.0, 0.0)])
def test_the_doubt_in_seeds_fades_where_little_is_left_of_them_but_their_taste_in_images(taste, counted):
    # The first side's runs are alike. The second's mean has a variance of 4 over seeds, `taste` of it by the images;
    # all runs of it see the images vary by 10.
    taste_S = np.array([0, 1, -1, 1, -1, 0]) * math.sqrt(taste)
    images_S = np.array([0, 1, 1, -1, -1, 0]) * math.sqrt(10)
    one = compare_sides(side(10, 10), side(18, 22) + images_S + np.stack([taste_S, -taste_S]))
    added = max(0, 4 - taste)
    assert one.estimate == 10 and one.standard_error == pytest.approx(math.sqrt(10 + added))
    assert one.freedom == (pytest.approx((10 + added) ** 2 / (16 * counted)) if counted else math.inf)


def test_freedom_is_that_of_the_fewest_seeds_at_least():
    taste_S = np.array([0, 1, -1, 1, -1, 0]) * math.sqrt(3)
    assert compare_sides(side(10, 10), side(18, 22) + np.stack([taste_S, -taste_S])).freedom == 1


def test_one_seed_covers_image_sampling_only():
    random = np.random.default_rng(0)
    images_1S = random.normal(0, 2, (1, 4001))
    first, second = 30 + images_1S, 33 + images_1S + random.normal(0, 0.5, (1, 4001))
    first[0, 0], second[0, 0] = 30, 33
    one = compare_sides(first, second)
    assert one.covers == "images" and math.isinf(one.freedom) and one.seeds == (1, 1)
    assert (one.low, one.high) == pytest.approx((3 - 0.98, 3 + 0.98), abs=0.04)  # what is common cancels
    assert compare_sides(first, np.concatenate([second, second + 1])).covers == "images"
    assert as_json(one)["freedom"] is None and as_json(one)["distinguishable"]


def test_sides_exchanged_change_the_sign_alone():
    random = np.random.default_rng(1)
    first, second = random.normal(30, 1, (3, 50)), random.normal(31, 1, (2, 50))
    there, back = compare_sides(first, second), compare_sides(second, first)
    assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    assert there.p_value == pytest.approx(back.p_value)
    assert (there.low > 0 or there.high < 0) == there.distinguishable


def test_equal_runs_do_not_differ():
    one = compare_sides(side(20, 20), side(20, 20))
    assert (one.estimate, one.low, one.high, one.p_value) == (0, 0, 0, 1) and not one.distinguishable


def test_resamples_without_a_figure_are_left_out():
    first, second = side(20.0, resamples=9), side(21.0, resamples=9)
    first[0, 3] = np.nan
    assert compare_sides(first, second).estimate == 1
    first[0, 0] = np.nan
    assert compare_sides(first, second) is None


def found_or_not(random, images, seeds, of=200):
    """A class that `images` of the data set's images show once each, and two equal detectors that find it or do not:
    AP is the share found."""
    ease_I = random.normal(0, 1, images)
    drawn_SI = random.multinomial(of, [1 / of] * images + [1 - images / of], size=100)[:, :images]
    counts_SI = np.concatenate([np.ones((1, images), int), drawn_SI])
    with np.errstate(invalid="ignore"):
        weights_SI = counts_SI / counts_SI.sum(axis=1, keepdims=True)
    sides = [100.0 * (ease_I + random.normal(0, 1, (seeds, images)) > 0) @ weights_SI.T for _ in range(2)]
    return compare_sides(*sides, images=images)


@pytest.mark.parametrize("images, seeds", [(2, 1), (3, 1), (3, 2), (6, 1), (6, 3), (10, 1), (10, 2)])
def test_equal_detectors_are_not_told_apart_by_a_class_that_few_images_have(images, seeds):
    random = np.random.default_rng([images, seeds])
    pairs = [found_or_not(random, images, seeds) for _ in range(300)]
    assert np.mean([one.distinguishable for one in pairs]) <= 0.07
    assert all(one.distinguishable == (one.low > 0 or one.high < 0) for one in pairs)


def test_one_image_tells_nothing_of_others():
    assert compare_sides(side(0), side(100), images=1) is None
    assert compare_sides(side(0, 0), side(100, 100), images=1) is None


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("images", [2, 5, 6, 12])
def test_no_p_value_is_below_the_sign_tests_of_images_that_all_agree(images, seeds):
    one = compare_sides(side(*[0] * seeds), side(*[100] * seeds), images=images)
    assert one.p_value == pytest.approx(2 * 0.5**images) and one.freedom == images - 1
    assert one.distinguishable == (images >= 6) == (one.low > 0)
    assert two_sided_p(one.estimate / one.standard_error, images - 1) == pytest.approx(one.p_value)


def test_few_images_widen_the_interval_to_that_of_students_t():
    random = np.random.default_rng(2)
    change_S = np.concatenate([[3.0], random.normal(3, 1.5, 400)])
    first, second = side(20, resamples=400), 20 + change_S[None]
    few, many = compare_sides(first, second, images=8), compare_sides(first, second)
    assert few.standard_error == pytest.approx(many.standard_error * math.sqrt(8 / 7)) and few.freedom == 7
    assert few.high - 3 == pytest.approx(t_of_p(0.05, 7) * few.standard_error)
    enough = compare_sides(first, second, images=20_000)
    assert (enough.low, enough.p_value) == pytest.approx((many.low, many.p_value), rel=0.01)


def test_the_doubt_of_few_images_joins_that_of_the_seeds():
    # Seeds give variances of 1 and 4 with a freedom of 1 each, images 10 * 6 / 5 with one of 5.
    images_S = np.array([0, 1, 1, -1, -1, 0]) * math.sqrt(10)
    one = compare_sides(side(10, 12), side(15, 19) + images_S, images=6)
    assert one.standard_error == pytest.approx(math.sqrt(17))
    assert one.freedom == pytest.approx(17**2 / (12**2 / 5 + 1 + 16))


def made_up_pair(random, images, seeds, seed_deviation):
    """A figure that is a mean over images: of the image's ease, the seed's luck, and the seed's taste in images."""
    ease_I = random.normal(0, 4, images)
    counts_SI = np.concatenate([np.ones((1, images), int), draw_counts(images, 100, int(random.integers(1 << 30)))])
    sides = []
    for _ in range(2):
        luck_K1 = random.normal(0, seed_deviation, (seeds, 1))
        sides.append((50 + ease_I + luck_K1 + random.normal(0, 4, (seeds, images))) @ counts_SI.T / images)
    return compare_sides(*sides)


@pytest.mark.parametrize("seed_deviation", [0.0, 0.5, 2.0])
def test_the_interval_of_equal_sides_holds_0_in_95_of_100_fresh_pairs(seed_deviation):
    random = np.random.default_rng(5)
    pairs = [made_up_pair(random, 60, 3, seed_deviation) for _ in range(600)]
    assert 0.92 <= np.mean([one.low <= 0 <= one.high for one in pairs]) <= 0.98
    # The seeds' taste in images is counted once: the error is that of the estimates, and where seeds differ in nothing
    # else a little more, as a negative variance of seeds is taken for none.
    ratio = np.mean([one.standard_error**2 for one in pairs]) / np.var([one.estimate for one in pairs])
    assert 0.85 < ratio < (1.7 if seed_deviation < 1 else 1.15)


def half_found(images):
    """A class that every image shows once, found in every second image: AP is the share of images that are drawn."""
    truth = truth_of([thing([0, 0, 10, 10], image=image) for image in range(1, images + 1)], images=images)
    found = [guess([0, 0, 10, 10], 0.5, image=image) for image in range(1, images + 1, 2)]
    return resample_voc(truth, found, draw_counts(images, 400, 0), metric="voc10")


@pytest.mark.parametrize("images", [100, 400])
def test_the_interval_of_a_figure_is_that_of_a_share_of_the_images(images):
    values = half_found(images)
    one = figure_interval(values.mean_S, images=values.images)
    assert one.estimate == pytest.approx(50) and one.low + one.high == pytest.approx(100)
    assert one.high - one.low == pytest.approx(2 * 196 * math.sqrt(0.25 / images), rel=0.1)


def test_the_interval_of_a_figure_stays_within_the_scale_and_needs_two_images():
    values_S = np.concatenate([[99.0], np.random.default_rng(0).normal(99, 2, 200)])
    assert figure_interval(values_S, images=30).high == 100 and figure_interval(100 - values_S, images=30).low == 0
    assert as_json(figure_interval(values_S, images=1)) == {"estimate": 99, "low": None, "high": None, "level": 0.95}
    assert as_json(figure_interval(np.full(9, math.nan), images=0))["estimate"] is None
    assert (figure_interval(np.zeros(9), images=9).low, figure_interval(np.zeros(9), images=9).high) == (0, 0)


def test_pairing_narrows_the_interval_of_two_detectors_that_err_alike():
    truth, found = random_case(1, images=40)
    first, second = (resample_voc(truth, part, draw_counts(40, 200, 0)) for part in (found[: len(found) // 2], found))
    one, alone = compare([first], [second]), figure_interval(second.mean_S, images=second.images)
    assert one.estimate == pytest.approx(second.mean_S[0] - first.mean_S[0])
    assert one.high - one.low < alone.high - alone.low
    same = compare([second], [second])
    assert (same.estimate, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert compare([first], [second], of="class2") == compare_sides(
        first.of("class2")[None], second.of("class2")[None], images=first.images_of("class2")
    )


def test_holm_multiplies_by_what_is_left():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def test_classes_are_corrected_together_and_those_without_truths_stay_out():
    random = np.random.default_rng(0)
    first = random.normal(30, 1, (1, 200))
    by_class = corrected(
        {"cat": compare_sides(first, first + 5), "dog": None, "cow": compare_sides(first, first[:, ::-1])}
    )
    assert by_class["dog"] is None
    assert by_class["cow"].adjusted_p == max(by_class["cow"].p_value, 2 * by_class["cat"].p_value)
    assert by_class["cat"].adjusted_p == 0 and by_class["cat"].distinguishable


def test_mean_and_spread_over_seeds():
    assert mean_and_spread([1.0, 3.0]) == (2, pytest.approx(math.sqrt(2)))
    assert mean_and_spread([4.0]) == (4, None)


def test_wrong_input_is_refused():
    with pytest.raises(UserError, match="same resamples"):
        compare_sides(side(1), side(2, resamples=7))
