"""The unit of a report: a side is a backbone with its weights, over its seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.report.collect import Run
from vertebra.evaluation.report.formats import known
from vertebra.evaluation.report.origins import label_runs, pretraining_kind, weights_text
from vertebra.evaluation.report.reading import ReportError
from vertebra.evaluation.statistics.comparison import mean_and_spread


@dataclass(frozen=True)
class Side:
    """Runs of one backbone on one kind of weights, each with a seed of its own, and their places among all runs."""

    label: str
    runs: list[Run]
    places: list[int]

    @property
    def seeds(self) -> list[Any]:
        """The runs' seeds; of files, which have none, their numbers."""
        return [place if run.seed is None else run.seed for place, run in enumerate(self.runs)]

    @property
    def is_file(self) -> bool:
        """Whether nothing is known of it but predictions."""
        return self.runs[0].name is not None


def group_runs(runs: Sequence[Run]) -> list[Side]:
    """The sides in the order of their first runs. The same seed again is not another draw: it opens another side."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, run in enumerate(runs):
        if run.name is not None:
            groups.setdefault((run.name,), []).append(place)
            continue
        kind = (json.dumps(run.backbone, sort_keys=True), weights_text(run), pretraining_kind(run))
        twin = 0
        while run.seed in [runs[other].seed for other in groups.get((*kind, twin), [])]:
            twin += 1
        groups.setdefault((*kind, twin), []).append(place)
    labels = label_runs([runs[places[0]] for places in groups.values()])
    named = {run.name for run in runs if run.name is not None}
    ours = [label for label, places in zip(labels, groups.values()) if runs[places[0]].name is None]
    if taken := named & {str(runs[places[0]].backbone.get("name")) for places in groups.values()} | named & set(ours):
        raise ReportError(f"A side is called {taken.pop()} already: give the predictions another name.")
    return [Side(label, [runs[p] for p in places], places) for label, places in zip(labels, groups.values())]


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over the runs; None where one has no figure."""
    if None in map(known, values):
        return {"mean": None, "std": None, "n": len(values)}
    mean, std = mean_and_spread(values)
    return {"mean": mean, "std": std, "n": len(values)}
