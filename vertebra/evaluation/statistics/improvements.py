"""The cumulative table of a detector's improvements at test, beside the paper's (He et al. 2015, appendix B, table 9).

Each row's difference to the row above has the 95 % interval of `comparison` over the test images: what it does not
cover is another seed of the training, which matters where a row is another run (context, ensemble).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from vertebra.evaluation.metrics.files import read_truth
from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.statistics.resampling import compare, draw_counts, resample_coco
from vertebra.ground.errors import UserError
from vertebra.ground.parse import as_json
from vertebra.ground.table import Row, Table

# ResNet-101 on COCO: AP, AP50. Trained on train, tested on val; the ensemble's: of three, trainval, test-dev.
PAPER: dict[str, tuple[float, float]] = {
    "baseline": (27.2, 48.4),
    "refinement": (29.9, 49.9),
    "context": (30.0, 51.1),
    "multi_scale": (32.5, 53.8),
    "ensemble": (37.4, 59.0),
}
STEPS = ("AP", "AP50")
SIZES = ("APs", "APm", "APl")


@dataclass(frozen=True)
class Evaluated:
    """One row: its key in PAPER (or another), what a reader calls it, and the directory with its results."""

    key: str
    title: str
    directory: Path


def improvement_table(rows: Sequence[Evaluated], *, resamples: int = 1000) -> list[dict[str, Any]]:
    """Return each row's figures, its differences to the row above, and the paper's figures, fit for JSON.

    Raises UserError where the rows are not of the same test images.
    """
    truths = [read_truth(row.directory / "truth.json") for row in rows]
    if not truths[0]["annotations"]:
        raise UserError(f"{rows[0].directory / 'truth.json'} has no object to find, so there is no AP to compare")
    for row, truth in zip(rows, truths):
        if truth != truths[0]:
            raise UserError(
                f"{row.directory / 'truth.json'} is not that of {rows[0].directory}: the rows are of different test "
                "images; evaluate them all with the same --data and --test-source"
            )
    counts_SI = draw_counts(len(truths[0]["images"]), resamples, seed=0)
    figures = [resample_coco(truths[0], row.directory / "predictions.json", counts_SI, figures=STEPS) for row in rows]
    steps: list[dict[str, Difference | None]] = [dict.fromkeys(STEPS)]
    steps += [{name: compare([above[name]], [row[name]]) for name in STEPS} for above, row in pairwise(figures)]
    return [_row(row, step) for row, step in zip(rows, steps)]


def _row(row: Evaluated, steps: dict[str, Difference | None]) -> dict[str, Any]:
    evaluation = json.loads((row.directory / "evaluation.json").read_text(encoding="utf-8"))
    return {
        "key": row.key,
        "title": row.title,
        "figures": evaluation["coco"],
        "step": as_json(steps),
        "per_class": {name: values["AP"] for name, values in evaluation["per_class"].items()},
        "time_per_image_s": evaluation["cost"]["time_per_image_s"],
        "flops": evaluation["cost"]["flops"],
        "tested": evaluation["tested"],
        "paper": dict(zip(STEPS, PAPER[row.key])) if row.key in PAPER else None,
    }


def to_markdown(table: Sequence[dict[str, Any]]) -> str:
    """Return the table for people; AP 0..100, differences with their 95 % intervals."""
    columns = [*STEPS, *(f"{name}: step (95 %)" for name in STEPS), *SIZES, "s/image", "paper's AP", "AP50"]
    rows = []
    for row in table:
        figures, paper = row["figures"], row["paper"] or {}
        cells = [
            *(_number(figures[name]) for name in STEPS),
            *(_step(row["step"][name]) for name in STEPS),
            *(_number(figures[name]) for name in SIZES),
            f"{row['time_per_image_s']:.2f}",
            *(_number(paper.get(name)) for name in STEPS),
        ]
        rows.append(Row(row["title"], cells))
    return Table("", columns, rows).markdown()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _step(step: dict[str, Any] | None) -> str:
    return "" if step is None else f"{step['estimate']:+.1f} ({step['low']:+.1f} .. {step['high']:+.1f})"
