"""The report's tables as text: HTML, Markdown and LaTeX show the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.report import formats
from evaluation.report.costs import COSTS

NOTES = {
    "AP": "IoU .50 to .95",
    "AP50": "IoU .50",
    "AP75": "IoU .75",
    "APs": "small",
    "APm": "medium",
    "APl": "large",
    "AR100": "recall",
    "mask AP": "IoU .50 to .95",
    "VOC 11-point": "mAP",
    "VOC area": "mAP",
}
MAIN_COSTS = ("parameters", "flops", "latency_s", "time_per_image_s")
IMAGES = 24  # those of the browser that Markdown lists
NOT_DISTINGUISHABLE = "not distinguishable"


@dataclass(frozen=True)
class Row:
    """A name and a cell a column; `subs` stand small under the cells; `best` are the bold ones; `bar` a difference."""

    name: str
    cells: list[str]
    note: str = ""
    subs: list[str] = field(default_factory=list)
    best: set[int] = field(default_factory=set)
    values: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """Columns after the first, whose heading is `corner`; rows in named groups (one without a name: no heading)."""

    title: str
    corner: str
    columns: list[str]
    groups: list[tuple[str, list[Row]]]
    note: str = ""

    @property
    def rows(self) -> list[Row]:
        return [row for _, rows in self.groups for row in rows]


def all_tables(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates lay out, by name."""
    return {
        "main": main_table(content),
        "comparisons": comparison_tables(content),
        "costs": cost_table(content),
        "sizes": size_table(content),
        "classes": class_table(content),
        "errors": error_table(content),
        "details": detail_tables(content),
        "images": image_table(content),
        "runs": run_table(content),
        "facts": facts(content),
        "expected": expected_table(content),
    }


def labels(content: Mapping[str, Any]) -> list[str]:
    return [side["label"] for side in content["sides"]]


def main_table(content: Mapping[str, Any]) -> Table:
    """Accuracy, cost and origin, a column a side; for two sides also their difference and p."""
    sides = content["sides"]
    only = content["differences_to_baseline"][0] if len(sides) == 2 else None
    columns = labels(content) + (["Difference (95 %)", "p"] if only else [])
    groups = [
        ("Accuracy", _accuracy(content, only)),
        ("Cost of the detector", _cost(sides, only)),
        ("Pre-training", _origin(sides, bool(only))),
    ]
    return Table("", "Figure", columns, [(name, rows) for name, rows in groups if rows])


def _accuracy(content: Mapping[str, Any], only: Mapping[str, Any] | None) -> list[Row]:
    rows = []
    for name in content["figures"]:
        figures = [side["figures"][name] for side in content["sides"]]
        cells, subs = [formats.mean_and_spread(figure) for figure in figures], [""] * len(figures)
        if only:
            difference = only["differences"][name]
            cells += [formats.change(difference), p_cell(difference)]
            subs += ["", _verdict(difference)]
        rows.append(Row(name, cells, NOTES[name], subs, _best([figure["mean"] for figure in figures])))
    return rows


def p_cell(difference: Mapping[str, Any] | None) -> str:
    """The p-value, corrected where it is one of many."""
    if difference is None:
        return formats.NONE
    adjusted = difference["adjusted_p"]
    return formats.p_value(difference["p_value"] if adjusted is None else adjusted)


def _verdict(difference: Mapping[str, Any] | None) -> str:
    return "" if difference is None or difference["distinguishable"] else NOT_DISTINGUISHABLE


def _best(values: Sequence[float | None]) -> set[int]:
    """Places of the highest figure as it is shown; none where all show the same."""
    shown = [None if value is None else round(value, 1) for value in values]
    present = [value for value in shown if value is not None]
    if not present or len(set(present)) == 1:
        return set()
    return {index for index, value in enumerate(shown) if value == max(present)}


def _cost(sides: Sequence[Mapping[str, Any]], only: Mapping[str, Any] | None) -> list[Row]:
    rows = []
    for name in MAIN_COSTS:
        told = [side["cost"][name] for side in sides]
        if not any(told) or (name == "time_per_image_s" and all(side["cost"]["latency_s"] for side in sides)):
            continue
        cells = [formats.spread(one, COSTS[name].write) for one in told]
        if only:
            cells += [formats.ratio(only["ratios"].get(name)), ""]
        rows.append(Row(COSTS[name].name, cells, COSTS[name].note))
    return rows


def at_test(sides: Sequence[Mapping[str, Any]]) -> str:
    """What the FLOPs are of: 'multiply-adds, 600 × 800 px, 300 proposals'."""
    measured = [side["cost"] for side in sides if not side["file"]]
    parts = ["multiply-adds"]
    for name in ("input_hw", "proposals"):
        values = [cost[name] for cost in measured]
        if values and values[0] and all(value == values[0] for value in values):
            size = values[0]
            parts.append(f"{size[0]} {formats.TIMES} {size[1]} px" if name == "input_hw" else f"{size} proposals")
    return ", ".join(parts)


def _origin(sides: Sequence[Mapping[str, Any]], two: bool) -> list[Row]:
    facts = [side["pretraining"] for side in sides]
    empty = ["", ""] if two else []
    rows = [Row("Data", [fact["data"] or side["weights"] for fact, side in zip(facts, sides)] + empty)]
    told = (
        ("Epochs", "epochs", formats.plain),
        ("Iterations", "iterations", formats.count),
        ("Images seen", "images_seen", formats.count),
        ("Top-1", "top1", formats.percent),
    )
    for name, key, write in told:
        if any(fact[key] is not None for fact in facts) and (key != "images_seen" or any(f[key] for f in facts)):
            rows.append(
                Row(name, [write(fact[key]) for fact in facts] + empty, "" if key != "top1" else "of the backbone")
            )
    return rows


def comparison_tables(content: Mapping[str, Any]) -> list[Table]:
    """For more than two sides: the best against each other one, and each against the baseline."""
    if len(content["sides"]) < 3:
        return []
    best, baseline = content["best"], content["baseline"]
    return [
        _comparisons(f"{best}, the best, less each other", "Less", content["best_against_others"], "a"),
        _comparisons(f"Each less {baseline}", "Side", content["differences_to_baseline"], "b"),
    ]


def _comparisons(title: str, corner: str, comparisons: Sequence[Mapping[str, Any]], key: str) -> Table:
    rows = []
    for one in comparisons:
        ap, ap50 = (one["differences"][name] for name in ("AP", "AP50"))
        ratios = [formats.ratio(one["ratios"].get(name)) for name in ("flops", "latency_s", "parameters")]
        cells = [formats.change(ap), p_cell(ap), formats.change(ap50), p_cell(ap50), *ratios]
        rows.append(Row(one[key], cells, subs=["", _verdict(ap), "", _verdict(ap50), "", "", ""]))
    columns = ["AP (95 %)", "p, Holm", "AP50 (95 %)", "p, Holm", "FLOPs", "Latency", "Parameters"]
    return Table(title, corner, columns, [("", rows)])


def cost_table(content: Mapping[str, Any]) -> Table | None:
    """A row a side, a column a measure that some side has."""
    sides = content["sides"]
    names = [name for name in COSTS if any(side["cost"][name] for side in sides)]
    if not names:
        return None
    rows = [Row(side["label"], [formats.spread(side["cost"][n], COSTS[n].write) for n in names]) for side in sides]
    columns = [COSTS[n].heading or COSTS[n].name for n in names]
    return Table("", "Side", columns, [("", rows)], note=_measured_at(sides))


def _measured_at(sides: Sequence[Mapping[str, Any]]) -> str:
    """Where times and memory come from."""
    measured = [side["cost"] for side in sides if not side["file"]]
    devices = {cost["device"] for cost in measured if cost["device"]}
    of = {cost["peak_memory_of"] for cost in measured if cost["peak_memory_of"]}
    parts = [f"FLOPs are {at_test(sides)}"]
    if devices:
        named = sorted("the CPU" if one == "cpu" else str(one) for one in devices)
        parts.append(f"times were measured on {formats.joined(named)}{_conditions(measured)}")
    if of:
        parts.append(f"memory is the {formats.joined(sorted(of))}{formats.APOSTROPHE}s")
    return "; ".join(parts) + "."


def _conditions(measured: Sequence[Mapping[str, Any]]) -> str:
    """' (2 threads, bf16)', where all sides say the same."""
    first = measured[0]
    parts = [f"{first['threads']} threads" if first["threads"] else "", first["precision"] or ""]
    alike = all(one[name] == first[name] for one in measured for name in ("threads", "precision"))
    return f" ({', '.join(filter(None, parts))})" if alike and any(parts) else ""


def _pair_columns(content: Mapping[str, Any]) -> list[str]:
    return [f"{content['pair'][1]} less {content['pair'][0]}", "p, Holm"] if len(content["pair"]) == 2 else []


def size_table(content: Mapping[str, Any]) -> Table:
    """AP by COCO's sizes."""
    rows = [
        Row(
            row["name"],
            [str(row["truths"]), *map(formats.mean_and_spread, row["AP"])]
            + ([formats.change(row["difference"])] if len(content["pair"]) == 2 else []),
            values=[_estimate(row["difference"])],
        )
        for row in content["per_size"]
    ]
    return Table("", "Size", ["Objects", *labels(content), *_pair_columns(content)[:1]], [("", rows)])


def class_table(content: Mapping[str, Any]) -> Table:
    """AP of each class and side with the pair's difference, then AP50. values: what a column sorts by."""
    rows = []
    paired = len(content["pair"]) == 2
    for row in content["per_class"]:
        difference = row["difference"]
        cells = [str(row["truths"]), *map(formats.mean_and_spread, row["AP"])]
        values = [float(row["truths"]), *(one["mean"] for one in row["AP"])]
        if paired:
            cells += [formats.change(difference), p_cell(difference)]
            values += [_estimate(difference), None]
        cells += map(formats.mean_and_spread, row["AP50"])
        values += [one["mean"] for one in row["AP50"]]
        rows.append(Row(row["name"], cells, values=values))
    sides = labels(content)
    columns = ["Objects", *(f"AP, {s}" for s in sides), *_pair_columns(content), *(f"AP50, {s}" for s in sides)]
    return Table("", "Class", columns, [("", rows)])


def _estimate(difference: Mapping[str, Any] | None) -> float | None:
    return None if difference is None else difference["estimate"]


def error_table(content: Mapping[str, Any]) -> Table:
    """AP lost to each kind by side, with how often; then each pair's difference of AP lost."""
    errors = content["reasons"]["errors"]
    rows: dict[bool, list[Row]] = {False: [], True: []}
    for kind in errors["kinds"]:
        cells = [formats.ap(value) for value in kind["lost"]]
        subs = ["" if kind["counts"] is None else formats.tally(kind["counts"][s]) for s in range(len(cells))]
        values: list[float | None] = [None] * len(cells)
        for pair in errors["differences"]:
            difference = pair["kinds"][kind["kind"]]
            cells += [formats.change(difference), p_cell(difference)]
            subs += ["", _verdict(difference)]
            values += [_estimate(difference), None]
        rows[kind["special"]].append(Row(kind["kind"].replace("_", " "), cells, kind["meaning"], subs, values=values))
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


def run_table(content: Mapping[str, Any]) -> Table:
    """Every run once."""
    rows = [
        Row(
            run["side"],
            [
                formats.plain(run["seed"]),
                *(formats.ap(run["figures"][name]) for name in ("AP", "AP50")),
                formats.duration(run["training_s"]),
                *(formats.plain(run[name]) for name in ("commit", "machine", "command", "directory")),
            ],
        )
        for run in content["runs"]
    ]
    columns = ["Seed", "AP", "AP50", "Training", "Commit", "Machine", "Command", "Directory"]
    return Table("", "Side", columns, [("", rows)])


def image_table(content: Mapping[str, Any]) -> Table:
    """F1 of the images in which the pair differs most."""
    shown = content["gallery"]["images"][:IMAGES]
    rows = [Row(image["file_name"], [formats.ap(value) for value in image["F1"].values()]) for image in shown]
    return Table("", "Image", [f"F1, {label}" for label in labels(content)], [("", rows)])


def facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Protocol fields, equal for all runs, as text, by name."""
    return [(name, formats.plain(value)) for name, value in sorted(content["protocol"]["equal"].items())]


def expected_table(content: Mapping[str, Any]) -> Table | None:
    """Ours beside theirs."""
    expected = content.get("expectations") or []
    if not expected:
        return None
    rows = [
        Row(
            f"{one['what']}, {one['figure']}",
            [one["ours_text"], one["theirs_text"], one["outcome"], one["source"] or ""],
        )
        for one in expected
    ]
    return Table("", "Figure", ["Ours", "Theirs, tolerance", "Outcome", "Source"], [("", rows)])
