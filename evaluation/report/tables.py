"""The report's tables as text: HTML and Markdown show the same cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.report import formats, seeds

VOC_METRICS = {"voc07": "11-point", "voc10": "area under the curve"}


@dataclass(frozen=True)
class Row:
    """One figure of every run; `change` is the second against the first, where there are two; `best` the bold ones."""

    name: str
    cells: list[str]
    change: str = ""
    span: str = ""
    note: str = ""
    best: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Group:
    name: str
    rows: list[Row]


def all_tables(content: Mapping[str, Any]) -> dict[str, Any]:
    """What both templates lay out: the main table, for more than two runs the comparisons, and the protocol."""
    comparisons = []
    if len(content["runs"]) > 2:
        best, baseline = content["best"], content["baseline"]
        comparisons = [
            (
                f"{best}, the best, against each other",
                "Against",
                comparison_table(content["best_against_others"], "a"),
            ),
            (
                f"Each against {baseline}",
                "Backbone",
                comparison_table(content["differences_to_baseline"], "b"),
            ),
        ]
    return {
        "main_table": main_table(content),
        "comparisons": comparisons,
        "seed_tables": seeds.seed_tables(content["over_seeds"]),
        "facts": facts(content),
    }


def main_table(content: Mapping[str, Any]) -> list[Group]:
    """Accuracy, cost and origin of the runs."""
    runs = content["runs"]
    only = content["differences_to_baseline"][0] if len(runs) == 2 else None
    return [
        Group("Accuracy", _accuracy(runs, only)),
        Group("Cost", _cost(runs, only)),
        Group("Origin", _origin(runs)),
    ]


def _accuracy(runs: Sequence[Mapping[str, Any]], only: Mapping[str, Any] | None) -> list[Row]:
    notes = {
        "AP": "mean of IoU .50 to .95",
        "AP50": "IoU .50",
        "AP75": "IoU .75",
        "APs": "small objects",
        "APm": "medium objects",
        "APl": "large objects",
        "AR100": "recall, 100 boxes an image",
        "mask AP": "mean of IoU .50 to .95, masks",
        "VOC mAP": VOC_METRICS.get(runs[0]["voc_metric"], "IoU .50"),
    }
    rows = []
    for name, note in notes.items():
        values = [run["figures"][name] for run in runs]
        if name == "mask AP" and None in values:  # not all of them are made of masks
            continue
        difference = (only or {}).get("differences", {}).get(name)
        rows.append(
            Row(
                name,
                [formats.ap(value) for value in values],
                change=formats.signed(difference["value"]) if difference else "",
                span=formats.interval(difference["low"], difference["high"])
                if difference and "low" in difference
                else "",
                note=note,
                best=_best(values),
            )
        )
    return rows


def _best(values: Sequence[float | None]) -> set[int]:
    """Places of the highest figure as it is shown; none where all show the same."""
    shown = [None if value is None else round(value, 1) for value in values]
    present = [value for value in shown if value is not None]
    if not present or (len(set(present)) == 1 and len(shown) > 1):
        return set()
    return {index for index, value in enumerate(shown) if value == max(present)}


def _cost(runs: Sequence[Mapping[str, Any]], only: Mapping[str, Any] | None) -> list[Row]:
    sizes = [run["cost"].get("input_hw") for run in runs]
    at = (
        f"at {sizes[0][0]} {formats.TIMES} {sizes[0][1]} px"
        if sizes[0] and all(size == sizes[0] for size in sizes)
        else ""
    )
    ratios = (only or {}).get("ratios", {})

    def row(
        name: str, key: str, values: Sequence[float | None], write: Callable[[float | None], str], note: str
    ) -> Row:
        return Row(
            name,
            [write(value) for value in values],
            formats.ratio(ratios.get(key)) if only else "",
            note=note,
        )

    costs = {key: [run["cost"][key] for run in runs] for key in ("parameters", "flops", "time_per_image_s")}
    return [
        row("Parameters", "parameters", costs["parameters"], formats.count, ""),
        row("FLOPs", "flops", costs["flops"], formats.count, f"multiply-adds an image {at}".rstrip()),
        row("Time per image", "time_per_image_s", costs["time_per_image_s"], formats.seconds, ""),
        row("Training time", "training_s", [run["training_s"] for run in runs], formats.duration, ""),
    ]


def _origin(runs: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows = [Row("Weights", [run["weights"] for run in runs])]
    if any(run["pretraining_top1"] is not None for run in runs):
        rows.append(Row("Top-1", [formats.percent(run["pretraining_top1"]) for run in runs], note="of the backbone"))
    rows.append(Row("Seed", [formats.plain(run["seed"]) for run in runs]))
    return rows


def comparison_table(comparisons: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
    """A row for each comparison, named by its run `key` ('a' or 'b'): AP, AP50 with intervals, ratios of cost."""
    rows = []
    for comparison in comparisons:
        cells = []
        for name in ("AP", "AP50"):
            difference = comparison["differences"][name]
            mark = "" if difference["distinguishable"] else " *"
            cells.append(
                f"{formats.signed(difference['value'])} "
                f"({formats.interval(difference['low'], difference['high'])}){mark}"
            )
        ratios = comparison["ratios"]
        cells += [formats.ratio(ratios.get(name)) for name in ("flops", "time_per_image_s", "parameters")]
        rows.append(Row(comparison[key], cells))
    return rows


def facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Protocol fields that are equal, as text, by name."""
    equal = content["protocol"]["equal"] | content["protocol"]["also_equal"]
    return [(name, formats.plain(value)) for name, value in sorted(equal.items())]
