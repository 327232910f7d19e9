"""The tables of `reasons`: errors by kind, outcomes, calibration, confusions, sizes, crowding, proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.cells import difference_cells, labels
from vertebra.ground.table import Cell, Row, Table


def error_table(content: Mapping[str, Any]) -> Table:
    """AP lost to each kind by side, with how often; then each pair's difference of AP lost."""
    errors = content["reasons"]["errors"]
    rows = []
    for kind in errors["kinds"]:
        counts = [""] * len(kind["lost"]) if kind["counts"] is None else map(formats.tally, kind["counts"])
        cells = [Cell(formats.ap(value), count) for value, count in zip(kind["lost"], counts)]
        for pair in errors["differences"]:
            cells += difference_cells(pair["kinds"][kind["kind"]])
        group = "AP gained were they gone" if kind["special"] else "AP lost to each kind"
        rows.append(Row(kind["kind"].replace("_", " "), cells, kind["meaning"], group))
    columns = labels(content)
    for pair in errors["differences"]:
        columns = [*columns, f"{pair['b']} less {pair['a']}", "p, Holm"]
    return Table("", columns, rows, "Error")


def detail_tables(content: Mapping[str, Any]) -> list[Table]:
    """Calibration, outcomes, confusions, fifths of sizes, crowding, proposals."""
    reasons, sides = content["reasons"], labels(content)
    made = [_outcomes(reasons, sides)]
    if any(one is not None for one in reasons["calibration"]):
        made += _calibration(reasons["calibration"], sides)
    if reasons["confused"]:
        rows = [
            Row(f"{row['truth']} taken for {row['detection']}", [formats.tally(n) for n in row["counts"]])
            for row in reasons["confused"]
        ]
        made.append(Table("Classes taken for each other", sides, rows, "Truth and detection"))
    made.append(_slices("AP by size, fifths of the objects by the root of their area", reasons["size"], sides))
    for name, title in (
        ("overlap_in_class", "AP by greatest IoU with another object of the class"),
        ("neighbours", "AP by the number of other objects in the image"),
    ):
        made.append(_slices(f"{title} (normalised precision)", reasons["crowding"][name], sides))
    if any(reasons["proposals"]):
        made.append(_proposals(reasons["proposals"], sides))
    return made


def _outcomes(reasons: Mapping[str, Any], sides: list[str]) -> Table:
    names = {
        "right": "right",
        "wrong_class": "on an object of another class",
        "background": "on none, or on one already found",
        "missed": "objects missed",
    }
    rows = [Row("score from which on", [f"{value:.2f}" for value in reasons["threshold"]], "where F1 is highest")]
    rows += [
        Row(text, [formats.tally(outcome[name]) for outcome in reasons["outcomes"]]) for name, text in names.items()
    ]
    return Table("Detections at the best score, IoU .50", sides, rows, "Detections")


def _calibration(told: Sequence[Mapping[str, Any] | None], sides: list[str]) -> list[Table]:
    def row(name: str, key: str, note: str = "") -> Row:
        return Row(name, [formats.ap(one[key]) if one else formats.NONE for one in told], note)

    summary = [
        row("ECE", "ece", "mean distance of score and precision over ten bins, 0 to 100"),
        row("D-ECE", "d_ece", "by place and size of the box as well"),
    ]
    bins = next(one for one in told if one)["bins"]
    rows = [
        Row(
            f"{one['low']:.1f} to {one['high']:.1f}",
            [_bin(side["bins"][place]) if side else formats.NONE for side in told],
        )
        for place, one in enumerate(bins)
    ]
    return [
        Table("Calibration, IoU .50", sides, summary, "Error"),
        Table("Score against precision, and detections", sides, rows, "Score"),
    ]


def _bin(one: Mapping[str, Any]) -> str:
    if one["score"] is None or one["precision"] is None:
        return formats.NONE
    return f"{one['score']:.2f} against {one['precision']:.2f} ({formats.tally(one['detections'])})"


def _slices(title: str, rows: Sequence[Mapping[str, Any]], sides: list[str]) -> Table:
    made = [Row(row["slice"], [str(row["truths"]), *map(formats.ap, row["AP"])]) for row in rows if row["truths"]]
    return Table(title, ["Objects", *sides], made, "Part")


def _proposals(told: Sequence[Sequence[Mapping[str, Any]] | None], sides: list[str]) -> Table:
    first = next(rows for rows in told if rows)
    measures = [name for name in first[0] if name.startswith("AR@")]
    rows = [
        Row(
            f"{measure}, {row['size']}",
            [formats.ap(rows[place][measure]) if rows else formats.NONE for rows in told],
        )
        for place, row in enumerate(first)
        for measure in (measures if row["size"] == "all" else measures[-1:])
        if row["truths"]
    ]
    return Table("Recall of proposals, classes aside", sides, rows, "Recall")
