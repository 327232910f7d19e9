"""Where each run's backbone came from: its label in the report, its weights, and whether pre-training was equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.report import formats
from evaluation.report.collect import Run
from evaluation.report.reading import first_of

RANDOM = "random initialisation"


def label_runs(runs: Sequence[Run]) -> list[str]:
    """Short, unique names: the backbone's, and what tells equal backbones apart (form, weights, seed, directory)."""
    labels = [str(run.backbone.get("name") or run.directory.name) for run in runs]
    details: tuple[Callable[[Run], str], ...] = (
        _form,
        lambda run: "no pre-training" if weights_text(run) == RANDOM else "pre-trained",
        lambda run: f"seed {run.seed}",
        lambda run: run.directory.name,
        lambda run: str(run.directory),
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


def _form(run: Run) -> str:
    """What departs from the plain name: '×0.5 width, shortcut A'."""
    identity = run.backbone
    parts = []
    if identity.get("width") not in (None, 1, 1.0):
        parts.append(f"{formats.TIMES}{identity['width']:g} width")
    if identity.get("shortcut") not in (None, "B"):
        parts.append(f"shortcut {identity['shortcut']}")
    if identity.get("stride_in") not in (None, "3x3"):
        parts.append(f"stride in {identity['stride_in']}")
    return ", ".join(parts)


def weights_text(run: Run) -> str:
    """'pre-trained on sample', 'torchvision', 'r18.safetensors', or 'random initialisation'."""
    weights = run.provenance.get("weights")
    if isinstance(weights, str):
        weights = {"source": weights}
    if not weights:
        return RANDOM
    source = first_of(weights, "source", "file", "path", "name")
    if source is None:
        return "given weights"
    if str(source).lower() in ("none", "random"):
        return RANDOM
    data = _training_data(weights)
    return f"pre-trained on {data}" if data else Path(str(source)).name


def pretraining_top1(run: Run) -> float | None:
    """The backbone's top-1 accuracy in % at the end of pre-training, where its weights' provenance has one."""
    weights = run.provenance.get("weights")
    found = _find(weights, "top1") if weights else None
    return float(found) if isinstance(found, (int, float)) else None


def pretraining_note(runs: Sequence[Run], labels: Sequence[str]) -> str | None:
    """The sentence that says pre-training was not equal, or None where every run had the same."""
    kinds = [_pretraining_kind(run) for run in runs]
    if len(set(kinds)) == 1:
        return None
    told = "; ".join(f"{label}: {weights_text(run)}" for label, run in zip(labels, runs))
    return f"Pre-training is not equal ({told}): the difference is that of backbone and pre-training together."


def _pretraining_kind(run: Run) -> tuple[Any, ...]:
    """Equal for runs whose weights were made by one recipe on one data set, whatever the backbone."""
    if weights_text(run) == RANDOM:
        return (RANDOM,)
    weights = run.provenance["weights"]
    if not isinstance(weights, Mapping):
        return (str(weights),)
    recipe, data = first_of(weights, "protocol_hash", "provenance.protocol_hash"), _training_data(weights)
    if recipe is None and data is None:
        return ("file without provenance",)
    return recipe, data


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
