"""The unit of a report: a side is a backbone with its weights, over its seeds, under a name of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.report.origins import RANDOM, pretraining, pretraining_kind, weights_text
from vertebra.evaluation.report.runs import Run
from vertebra.ground import formats
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


def label_runs(runs: Sequence[Run]) -> list[str]:
    """Return short, unique names: the backbone's, and what equal backbones differ in (form, weights, seed, path)."""
    labels = [str(run.name or run.backbone.get("name") or run.path.name) for run in runs]
    if len({run.backbone.get("width") or 1 for run in runs}) > 1:  # then a name alone would mislead
        labels = [", ".join(filter(None, (label, _width(run)))) for label, run in zip(labels, runs)]
    details: tuple[Callable[[Run], str], ...] = (
        _form,
        lambda run: "no pre-training" if weights_text(run) == RANDOM else "pre-trained",
        weights_text,
        lambda run: "" if (epochs := pretraining(run).epochs) is None else f"{epochs:g} epochs",
        lambda run: "" if run.seed is None else f"seed {run.seed}",
        lambda run: run.path.name,
        lambda run: str(run.path),
    )
    for detail in details:
        if len(set(labels)) == len(labels):
            break
        details_of = [detail(run) for run in runs]
        for label in [label for label in set(labels) if labels.count(label) > 1]:
            group = [index for index, other in enumerate(labels) if other == label]
            if len({details_of[index] for index in group}) > 1:
                for index in group:
                    labels[index] = f"{label}, {details_of[index]}" if details_of[index] else label
    return labels


def _width(run: Run) -> str:
    width = run.backbone.get("width") or 1
    return "" if width == 1 else f"{formats.TIMES}{width:g} width"


def _form(run: Run) -> str:
    """Return what departs from the plain name, width aside: 'shortcut A, stride in 1x1'."""
    identity = run.backbone
    parts = []
    if identity.get("shortcut") not in (None, "B"):
        parts.append(f"shortcut {identity['shortcut']}")
    if identity.get("stride_in") not in (None, "3x3"):
        parts.append(f"stride in {identity['stride_in']}")
    return ", ".join(parts)
