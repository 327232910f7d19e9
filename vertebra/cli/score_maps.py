"""Anybody's semantic maps, scored: what `score.py --metric miou` prints and writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.cli.score_intervals import intervals
from vertebra.ground.formats import counted, points
from vertebra.ground.parse import as_json
from vertebra.ground.table import Row, Table

if TYPE_CHECKING:
    from vertebra.cli.score import Settings
    from vertebra.evaluation.metrics.average_precision import CountsArray
    from vertebra.evaluation.metrics.pixels import PixelCounts
    from vertebra.evaluation.statistics.resampling import Resampled

MEANINGS = {
    "mIoU": "mean over the classes of intersection over union, of all images together",
    "pixel_accuracy": "share of the pixels that are right",
    "mean_accuracy": "mean over the classes of the share of their pixels that is right",
    "fwIoU": "mean IoU weighted by the classes' true pixels",
    "boundary_F1": "outlines within 0.75 % of the diagonal, mean over an image's classes, then over images",
}


def score(options: Settings) -> dict[str, Any]:
    """Print the figures, and return what --json holds of them. Raises DataError for maps that cannot be used."""
    from vertebra.build.map_scores import score_maps
    from vertebra.data.prepare.map_folders import answers_to, open_truth
    from vertebra.evaluation.statistics.resampling import resample_pixels

    known = open_truth(options.truth, options.data, Path(options.classes[0]) if options.classes else None)
    scores = score_maps(known, answers_to(known, options.predictions), boundaries=options.boundaries)
    measured = scores.counts.figures()
    if scores.boundary_f1 is not None:
        measured["boundary_F1"] = scores.boundary_f1
    figures = as_json(measured)
    (iou_C,), true_C = scores.counts.iou_SC(), scores.counts.true_IC.sum(axis=0)
    columns = zip(known.class_names, as_json(iou_C.tolist()), true_C.tolist())
    of_classes = {name: {"IoU": iou, "pixels": pixels} for name, iou, pixels in columns}
    title = f"{counted(len(known), 'image')}, {counted(len(known.class_names), 'class')} (-: no pixel)"
    rows = [Row(name, [points(value), MEANINGS[name]]) for name, value in figures.items()]
    print(Table(title, ["value", "meaning"], rows, corner="figure", left=frozenset({"meaning"})).text())
    if options.per_class:
        lines = [Row(name, [points(one["IoU"]), str(one["pixels"])]) for name, one in of_classes.items()]
        print("\n" + Table("", ["IoU", "true pixels"], lines, corner="class").text())
    if scores.unanswered:
        print(f"Note: {counted(scores.unanswered, 'labelled pixel')} are 255 in the maps, no class: counted as wrong")
    result: dict[str, Any] = {"metric": "miou", "figures": figures, "per_class": of_classes, "images": len(known)}
    result |= {"confusion": scores.confusion_CC.tolist(), "unanswered": scores.unanswered}
    if not options.resamples:
        return result
    sides = [scores.counts]
    if options.against:
        sides.append(score_maps(known, answers_to(known, options.against)).counts)

    def resample(counts: PixelCounts, counts_SI: CountsArray) -> Resampled:
        return resample_pixels(counts, known.class_names, counts_SI)["mIoU"]

    return result | intervals(options, "mIoU", sides, resample, images=len(known))
