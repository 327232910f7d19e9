"""The files of a run directory, read with a UserError where one is missing or broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vertebra.ground.errors import UserError
from vertebra.ground.formats import first_few
from vertebra.ground.parse import parse_json, parse_yaml

MOST_NAMED = 8  # in a sentence
SCORE_AGAIN = "score the run again with tools/eval_seg.py"
Labels = NDArray[np.uint8]
ReadMap = Callable[[int], tuple[Path, Labels, Labels]]  # an image's place: the file of its map, labels_HW, palette_V3


def first_of(tree: Mapping[str, Any], *paths: str) -> Any:
    """Return the first value found under one of the dotted `paths`, None where there is none."""
    for path in paths:
        node: Any = tree
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is not None:
            return node
    return None


def differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (field, first's value, other's value) where two flat mappings differ; a missing field counts as None."""
    return [
        (name, first.get(name), other.get(name))
        for name in sorted(first.keys() | other.keys())
        if first.get(name) != other.get(name)
    ]


def read_text(path: Path, hint: str) -> str:
    """Return the file's text. Raises UserError with the hint where it is missing or not text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(path, "it is missing", hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, f"it cannot be read ({error})", hint) from None


def read_json(path: Path, hint: str) -> Any:
    """Return the file's JSON. Raises UserError with the hint where it is missing or broken."""
    text = read_text(path, hint)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(path, f"it is not valid JSON ({error})", hint) from None


def require_run(directory: Path) -> None:
    """Raise UserError if the directory holds no run; the hint lists the runs below it."""
    if not directory.is_dir():
        raise UserError(directory, "it is not a directory", "give the output directories of finished runs")
    if any((directory / name).is_file() for name in ("config.yaml", "provenance.json")):
        return
    below = sorted(child.name for child in directory.iterdir() if (child / "config.yaml").is_file())
    listed = f"name the runs in it: {first_few(below, MOST_NAMED)}"
    raise UserError(
        directory, "it holds no run (no config.yaml)", listed if below else "name a training's output directory"
    )


def read_provenance(directory: Path) -> dict[str, Any]:
    """Return the provenance of a finished run. Raises UserError where there is no run, or it has not finished."""
    require_run(directory)
    resume = "run its command again with --resume, then report on it"
    provenance = read_json(directory / "provenance.json", f"the run has not finished: {resume}")
    if not isinstance(provenance, dict) or provenance.get("finished") is not True:
        raise UserError(directory, "the run is not finished", resume)
    return provenance


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the recipe in a run's config.yaml."""
    hint = "it is the run's recipe: restore it or run again"
    text = read_text(path, hint)
    try:
        recipe = parse_yaml(text) or {}
    except ValueError as error:
        raise UserError(path, f"it is not valid YAML ({error})", hint) from None
    if not isinstance(recipe, dict):
        raise UserError(path, "it does not hold `field: value` lines", hint)
    return recipe


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines by iteration; one cut short by a kill is dropped, one written again after a resume wins."""
    latest: dict[tuple[int, bool], dict[str, Any]] = {}
    for number, line in enumerate(read_text(path, "it holds the training curves: run again").splitlines(), 1):
        try:
            entry = parse_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "iteration" in entry:
            iteration = entry["iteration"]
            if type(iteration) is not int:
                raise UserError(f"{path}, line {number}", f"iteration {iteration!r} is not a whole number", "remove it")
            latest[iteration, not is_training(entry)] = entry
    return [latest[key] for key in sorted(latest)]


def is_training(line: Mapping[str, Any]) -> bool:
    """Return True for training lines, which have losses; evaluation lines have figures."""
    return any(name.startswith("loss") for name in line)


def read_labels(path: Path) -> tuple[Path, Labels, Labels]:
    """Return an indexed PNG, its labels_HW and its palette_V3. Raises UserError."""
    try:
        with Image.open(path) as image:
            palette_V3 = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
            return path, np.asarray(image, np.uint8), palette_V3
    except OSError as error:  # missing, or damaged
        raise UserError(path, f"cannot be read ({error.strerror or error})", SCORE_AGAIN) from None
