"""The report's tables as text: HTML, Markdown and LaTeX show the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.cells import difference_cells, labels, spread_cell
from vertebra.evaluation.report.costs import COSTS
from vertebra.evaluation.report.reason_tables import detail_tables, error_table
from vertebra.ground.table import Cell, Row, Table

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


def main_table(content: Mapping[str, Any]) -> Table:
    """Accuracy, cost and origin, a column a side; for two sides also their difference and p."""
    sides = content["sides"]
    only = content["differences_to_baseline"][0] if len(sides) == 2 else None
    columns = labels(content) + (["Difference (95 %)", "p"] if only else [])
    rows = [*_accuracy(content, only), *_cost(sides, only), *_origin(sides, bool(only))]
    return Table("", columns, rows, corner="Figure")


def _accuracy(content: Mapping[str, Any], only: Mapping[str, Any] | None) -> list[Row]:
    rows = []
    for name in content["figures"]:
        figures = [side["figures"][name] for side in content["sides"]]
        best = _best([figure["mean"] for figure in figures])
        cells = [spread_cell(figure, best=place in best) for place, figure in enumerate(figures)]
        if only:
            cells += difference_cells(only["differences"][name])
        rows.append(Row(name, cells, NOTES[name], "Accuracy"))
    return rows


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
        rows.append(Row(COSTS[name].name, cells, COSTS[name].note, "Cost of the detector"))
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
    group = "Pre-training"
    rows = [Row("Data", [fact["data"] or side["weights"] for fact, side in zip(facts, sides)] + empty, group=group)]
    told = (
        ("Epochs", "epochs", formats.plain),
        ("Iterations", "iterations", formats.count),
        ("Images seen", "images_seen", formats.count),
        ("Top-1", "top1", formats.percent),
    )
    for name, key, write in told:
        if any(fact[key] is not None for fact in facts) and (key != "images_seen" or any(f[key] for f in facts)):
            note = "of the backbone" if key == "top1" else ""
            rows.append(Row(name, [write(fact[key]) for fact in facts] + empty, note, group))
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
        rows.append(Row(one[key], [*difference_cells(ap), *difference_cells(ap50), *ratios]))
    columns = ["AP (95 %)", "p, Holm", "AP50 (95 %)", "p, Holm", "FLOPs", "Latency", "Parameters"]
    return Table(title, columns, rows, corner)


def cost_table(content: Mapping[str, Any]) -> Table | None:
    """A row a side, a column a measure that some side has."""
    sides = content["sides"]
    names = [name for name in COSTS if any(side["cost"][name] for side in sides)]
    if not names:
        return None
    rows = [Row(side["label"], [formats.spread(side["cost"][n], COSTS[n].write) for n in names]) for side in sides]
    columns = [COSTS[n].heading or COSTS[n].name for n in names]
    return Table("", columns, rows, "Side", note=_measured_at(sides))


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
    paired = len(content["pair"]) == 2
    rows = []
    for row in content["per_size"]:
        difference = difference_cells(row["difference"], verdict=False)[:paired]
        rows.append(Row(row["name"], [str(row["truths"]), *map(spread_cell, row["AP"]), *difference]))
    return Table("", ["Objects", *labels(content), *_pair_columns(content)[:1]], rows, "Size")


def class_table(content: Mapping[str, Any]) -> Table:
    """AP of each class and side with the pair's difference, then AP50."""
    rows = []
    paired = len(content["pair"]) == 2
    for row in content["per_class"]:
        difference = difference_cells(row["difference"], verdict=False) if paired else []
        figures = [*map(spread_cell, row["AP"]), *difference, *map(spread_cell, row["AP50"])]
        rows.append(Row(row["name"], [Cell(str(row["truths"]), value=row["truths"]), *figures]))
    sides = labels(content)
    columns = ["Objects", *(f"AP, {s}" for s in sides), *_pair_columns(content), *(f"AP50, {s}" for s in sides)]
    return Table("", columns, rows, "Class")


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
    return Table("", columns, rows, "Side")


def image_table(content: Mapping[str, Any]) -> Table:
    """F1 of the images in which the pair differs most."""
    shown = content["gallery"]["images"][:IMAGES]
    rows = [Row(image["file_name"], [formats.ap(value) for value in image["F1"].values()]) for image in shown]
    return Table("", [f"F1, {label}" for label in labels(content)], rows, "Image")


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
    return Table("", ["Ours", "Theirs, tolerance", "Outcome", "Source"], rows, "Figure")
