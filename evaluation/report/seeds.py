"""Backbones over their seeds: runs that differ by the seed alone are one side, with mean, spread and differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.comparison import Difference, mean_and_spread
from evaluation.report import formats
from evaluation.report.collect import Run
from evaluation.report.formats import known
from evaluation.report.origins import label_runs, weights_text
from evaluation.report.scores import PairedIntervals

CLASS_FIGURE = "AP"
MISSING = "With one seed on a side this is image sampling only: no verdict on the backbones."


@dataclass(frozen=True)
class Side:
    """Runs of one backbone on one kind of weights, each with a seed of its own, by their places among all runs."""

    label: str
    places: list[int]
    seeds: list[Any]


def group_runs(runs: Sequence[Run]) -> list[Side]:
    """The sides in the order of their first runs. The same seed again is not another draw: it opens another side."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for place, run in enumerate(runs):
        kind = (json.dumps(run.backbone, sort_keys=True), weights_text(run))
        twin = 0
        while run.seed in [runs[other].seed for other in groups.get((*kind, twin), [])]:
            twin += 1
        groups.setdefault((*kind, twin), []).append(place)
    labels = label_runs([runs[places[0]] for places in groups.values()])
    return [Side(label, places, [runs[p].seed for p in places]) for label, places in zip(labels, groups.values())]


def over_seeds(runs: Sequence[Run], intervals: PairedIntervals, truths: Mapping[str, int]) -> dict[str, Any]:
    """Each side's mean and standard deviation, and every side against the first and the best against the next.

    truths: objects that count, by class.
    """
    sides = group_runs(runs)
    told = [
        {
            "label": side.label,
            "seeds": side.seeds,
            "figures": {name: _mean(intervals.values(side.places, name)) for name in intervals.figures()},
        }
        for side in sides
    ]
    means = [sum(intervals.values(side.places, "AP")) / len(side.places) for side in sides]
    order = sorted(range(len(sides)), key=lambda place: -means[place])
    pairs = [(0, place) for place in range(1, len(sides))]
    lead = (order[1], order[0]) if len(sides) > 1 else None
    return {
        "sides": told,
        "comparisons": [_compare(sides[a], sides[b], intervals, truths) for a, b in pairs],
        "lead": _compare(sides[lead[0]], sides[lead[1]], intervals, {}) if lead else None,
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    if None in map(known, values):
        return {"mean": None, "std": None, "n": len(values)}
    mean, deviation = mean_and_spread(values)
    return {"mean": mean, "std": deviation, "n": len(values)}


def _compare(a: Side, b: Side, intervals: PairedIntervals, truths: Mapping[str, int]) -> dict[str, Any]:
    differences = {name: _told(intervals.sides(a.places, b.places, name)) for name in intervals.figures()}
    classes = intervals.by_class(a.places, b.places, CLASS_FIGURE) if truths else {}
    return {
        "a": a.label,
        "b": b.label,
        "covers": "seeds and images" if min(len(a.places), len(b.places)) > 1 else "images",
        "differences": differences,
        "per_class": [
            {"name": name, "truths": truths[name], "difference": _told(one)} for name, one in classes.items()
        ],
    }


def _told(one: Difference | None) -> dict[str, Any] | None:
    return None if one is None else one.to_dict()


def note(content: Mapping[str, Any], resamples: int) -> str | None:
    """What the figures over seeds are, where some backbone has several."""
    counts = [len(side["seeds"]) for side in content["sides"]]
    if max(counts) < 2:
        return None
    listed = formats.joined([f"{side['label']} {len(side['seeds'])}" for side in content["sides"]])
    text = f"Seeds: {listed}. "
    if len(counts) > 1 and sorted(counts)[-2] > 1:
        text += (
            "Where both sides have several, intervals over seeds hold what another seed and other images would change "
            f"(variance components, Student's t, {resamples} resamples). "
        )
    return (text + MISSING if len(counts) > 1 and min(counts) < 2 else text).strip()


def seed_tables(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each comparison a heading, what it covers, and rows of cells: the figures, then the classes."""
    sides = {side["label"]: side["figures"] for side in content["sides"]}
    tables = []
    for one in content["comparisons"]:
        rows = [
            [
                name,
                formats.mean_and_spread(sides[one["a"]][name]),
                formats.mean_and_spread(sides[one["b"]][name]),
                *_cells(difference),
            ]
            for name, difference in one["differences"].items()
        ]
        classes = [
            [row["name"], str(row["truths"]), *_cells(row["difference"])] for row in one["per_class"] if row["truths"]
        ]
        covers = "The intervals cover seeds and images." if one["covers"] != "images" else MISSING
        tables.append({"a": one["a"], "b": one["b"], "covers": covers, "rows": rows, "classes": classes})
    return tables


def _cells(difference: Mapping[str, Any] | None) -> list[str]:
    """Difference with its interval, p-value (corrected where it is one of many), what it means."""
    if difference is None:
        return [formats.NONE, formats.NONE, ""]
    p_value = difference["p_value"] if difference["adjusted_p"] is None else difference["adjusted_p"]
    return [
        f"{formats.signed(difference['estimate'])} ({formats.interval(difference['low'], difference['high'])})",
        formats.p_value(p_value),
        "" if difference["distinguishable"] else "not distinguishable",
    ]
