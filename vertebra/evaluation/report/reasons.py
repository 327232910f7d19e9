"""Why a side is as good as it is: errors, calibration, confusions, sizes, crowding, proposals; means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.evaluation.report.collect import Run
from vertebra.evaluation.report.scores import Scores
from vertebra.evaluation.report.sides import Side
from vertebra.evaluation.why.errors import KINDS, SPECIAL
from vertebra.evaluation.why.explain import explain
from vertebra.evaluation.why.tables import MEANINGS

CONFUSED = 10


def reasons(
    sides: Sequence[Side], scores: Scores, truth: dict[str, Any], pairs: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Everything by side, and the errors' differences (second less first) of each pair of places."""
    told = [[_explained(run, truth) for run in side.runs] for side in sides]
    means = [mean_of(runs) for runs in told]
    return {
        "errors": errors(sides, scores, means, pairs),
        "threshold": [mean["confusion"]["score"] for mean in means],
        "outcomes": [{name: mean["confusion"][name] for name in OUTCOMES} for mean in means],
        "calibration": [mean["calibration"] for mean in means],
        "confused": confused(means),
        "size": slices([mean["size"]["quantiles"] for mean in means]),
        "crowding": {name: slices([mean["crowding"][name] for mean in means]) for name in CROWDING},
        "proposals": [mean["proposals"] for mean in means],
    }


OUTCOMES = ("right", "wrong_class", "background", "missed")
CROWDING = {"overlap_in_class": "greatest IoU with another object of the class", "neighbours": "other objects"}


def _explained(run: Run, truth: dict[str, Any]) -> dict[str, Any]:
    return explain(truth, run.predictions, proposals=run.proposals)


def errors(
    sides: Sequence[Side], scores: Scores, means: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Of each kind AP lost and how often, by side; and the pairs' differences of AP lost."""
    first = means[0]["errors"]
    differences = [scores.error_differences(sides[a], sides[b]) for a, b in pairs]
    return {
        "iou": first["iou"],
        "background_iou": first["background_iou"],
        "kinds": [
            {
                "kind": kind,
                "meaning": MEANINGS[kind],
                "special": kind in SPECIAL,
                "lost": [_mean(scores.lost(side, kind)) for side in sides],
                "counts": None if kind in SPECIAL else [mean["errors"]["counts"][kind] for mean in means],
            }
            for kind in (*KINDS, *SPECIAL)
        ],
        "differences": [
            {
                "a": sides[a].label,
                "b": sides[b].label,
                "kinds": {
                    kind: one.to_dict() if (one := told[kind]) is not None else None for kind in (*KINDS, *SPECIAL)
                },
            }
            for (a, b), told in zip(pairs, differences)
        ],
    }


def confused(means: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The classes most often taken for each other, by the greatest of the sides' mean counts."""
    names = means[0]["confusion"]["classes"]
    told = [
        {"truth": truth, "detection": detection, "counts": [mean["confusion"]["counts"][t][d] for mean in means]}
        for t, truth in enumerate(names)
        for d, detection in enumerate(names)
        if t != d
    ]
    told = [row for row in told if any(row["counts"])]
    return sorted(told, key=lambda row: -max(row["counts"]))[:CONFUSED]


def slices(means: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of a slice: name, truths, AP and recall at IoU .50 by side."""
    return [
        {
            "slice": rows[0]["slice"],
            "truths": rows[0]["truths"],
            "AP": [row["ap"] for row in rows],
            "recall50": [row["recall50"] for row in rows],
        }
        for rows in zip(*means)
    ]


def mean_of(trees: Sequence[Any]) -> Any:
    """The mean of every number in trees of one shape; what is no number is the first tree's, and None where any is."""
    first = trees[0]
    if len(trees) == 1:
        return first
    if any(tree is None for tree in trees):
        return None
    if isinstance(first, Mapping):
        return {key: mean_of([tree[key] for tree in trees]) for key in first if all(key in tree for tree in trees)}
    if isinstance(first, list):
        return [mean_of(entries) for entries in zip(*trees)]
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        return statistics.fmean(trees) if len(set(trees)) > 1 else first
    return first


def _mean(values: Sequence[float]) -> float | None:
    mean = statistics.fmean(values)
    return mean if math.isfinite(mean) else None
