"""Everything a report says, as one JSON-able value; HTML, Markdown and LaTeX only lay it out.

AP figures are on the 0-100 scale, None where there is nothing to measure; differences are second less first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.evaluation.metrics.files import area_of, class_names
from vertebra.evaluation.report import curves, origins, sentences
from vertebra.evaluation.report.collect import Comparable, Run
from vertebra.evaluation.report.costs import fronts, ratios, side_cost
from vertebra.evaluation.report.formats import TIMES, known
from vertebra.evaluation.report.reasons import reasons
from vertebra.evaluation.report.scores import ERROR_RESAMPLES, RESAMPLES, Scores
from vertebra.evaluation.report.shown import is_aside
from vertebra.evaluation.report.sides import Side, group_runs, over_seeds
from vertebra.evaluation.statistics.comparison import Difference, corrected

SIZES = (("APs", "small", 0.0, 32.0**2), ("APm", "medium", 32.0**2, 96.0**2), ("APl", "large", 96.0**2, 1e10))
IOU = 0.5  # of the curves


def assemble(compared: Comparable, *, title: str | None = None, failed: Sequence[str] = ()) -> dict[str, Any]:
    """The report of one head, without its images and expectations."""
    runs, truth = compared.runs, compared.truth
    sides = group_runs(runs)
    scores = Scores(runs, sides, truth)
    told = [describe(side, scores) for side in sides]
    order = ranking(told)
    pairs = [(0, place) for place in range(1, len(sides))]
    every_pair = [(worse, better) for rank, better in enumerate(order) for worse in order[rank + 1 :]]
    to_best = every_pair[: len(sides) - 1] if len(sides) > 2 else []
    comparisons = compare_all(scores, told, pairs)
    against_best = compare_all(scores, told, to_best, among=every_pair)  # which is the best, the same data have said
    lead = _lead(scores, told, order, against_best)
    pair = compared_pair(len(sides), order)
    in_pair = next((one for one in comparisons if one["b"] == sides[pair[1]].label), None) if len(sides) > 1 else None
    content: dict[str, Any] = {
        "title": title or _title(sides),
        "head": compared.head,
        "first": first_lines(sides, failed),
        "headline": "",
        "sentences": [],
        "notes": [],
        "data": {
            "images": len(truth["images"]),
            "objects": len(truth["annotations"]),
            "classes": list(class_names(truth).values()),
        },
        "figures": scores.names,
        "sides": told,
        "baseline": sides[0].label,
        "best": sides[order[0]].label,
        "pair": [sides[place].label for place in pair],
        "lead": lead,
        "differences_to_baseline": comparisons,
        "best_against_others": against_best,
        "pairs_of_sides": len(every_pair),
        "fronts": fronts(told),
        "per_class": per_class(scores, in_pair),
        "per_size": per_size(truth, told, in_pair),
        "precision_recall": precision_recall(scores),
        "training": [training(side) for side in sides],
        "reasons": reasons(sides, scores, truth, pairs),
        "runs": [run_facts(side, run, scores) for side in sides for run in zip(side.runs, side.places)],
        "protocol": protocol(runs),
        "resamples": RESAMPLES,
        "error_resamples": ERROR_RESAMPLES,
        "failed": list(failed),
    }
    content["headline"] = sentences.headline(content)
    content["sentences"] = sentences.ledes(content)
    content["notes"] = sentences.notes(content, machines=[_machine(run) for run in runs if run.name is None])
    return content


def _title(sides: Sequence[Side]) -> str:
    if len(sides) < 4:
        return " against ".join(side.label for side in sides)
    return f"{len(sides)} detectors, from {sides[0].label} to {sides[-1].label}"


def first_lines(sides: Sequence[Side], failed: Sequence[str]) -> list[str]:
    """What must be known before the figures: unequal pre-training, unknown protocols, cells without a result."""
    labels = [side.label for side in sides]
    lines = [
        origins.pretraining_note([side.runs[0] for side in sides], labels),
        origins.unknown_protocol([side.label for side in sides if side.is_file]) if len(sides) > 1 else None,
        *(f"Without a result: {sentence.rstrip('.')}." for sentence in failed),
    ]
    return [line for line in lines if line]


def describe(side: Side, scores: Scores) -> dict[str, Any]:
    """One side's figures, cost and origin."""
    first = side.runs[0]
    pretraining = {name: value for name, value in origins.pretraining(first).items() if name != "recipe"}
    told = {
        "budget": "" if side.is_file else origins.budget(first),
        "same_for_all_seeds": origins.is_one_pretraining(side.runs),
    }
    return {
        "label": side.label,
        "file": side.is_file,
        "backbone": first.backbone,
        "seeds": side.seeds,
        "figures": {name: over_seeds(scores.values(side, name)) for name in scores.names},
        "cost": side_cost(side),
        "weights": origins.weights_text(first),
        "pretraining": pretraining | told,
    }


def compare_all(
    scores: Scores,
    told: Sequence[Mapping[str, Any]],
    pairs: Sequence[tuple[int, int]],
    *,
    among: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """Side b against side a of each pair of places; each figure's p-values are corrected over the pairs `among` which
    these were chosen by the data (None: these)."""
    by_figure = {
        name: corrected({str(pair): scores.difference(*_sides(scores, pair), name) for pair in among or pairs})
        for name in scores.names
    }
    made = []
    for pair in pairs:
        a, b = _sides(scores, pair)
        differences = {name: by_figure[name][str(pair)] for name in scores.names}
        made.append(
            {
                "a": a.label,
                "b": b.label,
                "covers": "seeds and images" if min(len(a.runs), len(b.runs)) > 1 else "images",
                "differences": {name: _told(one) for name, one in differences.items()},
                "per_class": {name: _told(one) for name, one in scores.class_differences(a, b, "AP").items()},
                "ratios": ratios(told[pair[0]]["cost"], told[pair[1]]["cost"]),
            }
        )
    return made


def _sides(scores: Scores, pair: tuple[int, int]) -> tuple[Side, Side]:
    return scores.sides[pair[0]], scores.sides[pair[1]]


def _told(one: Difference | None) -> dict[str, Any] | None:
    return None if one is None else one.to_dict()


def ranking(told: Sequence[Mapping[str, Any]]) -> list[int]:
    """Places of the sides, the highest AP first."""
    return sorted(range(len(told)), key=lambda place: -(told[place]["figures"]["AP"]["mean"] or 0.0))


def _lead(
    scores: Scores,
    told: Sequence[Mapping[str, Any]],
    order: Sequence[int],
    against_best: Sequence[dict[str, Any]],
) -> dict[str, Any] | None:
    """The best side against the next; None where there is one side."""
    if len(order) < 2:
        return None
    return against_best[0] if against_best else compare_all(scores, told, [(order[1], order[0])])[0]


def compared_pair(sides: int, order: Sequence[int]) -> list[int]:
    """The two that class differences and the images are about: the baseline and the best (or the runner-up)."""
    if sides < 3:
        return list(range(sides))
    return [0, order[0] if order[0] != 0 else order[1]]


def per_class(scores: Scores, pair: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """AP and AP50 of each class and side, the number of objects, and the pair's difference."""
    return [
        {
            "name": name,
            "truths": scores.truths[name],
            **{
                figure: [over_seeds(scores.class_values(side, figure, name)) for side in scores.sides]
                for figure in ("AP", "AP50")
            },
            "difference": pair["per_class"][name] if pair else None,
        }
        for name in scores.classes
    ]


def per_size(
    truth: Mapping[str, Any], told: Sequence[Mapping[str, Any]], pair: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """AP by COCO's three sizes, and how many objects (not crowd, not difficult) each has."""
    areas = [area_of(annotation) for annotation in truth["annotations"] if not is_aside(annotation)]
    return [
        {
            "name": name,
            "figure": key,
            "truths": sum(low <= area < high for area in areas),
            "AP": [side["figures"][key] for side in told],
            "difference": pair["differences"][key] if pair else None,
        }
        for key, name, low, high in SIZES
    ]


def precision_recall(scores: Scores) -> dict[str, Any]:
    """Precision (0..1) at 101 recalls, IoU 0.5, means over seeds: over the classes with objects, and of each."""
    classes = [name for name in scores.classes if scores.truths[name]]
    lines = {name: [scores.curve(side, name) for side in scores.sides] for name in classes}
    mean = [
        [sum(lines[name][place][level] for name in classes) / len(classes) for level in range(101)]
        for place in range(len(scores.sides))
    ]
    return {
        "iou": IOU,
        "recall": [level / 100 for level in range(101)],
        "mean": _rounded(mean),
        "per_class": {name: _rounded(line) for name, line in lines.items()},
    }


def _rounded(lines: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(float(value), 4) for value in line] for line in lines]


def training(side: Side) -> dict[str, Any]:
    """Total loss, smoothed, and AP over the iterations: means over the seeds, and each run's; a few hundred points."""
    losses = [curves.loss_curve(run.metrics) for run in side.runs]
    figures = {name: [curves.ap_curve(run.metrics, name) for run in side.runs] for name in ("AP", "AP50")}
    return {
        "label": side.label,
        "loss": _points(curves.thinned(curves.smoothed(curves.mean_curve(losses))), 5),
        **{name: _points(curves.mean_curve(lines), 4) for name, lines in figures.items()},
        "runs": [
            {"seed": seed, "loss": _points(curves.thinned(loss), 5), "AP": _points(line, 4)}
            for seed, loss, line in zip(side.seeds, losses, figures["AP"])
        ],
    }


def _points(points: Sequence[curves.Point], digits: int) -> list[list[float]]:
    return [[x, round(y, digits)] for x, y in points]


def run_facts(side: Side, placed: tuple[Run, int], scores: Scores) -> dict[str, Any]:
    """A single run: what it scored, and how it was made."""
    run, place = placed
    figures = scores.runs[place].figures
    return {
        "side": side.label,
        "seed": run.seed,
        "figures": {name: known(float(figures[name].mean_S[0])) for name in scores.names},
        "commit": run.provenance.get("commit"),
        "machine": _machine(run),
        "command": run.provenance.get("command"),
        "directory": str(run.path),
        "training_s": known(run.provenance.get("training_s")),
    }


def protocol(runs: Sequence[Run]) -> dict[str, Any]:
    """What is equal between the runs; None where nothing but predictions is known."""
    ours = [run for run in runs if run.name is None]
    if not ours:
        return {"hash": None, "sample_hash": None, "equal": {}}
    first = ours[0].provenance
    return {
        "hash": first.get("protocol_hash"),
        "sample_hash": first.get("sample_hash"),
        "equal": ours[0].protocol,
    }


def _machine(run: Run) -> str | None:
    machine = run.provenance.get("machine")
    if not isinstance(machine, Mapping):
        return None if machine is None else str(machine)
    gpus = Counter(machine.get("gpus") or ())
    parts = [f"{number} {TIMES} {gpu}" if number > 1 else str(gpu) for gpu, number in gpus.items()]
    parts += [str(machine["cpu"])] if machine.get("cpu") else []
    parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
    return ", ".join(parts) or None
