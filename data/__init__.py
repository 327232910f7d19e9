"""Readers of data sets and loaders of batches; nothing heavy is imported before a name is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.catalog import open_classification, open_detection, open_unlabelled
    from data.loaders import classification_loader, detection_loader
    from data.views import view_loader

_HOMES = {
    "open_detection": "data.catalog",
    "open_classification": "data.catalog",
    "open_unlabelled": "data.catalog",
    "detection_loader": "data.loaders",
    "classification_loader": "data.loaders",
    "view_loader": "data.views",
}
__all__ = [
    "classification_loader",
    "detection_loader",
    "open_classification",
    "open_detection",
    "open_unlabelled",
    "view_loader",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'data' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
