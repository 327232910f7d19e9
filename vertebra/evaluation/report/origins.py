"""Where each run's backbone came from: its name in the report, its weights, and whether pre-training was equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.collect import Run, differing
from vertebra.evaluation.report.reading import first_of

RANDOM = "random initialisation"
UNKNOWN = "unknown"
TOGETHER = "differences are of backbones and pre-training together."
LISTED = 5  # fields of unequal recipes that a sentence names


def label_runs(runs: Sequence[Run]) -> list[str]:
    """Short, unique names: the backbone's, and what tells equal backbones apart (form, weights, seed, directory)."""
    labels = [str(run.name or run.backbone.get("name") or run.path.name) for run in runs]
    if len({run.backbone.get("width") or 1 for run in runs}) > 1:  # then a name alone would mislead
        labels = [", ".join(filter(None, (label, _width(run)))) for label, run in zip(labels, runs)]
    details: tuple[Callable[[Run], str], ...] = (
        _form,
        lambda run: "no pre-training" if weights_text(run) == RANDOM else "pre-trained",
        weights_text,
        lambda run: "" if (epochs := pretraining(run)["epochs"]) is None else f"{epochs:g} epochs",
        lambda run: "" if run.seed is None else f"seed {run.seed}",
        lambda run: run.path.name,
        lambda run: str(run.path),
    )
    for detail in details:
        if len(set(labels)) == len(labels):
            break
        told = [detail(run) for run in runs]
        for label in [label for label in set(labels) if labels.count(label) > 1]:
            group = [index for index, other in enumerate(labels) if other == label]
            if len({told[index] for index in group}) > 1:
                for index in group:
                    labels[index] = f"{label}, {told[index]}" if told[index] else label
    return labels


def _width(run: Run) -> str:
    width = run.backbone.get("width") or 1
    return "" if width == 1 else f"{formats.TIMES}{width:g} width"


def _form(run: Run) -> str:
    """What departs from the plain name beside the width: 'shortcut A, stride in 1x1'."""
    identity = run.backbone
    parts = []
    if identity.get("shortcut") not in (None, "B"):
        parts.append(f"shortcut {identity['shortcut']}")
    if identity.get("stride_in") not in (None, "3x3"):
        parts.append(f"stride in {identity['stride_in']}")
    return ", ".join(parts)


def weights_of(run: Run) -> dict[str, Any] | None:
    """The provenance of the run's weights; None where there are none: random initialisation."""
    weights = run.provenance.get("weights")
    if isinstance(weights, str):
        weights = {"source": weights}
    if not weights or str(first_of(weights, "source")).lower() in ("none", "random"):
        return None
    return dict(weights)


def weights_text(run: Run) -> str:
    """'pre-trained on sample', 'torchvision', 'r18.safetensors', 'random initialisation', or 'unknown'."""
    if run.name is not None:
        return UNKNOWN
    weights = weights_of(run)
    if weights is None:
        return RANDOM
    source = first_of(weights, "source", "file", "path", "name")
    if source is None:
        return "given weights"
    data = _training_data(weights)
    return f"pre-trained on {data}" if data else Path(str(source)).name


def pretraining(run: Run) -> dict[str, Any]:
    """What is known of it: data, images of the data, epochs, iterations, images seen, top1 (%), recipe's hash.

    None where it is not known, and all 0 or None with random initialisation. known: whether the weights say enough
    to be compared; recipe: the protocol's fields.
    """
    weights = weights_of(run)
    if run.name is not None or weights is None:
        facts = dict.fromkeys(("data", "data_images", "epochs", "iterations", "top1", "hash"))
        none = 0 if run.name is None else None
        return {**facts, "images_seen": none, "known": run.name is None, "recipe": {}}
    recipe = first_of(weights, "protocol", "provenance.protocol") or {}
    images = first_of(weights, "training_data.images", "provenance.training_data.images")
    epochs, iterations = first_of(weights, "epochs"), first_of(weights, "iterations")
    batch = recipe.get("solver.batch_size")
    seen: float | None = None
    if isinstance(iterations, (int, float)) and isinstance(batch, (int, float)):
        seen = iterations * batch * (recipe.get("solver.accumulate") or 1)
    elif isinstance(epochs, (int, float)) and isinstance(images, (int, float)):
        seen = epochs * images
    if epochs is None and seen and isinstance(images, (int, float)) and images:
        epochs = round(seen / images, 2)
    top1 = _find(weights, "top1")
    hash_ = first_of(weights, "protocol_hash", "provenance.protocol_hash")
    data = _training_data(weights)
    return {
        "data": data,
        "data_images": images,
        "epochs": epochs,
        "iterations": iterations,
        "images_seen": seen,
        "top1": float(top1) if isinstance(top1, (int, float)) else None,
        "hash": hash_,
        "known": data is not None or hash_ is not None,
        "recipe": recipe,
    }


def pretraining_kind(run: Run) -> tuple[Any, ...]:
    """Equal for runs whose weights were made by one recipe on one data set for as long, whatever the backbone."""
    if run.name is not None:
        return (UNKNOWN, run.name)
    if weights_of(run) is None:
        return (RANDOM,)
    facts = pretraining(run)
    if not facts["known"]:
        return (UNKNOWN, weights_text(run))
    return tuple(facts[name] for name in ("hash", "data", "data_images", "epochs", "iterations"))


def is_one_pretraining(runs: Sequence[Run]) -> bool:
    """Whether several runs all started from the same weights: their spread then knows nothing of pre-training."""
    weights = [weights_of(run) for run in runs]
    return len(runs) > 1 and runs[0].name is None and weights[0] is not None and all(w == weights[0] for w in weights)


def pretraining_note(runs: Sequence[Run], labels: Sequence[str]) -> str | None:
    """The sentence that says pre-training was not equal, or is not known to be; None where all had the same.

    Files of predictions are left out: `unknown_protocol` speaks of them.
    """
    told = [(run, label) for run, label in zip(runs, labels) if run.name is None]
    kinds = {pretraining_kind(run) for run, _ in told}
    unknown = [label for run, label in told if pretraining_kind(run)[0] == UNKNOWN]
    if len(kinds) < 2 and not (unknown and len(told) > 1):
        return None
    by_budget: dict[str, list[str]] = {}
    for run, label in told:
        by_budget.setdefault(budget(run), []).append(label)
    listed = "; ".join(f"{formats.joined(alike)}: {text}" for text, alike in by_budget.items())
    if len(unknown) == len(told):
        return f"Pre-training is not known to be equal ({listed}): {TOGETHER}"
    recipes = _recipe_differences([run for run, _ in told])
    return f"Pre-training is not equal ({listed}{recipes}): {TOGETHER}"


def _recipe_differences(runs: Sequence[Run]) -> str:
    """'; recipes differ in solver.lr: 0.1 against 0.01', where data and length alone do not say it."""
    if len({budget(run) for run in runs}) > 1:
        return ""
    first = pretraining(runs[0])["recipe"]
    rest = next((recipe for run in runs if (recipe := pretraining(run)["recipe"]) != first), first)
    fields = [f"{name}: {formats.plain(a)} against {formats.plain(b)}" for name, a, b in differing(first, rest)]
    if not fields:
        return "; their recipes' hashes differ"
    more = f" and {len(fields) - LISTED} more" if len(fields) > LISTED else ""
    return f"; recipes differ in {', '.join(fields[:LISTED])}{more}"


def budget(run: Run) -> str:
    """'ImageNet, 1.28 M images, 90 epochs, 115 M images seen', as far as it is known."""
    if weights_of(run) is None:
        return RANDOM
    facts = pretraining(run)
    if not facts["known"]:
        return f"{weights_text(run)}, data and length unknown"
    parts = [facts["data"] or "unknown data"]
    if facts["data_images"]:
        parts.append(f"{formats.count(facts['data_images'])} images")
    if facts["epochs"] is not None:
        parts.append(f"{facts['epochs']:g} epochs")
    elif facts["iterations"]:
        parts.append(f"{formats.count(facts['iterations'])} iterations")
    if facts["images_seen"]:
        parts.append(f"{formats.count(facts['images_seen'])} images seen")
    return ", ".join(parts)


def unknown_protocol(labels: Sequence[str]) -> str | None:
    """The sentence on sides that are files of predictions; None where there are none."""
    if not labels:
        return None
    verb, what = ("is", "a file of predictions") if len(labels) == 1 else ("are", "files of predictions")
    return (
        f"{formats.joined(list(labels))} {verb} known by {what} alone: the protocol is not known to be equal, so "
        "differences are of detectors, not of backbones."
    )


def _training_data(weights: Mapping[str, Any]) -> str | None:
    """The name of the data that the weights were trained on, from the provenance that they bear."""
    data = first_of(weights, "training_data", "provenance.training_data")
    name = data.get("name") if isinstance(data, Mapping) else data
    return None if name is None else str(name)


def _find(tree: Any, name: str) -> Any:
    """The first value called `name` anywhere in nested mappings."""
    if not isinstance(tree, Mapping):
        return None
    if tree.get(name) is not None:
        return tree[name]
    return next((found for value in tree.values() if (found := _find(value, name)) is not None), None)
