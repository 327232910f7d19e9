"""Why is a detector as good as it is, or better than another? Errors by kind, AP by size and crowding, calibration.

python tools/explain.py RUN

python tools/explain.py RUN OTHER_RUN --json why.json

python tools/explain.py --truth GT.json --predictions DT.json [--against OTHER_DT.json] [--proposals RPN.json]

Of two, A is the first run (or --against) and B the second (or --predictions).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import tyro
from pydantic import Field

from vertebra.cli.common import JsonFile, Resamples, make_room
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import Recipe, refuse

INTERVALS = (
    "Intervals are of 95 %, from {} resamples of the test images; another seed's training is not in them. "
    "The p-values of the kinds are corrected for all of them together."
)


class Settings(Recipe):
    """Explain one file of predictions, or two side by side with their differences. Figures are on a 0-100 scale."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = Field(
        (), description="One or two run directories (truth.json, predictions.json)."
    )
    truth: Path | None = Field(None, description="COCO JSON, in place of a run directory.")
    predictions: Path | None = Field(None, description="COCO results JSON on that truth.")
    against: Path | None = Field(None, description="Other predictions on the same truth, to subtract.")
    proposals: tuple[Path, ...] = Field(
        (),
        description="Proposals (COCO results without category_id), for their recall: one file for each detector, A's "
        "first.",
    )
    masks: bool = Field(False, description="Compare masks instead of boxes.")
    iou: float = Field(0.5, gt=0, le=1, description="IoU from which a detection is right, for the kinds of error.")
    background_iou: float = Field(0.1, ge=0, le=1, description="IoU up to which a detection is of background.")
    score: float | None = Field(
        None, description="Count confusions from this score on [of each detector, where its F1 is highest]."
    )
    difficult: Literal["ignore", "count"] = Field(
        "ignore", description="Difficult objects: neither found nor punished, or as all others."
    )
    per_class: bool = Field(False, description="Show each class.")
    resamples: Resamples = Field(
        200,
        description="Of the test images, for the intervals of differences in AP and errors between two; 0: no "
        "intervals.",
    )
    json_file: JsonFile = Field(None, description="Write everything to this file as well.")

    def check(self) -> None:
        refuse(
            (
                self.runs and (self.truth or self.predictions or self.against),
                "name either run directories, or --truth and --predictions; see --help",
            ),
            (len(self.runs) > 2, f"one run or two are explained, not {len(self.runs)}; compare.py reports on more"),
            (
                not self.runs and not (self.truth and self.predictions),
                "name a run directory, or --truth GT.json and --predictions DT.json; see --help",
            ),
            (
                self.proposals and len(self.proposals) != self.detectors,
                f"--proposals takes one file for each detector, here {self.detectors}",
            ),
        )

    @property
    def detectors(self) -> int:
        """How many detectors are explained."""
        return len(self.runs) or (2 if self.against else 1)


def main(arguments: list[str]) -> int:
    options = parse_recipe(Settings, arguments, description=__doc__ or "")
    files = which_files(options)
    make_room("--json", options.json_file)
    from vertebra.evaluation.metrics.files import read_truth
    from vertebra.evaluation.why.explain import difference, explain, judge, require_same_truth
    from vertebra.evaluation.why.tables import reason_tables

    truths = [read_truth(truth) for truth, _ in files]
    if files[0][0] != files[-1][0]:
        require_same_truth(truths[0], truths[-1], (str(files[0][0]), str(files[-1][0])))
    proposals = options.proposals or (None,) * len(files)
    judged = [
        judge(
            truths[0],
            predictions,
            iou_type="segm" if options.masks else "bbox",
            difficult=options.difficult,
            iou=options.iou,
            background=options.background_iou,
        )
        for _, predictions in files
    ]
    explanations = [explain(one, score=options.score, proposals=file) for one, file in zip(judged, proposals)]
    for letter, (_, predictions), facts in zip("AB", files, explanations):
        name = f"{letter}: " if len(files) == 2 else ""
        counts = f"{facts['detections']} detections, {facts['truths']} objects, {facts['images']} images"
        print(f"{name}{predictions}: {counts}")
        if without := facts["errors"]["classes_without_truth"]:
            print(f"  {len(without)} classes with detections but without truth count in TIDE's mean with AP 0")
        if facts["calibration"] is None:
            print("  no calibration: scores beyond 0..1 are no probabilities")
    compared: dict[str, Any] = {}
    if len(files) == 2 and options.resamples and truths[0]["images"]:
        from vertebra.evaluation.statistics.resampling import draw_counts
        from vertebra.evaluation.why.resampling import compare_errors, resample_errors

        counts_SI = draw_counts(len(truths[0]["images"]), options.resamples, seed=0)  # the same for both
        first, second = (resample_errors(one.verdicts, counts_SI) for one in judged)
        compared = compare_errors([first], [second])
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
    if options.json_file:
        from vertebra.ground.files import write_json

        found = [
            {"truth": str(truth), "predictions": str(predictions), **facts}
            for (truth, predictions), facts in zip(files, explanations)
        ]
        change = {"difference": difference(*explanations)} if len(explanations) == 2 else {}
        intervals = {"resamples": options.resamples, "errors": as_json(compared)}
        resampled = {"intervals": intervals} if compared else {}
        write_json(options.json_file, {"detectors": found, **change, **resampled})
        print(f"\nWritten to {options.json_file}")
    return 0


def which_files(options: Settings) -> list[tuple[Path, Path]]:
    """Return (truth, predictions) of each detector, the one to subtract first. Raises UserError for missing files."""
    if options.runs:
        for run in options.runs:
            if not run.is_dir():
                raise UserError(run, "is not a directory", "name a run directory of train_det.py or eval_det.py")
            if missing := [name for name in ("truth.json", "predictions.json") if not (run / name).is_file()]:
                is_run = (run / "config.yaml").is_file()
                hint = f"run: python tools/eval_det.py {run}" if is_run else "name a run directory of train_det.py"
                raise UserError(f"{run} has no {' and no '.join(missing)}", hint=hint)
        return [(run / "truth.json", run / "predictions.json") for run in options.runs]
    assert options.truth is not None and options.predictions is not None
    others = [(options.truth, options.against)] if options.against else []
    return [*others, (options.truth, options.predictions)]
