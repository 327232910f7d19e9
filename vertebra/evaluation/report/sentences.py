"""The report in words. Every number here is also in the tables, written by the same functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vertebra.evaluation.report.content import Comparison, SideFacts
from vertebra.evaluation.report.costs import COSTS
from vertebra.evaluation.report.scores import RESAMPLES
from vertebra.evaluation.report.task import Task
from vertebra.evaluation.statistics.comparison import Difference
from vertebra.ground import formats
from vertebra.ground.formats import APOSTROPHE, NBSP

COVERS = {
    "images": "the choice of test images, but not another training seed",
    "seeds and images": "other training seeds and other test images",
}
NEEDS = ("flops", "latency_s", "time_per_image_s", "parameters")  # that a sentence compares
NO_IMAGES = "Images are not shown: a run has no images.json, maps/ and truth/; score it again with tools/eval_seg.py."


def headline(task: Task, sides: Sequence[SideFacts], lead: Comparison | None) -> str:
    """Say which side is best, by how much and over how many seeds. lead: the best against the next."""
    if lead is None:
        only = sides[0]
        over = f" over {len(only.seeds)} seeds" if len(only.seeds) > 1 else ""
        return f"{only.label} reaches {only.figures[task.main]}{NBSP}{task.main}{over}"
    worse, best = _two(sides, lead)
    difference = lead.differences[task.main]
    if difference is None:
        return f"{best.label} and {worse.label} cannot be compared: only one test image has {task.counted}"
    size, half = formats.ap(abs(difference.estimate)), formats.ap(difference.high - difference.estimate)
    by, seeds = f"{size}{NBSP}±{NBSP}{half}{NBSP}{task.main}", _seeds(worse, best)
    if len(sides) == 2:
        if difference.distinguishable:
            return f"{best.label} beats {worse.label} by {by} ({seeds})"
        return f"{best.label} and {worse.label} cannot be told apart: {by} ({seeds})"
    if difference.distinguishable:
        return f"{best.label} beats the runner-up, {worse.label}, by {by} ({seeds})"
    by += _correction(difference, math.comb(len(sides), 2))
    return f"{best.label} comes first, but cannot be told apart from the runner-up, {worse.label}: {by} ({seeds})"


def _two(sides: Sequence[SideFacts], lead: Comparison) -> tuple[SideFacts, SideFacts]:
    """Return the runner-up and the best side."""
    by_label = {side.label: side for side in sides}
    return by_label[lead.a], by_label[lead.b]


def _correction(difference: Difference, comparisons: int) -> str:
    """Explain an interval that leaves 0 out, as it stands for itself, beside a p-value that is one of many."""
    if difference.low <= 0 <= difference.high or difference.adjusted_p is None:
        return ""
    return f", p {formats.p_text(difference.adjusted_p)} after correction for {comparisons} comparisons"


def _seeds(worse: SideFacts, best: SideFacts) -> str:
    many, others = len(best.seeds), len(worse.seeds)
    return formats.counted(many, "seed") + (" each" if many == others else f" against {others}")


def caveat(task: Task, sides: Sequence[SideFacts], lead: Comparison | None) -> str:
    """Say why the headline is about networks and not about backbones; '' where it is about backbones.

    A verdict on backbones takes one protocol and several seeds on both sides.
    """
    if lead is None:
        return ""
    worse, best = _two(sides, lead)
    if worse.file or best.file:
        protocols = "their training protocols are not known to be equal"
        return f"This compares two {task.network}s, not their backbones: {protocols}."
    if lead.covers == "seeds and images":
        return ""
    single = [side.label for side in (best, worse) if len(side.seeds) == 1]
    have = "both have" if len(single) == 2 else f"{single[0]} has"
    return f"This compares two trained {task.network}s, not their backbones: {have} only one seed."


def details(task: Task, sides: Sequence[SideFacts], lead: Comparison | None) -> list[str]:
    """Return the two main figures of the best side and the runner-up, and what the best costs beside the other."""
    if lead is None:
        return []
    worse, best = _two(sides, lead)
    accuracy = [_accuracy(task, worse, best, lead)] if lead.differences[task.main] else []
    return [*accuracy, *_cost(worse, best, lead)]


def _accuracy(task: Task, worse: SideFacts, best: SideFacts, lead: Comparison) -> str:
    parts = []
    for name in (task.main, task.second):
        mine, other = (str(side.figures[name]) for side in (best, worse))
        parts.append(f"{mine} {name} against {other}, a difference of {_with_p(lead.differences[name])}")
    return (
        f"{best.label} reaches {parts[0]}, and {parts[1]}. "
        f"In brackets are 95 % intervals; they cover {COVERS[lead.covers]}."
    )


def _with_p(difference: Difference | None) -> str:
    """Return '+6.0 (+5.6 to +6.4, p < 0.001)'."""
    if difference is None:
        return formats.NONE
    return f"{difference.text()[:-1]}, p {formats.p_text(difference.p)})"


def _cost(worse: SideFacts, best: SideFacts, lead: Comparison) -> list[str]:
    parts = []
    for name in NEEDS:
        what, write = COSTS[name].within, COSTS[name].write
        mine, other = best.cost.measures[name], worse.cost.measures[name]
        if name not in lead.ratios or not mine or not other or (name[:4] == "time" and "latency_s" in lead.ratios):
            continue
        if abs(lead.ratios[name] - 1) < 0.005:
            parts.append(f"the same {what} ({write(mine.mean)})")
        else:
            parts.append(
                f"{formats.times(lead.ratios[name])} the {what} ({write(mine.mean)} against {write(other.mean)})"
            )
    return [f"Compared with {worse.label}, {best.label} needs {formats.joined(parts)}."] if parts else []


def notes(
    task: Task,
    sides: Sequence[SideFacts],
    *,
    images: int,
    ignored: str,
    sample_hash: str | None,
    machines: Sequence[str | None],
) -> list[str]:
    """Return how to read the figures: what intervals cover, unequal seeds and machines, where the images come from.

    ignored: a sentence on objects that COCO's figures leave aside here and nowhere else, or ''.
    """
    counts = [len(side.seeds) for side in sides]
    drawn = f"{images} images, {RESAMPLES} resamples"
    lines = []
    if max(counts) > 1:
        listed = [f"{side.label} {count}" for side, count in zip(sides, counts)]
        number = f" ({formats.joined(listed)})" if len(set(counts)) > 1 else ""
        lines.append(f"Figures are means over seeds{number}, ± their standard deviation.")
    if len(sides) > 1:
        if sorted(counts)[-2] > 1:
            lines.append(
                "Intervals between sides with several seeds cover both seeds and test images (variance components, "
                f"Student{APOSTROPHE}s t; {drawn})."
            )
        if min(counts) == 1:
            where = "Where a side has one seed" if max(counts) > 1 else "With one seed each"
            lines.append(
                f"{where}, intervals cover the choice of test images only ({drawn}): they say which {task.network} "
                "is better, not which backbone."
            )
        lines += _one_pretraining(sides)
    if len(sides) > 2:
        lines.append(
            "p-values are corrected for the number of comparisons of a figure (Holm): against the baseline those in "
            f"its table; against the best all {math.comb(len(sides), 2)} pairs of sides, because the same data picked "
            "the best. Intervals are not corrected."
        )
    if len(set(machines)) > 1:
        lines.append("The runs were made on different machines, so compare times and memory with care.")
    if ignored:
        lines.append(f"{ignored[0].upper()}{ignored[1:]}.")
    if sample_hash:
        lines.append(f"The images are the generated sample set (generator {sample_hash[:12]}).")
    return lines


def _one_pretraining(sides: Sequence[SideFacts]) -> list[str]:
    """Say what intervals over seeds leave out where only what stands on the backbone was trained with several seeds."""
    several = [side for side in sides if len(side.seeds) > 1 and not side.file]
    same = [side.label for side in several if side.pretraining.same_for_all_seeds]
    if not same:
        return []
    which = "a backbone" if len(same) == len(several) else formats.joined(same)
    return [
        f"All seeds of {which} start from the same pre-trained weights: intervals leave out what another pre-training "
        "would change."
    ]


def shown_runs(task: Task, sides: Sequence[SideFacts]) -> str:
    """Say which runs the browser of images shows, where sides have several; '' otherwise."""
    if all(len(side.seeds) == 1 for side in sides):
        return ""
    firsts = [f"{side.label} {task.given} 1" if side.file else f"{side.label} seed {side.seeds[0]}" for side in sides]
    return f"The images show one run{' of each side' if len(sides) > 1 else ''}: {formats.joined(firsts)}."
