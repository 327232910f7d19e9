"""The tables of `reasons`: errors by kind, outcomes, calibration, confusions, sizes, crowding, proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.cells import Row, Table, labels, p_cell, verdict


def error_table(content: Mapping[str, Any]) -> Table:
    """AP lost to each kind by side, with how often; then each pair's difference of AP lost."""
    errors = content["reasons"]["errors"]
    rows: dict[bool, list[Row]] = {False: [], True: []}
    for kind in errors["kinds"]:
        cells = [formats.ap(value) for value in kind["lost"]]
        subs = ["" if kind["counts"] is None else formats.tally(kind["counts"][s]) for s in range(len(cells))]
        for pair in errors["differences"]:
            difference = pair["kinds"][kind["kind"]]
            cells += [formats.change(difference), p_cell(difference)]
            subs += ["", verdict(difference)]
        rows[kind["special"]].append(Row(kind["kind"].replace("_", " "), cells, kind["meaning"], subs))
    columns = labels(content)
    for pair in errors["differences"]:
        columns = [*columns, f"{pair['b']} less {pair['a']}", "p, Holm"]
    groups = [("AP lost to each kind", rows[False]), ("AP gained were they gone", rows[True])]
    return Table("", "Error", columns, groups)


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
        made.append(Table("Classes taken for each other", "Truth and detection", sides, [("", rows)]))
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
    return Table("Detections at the best score, IoU .50", "Detections", sides, [("", rows)])


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
        Table("Calibration, IoU .50", "Error", sides, [("", summary)]),
        Table("Score against precision, and detections", "Score", sides, [("", rows)]),
    ]


def _bin(one: Mapping[str, Any]) -> str:
    if one["score"] is None or one["precision"] is None:
        return formats.NONE
    return f"{one['score']:.2f} against {one['precision']:.2f} ({formats.tally(one['detections'])})"


def _slices(title: str, rows: Sequence[Mapping[str, Any]], sides: list[str]) -> Table:
    made = [Row(row["slice"], [str(row["truths"]), *map(formats.ap, row["AP"])]) for row in rows if row["truths"]]
    return Table(title, "Part", ["Objects", *sides], [("", made)])


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
    return Table("Recall of proposals, classes aside", "Recall", sides, [("", rows)])
