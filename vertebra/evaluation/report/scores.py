"""Every figure of the runs, on the images as they are and on resampled ones, and the differences of sides.

Legend: I images, S resamples (row 0: the images as they are), C classes.

Detectors and segmenters differ in how a run is scored alone; `box_scores` has the former. A segmenter's IoU is a ratio
of sums over the images, so a resample sums the images' counts of pixels anew, each as often as it was drawn, and
divides: no map is read. In simulation (`benchmarks/coverage.py --figure mIoU`, n = 300 pairs) 95 % intervals hold the
true difference in 93 to 97 % of pairs at 128 and 500 images and one to three seeds, at 30 images in 96 to 97 % for two
or three seeds and in 92 % for one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vertebra.evaluation.report.content import DataFacts
from vertebra.evaluation.report.reading import first_of
from vertebra.evaluation.report.runs import Run, SegmenterRun
from vertebra.evaluation.report.sides import Side
from vertebra.evaluation.report.spread import Spread
from vertebra.evaluation.report.task import SEGMENTATION, Task
from vertebra.evaluation.statistics.comparison import Difference, corrected
from vertebra.evaluation.statistics.resampling import Resampled, compare, draw_counts, resample_pixels
from vertebra.ground.errors import UserError

RESAMPLES = 1000
TOLERANCE = 0.05  # points: what rounding in evaluation.json may cost


@dataclass(frozen=True)
class Scored:
    """One run: figures by name."""

    figures: dict[str, Resampled]


class Scores:
    """All runs on the same resamples of the images, and their sides' means and differences.

    truths: how much of each class the truth has.
    """

    def __init__(
        self, task: Task, sides: Sequence[Side], runs: Sequence[Scored], truths: Mapping[str, int], data: DataFacts
    ):
        self.task, self.sides, self.runs, self.truths, self.data = task, sides, runs, truths, data
        self.names = list(runs[0].figures)
        self.classes = list(truths)

    def spread(self, side: Side, figure: str, of: str | None = None) -> Spread:
        """Return a figure, or that of one class, over the side's runs on the images as they are."""
        found = [self.runs[place].figures[figure] for place in side.places]
        return Spread.over([float((one.mean_S if of is None else one.of(of))[0]) for one in found])

    def difference(self, a: Side, b: Side, figure: str, of: str | None = None) -> Difference | None:
        """Return side b less side a in a figure, or in that of one class; None where there is nothing to measure."""
        first, second = ([self.runs[place].figures[figure] for place in side.places] for side in (a, b))
        return compare(first, second, of=of)

    def class_differences(self, a: Side, b: Side) -> dict[str, Difference | None]:
        """Return side b less side a in each class's part of the main figure, p-values corrected over the classes."""
        return corrected({name: self.difference(a, b, self.task.main, name) for name in self.classes})


class PixelScores(Scores):
    """Of segmenters."""

    def __init__(self, runs: Sequence[SegmenterRun], sides: Sequence[Side]):
        first = runs[0]
        counts_SI = draw_counts(len(first.image_ids), RESAMPLES, seed=0)
        true_C = first.counts.true_IC.sum(axis=0).tolist()
        data = DataFacts(len(first.image_ids), sum(true_C), list(first.class_names), SEGMENTATION.counted)
        scored = []
        for run in runs:
            figures = resample_pixels(run.counts, run.class_names, counts_SI)
            recorded = {name: f"segmentation.{name.replace(' ', '_')}" for name in figures}
            require_recorded(SEGMENTATION, run, figures, recorded)
            scored.append(Scored(figures))
        super().__init__(SEGMENTATION, sides, scored, dict(zip(first.class_names, true_C)), data)


def require_recorded(task: Task, run: Run, figures: Mapping[str, Resampled], recorded: Mapping[str, str]) -> None:
    """Raises UserError where a figure is not the one at its place in the run's evaluation.json, or there is none."""
    scored = {name: float(figures[name].mean_S[0]) for name in recorded}
    if math.isnan(scored[task.main]):
        raise UserError(
            run.path, f"its truth has no {task.counted[:-1]} to find, so there is no {task.main} to compare"
        )
    for name, value in scored.items() if run.name is None else ():
        found = first_of(run.evaluation, recorded[name])
        if not isinstance(found, (int, float)) or abs(value - found) > TOLERANCE:
            raise UserError(
                run.path / "evaluation.json",
                f"it has {name} {found}, but {task.scored} scores {value:.2f}: they are not of one evaluation",
                f"score the run again with: python tools/eval_{task.tool}.py {run.path}",
            )
