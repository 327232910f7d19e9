"""JSON and YAML: of what anybody wrote, whatever is wrong is a ValueError, in one line; values in the form to write."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from pydantic_core import from_json


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Make millions of objects, none of them garbage: to look for it time and again would double the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            # Together they make all objects old ones; as young ones they would be searched through at once.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def parse_json(text: str | bytes) -> Any:
    """Return the text's value. Raises ValueError.

    Half of the time of `json.loads`, which reads again what is refused: it has the line and column of the fault, and
    takes a few unusual texts.
    """
    try:
        with no_garbage_collection():
            try:
                return from_json(text)
            except ValueError:
                return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses as dicts (their `to_dict`, if any), None for NaN and infinity."""
    if hasattr(value, "to_dict"):
        return as_json(value.to_dict())
    if is_dataclass(value):
        return {one.name: as_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {name: as_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted names: {"solver": {"lr": 1}} becomes {"solver.lr": 1}."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


# libyaml reads a hundred times faster, and bounds depth: in Python a thousand open brackets take seconds.
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str | bytes) -> Any:
    """Return the text's value; tags that make anything but plain values are refused. Raises ValueError."""
    try:
        return yaml.load(text, _YAML)
    except Exception as error:  # beside its own errors, PyYAML lets those of its constructors through
        deep = isinstance(error, RecursionError) or "nesting depth" in str(error)
        raise ValueError("it is nested too deeply" if deep else " ".join(str(error).split())) from None
