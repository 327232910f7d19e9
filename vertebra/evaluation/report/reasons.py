"""Why a side is as good as it is: errors, calibration, confusions, sizes, crowding, proposals; means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.evaluation.report.content import Reasons
from vertebra.evaluation.report.scores import Scores
from vertebra.evaluation.report.sides import Side
from vertebra.evaluation.why.explain import explain


def reasons(sides: Sequence[Side], scores: Scores, truth: dict[str, Any], pairs: Sequence[tuple[int, int]]) -> Reasons:
    """Explain every side, and compare what errors cost the sides at each pair of places."""
    return Reasons(
        [mean_of([explain(truth, run.predictions, proposals=run.proposals) for run in side.runs]) for side in sides],
        {(sides[a].label, sides[b].label): scores.error_differences(sides[a], sides[b]) for a, b in pairs},
    )


def mean_of(trees: Sequence[Any]) -> Any:
    """Return the mean of every number in trees of one shape; what is no number is the first tree's, and None where any
    is."""
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
