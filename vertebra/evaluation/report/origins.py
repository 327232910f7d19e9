"""Where each run's weights come from, and whether pre-training was equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vertebra.evaluation.report.reading import differing, first_of
from vertebra.evaluation.report.runs import Run
from vertebra.evaluation.report.task import Task
from vertebra.ground import formats

RANDOM = "random initialisation"
UNKNOWN = "unknown"
TOGETHER = "differences come from backbones and pre-training together."
LISTED = 5  # fields of unequal recipes that a sentence names


@dataclass(frozen=True)
class Pretraining:
    """The facts known about a run's weights, None where unknown.

    top1: percent. known: whether the weights say enough to be compared. budget: data and length in words.
    """

    data: str | None = None
    data_images: int | None = None
    epochs: float | None = None
    iterations: int | None = None
    images_seen: float | None = None
    top1: float | None = None
    hash: str | None = None
    known: bool = False
    budget: str = ""
    same_for_all_seeds: bool = False


def weights_of(run: Run) -> dict[str, Any] | None:
    """Return the provenance of the run's weights, None for random initialisation."""
    weights = run.provenance.get("weights")
    if isinstance(weights, str):
        weights = {"source": weights}
    if not weights or str(first_of(weights, "source")).lower() in ("none", "random"):
        return None
    return dict(weights)


def weights_text(run: Run) -> str:
    """Return 'pre-trained on sample', 'torchvision', 'r18.safetensors', 'random initialisation', or 'unknown'."""
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


def pretraining(run: Run) -> Pretraining:
    """Return what is known of the run's weights; nothing of a file's."""
    if run.name is not None:
        return Pretraining()
    weights = weights_of(run)
    if weights is None:
        return Pretraining(images_seen=0, known=True, budget=RANDOM)
    recipe = _recipe(weights)
    images = first_of(weights, "training_data.images", "provenance.training_data.images")
    epochs, iterations = first_of(weights, "epochs"), first_of(weights, "iterations")
    batch = recipe.get("solver.batch_size")
    seen: float | None = None
    if isinstance(iterations, (int, float)) and isinstance(batch, (int, float)):
        seen = iterations * batch
    elif isinstance(epochs, (int, float)) and isinstance(images, (int, float)):
        seen = epochs * images
    if epochs is None and seen and isinstance(images, (int, float)) and images:
        epochs = round(seen / images, 2)
    top1 = _find(weights, "top1")
    hash_ = first_of(weights, "protocol_hash", "provenance.protocol_hash")
    data = _training_data(weights)
    facts = Pretraining(
        data=data,
        data_images=images,
        epochs=epochs,
        iterations=iterations,
        images_seen=seen,
        top1=float(top1) if isinstance(top1, (int, float)) else None,
        hash=hash_,
        known=data is not None or hash_ is not None,
    )
    return replace(facts, budget=_budget(facts) if facts.known else f"{weights_text(run)}, data and length unknown")


def _recipe(weights: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the protocol that the weights were trained by, {} where it is not known."""
    return first_of(weights or {}, "protocol", "provenance.protocol") or {}


def _budget(facts: Pretraining) -> str:
    """Return 'ImageNet, 1.28 M images, 90 epochs, 115 M images seen', as far as it is known."""
    parts = [facts.data or "unknown data"]
    if facts.data_images:
        parts.append(f"{formats.count(facts.data_images)} images")
    if facts.epochs is not None:
        parts.append(f"{facts.epochs:g} epochs")
    elif facts.iterations:
        parts.append(f"{formats.count(facts.iterations)} iterations")
    if facts.images_seen:
        parts.append(f"{formats.count(facts.images_seen)} images seen")
    return ", ".join(parts)


def pretraining_kind(run: Run) -> tuple[Any, ...]:
    """Return what is equal for runs whose weights were made by one recipe on one data set for as long."""
    if run.name is not None:
        return (UNKNOWN, run.name)
    if weights_of(run) is None:
        return (RANDOM,)
    facts = pretraining(run)
    if not facts.known:
        return (UNKNOWN, weights_text(run))
    return facts.hash, facts.data, facts.data_images, facts.epochs, facts.iterations


def is_one_pretraining(runs: Sequence[Run]) -> bool:
    """Return True if several runs all start from the same weights: their spread leaves pre-training out."""
    weights = [weights_of(run) for run in runs]
    return len(runs) > 1 and runs[0].name is None and weights[0] is not None and all(w == weights[0] for w in weights)


def pretraining_note(runs: Sequence[Run], labels: Sequence[str]) -> str | None:
    """Return the warning that pre-training was not equal, or is not known to be; None where it was.

    Files of predictions are left out: `unknown_protocol` is about them.
    """
    trained = [(run, label) for run, label in zip(runs, labels) if run.name is None]
    kinds = {pretraining_kind(run) for run, _ in trained}
    unknown = [label for run, label in trained if pretraining_kind(run)[0] == UNKNOWN]
    if len(kinds) < 2 and not (unknown and len(trained) > 1):
        return None
    by_budget: dict[str, list[str]] = {}
    for run, label in trained:
        by_budget.setdefault(pretraining(run).budget, []).append(label)
    listed = "; ".join(f"{formats.joined(alike)}: {text}" for text, alike in by_budget.items())
    if len(unknown) == len(trained):
        return f"Pre-training is not known to be equal ({listed}): {TOGETHER}"
    recipes = _recipe_differences([run for run, _ in trained])
    return f"Pre-training is not equal ({listed}{recipes}): {TOGETHER}"


def _recipe_differences(runs: Sequence[Run]) -> str:
    """Return '; recipes differ in solver.lr: 0.1 against 0.01' where data and length are the same."""
    if len({pretraining(run).budget for run in runs}) > 1:
        return ""
    first, *others = [_recipe(weights_of(run)) for run in runs]
    rest = next((recipe for recipe in others if recipe != first), first)
    fields = [f"{name}: {formats.plain(a)} against {formats.plain(b)}" for name, a, b in differing(first, rest)]
    if not fields:
        return "; their recipes' hashes differ"
    return f"; recipes differ in {formats.first_few(fields, LISTED)}"


def unknown_protocol(task: Task, labels: Sequence[str]) -> str | None:
    """Return the warning about sides that are files of predictions; None where there are none."""
    if not labels:
        return None
    verb, what = ("is", f"a {task.given}") if len(labels) == 1 else ("are", f"{task.given}s")
    return (
        f"{formats.joined(list(labels))} {verb} {what} of predictions only: how the {task.network} was trained is not "
        f"known, so differences are between {task.network}s, not between backbones."
    )


def _training_data(weights: Mapping[str, Any]) -> str | None:
    """Return the name of the data that the weights were trained on, from their provenance."""
    data = first_of(weights, "training_data", "provenance.training_data")
    name = data.get("name") if isinstance(data, Mapping) else data
    return None if name is None else str(name)


def _find(tree: Any, name: str) -> Any:
    """Return the first value called `name` anywhere in nested mappings."""
    if not isinstance(tree, Mapping):
        return None
    if tree.get(name) is not None:
        return tree[name]
    return next((found for value in tree.values() if (found := _find(value, name)) is not None), None)
