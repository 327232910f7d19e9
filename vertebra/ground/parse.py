"""JSON and YAML that anybody wrote: whatever is wrong with a text is a ValueError, in one line."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Make millions of objects, none of them garbage: to look for it time and again would double the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def parse_json(text: str | bytes) -> Any:
    """Return the text's value. Raises ValueError."""
    try:
        with no_garbage_collection():
            return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str | bytes) -> Any:
    """Return the text's value; tags that make anything but plain values are refused. Raises ValueError."""
    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # beside its own errors, PyYAML lets those of its constructors through
        raise ValueError(" ".join(str(error).split())) from None
