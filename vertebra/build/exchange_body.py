"""A detection recipe with another body than it was written for: the flags that say so, and what changes with it."""

from __future__ import annotations

from typing import Any

from vertebra.recipes.command_line import find_recipe, load_recipe
from vertebra.recipes.schema_detection import FPN_LEVELS, DetectionRecipe, Detector

PYRAMID_BEFORE_NMS = (2000, 1000)  # of each level (Lin et al. 2017, and everyone since)


def exchange_body(config: str, body: str) -> tuple[str, ...]:
    """Flags that give a recipe another body, and what has to change with it; none where it has that body already."""
    model = load_recipe(DetectionRecipe, find_recipe(config)).model
    if model.body == body:
        return ()
    changes: dict[str, Any] = {"body": [body]}
    if body == "fpn":
        before = [min(pair) for pair in zip(model.proposals_before_nms, PYRAMID_BEFORE_NMS)]
        changes |= {"anchor-sizes": pyramid_anchors(model), "proposals-before-nms": before, "pooling": ["align"]}
    elif model.body == "fpn":  # its numbers are a level's
        changes["proposals-before-nms"] = [count * FPN_LEVELS for count in model.proposals_before_nms]
    return tuple(part for name, values in changes.items() for part in (f"--model.{name}", *map(str, values)))


def pyramid_anchors(model: Detector) -> list[int]:
    """One size for each level of a pyramid: the greatest sizes of a single map, and halves of the least before them."""
    sizes = sorted(model.anchor_sizes)[-FPN_LEVELS:]
    while len(sizes) < FPN_LEVELS:
        sizes.insert(0, max(1, sizes[0] // 2))
    return sizes
