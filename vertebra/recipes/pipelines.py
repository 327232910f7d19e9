"""Pipelines of albumentations as recipes have them: JSON in one canonical form, whatever they were written in."""

from __future__ import annotations

import json
from pathlib import Path
from reprlib import repr as short  # of YAML whose references would fill gigabytes
from typing import Any

from vertebra.ground.errors import RecipeError
from vertebra.ground.parse import parse_json, parse_yaml
from vertebra.recipes.installed import find_pipeline

_CLASS = "__class_fullname__"  # in what albumentations.save writes


def read_pipeline(value: Any) -> str:
    """Return a pipeline as JSON, [{Name: {argument: value}}, ...], "" where it has no steps.

    value: the name of a file, such a list, its JSON, or nothing. The file has such a list in YAML or JSON, or is what
    albumentations.save wrote. So the recipe has the pipeline itself, and needs no file from here on. Raises
    RecipeError; whether albumentations knows the names is not asked here, since its import takes seconds.
    """
    if isinstance(value, str | Path) and not str(value).startswith(("[", "{")):
        value = _read(find_pipeline(value)) if str(value) else []
    elif isinstance(value, str):
        value = _parsed(value, parse_json, "")
    try:
        steps = _steps([] if value is None else value)
        return json.dumps(steps, sort_keys=True, default=str) if steps else ""
    except TypeError:  # names that are no text beside names that are
        raise RecipeError(f"arguments have names, not numbers as in {short(value)}") from None


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(path, "is not text", "name what albumentations.save wrote, or a list in YAML") from None
    value = _parsed(text, parse_json if path.suffix == ".json" else parse_yaml, path)
    if isinstance(value, dict) and "transform" in value:  # albumentations.save
        value = [value["transform"]]
    if not isinstance(value, list):
        hint = "write a list of {Name: {argument: value}}, or save a pipeline by albumentations.save"
        raise RecipeError(path, f"holds a {type(value).__name__}", hint)
    return value


def _parsed(text: str, parse: Any, where: object) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        kind = "JSON" if parse is parse_json else "YAML"
        raise RecipeError(where, f"is not {kind} ({error})", "correct it") from None


def _steps(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple):
        raise RecipeError(f"write a file's name or a list of {{Name: {{argument: value}}}}, not {short(value)}")
    return [_step(step) for step in value]


def _step(step: Any) -> dict[str, Any]:
    """Return {Name: {argument: value}} of either form."""
    if isinstance(step, dict) and _CLASS in step:
        args = {name: value for name, value in step.items() if name != _CLASS}
        step = {str(step[_CLASS]).rpartition(".")[2]: args}
    for name, args in step.items() if isinstance(step, dict) and len(step) == 1 else ():
        if isinstance(name, str) and isinstance(args, dict | None):
            inner = {"transforms": _steps(args["transforms"])} if args and "transforms" in args else {}
            return {name: (args or {}) | inner}
    raise RecipeError(f"a step is {{Name: {{argument: value}}}}, not {short(step)}")
