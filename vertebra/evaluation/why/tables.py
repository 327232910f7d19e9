"""Why detectors are as good as they are, as tables with a column for each of them; a console and a page show the same.

Explanations are those of `explain`, all of one truth, or their means over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.why.errors import KINDS, SPECIAL
from vertebra.evaluation.why.explain import Explanation
from vertebra.ground import formats
from vertebra.ground.table import Cell, Row, Table

Differences = Mapping[tuple[str, str], Mapping[str, Difference | None]]
Write = Callable[[float | None], str]

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
SLICE_FIGURES = {"ap": "AP", "ap50": "AP50", "recall50": "recall50"}
NOT_DISTINGUISHABLE = "not distinguishable"
CONFUSED = 10


@dataclass(frozen=True)
class _Columns:
    """A column for each detector and, between two, one for the change. detailed: every figure, with two decimals."""

    labels: Sequence[str]
    detailed: bool

    @property
    def shows_change(self) -> bool:
        return self.detailed and len(self.labels) == 2

    def headings(self, figure: str = "") -> list[str]:
        first, *others = self.labels
        change = [f"{others[0]} - {first}"] if self.shows_change else []
        return [f"{figure} {first}".strip(), *others, *change]

    def ap(self, values: Sequence[float | None]) -> list[str]:
        """The cells of a figure in 0..100."""
        return self._cells(values, formats.points if self.detailed else formats.ap, formats.signed_points)

    def counts(self, values: Sequence[float | None]) -> list[str]:
        return self._cells(values, formats.tally, formats.signed_tally)

    def _cells(self, values: Sequence[float | None], write: Write, write_change: Callable[[float], str]) -> list[str]:
        cells = [write(value) for value in values]
        if self.shows_change:
            first, second = values
            cells.append(formats.NONE if first is None or second is None else write_change(second - first))
        return cells

    def change(self, first: float | None, second: float | None) -> str:
        """The change of a figure in 0..100, if both are known."""
        if first is None or second is None:
            return formats.NONE
        return (formats.signed_points if self.detailed else formats.signed)(second - first)


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
    detailed: every figure and slice with two decimals, as for one detector or two on a console; else the AP alone.
    """
    columns = _Columns(labels, detailed)
    made = [error_table(explanations, labels, differences=differences, detailed=detailed)]
    if per_class:
        made.append(_class_errors(explanations, columns))
    made += _slice_tables(explanations, columns)
    if any(one["calibration"] for one in explanations):
        made += _calibration([one["calibration"] for one in explanations], columns, per_class)
    if any(one["proposals"] for one in explanations):
        made.append(_proposals([one["proposals"] for one in explanations], columns))
    made.append(_outcomes(explanations, columns))
    confused = _confused(explanations, columns)
    return [*made, confused] if confused.rows else made


def error_table(
    explanations: Sequence[Explanation],
    labels: Sequence[str],
    *,
    differences: Differences | None = None,
    detailed: bool = False,
) -> Table:
    """Return the AP lost to each kind of error, how often it is made, and each pair's difference of AP lost."""
    columns, differences = _Columns(labels, detailed), differences or {}
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
                cells += [columns.change(lost[labels.index(a)], lost[labels.index(b)]), formats.NONE]
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


def difference_cells(
    difference: Difference | None, detailed: bool = False, *, verdict: bool = True
) -> list[Cell | str]:
    """Return the difference with its interval, and its p-value (corrected where it is one of many).

    verdict: write under the difference where it cannot be told from 0.
    """
    if difference is None:
        return [formats.NONE, formats.NONE]
    write = formats.signed_points if detailed else formats.signed
    estimate, low, high = map(write, (difference.estimate, difference.low, difference.high))
    p_value = difference.p_value if difference.adjusted_p is None else difference.adjusted_p
    note = NOT_DISTINGUISHABLE if verdict and not difference.distinguishable else ""
    return [
        Cell(f"{estimate} ({low} to {high})", note, value=difference.estimate),
        Cell(formats.p_value(p_value), value=p_value),
    ]


def _class_errors(explanations: Sequence[Explanation], columns: _Columns) -> Table:
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


def _slice_tables(explanations: Sequence[Explanation], columns: _Columns) -> list[Table]:
    size, crowding = [one["size"] for one in explanations], [one["crowding"] for one in explanations]
    places = [
        ("AP by size, COCO's (.50:.05:.95)", size, "coco"),
        ("AP by size, fifths of the objects by the root of their area", size, "quantiles"),
        ("AP by greatest IoU with another object (normalised precision)", crowding, "overlap"),
        ("AP by greatest IoU with another object of the class (normalised precision)", crowding, "overlap_in_class"),
        ("AP by the number of other objects in the image (normalised precision)", crowding, "neighbours"),
    ]
    brief = ("quantiles", "overlap_in_class", "neighbours")
    return [
        _slices(title, [one[name] for one in figures], columns)
        for title, figures, name in places
        if columns.detailed or name in brief
    ]


def _slices(title: str, slices: Sequence[Sequence[Mapping[str, Any]]], columns: _Columns) -> Table:
    figures = list(SLICE_FIGURES) if columns.detailed else ["ap"]
    rows = []
    for parts in zip(*slices):
        if parts[0]["truths"]:
            cells = [str(parts[0]["truths"])]
            for figure in figures:
                cells += columns.ap([part[figure] for part in parts])
            rows.append(Row(parts[0]["slice"], cells))
    headings = ["Objects"]
    for figure in figures:
        headings += columns.headings(SLICE_FIGURES[figure] if columns.detailed else "")
    return Table(title, headings, rows, corner="Part")


def _calibration(
    calibrations: Sequence[Mapping[str, Any] | None], columns: _Columns, per_class: bool
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


def _proposals(proposals: Sequence[Sequence[Mapping[str, Any]] | None], columns: _Columns) -> Table:
    """Every limit over all sizes, and for each size the last limit of AR, or every measure where detailed."""
    known = next(rows for rows in proposals if rows)
    measures = [name for name in known[0] if name.startswith(("AR@", "R50@") if columns.detailed else "AR@")]
    rows = [
        Row(
            f"{measure}, {one['size']}",
            [formats.tally(one["truths"]), *columns.ap([rows[place][measure] if rows else None for rows in proposals])],
        )
        for place, one in enumerate(known)
        for measure in (measures if columns.detailed or one["size"] == "all" else measures[-1:])
        if one["truths"]
    ]
    return Table("Recall of proposals, classes aside", ["Objects", *columns.headings()], rows, corner="Recall")


def _outcomes(explanations: Sequence[Explanation], columns: _Columns) -> Table:
    confusions = [one["confusion"] for one in explanations]
    scores = [f"{one['score']:.2f}" for one in confusions]
    if columns.shows_change:
        scores.append(formats.signed_points(confusions[1]["score"] - confusions[0]["score"]))
    rows = [Row("lowest score", scores)]
    rows += [Row(text, columns.counts([one[name] for one in confusions])) for name, text in OUTCOMES.items()]
    title = f"Detections from a score on, IoU {confusions[0]['iou']:g}"
    return Table(title, columns.headings(), rows, corner="Detections")


def _confused(explanations: Sequence[Explanation], columns: _Columns) -> Table:
    rows = [
        Row(f"{truth} taken for {found}", columns.counts(counts))
        for truth, found, counts in most_confused(explanations)
    ]
    return Table("Classes taken for each other", columns.headings(), rows, corner="Truth and detection")


def most_confused(explanations: Sequence[Explanation]) -> list[tuple[str, str, list[float]]]:
    """Return (truth's class, detection's class, each detector's count) of the pairs with the greatest count of any."""
    confusions = [one["confusion"] for one in explanations]
    names = confusions[0]["classes"]
    pairs = [
        (truth, detection, [one["counts"][t][d] for one in confusions])
        for t, truth in enumerate(names)
        for d, detection in enumerate(names)
        if t != d
    ]
    return sorted((pair for pair in pairs if any(pair[2])), key=lambda pair: -max(pair[2]))[:CONFUSED]
