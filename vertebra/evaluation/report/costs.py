"""What a side costs, by its runs' evaluation.json and provenance, and which sides no other beats in AP at less cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.collect import Run
from vertebra.evaluation.report.formats import known
from vertebra.evaluation.report.reading import first_of
from vertebra.evaluation.report.sides import Side, over_seeds


@dataclass(frozen=True)
class Cost:
    """One measure: its name in words, how it is written, a note, and its heading in a table where the name is short."""

    name: str
    write: Any
    note: str = ""
    heading: str = ""

    @property
    def within(self) -> str:
        """The name within a sentence: 'latency', but 'FLOPs'."""
        return self.name if self.name[:2].isupper() else self.name[0].lower() + self.name[1:]


COSTS = {
    "parameters": Cost("Parameters", formats.count),
    "classifier.parameters": Cost("Parameters", formats.count, heading="as a classifier"),
    "flops": Cost("FLOPs", formats.count, "multiply-adds"),
    "classifier.flops": Cost("FLOPs", formats.count, heading="as a classifier"),
    "latency_s": Cost("Latency", formats.seconds, "batch of 1", "Latency, batch of 1"),
    "time_per_image_s": Cost("Time per image", formats.seconds, "in batches", "Time per image"),
    "images_per_s": Cost("Images/s", formats.figure, "at test"),
    "peak_memory_mb": Cost("Peak memory", formats.megabytes),
    "training_s": Cost("Training time", formats.duration),
    "training_images_per_s": Cost("Images/s", formats.figure, "in training", "Training, images/s"),
}
# What each front may be drawn over, the best first; the second measure is that of runs from before there was the first.
FRONTS = {"flops": ("flops",), "latency_s": ("latency_s", "time_per_image_s"), "parameters": ("parameters",)}
ALIKE = ("input_hw", "proposals", "device", "threads", "precision", "peak_memory_of")  # what the costs were measured at


def side_cost(side: Side) -> dict[str, Any]:
    """{measure: {mean, std, n} or None}, and what of ALIKE all runs agree on (None otherwise)."""
    told: dict[str, Any] = {}
    for name in COSTS:
        values = [value for run in side.runs if (value := _cost(run, name)) is not None]
        told[name] = None if len(values) < len(side.runs) else over_seeds(values)
    for name in ALIKE:
        values = [first_of(run.evaluation, f"cost.{name}") for run in side.runs]
        told[name] = values[0] if all(value == values[0] for value in values) else None
    return told


def _cost(run: Run, name: str) -> float | None:
    if name == "training_s":
        value = run.provenance.get("training_s")
    elif name == "training_images_per_s":
        value = _training_speed(run)
    else:
        value = first_of(run.evaluation, f"cost.{name}")
    return known(value) if isinstance(value, (int, float)) else None


def _training_speed(run: Run) -> float | None:
    """Images a second, waits and evaluations apart: the batch over the median step of the log."""
    batch = first_of(run.recipe, "solver.batch_size")
    steps_s = [line["time_s"] for line in run.metrics if isinstance(line.get("time_s"), (int, float))]
    if not steps_s or not isinstance(batch, (int, float)):
        return None
    step_s = statistics.median(steps_s)
    return batch * (first_of(run.recipe, "solver.accumulate") or 1) / step_s if step_s > 0 else None


def ratios(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, float]:
    """Second over first of each measure that both have."""
    pairs = {name: (first[name], second[name]) for name in COSTS if first[name] and second[name]}
    return {name: b["mean"] / a["mean"] for name, (a, b) in pairs.items() if a["mean"]}


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the (cost, gain) points that no other beats: none has more gain at no more cost, or as much at less.

    By rising cost.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1]))
    kept: list[int] = []
    for place in order:
        if not kept or points[place][1] > points[kept[-1]][1] or points[place] == points[kept[-1]]:
            kept.append(place)
    return kept


def fronts(sides: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each of FRONTS the sides that have the cost, as points with their AP, and the Pareto line's places.

    sides: as `content` describes them. A front has one measure, of its candidates the one that most sides have, and
    needs two points. spread: the standard deviation over seeds.
    """
    told: dict[str, Any] = {}
    for name, candidates in FRONTS.items():
        measure = max(candidates, key=lambda one: sum(bool(side["cost"][one]) for side in sides))
        points = [
            {
                "label": side["label"],
                "side": place,
                "cost": cost["mean"],
                "AP": side["figures"]["AP"]["mean"],
                "spread": side["figures"]["AP"]["std"],
            }
            for place, side in enumerate(sides)
            if (cost := side["cost"][measure]) and cost["mean"] and side["figures"]["AP"]["mean"] is not None
        ]
        if len(points) > 1:
            told[name] = {
                "measure": measure,
                "what": COSTS[measure].within,
                "points": points,
                "pareto": pareto([(point["cost"], point["AP"]) for point in points]),
            }
    return told
