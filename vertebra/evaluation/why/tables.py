"""An explanation, or two side by side, as tables of text.

A table of one detector has a column a figure; of two it has three: the first's, the second's, second - first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vertebra.evaluation.statistics.comparison import Difference
from vertebra.evaluation.why.errors import KINDS, SPECIAL
from vertebra.evaluation.why.explain import Explanation

Value = float | int | None
Row = tuple[str, tuple[Value, ...], str]
MEANINGS = {
    "classification": "the place right, the class wrong",
    "localisation": "the class right, the place off",
    "both": "class wrong and place off",
    "duplicate": "an object found twice",
    "background": "nothing is there",
    "missed": "an object not found",
    "false_positives": "all false detections gone",
    "false_negatives": "all objects found",
}


@dataclass(frozen=True)
class Table:
    """rows: (name, a value a column, a note).

    shared: columns that do not depend on the detector (counts of truths). brief: columns of which two detectors show
    the difference alone.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    shared: tuple[str, ...] = ()
    brief: tuple[str, ...] = ()


def tables(explanations: Sequence[Explanation], *, per_class: bool = False) -> list[Table]:
    """The tables of one explanation, or of two of the same truth side by side."""
    made = [_tables(explanation, per_class) for explanation in explanations]
    confused = _confused(explanations)
    if len(made) == 1:
        return [*made[0], *confused]
    second = {table.title: table for table in made[1]}
    return [_side_by_side(table, second[table.title]) for table in made[0] if table.title in second] + confused


def differences(told: Mapping[str, Difference | None], resamples: int) -> Table:
    """What AP and each kind's cost gain from the first detector to the second, with intervals (`compare_errors`)."""
    rows: list[Row] = []
    for name, one in told.items():
        if one is None:
            rows.append((_spaced(name), (None, None, None, None), ""))
            continue
        p_value = one.p_value if one.adjusted_p is None else one.adjusted_p
        clear = (
            "" if one.distinguishable else "may be chance" if one.low <= 0 <= one.high else "may be chance, of so many"
        )
        rows.append((_spaced(name), (one.estimate, one.low, one.high, p_value), clear))
    level = " ".join({f"{100 * one.level:g} %" for one in told.values() if one is not None})
    title = (
        f"B - A of the above and its {level} interval over test images alone, another seed's training not in it "
        f"({resamples} resamples; p of the kinds is Holm's for all of them together)"
    )
    return Table(title, ("B - A", "from", "to", "p"), rows)


def text(table: Table) -> str:
    """Names to the left, figures to the right, notes last."""
    cells = [("", *table.columns, ""), *((n, *map(_written, values), note) for n, values, note in table.rows)]
    last = len(cells[0]) - 1
    widths = [max(len(row[column]) for row in cells) for column in range(last + 1)]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < c < last else cell.ljust(width) for c, (cell, width) in enumerate(zip(row, widths))
        )
        for row in cells
    ]
    return "\n".join([table.title, *(f"  {line}".rstrip() for line in lines)])


def _tables(explanation: Explanation, per_class: bool) -> list[Table]:
    errors = explanation["errors"]
    at = f"IoU {errors['iou']:g}"
    made = [
        Table(
            f"AP at {at} and what each kind of error costs of it (TIDE, background to {errors['background_iou']:g})",
            ("AP", "errors"),
            [
                ("AP", (errors["ap"], None), "over classes with truths or detections"),
                *((kind, (errors["lost"][kind], errors["counts"][kind]), MEANINGS[kind]) for kind in KINDS),
                *((_spaced(kind), (errors["special"][kind], None), MEANINGS[kind]) for kind in SPECIAL),
            ],
        )
    ]
    if per_class:
        rows = [(name, (row["ap"], *(row[kind] for kind in KINDS)), "") for name, row in errors["per_class"].items()]
        made.append(
            Table(f"AP at {at} of each class and what each kind costs of it", ("AP", *KINDS), rows, brief=KINDS)
        )
    made += [
        _sliced("AP by size, COCO's (.50:.05:.95)", explanation["size"]["coco"]),
        _sliced("AP by size, fifths of the objects by the root of their area", explanation["size"]["quantiles"]),
        _sliced("AP by greatest IoU with another object (normalised)", explanation["crowding"]["overlap"]),
        _sliced(
            "AP by greatest IoU with another object of the class (normalised)",
            explanation["crowding"]["overlap_in_class"],
        ),
        _sliced("AP by the number of other objects in the image (normalised)", explanation["crowding"]["neighbours"]),
    ]
    if explanation["calibration"] is not None:
        made += _reliability(explanation, per_class)
    if explanation["proposals"] is not None:
        columns = tuple(explanation["proposals"][0])[1:]
        rows = [(row["size"], tuple(row[c] for c in columns), "") for row in explanation["proposals"]]
        made.append(Table("Recall of proposals, classes aside", columns, rows, shared=("truths",)))
    made.append(_outcomes(explanation))
    return made


def _sliced(title: str, figures: list[Explanation]) -> Table:
    rows = [(row["slice"], (row["truths"], row["ap"], row["ap50"], row["recall50"]), "") for row in figures]
    return Table(title, ("truths", "AP", "AP50", "recall50"), rows, shared=("truths",))


def _reliability(explanation: Explanation, per_class: bool) -> list[Table]:
    told = explanation["calibration"]
    used = told["d_ece_share"]
    summary = [
        ("ECE", (told["ece"],), "mean of |score - precision| over ten bins of score"),
        ("D-ECE", (told["d_ece"],), "by place and size as well"),
        ("share of detections in D-ECE", (None if used is None else 100 * used,), "%"),
    ]
    bins = [
        (f"{b['low']:.1f} to {b['high']:.1f}", (b["detections"], b["score"], b["precision"]), "") for b in told["bins"]
    ]
    made = [
        Table("Calibration at IoU 0.5", ("0-100",), summary),
        Table("Score against precision", ("detections", "score", "precision"), bins),
    ]
    if per_class:
        rows = [(name, (row["detections"], row["ece"]), "") for name, row in told["per_class"].items()]
        made.append(Table("Calibration of each class", ("detections", "ECE"), rows))
    return made


def _outcomes(explanation: Explanation) -> Table:
    told = explanation["confusion"]
    notes = {
        "right": "",
        "wrong_class": "on a free object of another class",
        "background": "on none, or on one already found",
        "missed": "objects",
    }
    return Table(
        f"From a score on, at IoU {told['iou']:g}",
        ("count",),
        [("score", (told["score"],), ""), *((_spaced(key), (told[key],), note) for key, note in notes.items())],
    )


def _confused(explanations: Sequence[Explanation], most: int = 10) -> list[Table]:
    """The classes most often taken for each other, by the greater of the counts."""
    seen: dict[tuple[str, str], int] = {}
    for explanation in explanations:
        for truth, detection, count in explanation["confusion"]["most_confused"]:
            seen[truth, detection] = max(count, seen.get((truth, detection), 0))
    if not seen:
        return []
    place = {name: k for k, name in enumerate(explanations[0]["confusion"]["classes"])}
    rows: list[Row] = []
    for truth, detection in sorted(seen, key=lambda pair: -seen[pair])[:most]:
        counts = [e["confusion"]["counts"][place[truth]][place[detection]] for e in explanations]
        change = [counts[1] - counts[0]] if len(counts) == 2 else []
        rows.append((f"{truth} taken for {detection}", (*counts, *change), ""))
    columns = ("count",) if len(explanations) == 1 else ("A", "B", "B - A")
    return [Table("Most confused", columns, rows)]


def _side_by_side(first: Table, second: Table) -> Table:
    def parts(column: str) -> tuple[str, ...]:
        if column in first.shared:
            return (column,)
        return (f"{column} B - A",) if column in first.brief else (f"{column} A", "B", "B - A")

    def values(column: str, a: Value, b: Value) -> tuple[Value, ...]:
        if column in first.shared:
            return (a,)
        change = None if a is None or b is None else b - a
        return (change,) if column in first.brief else (a, b, change)

    rows = [
        (name, tuple(v for column, a, b in zip(first.columns, ours, theirs) for v in values(column, a, b)), note)
        for (name, ours, note), (_, theirs, _) in zip(first.rows, second.rows)
    ]
    return Table(first.title, tuple(part for column in first.columns for part in parts(column)), rows)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _written(value: Value) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}".replace("-0.00", "0.00")
