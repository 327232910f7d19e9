"""From a recipe's test settings to what is tested: a trained detector, or one or several with improvements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from configs import build, build_detector
from configs.command_line import load_recipe
from configs.schema import DetectionRecipe
from detectors.faster_rcnn import FasterRCNN
from detectors.improved import ImprovedDetector
from engine.weights import load_weights

# What the detectors of an ensemble must have in common: all see the same pixels.
TEST_INPUT = ("test_shorter_side", "longer_side")


def build_tested(recipe: DetectionRecipe, detectors: Sequence[FasterRCNN]) -> nn.Module:
    """What detects under `recipe.test`: the detector itself where nothing is asked for that it does not do alone."""
    test, first = recipe.test, detectors[0]
    if len(detectors) == 1 and not (test.refine or test.multi_scale or test.flip):
        return first
    postprocess = first.box_head.postprocess
    # As many more candidates as there are more predictions of each region, or regions.
    candidates = postprocess.candidates * len(detectors) * (2 if test.refine else 1)
    return ImprovedDetector(
        detectors,
        replace(postprocess, candidates=candidates, nms_iou=test.refine_nms if test.refine else test.nms),
        refine=test.refine,
        region_px=test.multi_scale_region if test.multi_scale else None,
        mirror=test.flip,
    )


def load_detector(recipe: DetectionRecipe, state: dict[str, Any], facts: dict[str, Any], path: Path) -> FasterRCNN:
    """The detector whose weights are `state`, read from `path`, in eval mode."""
    backbone = build_detector.build_body_backbone(recipe)
    build.check_identity(facts, backbone, path)
    model = build_detector.build_detector(recipe, backbone, len(facts["class_names"]))
    build_detector.load_detector_state(model, state, path)
    return model.eval()


def load_member(run: Path, first: DetectionRecipe, class_names: Sequence[str]) -> FasterRCNN:
    """The detector of a finished run, to join another's ensemble.

    Raises ValueError where it knows other classes, or was made for images of another size, than the first.
    """
    path = run / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"{path} is missing: name a finished run directory of train_det.py with --ensemble")
    state, facts = load_weights(path)
    recipe = load_recipe(DetectionRecipe, run / "config.yaml")
    if tuple(facts["class_names"]) != tuple(class_names):
        raise ValueError(
            f"{run} knows other classes ({', '.join(facts['class_names'])}) than the first detector "
            f"({', '.join(class_names)}): an ensemble's detectors need the same, in the same order"
        )
    for name in TEST_INPUT:
        ours, theirs = getattr(first.input, name), getattr(recipe.input, name)
        if ours != theirs:
            raise ValueError(
                f"{run} is tested at input.{name} {theirs}, the first detector at {ours}: an ensemble's detectors need "
                "the same images"
            )
    return load_detector(recipe, state, facts, path)
