"""Why a side is as good as it is: errors, calibration, confusions, sizes, crowding, proposals; means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.why.errors import KINDS, SPECIAL
from vertebra.evaluation.why.explain import Explanation
from vertebra.evaluation.why.tables import MEANINGS, OUTCOMES, confused_pairs


@dataclass(frozen=True)
class Reasons:
    """Means over seeds of what explains each side, and by (a, b) how much more b loses to each kind of error than a."""

    explanations: Sequence[Explanation]
    differences: Mapping[tuple[str, str], Mapping[str, Difference | None]]

    def to_dict(self) -> dict[str, Any]:
        """Return them figure by figure, each with a value for every side."""
        sides = self.explanations
        confusions = [one["confusion"] for one in sides]
        return {
            "errors": self._errors(),
            "threshold": [one["score"] for one in confusions],
            "outcomes": [{name: one[name] for name in OUTCOMES} for one in confusions],
            "calibration": [one["calibration"] for one in sides],
            "confused": [
                {"truth": truth, "detection": detection, "counts": counts}
                for truth, detection, counts in confused_pairs(sides)
            ],
            "size": _slices([one["size"]["quantiles"] for one in sides]),
            "crowding": {
                name: _slices([one["crowding"][name] for one in sides]) for name in ("overlap_in_class", "neighbours")
            },
            "proposals": [one["proposals"] for one in sides],
        }

    def _errors(self) -> dict[str, Any]:
        errors = [one["errors"] for one in self.explanations]
        return {
            "iou": errors[0]["iou"],
            "background_iou": errors[0]["background_iou"],
            "kinds": [
                {
                    "kind": kind,
                    "meaning": MEANINGS[kind],
                    "special": kind in SPECIAL,
                    "lost": [one["special" if kind in SPECIAL else "lost"][kind] for one in errors],
                    "counts": None if kind in SPECIAL else [one["counts"][kind] for one in errors],
                }
                for kind in (*KINDS, *SPECIAL)
            ],
            "differences": [{"a": a, "b": b, "kinds": kinds} for (a, b), kinds in self.differences.items()],
        }


def _slices(sides: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return a slice's rows: name, truths, AP and recall at IoU .50 by side."""
    return [
        {
            "slice": rows[0]["slice"],
            "truths": rows[0]["truths"],
            "AP": [row["ap"] for row in rows],
            "recall50": [row["recall50"] for row in rows],
        }
        for rows in zip(*sides)
    ]


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
