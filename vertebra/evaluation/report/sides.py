"""The unit of a report: a side is a backbone with its weights, over its seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.report.origins import label_runs, pretraining_kind, weights_text
from vertebra.evaluation.report.runs import Run
from vertebra.ground.errors import UserError


@dataclass(frozen=True)
class Side:
    """Runs of one backbone on one kind of weights, each with a seed of its own, and their places among all runs."""

    label: str
    runs: list[Run]
    places: list[int]

    @property
    def seeds(self) -> list[Any]:
        """The runs' seeds; files have none, and are numbered."""
        return [place if run.seed is None else run.seed for place, run in enumerate(self.runs)]

    @property
    def is_file(self) -> bool:
        """True where nothing but predictions is known."""
        return self.runs[0].name is not None


def group_runs(runs: Sequence[Run]) -> list[Side]:
    """Return the sides in the order of their first runs. A seed that a side has already opens another side."""
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
    firsts = [runs[places[0]] for places in groups.values()]
    file_names = {run.name for run in firsts if run.name is not None}
    run_names = {str(run.backbone.get("name")) for run in firsts}
    run_names |= {label for label, run in zip(labels, firsts) if run.name is None}
    if taken := file_names & run_names:
        raise UserError(f"a side is called {taken.pop()} already", hint="give the predictions another name")
    return [Side(label, [runs[p] for p in places], places) for label, places in zip(labels, groups.values())]
