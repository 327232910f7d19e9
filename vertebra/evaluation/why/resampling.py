"""TIDE's errors under resamples of the test images: classified once, then weighed, as AP is in `resampling`.

A verdict on a detection depends on its image alone, and so does what fixing it makes of it. So all that a resample
changes is how often each image's detections and truths count: `metrics.average_precision`'s case, once for each kind.

Legend: I images, C classes, S resamples; row 0 of every result is the images as they are, once each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vertebra.evaluation.metrics.average_precision import CountsArray, FloatArray, average_precision, average_precisions
from vertebra.evaluation.statistics.comparison import Difference, corrected
from vertebra.evaluation.statistics.resampling import Resampled, class_mean, compare
from vertebra.evaluation.why.errors import KINDS, LEVELS, Ranking, Verdicts


@dataclass(frozen=True)
class ResampledErrors(Resampled):
    """AP, or what a kind of error costs of it, 0..100, under resamples.

    per_class_SC: as `tide_errors` has it of each class, NaN in a resample without a truth of the class. The means are
    not over these: TIDE's mean AP counts a class with detections alone as 0, before a fix (ap_SC) and after it
    (fixed_SC, None for AP itself), and the cost is the difference of the two means. It is never below `least`.
    """

    ap_SC: FloatArray
    fixed_SC: FloatArray | None
    least: float

    @property
    def mean_S(self) -> FloatArray:
        """The mean AP of each resample, or the cost of it."""
        before_S = class_mean(self.ap_SC)
        if self.fixed_SC is None:
            return before_S
        return np.maximum(self.least, class_mean(self.fixed_SC) - before_S)


def resample_errors(verdicts: Verdicts, counts_SI: CountsArray) -> dict[str, Resampled]:
    """Return the AP ("AP") and what each kind of error costs of it (KINDS, SPECIAL), 0..100, of every resample.

    `mean_S` is what `tide_errors` says of a data set in which images are repeated (`ap`, `lost` and `special`), and
    row 0 of the images as they are; a class's figures are those of its `per_class`, NaN where a resample has no truth
    of it. Sides that are to be compared are given the same counts (`statistics.resampling.draw_counts`), and their
    `mean_S` goes to `vertebra.evaluation.statistics.comparison.compare_sides`.
    """
    classes = tuple(verdicts.overlaps.names)
    counts_SI = np.ascontiguousarray(counts_SI.T, np.float32).T  # once for all kinds and classes
    rankings = dict(verdicts.rankings)
    plain = rankings.pop("AP")
    shown_CI = np.zeros((len(classes), verdicts.overlaps.images), dtype=bool)
    shown_CI[plain.class_W, plain.image_W] = True
    own_SC, ap_SC = _class_aps(plain, counts_SI)
    result: dict[str, Resampled] = {"AP": ResampledErrors(classes, own_SC, shown_CI, ap_SC, None, 0.0)}
    for kind, ranking in rankings.items():
        _, fixed_SC = _class_aps(ranking, counts_SI)
        gain_SC = np.where(np.isnan(own_SC), np.nan, np.nan_to_num(fixed_SC) - ap_SC)
        least = 0.0 if kind in KINDS else -np.inf
        result[kind] = ResampledErrors(classes, gain_SC, shown_CI, ap_SC, fixed_SC, least)
    return result


def compare_errors(
    first: Sequence[Mapping[str, Resampled]], second: Sequence[Mapping[str, Resampled]]
) -> dict[str, Difference | None]:
    """Second side less first in AP and in what each kind costs, with intervals; a mapping of `resample_errors` a run.

    The kinds' p-values are corrected over the kinds; AP's stands for itself. None where a side has no figure.
    """
    differences = {name: compare([run[name] for run in first], [run[name] for run in second]) for name in first[0]}
    return {"AP": differences.pop("AP"), **corrected(differences)}


def _class_aps(ranking: Ranking, counts_SI: CountsArray) -> tuple[FloatArray, FloatArray]:
    """AP_SC in 0..100: NaN in a resample without a truth of the class; and TIDE's, which is 0 there if it has drawn
    detections of the class."""
    own_SC = np.zeros((1 + len(counts_SI), ranking.classes))
    tides_SC = np.zeros_like(own_SC)
    for k, matched in enumerate(ranking.by_class()):
        own_SC[0, k] = 100 * average_precision(matched, LEVELS)
        own_SC[1:, k] = 100 * average_precisions(matched, counts_SI, LEVELS)[:, 0]
        tides_SC[:, k] = own_SC[:, k]
        for s in np.flatnonzero(np.isnan(own_SC[:, k])):  # few, of the rarest classes
            if matched.image_D.size and (s == 0 or counts_SI[s - 1][matched.image_D].any()):
                tides_SC[s, k] = 0.0
    return own_SC, tides_SC
