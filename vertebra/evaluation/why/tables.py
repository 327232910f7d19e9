"""Why detectors are as good as they are, as tables with a column for each of them; a console and a page show the same.

Explanations are those of `explain`, all of one truth, or their means over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.why.columns import Columns, difference_cells, written_change
from vertebra.evaluation.why.confusion import most_confused
from vertebra.evaluation.why.errors import KINDS, SPECIAL
from vertebra.evaluation.why.explain import Explanation
from vertebra.ground import formats
from vertebra.ground.table import Cell, Row, Table

Differences = Mapping[tuple[str, str], Mapping[str, Difference | None]]

MEANINGS = {
    "classification": "right place, wrong class",
    "localisation": "right class, box off",
    "both": "wrong class and box off",
    "duplicate": "an object found twice",
    "background": "nothing is there",
    "missed": "an object not found",
    "false_positives": "without any false detection",
    "false_negatives": "with every object found",
}
OUTCOMES = {
    "right": "right",
    "wrong_class": "on an object of another class",
    "background": "on none, or on one already found",
    "missed": "objects missed",
}


def reason_tables(
    explanations: Sequence[Explanation],
    labels: Sequence[str],
    *,
    differences: Differences | None = None,
    detailed: bool = False,
    per_class: bool = False,
) -> list[Table]:
    """Return the errors' table, then classes, slices, calibration, proposals, outcomes and confusions.

    differences: by labels (a, b), what AP and each kind's cost gain from a to b (`compare_errors`).
    detailed: as on a console, with two decimals, AP among the errors, and the change between two detectors.
    """
    columns = Columns(labels, detailed)
    made = [error_table(explanations, labels, differences=differences, detailed=detailed)]
    if per_class:
        made.append(_class_errors(explanations, columns))
    made += _slice_tables(explanations, columns)
    if any(one["calibration"] for one in explanations):
        made += _calibration([one["calibration"] for one in explanations], columns, per_class)
    if any(one["proposals"] for one in explanations):
        made.append(_proposals([one["proposals"] for one in explanations], columns))
    made.append(_outcomes(explanations, columns))
    pairs = confused_pairs(explanations)
    rows = [Row(f"{truth} taken for {found}", columns.counts(counts)) for truth, found, counts in pairs]
    if rows:
        made.append(Table("Classes taken for each other", columns.headings(), rows, corner="Truth and detection"))
    return made


def error_table(
    explanations: Sequence[Explanation],
    labels: Sequence[str],
    *,
    differences: Differences | None = None,
    detailed: bool = False,
) -> Table:
    """Return the AP lost to each kind of error, how often it is made, and each pair's difference of AP lost."""
    columns, differences = Columns(labels, detailed), differences or {}
    errors = [one["errors"] for one in explanations]

    def row(name: str, note: str, group: str, lost: Sequence[float | None], counts: Sequence[float] | None) -> Row:
        cells: list[Cell | str] = list(columns.ap(lost))
        if counts is not None:
            cells[: len(counts)] = [Cell(str(cell), formats.tally(count)) for cell, count in zip(cells, counts)]
        if differences:
            cells = cells[: len(labels)]
        for (a, b), pair in differences.items():
            difference = pair.get(name)
            if difference is not None:
                cells += difference_cells(difference, detailed)
            else:
                change = written_change(lost[labels.index(a)], lost[labels.index(b)], columns.change)
                cells += [change, formats.NONE]
        return Row(name.replace("_", " "), cells, note, group)

    rows = []
    if detailed:
        rows.append(row("AP", "over classes with truths or detections", "", [one["ap"] for one in errors], None))
    for kind in KINDS:
        lost, counts = [one["lost"][kind] for one in errors], [one["counts"][kind] for one in errors]
        rows.append(row(kind, MEANINGS[kind], "AP lost to each kind, and how often it is made", lost, counts))
    for kind in SPECIAL:
        lost = [one["special"][kind] for one in errors]
        rows.append(row(kind, MEANINGS[kind], "AP gained without them", lost, None))
    headings = list(labels) if differences else columns.headings()
    for a, b in differences:
        headings += [f"{b} {formats.MINUS} {a}", "p, Holm"]
    first = errors[0]
    title = f"AP at IoU {first['iou']:g} and what each kind of error costs of it"
    return Table(f"{title} (TIDE, background to {first['background_iou']:g})", headings, rows, corner="Error")


def _class_errors(explanations: Sequence[Explanation], columns: Columns) -> Table:
    """AP and what each kind costs of it; of two detectors the change alone of the kinds."""
    per_class = [one["errors"]["per_class"] for one in explanations]
    brief = columns.shows_change
    rows = []
    for name in per_class[0]:
        cells = columns.ap([one[name]["ap"] for one in per_class])
        for kind in KINDS:
            kinds = columns.ap([one[name][kind] for one in per_class])
            cells += kinds[-1:] if brief else kinds
        rows.append(Row(name, cells))
    headings = columns.headings("AP")
    for kind in KINDS:
        headings += [f"{kind} {columns.headings()[-1]}"] if brief else columns.headings(kind)
    title = f"AP at IoU {explanations[0]['errors']['iou']:g} of each class and what each kind costs of it"
    return Table(title, headings, rows, corner="Class")


def _slice_tables(explanations: Sequence[Explanation], columns: Columns) -> Iterable[Table]:
    """AP by size and by crowding; AP50 and the recall at IoU .50 stand small beside it."""
    size, crowding = [one["size"] for one in explanations], [one["crowding"] for one in explanations]
    for by, figures, name in (
        ("size, COCO's (.50:.05:.95)", size, "coco"),
        ("size, fifths of the objects by the root of their area", size, "quantiles"),
        ("greatest IoU with another object (normalised precision)", crowding, "overlap"),
        ("greatest IoU with another object of the class (normalised precision)", crowding, "overlap_in_class"),
        ("the number of other objects in the image (normalised precision)", crowding, "neighbours"),
    ):
        rows = [_slice_row(parts, columns) for parts in zip(*(one[name] for one in figures)) if parts[0]["truths"]]
        title = f"AP (AP50, recall at IoU .50) by {by}"
        yield Table(title, ["Objects", *columns.headings()], rows, corner="Part")


def _slice_row(parts: Sequence[Mapping[str, Any]], columns: Columns) -> Row:
    ap, ap50, recall = (columns.ap([part[figure] for part in parts]) for figure in ("ap", "ap50", "recall50"))
    cells = [Cell(*one) for one in zip(ap, (f"{a}, {b}" for a, b in zip(ap50, recall)))]
    return Row(parts[0]["slice"], [str(parts[0]["truths"]), *cells])


def _calibration(
    calibrations: Sequence[Mapping[str, Any] | None], columns: Columns, per_class: bool
) -> Iterable[Table]:
    """The errors of calibration, score against precision by bins of the score and, if asked for, each class's ECE."""

    def figures(key: str) -> list[float | None]:
        return [one[key] if one else None for one in calibrations]

    known = next(one for one in calibrations if one)
    shares = [None if share is None else 100 * share for share in figures("d_ece_share")]
    errors = [
        Row("ECE", columns.ap(figures("ece")), "mean of |score - precision| over ten bins of score, 0 to 100"),
        Row("D-ECE", columns.ap(figures("d_ece")), "by place and size of the box as well"),
        Row("share of detections in D-ECE", columns.ap(shares), "%"),
    ]
    yield Table("Calibration at IoU 0.5", columns.headings(), errors, corner="Error")
    bins = [
        Row(
            f"{one['low']:.1f} to {one['high']:.1f}",
            [_bin(side["bins"][place]) if side else formats.NONE for side in calibrations],
        )
        for place, one in enumerate(known["bins"])
    ]
    yield Table("Score against precision, and detections", list(columns.labels), bins, corner="Score")
    if per_class:
        rows = []
        for name in known["per_class"]:
            facts = [one["per_class"][name] if one else {"detections": None, "ece": None} for one in calibrations]
            cells = columns.counts([fact["detections"] for fact in facts])
            rows.append(Row(name, cells + columns.ap([fact["ece"] for fact in facts])))
        headings = columns.headings("detections") + columns.headings("ECE")
        yield Table("Calibration of each class", headings, rows, corner="Class")


def _bin(one: Mapping[str, Any]) -> Cell | str:
    if one["score"] is None or one["precision"] is None:
        return formats.NONE
    return Cell(f"{one['score']:.2f} against {one['precision']:.2f}", formats.tally(one["detections"]))


def _proposals(proposals: Sequence[Sequence[Mapping[str, Any]] | None], columns: Columns) -> Table:
    """Average recall, and recall at IoU .50, of the first 100, 300 and 1000 proposals, over all sizes and of each."""
    known = next(rows for rows in proposals if rows)
    rows = [
        Row(
            f"{measure}, {one['size']}",
            [formats.tally(one["truths"]), *columns.ap([rows[place][measure] if rows else None for rows in proposals])],
        )
        for place, one in enumerate(known)
        for measure in one
        if "@" in measure and one["truths"]
    ]
    return Table("Recall of proposals, classes aside", ["Objects", *columns.headings()], rows, corner="Recall")


def _outcomes(explanations: Sequence[Explanation], columns: Columns) -> Table:
    confusions = [one["confusion"] for one in explanations]
    scores = [f"{one['score']:.2f}" for one in confusions]
    if columns.shows_change:
        scores.append(formats.signed_points(confusions[1]["score"] - confusions[0]["score"]))
    rows = [Row("lowest score", scores)]
    rows += [Row(text, columns.counts([one[name] for one in confusions])) for name, text in OUTCOMES.items()]
    title = f"Detections from a score on, IoU {confusions[0]['iou']:g}"
    return Table(title, columns.headings(), rows, corner="Detections")


def confused_pairs(explanations: Sequence[Explanation]) -> list[tuple[str, str, list[float]]]:
    """Return (truth's class, detection's class, each detector's count) of the pairs with the greatest count of any."""
    confusions = [one["confusion"] for one in explanations]
    return most_confused(confusions[0]["classes"], [one["counts"] for one in confusions])
