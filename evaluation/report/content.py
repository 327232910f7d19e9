"""Everything a report says, as one JSON-able value; HTML and Markdown only lay it out.

AP figures are on the 0-100 scale, None where there is nothing to measure; differences are second minus first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.coco import CocoFigures
from evaluation.files import class_names
from evaluation.report import curves, seeds, sentences
from evaluation.report.collect import Run
from evaluation.report.formats import TIMES, known
from evaluation.report.matching import MATCH_IOU
from evaluation.report.origins import label_runs, pretraining_note, pretraining_top1, weights_text
from evaluation.report.scores import RESAMPLES, PairedIntervals

ACCURACY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
COST = ("flops", "time_per_image_s", "parameters")
SIZES = (("APs", "small", 0.0, 32.0**2), ("APm", "medium", 32.0**2, 96.0**2), ("APl", "large", 96.0**2, 1e10))


def describe(run: Run, label: str, threshold: float) -> dict[str, Any]:
    """One run's figures, cost and origin."""
    evaluation, provenance = run.evaluation, run.provenance
    coco, segm, voc, cost = (evaluation.get(part) or {} for part in ("coco", "coco_segm", "voc", "cost"))
    return {
        "label": label,
        "directory": str(run.directory),
        "backbone": run.backbone,
        "seed": run.seed,
        "figures": {name: known(coco.get(name)) for name in ACCURACY}
        | {"mask AP": known(segm.get("AP")), "VOC mAP": known(voc.get("mAP"))},
        "voc_metric": voc.get("metric"),
        "cost": {name: known(cost.get(name)) for name in COST} | {"input_hw": cost.get("input_hw")},
        "training_s": known(provenance.get("training_s")),
        "weights": weights_text(run),
        "pretraining_top1": pretraining_top1(run),
        "commit": provenance.get("commit"),
        "command": provenance.get("command"),
        "machine": provenance.get("machine"),
        "score_threshold": round(threshold, 4),
    }


def compare(intervals: PairedIntervals, told: Sequence[Mapping[str, Any]], a: int, b: int) -> dict[str, Any]:
    """Run b against run a: differences with their bootstrap intervals, and ratios of cost."""
    figures_a, figures_b = told[a]["figures"], told[b]["figures"]
    differences: dict[str, Any] = {
        name: {"value": figures_b[name] - figures_a[name]}
        for name in (*ACCURACY, "mask AP", "VOC mAP")
        if figures_a[name] is not None and figures_b[name] is not None
    }
    for name, (low, high) in intervals.between(a, b).items():
        if name in differences:
            differences[name] |= {"low": low, "high": high, "distinguishable": low > 0 or high < 0}
    ratios = {
        name: told[b]["cost"][name] / told[a]["cost"][name]
        for name in COST
        if told[a]["cost"][name] and told[b]["cost"][name]
    }
    if told[a]["training_s"] and told[b]["training_s"]:
        ratios["training_s"] = told[b]["training_s"] / told[a]["training_s"]
    return {"a": told[a]["label"], "b": told[b]["label"], "differences": differences, "ratios": ratios}


def ranking(told: Sequence[Mapping[str, Any]]) -> list[int]:
    """Places of the runs, the highest AP first."""
    return sorted(range(len(told)), key=lambda index: -(told[index]["figures"]["AP"] or 0.0))


def assemble(
    runs: Sequence[Run],
    truth: dict[str, Any],
    scores: Sequence[CocoFigures],
    thresholds: Sequence[float],
    *,
    title: str | None,
) -> dict[str, Any]:
    """The report without its gallery."""
    labels = label_runs(runs)
    told = [describe(run, label, threshold) for run, label, threshold in zip(runs, labels, thresholds)]
    order = ranking(told)
    intervals = PairedIntervals(runs, truth)
    to_baseline = [compare(intervals, told, 0, index) for index in range(1, len(runs))]
    to_best = [compare(intervals, told, index, order[0]) for index in order[1:]] if len(runs) > 2 else []
    lead = to_best[0] if to_best else to_baseline[0]
    by_label = {run["label"]: run for run in told}
    sample_hash = runs[0].provenance.get("sample_hash")
    names = list(class_names(truth).values())
    over_seeds = seeds.over_seeds(runs, intervals, scores[0].truths)
    return {
        "title": title or " against ".join(side["label"] for side in over_seeds["sides"]),
        "headline": sentences.headline(told, lead, over_seeds),
        "accuracy_sentence": sentences.accuracy_over_seeds(over_seeds, len(runs))
        or sentences.accuracy_sentence(lead, by_label),
        "cost_sentence": sentences.cost_sentence(lead, by_label),
        "notes": sentences.notes(
            told,
            images=len(truth["images"]),
            resamples=RESAMPLES,
            pretraining=pretraining_note(runs, labels),
            sample_hash=sample_hash,
            over_seeds=seeds.note(over_seeds, RESAMPLES),
        ),
        "data": {"images": len(truth["images"]), "objects": len(truth["annotations"]), "classes": names},
        "runs": told,
        "baseline": labels[0],
        "best": labels[order[0]],
        "over_seeds": over_seeds,
        "pair": compared_pair(labels, order),
        "lead": lead,
        "differences_to_baseline": to_baseline,
        "best_against_others": to_best,
        "per_class": per_class(scores, labels, compared_pair(labels, order)),
        "per_size": per_size(truth, told, compared_pair(labels, order)),
        "precision_recall": precision_recall(scores, labels),
        "training": training(runs, labels),
        "protocol": protocol(runs, labels),
    }


def compared_pair(labels: Sequence[str], order: Sequence[int]) -> list[str]:
    """The two that class differences and the gallery are about: the baseline and the best (or the runner-up)."""
    if len(labels) == 2:
        return list(labels)
    return [labels[0], labels[order[0] if order[0] != 0 else order[1]]]


def per_class(scores: Sequence[CocoFigures], labels: Sequence[str], pair: Sequence[str]) -> list[dict[str, Any]]:
    """AP and AP50 of each class and run, the number of objects, and the pair's difference."""
    a, b = (labels.index(label) for label in pair)
    rows = []
    for name in scores[0].per_class:
        figures = {key: [known(score.per_class[name].get(key)) for score in scores] for key in ("AP", "AP50")}
        rows.append(
            {
                "name": name,
                "truths": scores[0].truths[name],
                **figures,
                "difference": _difference(figures["AP"][a], figures["AP"][b]),
            }
        )
    return rows


def per_size(truth: Mapping[str, Any], told: Sequence[Mapping[str, Any]], pair: Sequence[str]) -> list[dict[str, Any]]:
    """AP by COCO's three sizes, and how many objects (not crowd, not difficult) each has."""
    areas = [
        annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3])
        for annotation in truth["annotations"]
        if not annotation.get("iscrowd") and not annotation.get("difficult")
    ]
    a, b = (next(run["figures"] for run in told if run["label"] == label) for label in pair)
    return [
        {
            "name": name,
            "figure": key,
            "truths": sum(low <= area < high for area in areas),
            "AP": [run["figures"][key] for run in told],
            "difference": _difference(a[key], b[key]),
        }
        for key, name, low, high in SIZES
    ]


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


def precision_recall(scores: Sequence[CocoFigures], labels: Sequence[str]) -> dict[str, Any]:
    """Precision (0..1) at 101 recalls, IoU 0.5: the mean over classes with objects, and each class."""
    classes = [name for name in scores[0].curves if scores[0].truths[name]]
    mean = [
        [sum(score.curves[name][level] for name in classes) / len(classes) for level in range(101)] if classes else []
        for score in scores
    ]
    return {
        "iou": MATCH_IOU,
        "recall": [level / 100 for level in range(101)],
        "mean": _rounded(mean),
        "per_class": {name: _rounded([score.curves[name] for score in scores]) for name in classes},
    }


def _rounded(lines: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(float(value), 4) for value in line] for line in lines]


def training(runs: Sequence[Run], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Each run's total loss, plain and smoothed, and AP over the iterations; at most a few hundred points."""
    told = []
    for run, label in zip(runs, labels):
        loss = curves.loss_curve(run.metrics)
        told.append(
            {
                "label": label,
                "loss": [list(point) for point in curves.thinned(loss)],
                "loss_smoothed": [[x, round(y, 5)] for x, y in curves.thinned(curves.smoothed(loss))],
                "AP": [list(point) for point in curves.ap_curve(run.metrics)],
                "AP50": [list(point) for point in curves.ap_curve(run.metrics, "AP50")],
            }
        )
    return told


def protocol(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """What is equal between the runs, and what differs."""
    rows: dict[str, list[Any]] = {
        "backbone": [run.backbone.get("name") for run in runs],
        "width": [run.backbone.get("width") for run in runs],
        "shortcut": [run.backbone.get("shortcut") for run in runs],
        "stride in": [run.backbone.get("stride_in") for run in runs],
        "weights": [weights_text(run) for run in runs],
        "seed": [run.seed for run in runs],
        "commit": [run.provenance.get("commit") for run in runs],
        "machine": [_machine(run) for run in runs],
        "command": [run.provenance.get("command") for run in runs],
    }
    given = {name: values for name, values in rows.items() if any(value is not None for value in values)}
    alike = {name: values[0] for name, values in given.items() if all(value == values[0] for value in values)}
    return {
        "hash": runs[0].provenance.get("protocol_hash"),
        "sample_hash": runs[0].provenance.get("sample_hash"),
        "equal": runs[0].protocol,
        "also_equal": alike,
        "differs": {name: values for name, values in given.items() if name not in alike},
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
