"""Training curves from the lines of metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vertebra.evaluation.report.spread import with_figures_beside

if TYPE_CHECKING:
    from vertebra.evaluation.report.sides import Side
    from vertebra.evaluation.report.task import Task

MOST = 240  # points of a curve
Point = tuple[float, float]
Line = Sequence[Point]  # (iteration, value)


@dataclass(frozen=True)
class RunCurves:
    """Total loss, and the main figure by its name, of one run."""

    seed: Any
    loss: Line
    figures: Mapping[str, Line]

    def to_dict(self) -> dict[str, Any]:
        return with_figures_beside(self)


@dataclass(frozen=True)
class SideCurves:
    """Total loss (smoothed) and the two main figures, by name, over the iterations: means over the seeds, and each
    run's."""

    label: str
    loss: Line
    figures: Mapping[str, Line]
    runs: Sequence[RunCurves]

    def to_dict(self) -> dict[str, Any]:
        return with_figures_beside(self)


def total_loss(line: Mapping[str, Any]) -> float | None:
    """Return the line's total loss: `loss`, or the sum of its parts `loss_*`; None if neither is finite."""
    if isinstance(line.get("loss"), (int, float)):
        total = float(line["loss"])
    else:
        parts = [value for name, value in line.items() if name.startswith("loss_") and isinstance(value, (int, float))]
        if not parts:
            return None
        total = float(sum(parts))
    return total if math.isfinite(total) else None


def loss_curve(metrics: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return (iteration, total loss) of every training line, which alone have one."""
    losses = ((line["iteration"], total_loss(line)) for line in metrics)
    return [(float(iteration), loss) for iteration, loss in losses if loss is not None]


def figure_curve(metrics: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """Return (iteration, figure 0-100) of every evaluation line that has the figure."""
    figures = ((float(line["iteration"]), line.get(name)) for line in metrics)
    return [(at, float(one)) for at, one in figures if isinstance(one, (int, float)) and math.isfinite(one)]


def smoothed(points: Sequence[Point], share: float = 0.06) -> list[Point]:
    """Return a centred mean over `share` of the points; at the ends over the half that exists."""
    half = max(0, round(len(points) * share / 2))
    smooth = []
    for index, (x, _) in enumerate(points):
        window = [y for _, y in points[max(0, index - half) : index + half + 1]]
        smooth.append((x, sum(window) / len(window)))
    return smooth


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return about MOST points at most, evenly picked, with the last one."""
    step = max(1, math.ceil(len(points) / MOST))
    kept = list(points[::step])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def mean_curve(lines: Sequence[Sequence[Point]]) -> list[Point]:
    """Return the mean over the lines wherever all of them have a point."""
    if not lines:
        return []
    values = [dict(line) for line in lines]
    shared = [x for x, _ in lines[0] if all(x in line for line in values)]
    return [(x, sum(line[x] for line in values) / len(values)) for x in shared]


def side_curves(task: Task, side: Side) -> SideCurves:
    """Return the side's curves with a few hundred points each: loss to 5 digits, figures to 4."""
    losses = [loss_curve(run.metrics) for run in side.runs]
    lines = {
        name: [figure_curve(run.metrics, name.replace(" ", "_")) for run in side.runs]
        for name in (task.main, task.second)
    }
    return SideCurves(
        side.label,
        loss=rounded(thinned(smoothed(mean_curve(losses))), 5),
        figures={name: rounded(mean_curve(of_runs), 4) for name, of_runs in lines.items()},
        runs=[
            RunCurves(seed, rounded(thinned(loss), 5), {task.main: rounded(line, 4)})
            for seed, loss, line in zip(side.seeds, losses, lines[task.main])
        ],
    )


def rounded(points: Sequence[tuple[float, ...]], digits: int) -> list[Any]:
    """Return points with x as it is and the values with so many decimals."""
    return [(x, *(round(value, digits) for value in values)) for x, *values in points]
