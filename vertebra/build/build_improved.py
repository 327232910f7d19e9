"""From a recipe's test settings to what is tested: a trained detector, or one or several with improvements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from detectors.faster_rcnn import FasterRCNN
from detectors.testtime import ImprovedDetector
from vertebra.recipes.schema_detection import DetectionRecipe

# What the detectors of an ensemble must have in common: all see the same pixels.
TEST_INPUT = ("test_shorter_side", "longer_side")


def build_tested(recipe: DetectionRecipe, detectors: Sequence[FasterRCNN]) -> nn.Module:
    """What detects under `recipe.test`: the detector itself where nothing is asked for that it does not do alone."""
    test, first = recipe.test, detectors[0]
    if len(detectors) == 1 and not (test.refine or test.multi_scale or test.flip):
        return first
    return ImprovedDetector(
        detectors,
        replace(first.box_head.postprocess, nms_iou=test.refine_nms if test.refine else test.nms),
        refine=test.refine,
        region_px=test.multi_scale_region if test.multi_scale else None,
        mirror=test.flip,
    )


def check_member(
    name: str,
    member: DetectionRecipe,
    member_classes: Sequence[str],
    first: DetectionRecipe,
    first_classes: Sequence[str],
) -> None:
    """Raises ValueError where a detector knows other classes than the first, or was made for images of another size."""
    if tuple(member_classes) != tuple(first_classes):
        raise ValueError(
            f"{name} knows other classes ({', '.join(member_classes)}) than the first detector "
            f"({', '.join(first_classes)}): an ensemble's detectors need the same, in the same order"
        )
    for field in TEST_INPUT:
        ours, theirs = getattr(first.input, field), getattr(member.input, field)
        if ours != theirs:
            raise ValueError(
                f"{name} is tested at input.{field} {theirs}, the first detector at {ours}: an ensemble's detectors "
                "need the same images"
            )
