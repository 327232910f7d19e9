"""Score anyone's predictions: COCO results JSON against COCO JSON truth.

python tools/score.py --truth GT.json --predictions DT.json --metric coco|coco-segm|voc07|voc10 [--json OUT]

python tools/score.py --truth RUN/truth.json --predictions RUN/predictions.json --metric voc10 --voc-files DIR
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vertebra.cli.common import make_room
from vertebra.recipes.command_line import program

MEANINGS = {
    "AP": "mean over IoU .50:.05:.95",
    "AP50": "IoU .50",
    "AP75": "IoU .75",
    "APs": "objects under 32 x 32 px",
    "APm": "32 x 32 to 96 x 96 px",
    "APl": "over 96 x 96 px",
    "AR1": "average recall, 1 detection an image",
    "AR10": "10 detections",
    "AR100": "100 detections",
    "ARs": "under 32 x 32 px",
    "ARm": "32 x 32 to 96 x 96 px",
    "ARl": "over 96 x 96 px",
}


def _arg(help_: str) -> Any:
    return tyro.conf.arg(help=help_)


@dataclass(frozen=True)
class Settings:
    """Score COCO results JSON against COCO JSON truth. All figures are on a 0-100 scale."""

    truth: Annotated[Path, _arg("COCO JSON: images, annotations (VOC's `difficult` may be a field), categories.")]
    predictions: Annotated[Path, _arg("COCO results JSON: image_id, category_id, bbox xywh, score.")]
    metric: Annotated[
        Literal["coco", "coco-segm", "voc07", "voc10"],
        _arg("COCO's twelve figures on boxes or masks; VOC AP, 11-point (voc07) or area (voc10)."),
    ]
    iou: Annotated[float | None, _arg("IoU a match needs, VOC metrics only [0.5].")] = None
    pixels: Annotated[
        Literal["exact", "inclusive"] | None,
        _arg(
            "VOC metrics only [exact]. exact: x + width is the box's edge, as in Vertebra's files, where "
            "this is the devkit's figure. inclusive: x + width is the last pixel inside (width = xmax - "
            "xmin), so IoU adds 1."
        ),
    ] = None
    difficult: Annotated[
        Literal["ignore", "count"], _arg("Difficult objects: neither found nor punished, or as all others.")
    ] = "ignore"
    classes: Annotated[tuple[str, ...], _arg("Score these classes alone [all].")] = ()
    against: Annotated[
        Path | None, _arg("Other predictions on the same truth: the paired difference to them, with --resamples.")
    ] = None
    per_class: Annotated[bool, _arg("Show each class.")] = False
    resamples: Annotated[int, _arg("Resamples for the images' bootstrap 95 % interval of AP50 or mAP; 0: none.")] = 0
    json: Annotated[Path | None, _arg("Write everything to this file as well.")] = None
    voc_files: Annotated[Path | None, _arg("Write what PASCAL VOC's evaluation server takes into this directory.")] = (
        None
    )
    voc_competition: Annotated[
        Literal["comp3", "comp4"] | None,
        _arg(
            "For --voc-files: comp3, trained on the challenge's images alone; comp4, on others too (pre-training) "
            "[comp4]."
        ),
    ] = None


def main(arguments: list[str]) -> int:
    options = tyro.cli(Settings, prog=program(), description=(__doc__ or "").split("\n")[0], args=arguments)
    voc = options.metric.startswith("voc")
    wrong = _wrong_flags(options, voc)
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    make_room("--json", options.json)
    truth, predictions = _read(options, options.predictions)
    result = (_score_voc if voc else _score_coco)(options, truth, predictions)
    if not truth["annotations"]:
        from vertebra.evaluation.metrics.summary import nothing_to_score

        result["note"] = nothing_to_score(truth)
        print(result["note"])
    if options.classes:
        result["classes"] = list(options.classes)
    if options.json:
        from vertebra.ground.files import write_json

        write_json(options.json, {"truth": str(options.truth), "predictions": str(options.predictions), **result})
        print(f"Written to {options.json}")
    if options.voc_files:
        from vertebra.evaluation.metrics.voc_server import write_voc_files

        competition = options.voc_competition or "comp4"
        written = write_voc_files(truth, predictions, options.voc_files, competition=competition)
        print(f"{len(written)} files in {written[0].parent}; send: tar czf results.tgz -C {options.voc_files} results")
    return 0


def _wrong_flags(options: Settings, voc: bool) -> str | None:
    if not voc and (options.iou is not None or options.pixels is not None):
        return f"--iou and --pixels belong to the VOC metrics, not to {options.metric}"
    if options.iou is not None and not 0 < options.iou <= 1:
        return f"--iou is above 0 and at most 1, not {options.iou}"
    if options.metric == "coco-segm" and options.resamples:
        return "--resamples is for boxes, not for coco-segm"
    if options.against is not None and not options.resamples:
        return "--against needs --resamples, say 2000: a difference without its interval says little"
    if options.voc_files and options.metric == "coco-segm":
        return "--voc-files takes boxes, not coco-segm"
    if options.voc_competition is not None and options.voc_files is None:
        return "--voc-competition is for --voc-files"
    if options.resamples < 0 or options.resamples == 1:
        return f"--resamples is 2 or more, or 0 for no interval; not {options.resamples}"
    return None


def _read(options: Settings, file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from vertebra.evaluation.metrics.files import read_predictions, read_truth, restrict

    needs = "segmentation" if options.metric == "coco-segm" else "bbox"
    truth = read_truth(options.truth, needs=needs)
    predictions = read_predictions(file, truth, needs=needs)
    return restrict(truth, predictions, options.classes) if options.classes else (truth, predictions)


def _score_coco(options: Settings, truth: dict[str, Any], predictions: list[dict[str, Any]]) -> dict[str, Any]:
    from vertebra.evaluation.metrics.coco import coco_figures

    iou_type: Any = "segm" if options.metric == "coco-segm" else "bbox"
    figures = coco_figures(truth, predictions, iou_type=iou_type, difficult=options.difficult)
    print(f"COCO {'masks' if iou_type == 'segm' else 'boxes'}, {len(truth['images'])} images (-: no truth)")
    _table((name, _number(value), MEANINGS[name]) for name, value in figures.figures.items())
    if options.per_class:
        columns = ("AP", "AP50", "APs", "APm", "APl")
        print()
        _table(
            [
                ("class", *columns, "truths"),
                *(
                    (name, *(_number(values[column]) for column in columns), str(figures.truths[name]))
                    for name, values in figures.per_class.items()
                ),
            ]
        )
    interval = _intervals(options, truth, predictions, metric="coco50")
    return {"metric": options.metric, **figures.to_dict(), **interval}


def _score_voc(options: Settings, truth: dict[str, Any], predictions: list[dict[str, Any]]) -> dict[str, Any]:
    from vertebra.evaluation.metrics.voc import voc_figures

    metric: Any = options.metric
    how: dict[str, Any] = {"iou": options.iou or 0.5, "pixels": options.pixels or "exact"}
    figures = voc_figures(truth, predictions, metric=metric, difficult=options.difficult, **how)
    reading = "11-point" if metric == "voc07" else "area under the curve"
    print(
        f"VOC AP, {reading}, IoU >= {figures.iou:g}, pixels {figures.pixels}, difficult objects "
        f"{'ignored' if figures.difficult == 'ignore' else 'counted'}, {len(truth['images'])} images (-: no truth)"
    )
    with_truth = sum(count > 0 for count in figures.truths.values())
    _table([("mAP", _number(figures.mAP), f"mean over {with_truth} classes with truths")])
    if options.per_class:
        print()
        rows = ((name, _number(value), str(figures.truths[name])) for name, value in figures.per_class.items())
        _table([("class", "AP", "truths"), *rows])
    return {**figures.to_dict(), **_intervals(options, truth, predictions, metric=metric, **how)}


def _intervals(
    options: Settings, truth: dict[str, Any], predictions: list[dict[str, Any]], **how: Any
) -> dict[str, Any]:
    if not options.resamples or not truth["annotations"]:  # without an object there is no figure
        return {}
    from vertebra.evaluation.statistics.bootstrap import bootstrap_difference, bootstrap_interval

    name = "AP50" if how["metric"] == "coco50" else "mAP"
    how |= {"difficult": options.difficult, "resamples": options.resamples}
    interval = bootstrap_interval(truth, predictions, **how)
    over = f"over {options.resamples} resamples of the images"
    print(f"95 % interval of {name} {over}: {_number(interval.low)} to {_number(interval.high)}")
    told: dict[str, Any] = {"interval": {"figure": name, **interval.to_dict()}}
    if options.against is not None:
        _, others = _read(options, options.against)
        gain = bootstrap_difference(truth, others, predictions, **how)
        print(
            f"{name} less that of {options.against}: {gain.estimate:+.2f}, 95 % interval {over}: "
            f"{gain.low:+.2f} to {gain.high:+.2f} (image sampling only"
            f"{'; not distinguishable' if gain.low <= 0 <= gain.high else ''})"
        )
        told["against"] = {"predictions": str(options.against), "figure": name, **gain.to_dict()}
    return told


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _table(rows: Iterable[tuple[str, ...]]) -> None:
    """Columns aligned: names and notes to the left, figures to the right."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column == 0 or not _is_figure(rows[-1][column]) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  " + "  ".join(cells).rstrip())


def _is_figure(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).isdigit()
