"""Runs sorted by what was equal in their trainings: seeds of one net, and nets that may be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.report.reading import differing
from vertebra.evaluation.statistics.comparison import mean_and_spread
from vertebra.evaluation.study.nets import Net
from vertebra.evaluation.study.runs import StudyRun
from vertebra.ground import formats
from vertebra.ground.errors import UserError

MOST_NAMED = 4  # fields in which a protocol differs


@dataclass(frozen=True)
class Group:
    """One net's runs under one protocol, which differ in their seeds alone."""

    net: Net
    runs: tuple[StudyRun, ...]

    def test_errors(self, view: str = "1crop", k: int = 1) -> list[float]:
        """The runs' errors by that view, empty unless every run has it."""
        return _unless_missing([run.errors.get(view, {}).get(f"error{k}") for run in self.runs])

    @property
    def train_errors(self) -> list[float]:
        return _unless_missing([run.train_error for run in self.runs])

    def to_dict(self) -> dict[str, Any]:
        """The net, its mean errors and their spread, fit for JSON."""
        facts = {**self.net.facts, "runs": len(self.runs), "parameters": self.runs[0].parameters}
        for name, values in (("train_error", self.train_errors), ("test_error", self.test_errors())):
            mean, deviation = mean_and_spread(values) if values else (None, None)
            facts[name] = {"mean": mean, "deviation": deviation, "values": values}
        return facts


def _unless_missing(values: Sequence[float | None]) -> list[float]:
    return [] if None in values else [value for value in values if value is not None]


@dataclass(frozen=True)
class Protocol:
    """Nets that may stand in one column: everything but the net and the seed was equal.

    difference: in which fields it differs from the main protocol, that of most runs, as text ("solver.lr 0.01").
    """

    fields: Mapping[str, Any]
    groups: tuple[Group, ...]
    difference: str = ""

    @property
    def first(self) -> StudyRun:
        return self.groups[0].runs[0]

    def published(self, family: str) -> list[Group]:
        """The nets of that family which are the paper's."""
        return [group for group in self.groups if group.net.family == family and group.net.as_published]


def sort_runs(runs: Sequence[StudyRun]) -> list[Protocol]:
    """Return the runs by protocol, that of most runs first, and in it by net: plain before residual, shallow first.

    Raises UserError where one net has two runs of one seed.
    """
    by_protocol: dict[str, dict[Net, list[StudyRun]]] = {}
    for run in runs:
        nets = by_protocol.setdefault(json.dumps(run.protocol, sort_keys=True), {})
        nets.setdefault(run.net, []).append(run)
    protocols: list[Protocol] = []
    for nets in sorted(by_protocol.values(), key=lambda nets: -sum(map(len, nets.values()))):
        groups = tuple(Group(net, _by_seed(nets[net])) for net in sorted(nets, key=lambda net: net.order))
        fields = groups[0].runs[0].protocol
        difference = _differing(fields, protocols[0].fields) if protocols else ""
        protocols.append(Protocol(fields, groups, difference))
    return protocols


def _differing(fields: Mapping[str, Any], main: Mapping[str, Any]) -> str:
    found = [(name, value) for name, value, _ in differing(fields, main) if not name.endswith("fingerprint")]
    return formats.first_few([f"{name} {formats.plain(value)}" for name, value in found], MOST_NAMED)


def _by_seed(runs: Sequence[StudyRun]) -> tuple[StudyRun, ...]:
    seen: dict[Any, StudyRun] = {}
    for run in runs:
        if run.seed in seen:
            both = f"{seen[run.seed].directory} and {run.directory}"
            reason = f"both are {run.net.label} with seed {run.seed}, and a spread is of different seeds"
            raise UserError(both, reason, "leave one of them out")
        seen[run.seed] = run
    return tuple(sorted(runs, key=lambda run: (run.seed is None, run.seed)))
