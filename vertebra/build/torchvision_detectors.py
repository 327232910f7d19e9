"""Detectors of torchvision as ours: their recipe, and their weights under our names.

`eval_det.py --weights torchvision:fasterrcnn_resnet50_fpn` evaluates one under our protocol, and so our evaluation
against a published figure. `torchvision:NAME=FILE` reads a state dict from disk instead of from the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vertebra.build.detector import FLAT_ROI_SIZE
from vertebra.build.weights import fetched
from vertebra.engine.weights import load_weights
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema_detection import DetectionRecipe

TORCHVISION = {  # the weights, and their published figures on val2017
    "fasterrcnn_resnet50_fpn": "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",  # AP 37.0
    "maskrcnn_resnet50_fpn": "MaskRCNN_ResNet50_FPN_Weights.COCO_V1",  # AP 37.9, of masks 34.6
}
COCO_DETECTOR = "fasterrcnn_resnet50_fpn"  # one that knows COCO's classes
# torchvision's own norms divide by the plain variance with these weights (it sets their epsilon to 0), ours add this.
NORM_EPSILON = 1e-5


def torchvision_recipe(name: str, **changes: Any) -> DetectionRecipe:
    """The recipe under which torchvision tests that detector. Raises RecipeError for an unknown name."""
    if name not in TORCHVISION:
        raise RecipeError(
            f"torchvision:{name} is not one of {', '.join(f'torchvision:{known}' for known in TORCHVISION)}"
        )
    values = {
        "backbone": "r50",
        "dataset": "coco",
        "weights": "torchvision",
        "input": {"shorter_side": [800], "test_shorter_side": 800, "longer_side": 1333},
        "model": {
            "body": "fpn",
            "conventions": "torchvision",
            "masks": name.startswith("maskrcnn"),
            "proposals_before_nms": [2000, 1000],
            "proposals": [2000, 1000],
        },
        "test": {"score": 0.05, "nms": 0.5},
    }
    return validated(DetectionRecipe, {**values, **changes}, f"torchvision:{name}")


def torchvision_classes(name: str) -> dict[int, str]:
    """The classes that the detector was trained on: names by COCO's category ids."""
    import torchvision

    names = torchvision.models.get_weight(TORCHVISION[name]).meta["categories"]
    return {category_id: known for category_id, known in enumerate(names) if category_id and known != "N/A"}


def torchvision_state(name: str, file: Path | None = None) -> dict[str, Tensor]:
    """The published weights' state dict, from `file` or from where torchvision has it.

    Raises ValueError for a file without one, OSError where torchvision's cannot be fetched.
    """
    import torchvision

    if file is not None:
        return load_weights(file)[0]
    return fetched(torchvision.models.get_weight(TORCHVISION[name]), name, f"torchvision:{name}=FILE")


def from_torchvision(state: Mapping[str, Tensor], category_ids: Sequence[int]) -> dict[str, Tensor]:
    """A state dict of torchvision's R50-FPN detectors as one of ours (`detector.load_file_state`).

    category_ids: of our classes, in order; the rows of other categories, on which nothing was trained, are left out.
    Raises ValueError for a state dict of something else, or of a detector of other classes.
    """
    _check_outputs(state, categories=max(category_ids))
    rows = [0, *category_ids]
    state_here: dict[str, Tensor] = {}
    for name, tensor in state.items():
        place = _name_from_torchvision(name)
        if place.endswith("running_var"):
            tensor = tensor - NORM_EPSILON
        if name.startswith("roi_heads.box_predictor.cls_score"):
            tensor = tensor[rows]
        elif name.startswith("roi_heads.box_predictor.bbox_pred"):
            tensor = tensor.unflatten(0, (-1, 4))[rows[1:]].flatten(0, 1)
        elif name.startswith("roi_heads.mask_predictor.mask_fcn_logits"):
            tensor = tensor[rows[1:]]
        elif name == "roi_heads.box_head.fc6.weight":  # channels first there, last in ours
            tensor = tensor.unflatten(1, (-1, FLAT_ROI_SIZE, FLAT_ROI_SIZE)).permute(0, 2, 3, 1).flatten(1)
        state_here[place] = tensor.contiguous()
    for name in [name for name in state_here if name.endswith("running_var")]:
        state_here[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return state_here


def _check_outputs(state: Mapping[str, Tensor], *, categories: int) -> None:
    """Raises ValueError where the tensors whose rows are taken apart are not there, or have other rows."""
    scores, deltas = (f"roi_heads.box_predictor.{name}.weight" for name in ("cls_score", "bbox_pred"))
    for name in state:
        _name_from_torchvision(name)  # raises ValueError for a name of another model
    for name in (scores, deltas):
        if name not in state:
            raise ValueError(f"the state dict lacks {name}; is it another model's?")
    rows = {scores: categories + 1, deltas: 4 * (categories + 1)}
    if (mask := "roi_heads.mask_predictor.mask_fcn_logits.weight") in state:
        rows[mask] = categories + 1
    for name, wanted in rows.items():
        found = len(state[name]) if state[name].ndim else 0
        if found != wanted:
            raise ValueError(
                f"{name} has {found} rows, not {wanted}: it is a detector of other classes than the published ones, "
                "COCO's, and only detectors of those can be read"
            )
    first = state.get("roi_heads.box_head.fc6.weight")
    if first is not None and (first.ndim != 2 or first.shape[1] % FLAT_ROI_SIZE**2):
        raise ValueError(
            f"roi_heads.box_head.fc6.weight does not read regions of {FLAT_ROI_SIZE} x {FLAT_ROI_SIZE} cells; is it "
            "another model's?"
        )


_TORCHVISION_PREFIXES = {
    "backbone.body.": "backbone.",
    "backbone.fpn.inner_blocks.": "body.laterals.",
    "backbone.fpn.layer_blocks.": "body.outputs.",
    "rpn.head.conv.0.0.": "rpn.head.conv.",
    "rpn.head.conv.": "rpn.head.conv.",
    "rpn.head.cls_logits.": "rpn.head.objectness.",
    "rpn.head.bbox_pred.": "rpn.head.deltas.",
    "roi_heads.box_head.fc6.": "box_head.head.linears.0.",
    "roi_heads.box_head.fc7.": "box_head.head.linears.1.",
    "roi_heads.box_predictor.cls_score.": "box_head.predictor.scores.",
    "roi_heads.box_predictor.bbox_pred.": "box_head.predictor.deltas.",
    "roi_heads.mask_head.mask_fcn": "mask_head.convs.",
    "roi_heads.mask_head.": "mask_head.convs.",
    "roi_heads.mask_predictor.conv5_mask.": "mask_head.upsample.",
    "roi_heads.mask_predictor.mask_fcn_logits.": "mask_head.predictor.",
}


def _name_from_torchvision(name: str) -> str:
    """Names of today's torchvision; its published files have some older ones ("inner_blocks.0.weight", "mask_fcn1")."""
    for prefix, place in _TORCHVISION_PREFIXES.items():
        if not name.startswith(prefix):
            continue
        rest = name.removeprefix(prefix)
        parts = rest.split(".")
        if place in ("body.laterals.", "body.outputs.") and len(parts) == 2:
            rest = f"{parts[0]}.0.{parts[1]}"
        elif prefix.endswith("mask_fcn"):
            rest = f"{int(parts[0]) - 1}.0.{parts[1]}"
        return place + rest
    raise ValueError(
        f"the state dict has {name}, which torchvision's R50-FPN detectors have not; is it another model's?"
    )
