"""The report's tables: HTML, Markdown and LaTeX show the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vertebra.evaluation.report.content import Comparison, Content, SideFacts
from vertebra.evaluation.report.costs import COSTS
from vertebra.evaluation.report.spread import Spread, with_unit
from vertebra.evaluation.report.task import SEGMENTATION, Task
from vertebra.evaluation.why.columns import difference_cells
from vertebra.evaluation.why.tables import error_table, reason_tables
from vertebra.ground import formats
from vertebra.ground.formats import MINUS
from vertebra.ground.table import Cell, Row, Table

MAIN_COSTS = ("parameters", "flops", "latency_s", "time_per_image_s")
IMAGES = 24  # those of the browser that Markdown lists
ORIGINS = (
    ("Epochs", "epochs", formats.plain),
    ("Iterations", "iterations", formats.count),
    ("Images seen", "images_seen", formats.count),
    ("Top-1", "top1", formats.percent),
)


def all_tables(content: Content) -> dict[str, Any]:
    """Return what the templates lay out, by name."""
    return {
        "main": main_table(content),
        "comparisons": comparison_tables(content),
        "costs": cost_table(content),
        "sizes": size_table(content),
        "classes": class_table(content),
        **_reasons(content),
        "counted": _number(content.task, content.data.truths),
        "images": image_table(content),
        "runs": run_table(content),
        "facts": facts(content),
        "expected": expected_table(content),
    }


def _number(task: Task, truths: int) -> str:
    """Return objects as they are, and pixels, which are many, as 11.7 M."""
    return formats.count(truths) if task is SEGMENTATION else str(truths)


def _reasons(content: Content) -> dict[str, Any]:
    if (reasons := content.reasons) is None:
        return {"errors": None, "background_iou": None, "details": []}
    return {
        "errors": error_table(reasons.explanations, content.labels, differences=reasons.differences),
        "background_iou": reasons.explanations[0]["errors"]["background_iou"],
        "details": reason_tables(reasons.explanations, content.labels)[1:],
    }


def main_table(content: Content) -> Table:
    """Accuracy, cost and origin, a column for each side; for two sides also their difference and p."""
    only = content.differences_to_baseline[0] if len(content.sides) == 2 else None
    columns = [*content.labels, *(["Difference (95 %)", "p"] if only else [])]
    rows = [*_accuracy(content, only), *_cost(content, only), *_origin(content.sides, bool(only))]
    return Table("", columns, rows, corner="Figure")


def _accuracy(content: Content, only: Comparison | None) -> list[Row]:
    rows = []
    for name in content.figures:
        figures = [side.figures[name] for side in content.sides]
        best = _best([figure.mean for figure in figures])
        cells = [_spread_cell(figure, best=place in best) for place, figure in enumerate(figures)]
        difference = difference_cells(only.differences[name]) if only else []
        rows.append(Row(name, [*cells, *difference], content.task.notes[name], "Accuracy"))
    return rows


def _spread_cell(figure: Spread, *, best: bool = False) -> Cell:
    return Cell(str(figure), best=best, value=figure.mean)


def _best(values: Sequence[float | None]) -> set[int]:
    """Return the places of the highest figure as it is shown; none where all show the same."""
    shown = [None if value is None else round(value, 1) for value in values]
    present = [value for value in shown if value is not None]
    if not present or len(set(present)) == 1:
        return set()
    return {index for index, value in enumerate(shown) if value == max(present)}


def _cost(content: Content, only: Comparison | None) -> list[Row]:
    rows, sides = [], content.sides
    for name in MAIN_COSTS:
        measured = [side.cost.measures[name] for side in sides]
        if not any(measured) or (name == "time_per_image_s" and all(side.cost.measures["latency_s"] for side in sides)):
            continue
        cells = [with_unit(one, COSTS[name].write) for one in measured]
        ratio = [formats.ratio(only.ratios.get(name)), ""] if only else []
        rows.append(Row(COSTS[name].name, [*cells, *ratio], COSTS[name].note, f"Cost of the {content.task.network}"))
    return rows


def _origin(sides: Sequence[SideFacts], two: bool) -> list[Row]:
    empty = ["", ""] if two else []
    group = "Pre-training"
    rows = [Row("Data", [*(side.pretraining.data or side.weights for side in sides), *empty], group=group)]
    for name, field, write in ORIGINS:
        values = [getattr(side.pretraining, field) for side in sides]
        if any(values) if field == "images_seen" else any(value is not None for value in values):
            note = "of the backbone" if field == "top1" else ""
            rows.append(Row(name, [*map(write, values), *empty], note, group))
    return rows


def measured_on(sides: Sequence[SideFacts]) -> str:
    """Return what the FLOPs are of: 'multiply-adds, 600 × 800 px, 300 proposals'."""
    costs = [side.cost for side in sides if not side.file]
    parts = ["multiply-adds"]
    if costs and costs[0].input_hw and all(cost.input_hw == costs[0].input_hw for cost in costs):
        parts.append(f"{costs[0].input_hw[0]} {formats.TIMES} {costs[0].input_hw[1]} px")
    if costs and costs[0].proposals and all(cost.proposals == costs[0].proposals for cost in costs):
        parts.append(f"{costs[0].proposals} proposals")
    return ", ".join(parts)


def comparison_tables(content: Content) -> list[Table]:
    """For more than two sides: the best against each other one, and each against the baseline."""
    if len(content.sides) < 3:
        return []
    of_best = [(one.a, one) for one in content.best_against_others]
    of_baseline = [(one.b, one) for one in content.differences_to_baseline]
    return [
        _comparisons(f"{content.best}, the best, against each other side", "Against", content.task, of_best),
        _comparisons(f"Each side against {content.baseline}, the baseline", "Side", content.task, of_baseline),
    ]


def _comparisons(title: str, corner: str, task: Task, comparisons: Sequence[tuple[str, Comparison]]) -> Table:
    rows = []
    for name, one in comparisons:
        ratios = [formats.ratio(one.ratios.get(cost)) for cost in ("flops", "latency_s", "parameters")]
        figures = [difference_cells(one.differences[figure]) for figure in (task.main, task.second)]
        rows.append(Row(name, [*figures[0], *figures[1], *ratios]))
    of_main, of_second = f"Difference in {task.main} (95 %)", f"in {task.second} (95 %)"
    columns = [of_main, "p, Holm", of_second, "p, Holm", "FLOPs", "Latency", "Parameters"]
    return Table(title, columns, rows, corner)


def cost_table(content: Content) -> Table | None:
    """A row for each side, a column for each measure that some side has."""
    sides = content.sides
    names = [name for name in COSTS if any(side.cost.measures[name] for side in sides)]
    if not names:
        return None
    rows = [
        Row(side.label, [with_unit(side.cost.measures[name], COSTS[name].write) for name in names]) for side in sides
    ]
    columns = [COSTS[name].heading or COSTS[name].name for name in names]
    return Table("", columns, rows, "Side", note=_conditions(sides))


def _conditions(sides: Sequence[SideFacts]) -> str:
    """Say where FLOPs, times and memory come from."""
    costs = [side.cost for side in sides if not side.file]
    devices = sorted({"the CPU" if cost.device == "cpu" else str(cost.device) for cost in costs if cost.device})
    memory = sorted({cost.peak_memory_of for cost in costs if cost.peak_memory_of})
    parts = [f"FLOPs are {measured_on(sides)}"]
    if devices:
        first = costs[0]
        same = all((cost.threads, cost.precision) == (first.threads, first.precision) for cost in costs)
        threads = formats.counted(first.threads, "thread") if first.threads else ""
        how = [threads, first.precision or ""] if same else []
        brackets = f" ({', '.join(filter(None, how))})" if any(how) else ""
        parts.append(f"times were measured on {formats.joined(devices)}{brackets}")
    if memory:
        parts.append(f"memory is that of the {formats.joined(memory)}")
    return "; ".join(parts) + "."


def _pair_columns(content: Content) -> list[str]:
    return [f"{content.pair[1]} {MINUS} {content.pair[0]}", "p, Holm"] if content.is_paired else []


def size_table(content: Content) -> Table:
    """AP by COCO's sizes."""
    columns = _pair_columns(content)[:1]
    rows = []
    for row in content.per_size:
        difference = difference_cells(row.difference, verdict=False)[: len(columns)]
        rows.append(Row(row.name, [str(row.truths), *map(_spread_cell, row.AP), *difference]))
    return Table("", ["Objects", *content.labels, *columns], rows, "Size")


def class_table(content: Content) -> Table:
    """A class's first figure of each side with the pair's difference, then its other figures."""
    columns, task, sides = _pair_columns(content), content.task, len(content.sides)
    rows = []
    for row in content.per_class:
        cells = [_spread_cell(spread) for spreads in row.figures.values() for spread in spreads]
        difference = difference_cells(row.difference, verdict=False)[: len(columns)]
        count = Cell(_number(task, row.truths), value=row.truths)
        rows.append(Row(row.name, [count, *cells[:sides], *difference, *cells[sides:]]))
    names = [f"{figure}, {label}" for figure in task.of_class for label in content.labels]
    return Table("", [task.counted.capitalize(), *names[:sides], *columns, *names[sides:]], rows, "Class")


def run_table(content: Content) -> Table:
    """Every run once."""
    figures = (content.task.main, content.task.second)
    rows = [
        Row(
            run.side,
            [
                formats.plain(run.seed),
                *(formats.ap(run.figures[name]) for name in figures),
                formats.duration(run.training_s),
                *map(formats.plain, (run.commit, run.machine, run.command, run.directory)),
            ],
        )
        for run in content.runs
    ]
    return Table("", ["Seed", *figures, "Training", "Commit", "Machine", "Command", "Directory"], rows, "Side")


def image_table(content: Content) -> Table:
    """F1 or mean IoU of the images in which the pair differs most."""
    shown = content.gallery.images[:IMAGES] if content.gallery else ()
    figure = "mIoU" if content.task is SEGMENTATION else "F1"
    rows = [Row(image.file_name, list(map(formats.ap, getattr(image, figure).values()))) for image in shown]
    return Table("", [f"{figure}, {label}" for label in content.labels], rows, "Image")


def facts(content: Content) -> list[tuple[str, str]]:
    """Protocol fields, equal for all runs, as text, by name."""
    return [(name, formats.plain(value)) for name, value in sorted(content.protocol.equal.items())]


def expected_table(content: Content) -> Table | None:
    """Published numbers beside the figures found here."""
    rows = [
        Row(f"{one.what}, {one.figure}", [one.ours_text, one.theirs_text, one.outcome, one.source or ""])
        for one in content.expectations
    ]
    columns = ["Here", "Published, with tolerance", "Outcome", "Source"]
    return Table("", columns, rows, "Figure", left=frozenset(columns)) if rows else None
