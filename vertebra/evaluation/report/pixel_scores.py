"""Every figure of segmenters, on the images as they are and on resampled ones.

Legend: I images, C classes, S resamples (row 0: the images as they are).

IoU is a ratio of sums over the images, so a resample sums the images' counts of pixels anew, each as often as it was
drawn, and divides: no map is read. In simulation (`benchmarks/coverage.py --figure mIoU`, n = 300 pairs) 95 % intervals
hold the true difference in 93 to 97 % of pairs at 128 and 500 images and one to three seeds, at 30 images in 96 to 97 %
for two or three seeds and in 92 % for one.
"""

from __future__ import annotations

from collections.abc import Sequence

from vertebra.evaluation.metrics.average_precision import CountsArray
from vertebra.evaluation.report.content import DataFacts
from vertebra.evaluation.report.runs import SegmenterRun
from vertebra.evaluation.report.scores import RESAMPLES, Scored, Scores, require_recorded
from vertebra.evaluation.report.sides import Side
from vertebra.evaluation.report.task import SEGMENTATION
from vertebra.evaluation.statistics.resampling import draw_counts, resample_pixels


class PixelScores(Scores):
    def __init__(self, runs: Sequence[SegmenterRun], sides: Sequence[Side]):
        first = runs[0]
        counts_SI = draw_counts(len(first.image_ids), RESAMPLES, seed=0)
        true_C = first.counts.true_IC.sum(axis=0).tolist()
        data = DataFacts(len(first.image_ids), sum(true_C), list(first.class_names), SEGMENTATION.counted)
        scored = [score(run, counts_SI) for run in runs]
        super().__init__(SEGMENTATION, sides, scored, dict(zip(first.class_names, true_C)), data)


def score(run: SegmenterRun, counts_SI: CountsArray) -> Scored:
    """Score the run's counts of pixels anew. Raises UserError if its evaluation.json has another figure."""
    figures = resample_pixels(run.counts, run.class_names, counts_SI)
    recorded = {name: f"segmentation.{name.replace(' ', '_')}" for name in figures}
    require_recorded(SEGMENTATION, run, figures, recorded)
    return Scored(figures)
