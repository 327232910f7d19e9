"""A side's cost, from its runs' evaluation.json and provenance, and the sides that no other beats at less cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from vertebra.evaluation.report.content import Front, FrontPoint, SideCost, SideFacts
from vertebra.evaluation.report.reading import first_of
from vertebra.evaluation.report.runs import Run
from vertebra.evaluation.report.sides import Side
from vertebra.evaluation.report.spread import Spread
from vertebra.evaluation.report.task import Task
from vertebra.ground import formats
from vertebra.ground.formats import known


@dataclass(frozen=True)
class Cost:
    """One measure: its name in words, how it is written, a note, and its heading in a table where the name is short."""

    name: str
    write: Callable[[float | None], str]
    note: str = ""
    heading: str = ""

    @property
    def within(self) -> str:
        """Its name within a sentence: 'latency', but 'FLOPs'."""
        return self.name if self.name[:2].isupper() else self.name[0].lower() + self.name[1:]


COSTS = {
    "parameters": Cost("Parameters", formats.count),
    "classifier.parameters": Cost("Parameters", formats.count, heading="Classifier parameters"),
    "flops": Cost("FLOPs", formats.count, "multiply-adds"),
    "classifier.flops": Cost("FLOPs", formats.count, heading="Classifier FLOPs"),
    "latency_s": Cost("Latency", formats.seconds, "batch of 1", "Latency, batch of 1"),
    "time_per_image_s": Cost("Time per image", formats.seconds, "in batches", "Time per image"),
    "images_per_s": Cost("Images/s", formats.figure, "at test"),
    "peak_memory_mb": Cost("Peak memory", formats.megabytes),
    "training_s": Cost("Training time", formats.duration),
    "training_images_per_s": Cost("Images/s", formats.figure, "in training", "Training, images/s"),
}
# The measures that each front may be drawn over, the best first; old runs have the second alone.
FRONTS = {"flops": ("flops",), "latency_s": ("latency_s", "time_per_image_s"), "parameters": ("parameters",)}


def side_cost(side: Side) -> SideCost:
    """Return the measures that all of a side's runs have, and the conditions that they agree on."""
    measures: dict[str, Spread | None] = {}
    for name in COSTS:
        values = [value for run in side.runs if (value := _cost(run, name)) is not None]
        measures[name] = None if len(values) < len(side.runs) else Spread.over(values)
    conditions = {}
    for name in (one.name for one in fields(SideCost) if one.name != "measures"):
        found = [first_of(run.evaluation, f"cost.{name}") for run in side.runs]
        conditions[name] = found[0] if all(value == found[0] for value in found) else None
    return SideCost(measures, **conditions)


def _cost(run: Run, name: str) -> float | None:
    if name == "training_s":
        value = run.provenance.get("training_s")
    elif name == "training_images_per_s":
        value = _training_speed(run)
    else:
        value = first_of(run.evaluation, f"cost.{name}", name)  # older segmenters' have two beside the figures
    return known(value) if isinstance(value, (int, float)) else None


def _training_speed(run: Run) -> float | None:
    """Return images a second without waits and evaluations: the batch over the median step of the log."""
    batch = first_of(run.recipe, "solver.batch_size")
    steps_s = [line["time_s"] for line in run.metrics if isinstance(line.get("time_s"), (int, float))]
    if not steps_s or not isinstance(batch, (int, float)):
        return None
    step_s = statistics.median(steps_s)
    return batch / step_s if step_s > 0 else None


def ratios(first: SideCost, second: SideCost) -> dict[str, float]:
    """Return second over first of each measure that both have."""
    pairs = {name: (first.measures[name], second.measures[name]) for name in COSTS}
    return {name: b.mean / a.mean for name, (a, b) in pairs.items() if a and b and a.mean and b.mean is not None}


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the (cost, gain) points that no other beats, by rising cost.

    One point beats another by more gain at no more cost, or as much gain at less.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1]))
    kept: list[int] = []
    for place in order:
        if not kept or points[place][1] > points[kept[-1]][1] or points[place] == points[kept[-1]]:
            kept.append(place)
    return kept


def fronts(task: Task, sides: Sequence[SideFacts]) -> dict[str, Front]:
    """Return for each of FRONTS the sides that have the cost, with their main figure, and the Pareto line.

    A front has one measure, of its candidates the one that most sides have, and needs two points.
    """
    made = {}
    for name, candidates in FRONTS.items():
        measure = max(candidates, key=lambda one: sum(bool(side.cost.measures[one]) for side in sides))
        points = [
            FrontPoint(side.label, place, cost.mean, figure.mean, figure.std, style=place)
            for place, side in enumerate(sides)
            if (cost := side.cost.measures[measure])
            and cost.mean
            and (figure := side.figures[task.main])
            and figure.mean is not None
        ]
        if len(points) > 1:
            line = pareto([(point.cost, point.figure) for point in points])
            made[name] = Front(measure, COSTS[measure].within, points, line, task.main)
    return made
