"""How much of a figure, or of a difference between two backbones, is luck: of the seeds and of the test images.

Legend: K runs of one side (seeds of one backbone), S resamples of the images; row 0 of S is the images as they are.

A side's figure is the mean of its K runs, and a trained detector is one draw of its training, scored on one draw of
images. So the variance of the difference has three parts: the images, drawn for all runs at once (the two sides see
the same ones, and what these do to both cancels); the seeds of each side, who are strangers to each other and to the
other side's; and how each seed takes to each image. Resampling images with the runs held fixed gives the first part,
with a K-th of the third. Comparing runs on the same images gives the second and the third, over K. The third is
counted once: it is how much a run departs from its side's mean under resampled images, and is taken out of the spread.

The plain bootstrap in two levels (seeds with replacement, then images) estimates the same thing, but with two or three
seeds its seed part is too small by (K - 1) / K and its percentiles have no idea that it was estimated from two numbers:
`benchmarks/coverage.py` has how often its intervals miss. Hence Student's t with Satterthwaite's degrees of freedom
(1946), each side's spread on its own (Welch 1947). Per-class p-values are corrected by Holm 1979.

Two seeds are few: if both of a side happen to score alike, nothing in the data tells that seeds matter, and where they
do the interval misses too often (92 to 98 % of 95 in normal worlds where neither side's seeds vary more than twice as
much as the other's, down to 87 % where only one side's vary at all; three seeds: 94 to 98 %, and 92 %). Pooling the two
sides' spreads buys narrower intervals with less coverage; fiducial intervals (Behrens-Fisher) cover nearly always.

Few images, as a rare class has, tell little of others: resamples of what they show vary too little, and not at all
where all of them agree. So their part of the variance has n - 1 degrees of freedom, n the images with a truth of the
class, and is made up for by n / (n - 1); no p-value is below the sign test's for n images that all say the same,
2^(1 - n), and the interval agrees with it. One image tells nothing of others. Equal detectors are then told apart in
0 % of cases up to five images and in about 5 from twenty on (`benchmarks/coverage_rare.py`).

With one seed on a side nothing is known of seeds. The interval then covers image sampling only, and says which of
the two trained detectors scores higher, not which backbone is better.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vertebra.evaluation.metrics.average_precision import FloatArray
from vertebra.ground import formats
from vertebra.ground.errors import UserError

Covers = Literal["seeds and images", "images"]
LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class Interval:
    """A figure (0..100) on the images as they are, and where it lies on other images of their kind. NaN: no figure."""

    estimate: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Difference:
    """Second side less first, AP points, with its interval and the two-sided p-value of there being none.

    standard_error and degrees of `freedom` are what the interval was made of (infinite: normal). seeds: runs of the
    two sides. adjusted_p: the p-value after Holm's correction over the classes it was tested with, or None.
    """

    estimate: float
    low: float
    high: float
    level: float
    p_value: float
    standard_error: float
    freedom: float
    seeds: tuple[int, int]
    adjusted_p: float | None = None

    def text(self, write: Callable[[float], str] = formats.signed) -> str:
        """Return '+6.0 (+5.6 to +6.4)': the difference with its interval, each number as `write` has it."""
        return f"{write(self.estimate)} ({formats.interval(self.low, self.high, write)})"

    @property
    def covers(self) -> Covers:
        """Return what the interval covers."""
        return "seeds and images" if min(self.seeds) > 1 else "images"

    @property
    def p(self) -> float:
        """Return the p-value, corrected where it was one of many."""
        return self.p_value if self.adjusted_p is None else self.adjusted_p

    @property
    def distinguishable(self) -> bool:
        """Return whether `p` is below 1 - level."""
        return self.p < 1 - self.level

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "covers": self.covers, "distinguishable": self.distinguishable}


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation over runs (n - 1), None for a single one."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def figure_interval(figure_S: FloatArray, *, images: int) -> Interval:
    """Return the interval of one run's figure: image sampling only, by Student's t, within 0..100.

    images: how many of them the figure rests on. With one image, or with fewer than two resamples that have a figure,
    the ends are NaN.
    """
    known_S = figure_S[1:][~np.isnan(figure_S[1:])]
    estimate = float(figure_S[0])
    if math.isnan(estimate) or images < 2 or len(known_S) < 2:
        return Interval(estimate, math.nan, math.nan, LEVEL)
    variance, freedom = _image_variance(known_S, images)
    half = t_of_p(1 - LEVEL, freedom) * math.sqrt(variance)
    return Interval(estimate, max(0.0, estimate - half), min(100.0, estimate + half), LEVEL)


def compare_sides(first_KS: FloatArray, second_KS: FloatArray, *, images: int | None = None) -> Difference | None:
    """Return second side less first. Both were scored on the same resamples; their K may differ.

    images: how many of them the figure rests on, those with a truth of the class or size (None: enough not to matter).
    None where a side has no figure (a class or size without truths), or one image is all there is. Resamples without
    a figure are left out.
    """
    if first_KS.shape[1] != second_KS.shape[1] or first_KS.shape[1] < 3:
        raise UserError("two sides are compared on the same resamples of the images, two at least")
    if images is not None and images < 2:
        return None
    known_S = ~np.isnan(np.concatenate([first_KS, second_KS])).any(axis=0)
    if not known_S[0] or known_S.sum() < 3:
        return None
    sides = [first_KS[:, known_S], second_KS[:, known_S]]
    change_S = sides[1].mean(axis=0) - sides[0].mean(axis=0)
    seeds = (len(first_KS), len(second_KS))
    variance, freedom = _image_variance(change_S[1:], images)
    least_p = 0.0 if images is None else 2.0 ** (1 - images)
    if min(seeds) > 1:
        spreads = [_seed_variance(side_KS) for side_KS in sides]
        extra = [max(0.0, all_ - interaction) for all_, interaction in spreads]
        doubt = variance**2 / freedom
        doubt += sum(_doubt(all_, more) / (count - 1) for (all_, _), more, count in zip(spreads, extra, seeds))
        variance += sum(extra)
        # The images' part holds both sides' taste in images: that gives K - 1 at least, but for the resamples' luck.
        freedom = max(variance**2 / doubt, min(freedom, min(seeds) - 1)) if doubt else freedom
    return _difference(float(change_S[0]), math.sqrt(variance), freedom, seeds, least_p)


def _image_variance(values_S: FloatArray, images: int | None) -> tuple[float, float]:
    """Return the variance by image sampling, and its degrees of freedom; images: None, enough not to matter."""
    variance = float(values_S.var(ddof=1))
    return (variance, math.inf) if images is None else (variance * images / (images - 1), images - 1.0)


def _seed_variance(side_KS: FloatArray) -> tuple[float, float]:
    """Return the variance of the side's mean by its runs' spread on the same images, and the part of it that is their
    taste in images."""
    count = len(side_KS)
    departure_KS = side_KS[:, 1:] - side_KS[:, 1:].mean(axis=0)
    interaction = float(departure_KS.var(axis=1, ddof=1).sum()) / (count - 1)
    return float(side_KS[:, 0].var(ddof=1)) / count, interaction / count


def _doubt(all_: float, more: float) -> float:
    """Return (K - 1) / 2 times the variance of what a side's spread adds.

    Of the sample variance all_ its known part, the runs' taste in images, is subtracted without a doubt (Gaylor &
    Hopper 1969).

    Where all_ is no more than the taste, nothing is added and nothing is doubtful: the doubt fades with the last
    quarter of all_, lest intervals jump there. Of the rules that `benchmarks/coverage.py --rules` tries in normal
    worlds this one's coverage stays closest to 95 %.
    """
    return all_**2 * min(1.0, 4 * more / all_) if all_ > 0 else 0.0


def _difference(estimate: float, error: float, freedom: float, seeds: tuple[int, int], least_p: float) -> Difference:
    """least_p: the smallest p-value that there can be; the error is raised to what it takes."""
    if error > 0:
        p_value = two_sided_p(estimate / error, freedom)
    else:
        p_value = 1.0 if estimate == 0 else 0.0
    if p_value < least_p:
        p_value, error = least_p, abs(estimate) / t_of_p(least_p, freedom)
    half = t_of_p(1 - LEVEL, freedom) * error
    return Difference(estimate, estimate - half, estimate + half, LEVEL, p_value, error, freedom, seeds)


def two_sided_p(t: float, freedom: float) -> float:
    """Return the probability of a value of Student's t at least as far from 0; infinite freedom: normal."""
    from scipy.special import stdtr  # here, as it takes longer to import than most commands run; as scipy.stats.t's

    return float(2 * stdtr(freedom, -abs(t)))


def t_of_p(p_value: float, freedom: float) -> float:
    """Return the t whose `two_sided_p` is `p_value` (0 < p_value <= 1)."""
    from scipy.special import stdtrit

    return float(-stdtrit(freedom, p_value / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: compared with alpha, the chance of any false alarm is at most alpha."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def corrected(differences: Mapping[str, Difference | None]) -> dict[str, Difference | None]:
    """Return the differences with p-values corrected over all that there are."""
    present = {name: one for name, one in differences.items() if one is not None}
    adjusted = dict(zip(present, holm([one.p_value for one in present.values()])))
    return {name: None if one is None else replace(one, adjusted_p=adjusted[name]) for name, one in differences.items()}
