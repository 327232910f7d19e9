"""Score anyone's predictions: COCO results JSON against COCO JSON truth, semantic maps against maps.

python tools/score.py --truth GT.json --predictions DT.json --metric coco|coco-segm|lvis|lvis-segm|voc07|voc10
                      [--json OUT]

python tools/score.py --truth RUN/truth.json --predictions RUN/predictions.json --metric voc10 --voc-files DIR

python tools/score.py --truth TRUTH_DIR --predictions MAPS_DIR --metric miou [--classes classes.txt] [--json OUT]

python tools/score.py --truth voc2012/val --data VOCdevkit --predictions RUN/maps --metric miou --per-class
                      [--resamples 2000 [--against OTHER/maps]]

Maps are PNGs, indexed or grey, or of colours that classes.txt gives (name r g b), paired by their stems; 255 in the
truth is not scored. Without --classes the classes are the indices up to the greatest in the truth.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from vertebra.cli import score_maps
from vertebra.cli.common import JsonFile, Resamples, make_room
from vertebra.cli.score_intervals import Resample, intervals
from vertebra.ground.formats import counted
from vertebra.ground.parse import as_json
from vertebra.ground.table import Row, Table
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import Recipe, flag_of, refuse

if TYPE_CHECKING:
    from vertebra.evaluation.metrics.average_precision import CountsArray
    from vertebra.evaluation.metrics.files import CheckedTruth, Predictions
    from vertebra.evaluation.statistics.resampling import Resampled

MEANINGS = {
    "AP": "mean over IoU .50:.05:.95",
    "AP50": "IoU .50",
    "AP75": "IoU .75",
    "APs": "objects under 32 x 32 px",
    "APm": "32 x 32 to 96 x 96 px",
    "APl": "over 96 x 96 px",
    "APr": "rare classes, of up to 10 training images",
    "APc": "common classes, up to 100",
    "APf": "frequent classes",
    "AR1": "average recall, 1 detection an image",
    "AR10": "10 detections",
    "AR100": "100 detections",
    "AR300": "average recall, 300 detections an image",
    "ARs": "under 32 x 32 px",
    "ARm": "32 x 32 to 96 x 96 px",
    "ARl": "over 96 x 96 px",
}


class Settings(Recipe):
    """Score COCO results JSON against COCO JSON truth, or maps against maps. All figures are on a 0-100 scale."""

    truth: Path = Field(
        description="COCO JSON: images, annotations (VOC's `difficult` may be a field), categories; miou: a folder of "
        "PNGs, or with --data a source such as voc2012/val."
    )
    predictions: Path = Field(
        description="COCO results JSON: image_id, category_id, bbox xywh, score; miou: a folder of PNGs."
    )
    metric: Literal["coco", "coco-segm", "lvis", "lvis-segm", "voc07", "voc10", "miou"] = Field(
        description="COCO's twelve figures on boxes or masks; LVIS' of its own files, alike; VOC AP, 11-point "
        "(voc07) or area (voc10); mean IoU of semantic maps."
    )
    data: Path | None = Field(None, description="miou: the data set's directory, where --truth is a source in it.")
    iou: float | None = Field(None, gt=0, le=1, description="IoU a match needs, VOC metrics only [0.5].")
    pixels: Literal["exact", "inclusive"] | None = Field(
        None,
        description="VOC metrics only [exact]. exact: x + width is the box's edge, as in Vertebra's files, where this "
        "is the devkit's figure. inclusive: x + width is the last pixel inside (width = xmax - xmin), so IoU adds 1.",
    )
    difficult: Literal["ignore", "count"] = Field(
        "ignore", description="Difficult objects: neither found nor punished, or as all others."
    )
    drop_invalid: bool = Field(
        False, description="Leave out, and count, predictions whose score, box or mask is none; else they are refused."
    )
    boundaries: bool = Field(False, description="miou: boundary F1 as well (Csurka et al. 2013).")
    classes: tuple[str, ...] = Field(
        (), description="Score these classes alone [all]; miou: a file with all of them, one a line."
    )
    against: Path | None = Field(
        None, description="Other predictions on the same truth: the paired difference to them, with --resamples."
    )
    per_class: bool = Field(False, description="Show each class.")
    resamples: Resamples = Field(
        0, description="Resamples of the images for the 95 % interval of AP50, mAP or mIoU; 0: none."
    )
    json_file: JsonFile = Field(None, description="Write everything to this file as well.")
    voc_files: Path | None = Field(
        None, description="Write what PASCAL VOC's evaluation server takes into this directory."
    )
    voc_competition: Literal["comp3", "comp4"] | None = Field(
        None,
        description="For --voc-files: comp3, trained on the challenge's images alone; comp4, on others too "
        "(pre-training) [comp4].",
    )

    def check(self) -> None:
        of_voc, of_masks = self.metric.startswith("voc"), self.metric.endswith("-segm")
        of_boxes = ("iou", "pixels", "difficult", "drop_invalid", "voc_files")
        given = list(map(flag_of, self.given(*of_boxes)))
        of_maps = self.metric == "miou"
        refuse(
            (of_maps and given, f"{', '.join(given)}: not for miou, which has maps and no boxes"),
            (of_maps and len(self.classes) > 1, "--classes: miou takes one file, with a class a line"),
            (
                of_maps and self.classes and self.data,
                "--classes and --data: the data set has its classes; leave one of them out",
            ),
            (
                not of_maps and (self.data or self.boundaries),
                f"{'--data' if self.data else '--boundaries'} is for miou, not for {self.metric}",
            ),
            (
                not of_voc and (self.iou is not None or self.pixels is not None),
                f"--iou and --pixels belong to the VOC metrics, not to {self.metric}",
            ),
            (of_masks and self.resamples, f"--resamples is for boxes, not for {self.metric}"),
            (
                self.against is not None and not self.resamples,
                "--against needs --resamples, for instance 2000: a difference without its interval means little",
            ),
            (of_masks and self.voc_files, f"--voc-files takes boxes, not {self.metric}"),
            (self.voc_competition is not None and self.voc_files is None, "--voc-competition is for --voc-files"),
        )


def main(arguments: list[str]) -> int:
    options = parse_recipe(Settings, arguments, description=__doc__ or "")
    voc = options.metric.startswith("voc")
    make_room("--json", options.json_file)
    if options.metric == "miou":
        _write(options, score_maps.score(options))
        return 0
    truth, predictions = _read(options, options.predictions)
    result = (_score_voc if voc else _score_coco)(options, truth, predictions)
    from vertebra.evaluation.metrics.summary import nothing_to_score, words

    if not truth["annotations"]:
        result["note"] = nothing_to_score(truth)
        print(result["note"])
    elif not voc and (notes := words(truth, difficult=options.difficult)):
        result["notes"] = notes
        print(*(f"Note: {note}" for note in notes), sep="\n")
    if options.classes:
        result["classes"] = list(options.classes)
    _write(options, result)
    if options.voc_files:
        from vertebra.evaluation.metrics.voc_server import write_voc_files

        competition = options.voc_competition or "comp4"
        written = write_voc_files(truth, predictions, options.voc_files, competition=competition)
        print(f"{len(written)} files in {written[0].parent}; send: tar czf results.tgz -C {options.voc_files} results")
    return 0


def _write(options: Settings, result: dict[str, Any]) -> None:
    """Write --json, where it is asked for."""
    if options.json_file:
        from vertebra.ground.files import write_json

        write_json(options.json_file, {"truth": str(options.truth), "predictions": str(options.predictions), **result})
        print(f"Written to {options.json_file}")


def _read(options: Settings, file: Path) -> tuple[CheckedTruth, Predictions]:
    from vertebra.evaluation.metrics.files import read_predictions, read_truth, restrict

    needs = "segmentation" if options.metric.endswith("-segm") else "bbox"
    truth = read_truth(options.truth, needs=needs)
    predictions = read_predictions(file, truth, needs=needs, dropped=print if options.drop_invalid else None)
    return restrict(truth, predictions, options.classes) if options.classes else (truth, predictions)


def _score_coco(options: Settings, truth: CheckedTruth, predictions: Predictions) -> dict[str, Any]:
    from vertebra.evaluation.metrics.coco import coco_figures
    from vertebra.evaluation.statistics.resampling import resample_coco

    family, masks = options.metric.partition("-")[::2]
    iou_type: Any = masks or "bbox"
    federated = family == "lvis"
    figures = coco_figures(truth, predictions, iou_type=iou_type, difficult=options.difficult, federated=federated)
    what = f"{family.upper()} {'masks' if masks else 'boxes'}"
    title = f"{what}, {counted(len(truth['images']), 'image')} (-: no truth)"
    rows = [Row(name, [_number(value), MEANINGS[name]]) for name, value in figures.figures.items()]
    print(Table(title, ["value", "meaning"], rows, corner="figure", left=frozenset({"meaning"})).text())
    if options.per_class:
        columns = ["AP", "AP50", "APs", "APm", "APl"]
        rows = [
            Row(name, [*(_number(values[column]) for column in columns), str(figures.truths[name])])
            for name, values in figures.per_class.items()
        ]
        print("\n" + Table("", [*columns, "truths"], rows, corner="class").text())

    def resample(found: Predictions, counts_SI: CountsArray) -> Resampled:
        how: dict[str, Any] = {"difficult": options.difficult, "federated": federated}
        return resample_coco(truth, found, counts_SI, figures=["AP50"], **how)["AP50"]

    interval = _intervals(options, truth, predictions, "AP50", resample)
    return {"metric": options.metric, **as_json(figures), **interval}


def _score_voc(options: Settings, truth: CheckedTruth, predictions: Predictions) -> dict[str, Any]:
    from vertebra.evaluation.metrics.voc import voc_figures
    from vertebra.evaluation.statistics.resampling import resample_voc

    metric: Any = options.metric
    how: dict[str, Any] = {"metric": metric, "iou": options.iou or 0.5, "pixels": options.pixels or "exact"}
    how["difficult"] = options.difficult
    figures = voc_figures(truth, predictions, **how)
    reading = "11-point" if metric == "voc07" else "area under the curve"
    print(
        f"VOC AP, {reading}, IoU >= {figures.iou:g}, pixels {figures.pixels}, difficult objects "
        f"{figures.difficult.removesuffix('e')}ed, {counted(len(truth['images']), 'image')} (-: no truth)"
    )
    with_truth = sum(count > 0 for count in figures.truths.values())
    print(f"mAP  {_number(figures.mAP)}  mean over {counted(with_truth, 'class')} with truths")
    if options.per_class:
        rows = [Row(name, [_number(value), str(figures.truths[name])]) for name, value in figures.per_class.items()]
        print("\n" + Table("", ["AP", "truths"], rows, corner="class").text())
    resample = partial(resample_voc, truth, **how)
    return {**as_json(figures), **_intervals(options, truth, predictions, "mAP", resample)}


def _intervals(
    options: Settings, truth: CheckedTruth, predictions: Predictions, figure: str, resample: Resample[Predictions]
) -> dict[str, Any]:
    if not options.resamples or not truth["annotations"]:  # without an object there is no figure
        return {}
    sides = [predictions, *([_read(options, options.against)[1]] if options.against else [])]
    return intervals(options, figure, sides, resample, images=len(truth["images"]))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
