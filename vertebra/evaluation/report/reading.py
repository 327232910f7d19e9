"""The files of a run directory, each read with a sentence where it is missing or broken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vertebra.ground.errors import UserError

MOST_NAMED = 8  # in a sentence


class ReportError(UserError):
    """The runs cannot be put into one report; the message is a sentence for the user."""


def first_of(tree: Mapping[str, Any], *paths: str) -> Any:
    """The first value found under one of the dotted `paths`, None where there is none."""
    for path in paths:
        node: Any = tree
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is not None:
            return node
    return None


def read_text(path: Path, mend: str) -> str:
    """The file's text; ReportError with `mend`, a way out, where it is missing or no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ReportError(f"{path} is missing: {mend or 'the run is not complete'}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} cannot be read ({error}): {mend or 'restore it'}.") from None


def read_json(path: Path, mend: str) -> Any:
    """The file's JSON; ReportError with `mend` where it is missing or broken."""
    text = read_text(path, mend)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ReportError(f"{path} is not valid JSON ({error}): {mend or 'restore it'}.") from None


def require_run(directory: Path) -> None:
    """ReportError, with the runs that lie below where there are some, if the directory holds no run."""
    if not directory.is_dir():
        raise ReportError(f"{directory} is not a directory: give the output directories of finished runs.")
    if any((directory / name).is_file() for name in ("config.yaml", "provenance.json")):
        return
    below = sorted(child.name for child in directory.iterdir() if (child / "config.yaml").is_file())
    more = f" and {len(below) - MOST_NAMED} more" if len(below) > MOST_NAMED else ""
    mend = f"name those in it: {', '.join(below[:MOST_NAMED])}{more}" if below else "name a training's output directory"
    raise ReportError(f"{directory} holds no run (no config.yaml): {mend}.")


def read_provenance(directory: Path) -> dict[str, Any]:
    """The provenance of a finished run's directory; ReportError where there is none, or the run has not ended."""
    require_run(directory)
    provenance = read_json(directory / "provenance.json", "the run has not finished; run it again with --resume")
    if not isinstance(provenance, dict) or provenance.get("finished") is not True:
        raise ReportError(f"{directory} is not finished: run its command again with --resume, then report on it.")
    return provenance


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a run's config.yaml."""
    try:
        recipe = yaml.safe_load(read_text(path, "it is the run's recipe; restore it or run again"))
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ReportError(f"{path} is not valid YAML ({problem}): restore it or run again.") from None
    return recipe if isinstance(recipe, dict) else {}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines in order of iteration; a line cut short by a kill is dropped, one written again after a resume wins."""
    latest: dict[tuple[int, bool], dict[str, Any]] = {}
    for number, line in enumerate(read_text(path, "it holds the training curves; run again").splitlines(), 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "iteration" in entry:
            iteration = entry["iteration"]
            if type(iteration) is not int:
                raise ReportError(f"{path}, line {number}: iteration is {iteration!r}, not a whole number: remove it.")
            latest[iteration, not is_training(entry)] = entry
    return [latest[key] for key in sorted(latest)]


def is_training(line: Mapping[str, Any]) -> bool:
    """Training lines have losses; evaluation lines have figures."""
    return any(name.startswith("loss") for name in line)
