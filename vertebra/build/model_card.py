"""The model card of a run: what it is, what it can do by which protocol, and how it came about, for the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from vertebra.recipes.schema import DETECTION_SETS

METRICS = {"top1": "accuracy"}  # the Hub's names of our figures, where it has one
# By the figure that a kind of run has: the Hub's name of its task, and the commands that its weights are for.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "top1": ("image-classification", ("eval-backbone", "train-det --backbone {backbone}")),
    "AP": ("object-detection", ("eval-det --output DIR", "predict PICTURES", "train-det --backbone {backbone}")),
    "located": ("object-detection", ("eval-loc --output DIR",)),
}


def model_card(facts: Mapping[str, Any], evaluation: Mapping[str, Any], name: str, licence: str | None) -> str:
    """Return the text of README.md; figures are per cent.

    facts: the run's provenance. evaluation: its evaluation.json. name: USER/NAME[@REVISION]. licence: of the weights.
    """
    backbone, figures = facts["backbone"]["name"], facts["figures"]
    what = f"{facts['detector']} on {backbone}" if "detector" in facts else backbone
    trained_on, tested = facts["training_data"], tested_on(facts)
    commands = _kind(figures)[1]
    versions = ", ".join(f"{library} {version}" for library, version in facts["versions"].items())
    origin = facts.get("started_from") or facts.get("weights")
    started = "random weights"
    if isinstance(origin, dict):
        started = origin.get("source", "weights of another run")
        if others := origin.get("by_others"):  # what their licence asks for holds for what is made of them
            started += f", weights by others: {others.get('source')}, licence {others.get('licence')}"
    lines = [
        f"# {_title(name)}",
        "",
        f"{what}, trained with Vertebra. It knows {len(facts.get('class_names') or ())} classes.",
        "",
        *(f"    vertebra {command.format(backbone=backbone)} --weights hf:{name}" for command in commands),
        "",
        "## Figures",
        "",
        f"On {tested}" + (f", {evaluation['images']} images" if "images" in evaluation else ""),
        "",
        "| figure | % |",
        "|---|---|",
        *(f"| {figure} | {value:.2f} |" for figure, value in figures.items()),
        "",
        f"Protocol `{facts['protocol_hash']}`: figures of runs with another one are not comparable with these. Its "
        "fields are in provenance.json, all settings in config.yaml, all figures in evaluation.json.",
        "",
        "## Training",
        "",
        f"- data: {trained_on['name']}, {trained_on['images']} images",
        f"- started from: {started}",
        f"- command: `{facts['command']}`",
        f"- commit of Vertebra: {facts['commit'] or 'not known'}",
        f"- versions: {versions}",
        f"- machine: {', '.join(facts['machine']['gpus']) or facts['machine']['cpu']}",
        f"- licence of the weights: {licence or 'not stated; ask their owner'}",
        "",
    ]
    return f"---\n{yaml.safe_dump(_front_matter(facts, name, licence), sort_keys=False)}---\n\n" + "\n".join(lines)


def tested_on(facts: Mapping[str, Any]) -> str:
    """Return the name of the test set."""
    protocol = facts["protocol"]
    own = protocol.get("test_source") or DETECTION_SETS.get(protocol.get("dataset", ""), ("", ""))[1]
    return str(own or f"{facts['training_data']['name']}/{protocol.get('test_split', 'test')}")


def _front_matter(facts: Mapping[str, Any], name: str, licence: str | None) -> dict[str, Any]:
    task = _kind(facts["figures"])[0]
    tested = tested_on(facts)
    metrics = [
        {"type": METRICS.get(figure, figure), "name": figure, "value": round(value, 2)}
        for figure, value in facts["figures"].items()
    ]
    result = {"task": {"type": task}, "dataset": {"name": tested, "type": _slug(tested)}, "metrics": metrics}
    return {
        **({"license": licence} if licence else {}),
        "library_name": "vertebra",
        "pipeline_tag": task,
        "tags": ["vertebra", facts["backbone"]["name"], *(["faster-rcnn"] if "detector" in facts else [])],
        "datasets": sorted({_slug(part) for part in str(facts["training_data"]["name"]).split("+")}),
        "metrics": sorted({metric["type"] for metric in metrics}),
        "model-index": [{"name": _title(name), "results": [result]}],
    }


def _kind(figures: Mapping[str, float]) -> tuple[str, tuple[str, ...]]:
    return next((KINDS[figure] for figure in KINDS if figure in figures), ("image-feature-extraction", ()))


def _title(name: str) -> str:
    return name.partition("@")[0].rpartition("/")[2]


def _slug(source: str) -> str:
    """Return a data set's name without its part: voc2007/trainval is voc2007, json:DIR/A.json is A."""
    kind, colon, path = source.partition(":")
    return path.rpartition("/")[2].partition(".")[0] if colon else kind.partition("/")[0]
