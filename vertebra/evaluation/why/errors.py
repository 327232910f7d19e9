"""AP lost to each kind of error, after TIDE (Bolya, Foley, Hays, Hoffman 2020, "TIDE: A General Toolbox for
Identifying Object Detection Errors").

A detection that takes no truth is, by its greatest IoU with a truth of its own class (own) and of others (other):
localisation (0.1 <= own <= 0.5), else classification (other >= 0.5), else duplicate (own >= 0.5, but taken), else
background (no truth above 0.1), else both. A truth is missed that no detection takes and no localisation or
classification error could have taken. What a kind costs is how much AP50 rises when it alone is fixed: the best
claimant of a free truth becomes right and every other error of the kind goes; missed truths are no longer counted.

The rules are those of the authors' `tidecv`, figure for figure, also where they differ from pycocotools:
- the 100 best detections of an image count, of all classes together (pycocotools: 100 of each class);
- a class with detections and without truth counts in the mean, with AP 0 (pycocotools leaves it out);
- a crowd takes what lies in it by MORE than the threshold (pycocotools: by as much); what it takes costs nothing, yet
  may be the fix of a localisation or classification error;
- of truths of equal IoU the first is taken (pycocotools: the last); the recall levels are 0/100, 1/100, ..., whose
  rounding differs from that of pycocotools' in the last bit (levels that a recall reaches exactly may count);
- after a fix, wrong detections come before right ones of equal score: with many equal scores, a fix that helps
  nothing can lower the AP, and a main kind's loss is never below 0.
`tidecv` knows no difficult objects; here they follow COCO's rule of `metrics.coco` (at most one detection each).

Legend: D detections, G truths, K classes, P pairs, N points of a curve.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from vertebra.evaluation.metrics.average_precision import (
    BoolArray,
    FloatArray,
    IntArray,
    Matched,
    average_precision,
    mean_of_known,
)
from vertebra.evaluation.metrics.matching import take
from vertebra.evaluation.metrics.overlaps import Overlaps, Pairs
from vertebra.ground.errors import UserError

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
SPECIAL = ("false_positives", "false_negatives")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(5)
RIGHT = -1
MOST = 100
LEVELS: FloatArray = np.arange(101) / 100


@dataclass(frozen=True)
class TideErrors:
    """AP (0..100) at one IoU and what each kind of error costs of it.

    lost: AP regained by fixing a kind alone, by KINDS. special: by perfect precision and by perfect recall. counts:
    errors of each kind; detections that a crowd or difficult object excuses are not among them. per_class: AP and the
    rise with each kind fixed, by the name of each class with truths. classes_without_truth: those with detections.
    """

    iou: float
    background_iou: float
    ap: float
    lost: dict[str, float]
    special: dict[str, float]
    counts: dict[str, int]
    per_class: dict[str, dict[str, float]]
    classes_without_truth: list[str]


@dataclass(frozen=True)
class Verdicts:
    """The kind of each detection (RIGHT or a place in KINDS) and the truth that it takes or is about (-1: none).

    overlaps: of the detections that TIDE takes, 100 an image. iou, background: the thresholds. excused_D: a crowd or
    difficult object excuses it; fixable_D: fixing it makes it right; missed_G: truths that nothing could have found.
    """

    overlaps: Overlaps
    iou: float
    background: float
    kind_D: IntArray
    truth_D: IntArray
    excused_D: BoolArray
    fixable_D: BoolArray
    missed_G: BoolArray

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Return what is scored: "AP" as it is, and with each kind of error alone fixed, by KINDS and SPECIAL."""
        overlaps = self.overlaps
        right_D, counted_D, wanted_G = self.kind_D == RIGHT, ~self.excused_D, ~overlaps.aside_G
        by_score = np.argsort(-overlaps.score_D, kind="stable")
        wrong_first = np.lexsort((right_D, -overlaps.score_D))  # where scores are equal
        right_first = np.argsort(~right_D[wrong_first], kind="stable")
        found_G = np.zeros_like(wanted_G)
        found_G[self.truth_D[right_D]] = True
        rankings = {"AP": _ranking(overlaps, right_D, by_score, counted_D, wanted_G)}
        for place, kind in enumerate(KINDS):
            of_kind_D = self.kind_D == place
            fixed_D = of_kind_D & self.fixable_D
            moved_D = fixed_D & (self.kind_D == CLASSIFICATION)
            class_D = overlaps.class_D.copy()
            class_D[moved_D] = overlaps.class_G[self.truth_D[moved_D]]
            rankings[kind] = _ranking(
                replace(overlaps, class_D=class_D),
                right_D | fixed_D,
                wrong_first,
                np.where(of_kind_D, fixed_D, counted_D),
                wanted_G & ~self.missed_G if kind == "missed" else wanted_G,
            )
        return rankings | {
            "false_positives": _ranking(overlaps, right_D, wrong_first[right_first], counted_D, wanted_G),
            "false_negatives": _ranking(overlaps, right_D, wrong_first, counted_D, found_G),
        }


@dataclass(frozen=True)
class Ranking:
    """The detections that count, by class and best first, and the truths to be found (those W, by class)."""

    classes: int
    images: int
    class_N: IntArray
    image_N: IntArray
    score_N: FloatArray
    right_N: BoolArray
    class_W: IntArray
    image_W: IntArray

    def by_class(self) -> Iterator[Matched]:
        """Yield each class's matches."""
        places = np.arange(self.classes + 1)
        parts, wanted = np.searchsorted(self.class_N, places), np.searchsorted(self.class_W, places)
        for (first, last), (start, stop) in zip(pairwise(parts), pairwise(wanted)):
            right_1N = self.right_N[None, first:last].astype(np.uint16)
            truths_1I = np.bincount(self.image_W[start:stop], minlength=self.images)[None]
            yield Matched(
                self.image_N[first:last], self.score_N[first:last], right_1N, np.zeros_like(right_1N), truths_1I, 1
            )


def tide_errors(verdicts: Verdicts) -> TideErrors:
    """Return what was classified as figures."""
    overlaps, rankings = verdicts.overlaps, verdicts.rankings
    plain_K = _class_ap(rankings["AP"])
    fixed = {kind: _class_ap(rankings[kind]) for kind in (*KINDS, *SPECIAL)}
    ap = mean_of_known(plain_K)
    wanted_K = overlaps.truths_by_class(~overlaps.aside_G) > 0
    gains = {kind: np.where(np.isnan(fixed[kind]), 0.0, fixed[kind]) - plain_K for kind in KINDS}
    errors_D = (verdicts.kind_D != RIGHT) & ~verdicts.excused_D
    counts_E = np.bincount(verdicts.kind_D[errors_D], minlength=len(KINDS))
    return TideErrors(
        verdicts.iou,
        verdicts.background,
        ap,
        lost={kind: float(np.maximum(mean_of_known(fixed[kind]) - ap, 0.0)) for kind in KINDS},
        special={kind: mean_of_known(fixed[kind]) - ap for kind in SPECIAL},
        counts={kind: int(n) for kind, n in zip(KINDS, counts_E)} | {"missed": int(verdicts.missed_G.sum())},
        per_class={
            name: {"ap": float(plain_K[k]), **{kind: float(gain_K[k]) for kind, gain_K in gains.items()}}
            for k, name in enumerate(overlaps.names)
            if wanted_K[k]
        },
        classes_without_truth=[
            name for k, name in enumerate(overlaps.names) if not wanted_K[k] and not np.isnan(plain_K[k])
        ],
    )


def classify(overlaps: Overlaps, *, iou: float = 0.5, background: float = 0.1) -> Verdicts:
    """Judge detections that were measured with a floor of `background` at most. Raises UserError."""
    if not 0 < background <= iou <= 1:
        raise UserError(f"the thresholds are 0 < background <= iou <= 1, not {background:g} and {iou:g}")
    overlaps = overlaps.first(overlaps.place_D, MOST)
    detections, truths = len(overlaps.score_D), len(overlaps.class_G)
    same_P, aside_P = overlaps.same_class_P, overlaps.aside_G[overlaps.pairs.truth_P]
    enough_P = same_P & (overlaps.pairs.iou_P >= iou)
    taken_D = take(overlaps.pairs.where(enough_P & ~aside_P), detections, truths)
    excused_D = _excused(overlaps, same_P, aside_P, enough_P, iou, taken_D)

    own_D, own_truth_D = _best(overlaps.pairs.where(same_P & ~aside_P), detections)
    other_D, other_truth_D = _best(overlaps.pairs.where(~same_P & ~aside_P), detections)
    conditions = {
        RIGHT: taken_D >= 0,
        LOCALISATION: (background <= own_D) & (own_D <= iou),
        CLASSIFICATION: other_D >= iou,
        DUPLICATE: own_D >= iou,
        BACKGROUND: np.maximum(own_D, other_D) <= background,
    }
    kind_D = np.select(list(conditions.values()), list(conditions), default=BOTH)
    about = {RIGHT: taken_D, LOCALISATION: own_truth_D, CLASSIFICATION: other_truth_D, DUPLICATE: own_truth_D}
    truth_D = np.select([kind_D == kind for kind in about], list(about.values()), default=-1)

    free_G = ~overlaps.aside_G
    free_G[taken_D[taken_D >= 0]] = False
    claims = np.flatnonzero(np.isin(kind_D, (LOCALISATION, CLASSIFICATION)))
    claims = claims[free_G[truth_D[claims]]]
    claimed_G, best = np.unique(truth_D[claims], return_index=True)  # the first claim is that of the highest score
    fixable_D = np.zeros(detections, dtype=bool)
    fixable_D[claims[best]] = True
    free_G[claimed_G] = False
    return Verdicts(overlaps, iou, background, kind_D, truth_D, excused_D, fixable_D, missed_G=free_G)


def _excused(
    overlaps: Overlaps, same_P: BoolArray, aside_P: BoolArray, enough_P: BoolArray, iou: float, taken_D: IntArray
) -> BoolArray:
    """Detections that take nothing and lie in a crowd, or take a difficult object."""
    pairs = overlaps.pairs
    idle_P = taken_D[pairs.detection_P] < 0
    crowd_P = overlaps.crowd_G[pairs.truth_P]
    excused_D = np.zeros(len(taken_D), dtype=bool)
    excused_D[pairs.detection_P[same_P & crowd_P & idle_P & (pairs.iou_P > iou)]] = True
    difficult = pairs.where(enough_P & aside_P & ~crowd_P & idle_P)
    return excused_D | (take(difficult, len(taken_D), len(overlaps.class_G)) >= 0)


def _best(pairs: Pairs, detections: int) -> tuple[FloatArray, IntArray]:
    """Each detection's greatest IoU (0 where it has no pair) and the truth of it (-1)."""
    who, first = np.unique(pairs.detection_P, return_index=True)
    iou_D, truth_D = np.zeros(detections), np.full(detections, -1, dtype=np.int64)
    iou_D[who], truth_D[who] = pairs.iou_P[first], pairs.truth_P[first]
    return iou_D, truth_D


def _ranking(
    overlaps: Overlaps, right_D: BoolArray, order_D: IntArray, counted_D: BoolArray, wanted_G: BoolArray
) -> Ranking:
    """order_D: all detections, best first."""
    by_N = order_D[counted_D[order_D]]
    by_N = by_N[np.argsort(overlaps.class_D[by_N].astype(np.min_scalar_type(len(overlaps.names))), kind="stable")]
    by_W = np.argsort(overlaps.class_G, kind="stable")
    by_W = by_W[wanted_G[by_W]]
    return Ranking(
        classes=len(overlaps.names),
        images=overlaps.images,
        class_N=overlaps.class_D[by_N],
        image_N=overlaps.image_D[by_N],
        score_N=overlaps.score_D[by_N],
        right_N=right_D[by_N],
        class_W=overlaps.class_G[by_W],
        image_W=overlaps.image_G[by_W],
    )


def _class_ap(ranking: Ranking) -> FloatArray:
    """AP_K in 0..100; 0 for a class of counted detections without truth, NaN where it has no detection either."""
    return np.array(
        [
            100 * average_precision(one, LEVELS) if one.truths() else 0.0 if len(one.scores_D) else np.nan
            for one in ranking.by_class()
        ]
    )
