"""Why is a detector as good as it is, or better than another? Errors by kind, AP by size and crowding, calibration.

python tools/explain.py RUN

python tools/explain.py RUN OTHER_RUN --json why.json

python tools/explain.py --truth GT.json --predictions DT.json [--against OTHER_DT.json] [--proposals RPN.json]

Of two, A is the first run (or --against) and B the second (or --predictions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vertebra.cli.common import make_room
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import program

INTERVALS = (
    "Intervals are of 95 %, from {} resamples of the test images; another seed's training is not in them. "
    "The p-values of the kinds are corrected for all of them together."
)


def _arg(help_: str) -> Any:
    return tyro.conf.arg(help=help_)


@dataclass(frozen=True)
class Settings:
    """Explain one file of predictions, or two side by side with their differences. Figures are on a 0-100 scale."""

    runs: tyro.conf.Positional[
        Annotated[tuple[Path, ...], _arg("One or two run directories (truth.json, predictions.json).")]
    ] = ()
    truth: Annotated[Path | None, _arg("COCO JSON, in place of a run directory.")] = None
    predictions: Annotated[Path | None, _arg("COCO results JSON on that truth.")] = None
    against: Annotated[Path | None, _arg("Other predictions on the same truth, to subtract.")] = None
    proposals: Annotated[
        tuple[Path, ...],
        _arg("Proposals (COCO results without category_id), for their recall: one file for each detector, A's first."),
    ] = ()
    masks: Annotated[bool, _arg("Compare masks instead of boxes.")] = False
    iou: Annotated[float, _arg("IoU from which a detection is right, for the kinds of error.")] = 0.5
    background_iou: Annotated[float, _arg("IoU up to which a detection is of background.")] = 0.1
    score: Annotated[
        float | None, _arg("Count confusions from this score on [of each detector, where its F1 is highest].")
    ] = None
    difficult: Annotated[
        Literal["ignore", "count"], _arg("Difficult objects: neither found nor punished, or as all others.")
    ] = "ignore"
    per_class: Annotated[bool, _arg("Show each class.")] = False
    resamples: Annotated[
        int, _arg("Of the test images, for the intervals of differences in AP and errors between two; 0: no intervals.")
    ] = 200
    json: Annotated[Path | None, _arg("Write everything to this file as well.")] = None


def main(arguments: list[str]) -> int:
    options = tyro.cli(Settings, prog=program(), description=__doc__, args=arguments)
    files = which_files(options)
    if options.proposals and len(options.proposals) != len(files):
        raise RecipeError(f"--proposals takes one file for each detector, here {len(files)}")
    if options.resamples < 0 or options.resamples == 1:
        raise RecipeError(f"--resamples is 2 or more, or 0 for no intervals; not {options.resamples}")
    make_room("--json", options.json)
    from vertebra.evaluation.metrics.files import read_truth
    from vertebra.evaluation.why.explain import difference, explain, require_same_truth
    from vertebra.evaluation.why.tables import reason_tables

    truths = [read_truth(truth) for truth, _ in files]
    if files[0][0] != files[-1][0]:
        require_same_truth(truths[0], truths[-1], (str(files[0][0]), str(files[-1][0])))
    proposals = options.proposals or (None,) * len(files)
    explanations = [
        explain(
            truths[0],
            predictions,
            iou_type="segm" if options.masks else "bbox",
            difficult=options.difficult,
            iou=options.iou,
            background=options.background_iou,
            score=options.score,
            proposals=file,
        )
        for (_, predictions), file in zip(files, proposals)
    ]
    for letter, (_, predictions), told in zip("AB", files, explanations):
        name = f"{letter}: " if len(files) == 2 else ""
        print(
            f"{name}{predictions}: {told['detections']} detections, {told['truths']} objects, {told['images']} images"
        )
        if without := told["errors"]["classes_without_truth"]:
            print(f"  {len(without)} classes with detections but without truth count in TIDE's mean with AP 0")
        if told["calibration"] is None:
            print("  no calibration: scores beyond 0..1 are no probabilities")
    compared: dict[str, Any] = {}
    if len(files) == 2 and options.resamples and truths[0]["images"]:
        compared = errors_compared(options, truths[0], [predictions for _, predictions in files])
    tables = reason_tables(
        explanations,
        ("A", "B") if len(files) == 2 else ("",),
        differences={("A", "B"): compared} if compared else None,
        detailed=True,
        per_class=options.per_class,
    )
    if compared:
        tables[0] = replace(tables[0], note=INTERVALS.format(options.resamples))
    for table in tables:
        print("\n" + table.text())
    if options.json:
        from vertebra.ground.files import write_json

        found = [
            {"truth": str(truth), "predictions": str(predictions), **told}
            for (truth, predictions), told in zip(files, explanations)
        ]
        change = {"difference": difference(*explanations)} if len(explanations) == 2 else {}
        intervals = {name: None if one is None else one.to_dict() for name, one in compared.items()}
        resampled = {"intervals": {"resamples": options.resamples, "errors": intervals}} if compared else {}
        write_json(options.json, {"detectors": found, **change, **resampled})
        print(f"\nWritten to {options.json}")
    return 0


def errors_compared(options: Settings, truth: Any, files: list[Path]) -> dict[str, Any]:
    """The differences of AP and errors between two files, with intervals: both on the same resamples of the images."""
    from vertebra.evaluation.statistics.resampling import draw_counts
    from vertebra.evaluation.why.resampling import compare_errors, resample_errors

    counts_SI = draw_counts(len(truth["images"]), options.resamples, seed=0)
    first, second = (
        resample_errors(
            truth,
            file,
            counts_SI,
            iou_type="segm" if options.masks else "bbox",
            difficult=options.difficult,
            iou=options.iou,
            background=options.background_iou,
        )
        for file in files
    )
    return compare_errors([first], [second])


def which_files(options: Settings) -> list[tuple[Path, Path]]:
    """(truth, predictions) of each detector, the one to subtract first. Raises RecipeError, ValueError."""
    if options.runs:
        if options.truth or options.predictions or options.against:
            raise RecipeError("name either run directories, or --truth and --predictions; see --help")
        if len(options.runs) > 2:
            raise RecipeError(f"one run or two are explained, not {len(options.runs)}; compare.py reports on more")
        for run in options.runs:
            if not run.is_dir():
                raise ValueError(f"{run} is not a directory; name a run directory of train_det.py or eval_det.py")
            if missing := [name for name in ("truth.json", "predictions.json") if not (run / name).is_file()]:
                is_run = (run / "config.yaml").is_file()
                mend = f"run: python tools/eval_det.py {run}" if is_run else "name a run directory of train_det.py"
                raise ValueError(f"{run} has no {' and no '.join(missing)}; {mend}")
        return [(run / "truth.json", run / "predictions.json") for run in options.runs]
    if not (options.truth and options.predictions):
        raise RecipeError("name a run directory, or --truth GT.json and --predictions DT.json; see --help")
    others = [(options.truth, options.against)] if options.against else []
    return [*others, (options.truth, options.predictions)]
