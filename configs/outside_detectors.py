"""Detectors that torchvision publishes, as ours: their recipe, and their weights under our names.

`eval_det.py --weights torchvision:fasterrcnn_resnet50_fpn` evaluates one under our protocol, and so our evaluation
against a published figure. `torchvision:NAME=FILE` reads a state dict from disk instead of from the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.command_line import RecipeError, validated
from configs.schema_detection import DetectionRecipe


@dataclass(frozen=True)
class Published:
    """A detector of torchvision: its weights' name, whether it makes masks, and its published figures on val2017."""

    weights: str
    masks: bool
    figures: dict[str, float]


TORCHVISION = {
    "fasterrcnn_resnet50_fpn": Published("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", False, {"AP": 37.0}),
    "maskrcnn_resnet50_fpn": Published("MaskRCNN_ResNet50_FPN_Weights.COCO_V1", True, {"AP": 37.9, "segm_AP": 34.6}),
}
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
            "masks": TORCHVISION[name].masks,
            "proposals_before_nms": [2000, 1000],
            "proposals": [2000, 1000],
        },
        "test": {"score": 0.05, "nms": 0.5},
    }
    return validated(DetectionRecipe, {**values, **changes}, f"torchvision:{name}")


def torchvision_classes(name: str) -> dict[int, str]:
    """The classes that the detector was trained on: names by COCO's category ids."""
    import torchvision

    names = torchvision.models.get_weight(TORCHVISION[name].weights).meta["categories"]
    return {category_id: known for category_id, known in enumerate(names) if category_id and known != "N/A"}


def torchvision_state(name: str, file: Path | None = None) -> dict[str, Tensor]:
    """The published weights' state dict, from `file` or from where torchvision has it."""
    import torchvision

    if file is not None:
        if not file.is_file():
            raise ValueError(f"{file} does not exist; give the state dict of torchvision's {name}")
        state = torch.load(file, map_location="cpu", weights_only=True)
        return state.get("model", state)
    weights = torchvision.models.get_weight(TORCHVISION[name].weights)
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise OSError(
            f"torchvision's {name} cannot be had from {weights.url} ({error}); fetch that file where there is a "
            f"network and give it as --weights torchvision:{name}=FILE"
        ) from error


def from_torchvision(
    state: Mapping[str, Tensor], category_ids: Sequence[int], *, epsilon: float = 0.0
) -> dict[str, Tensor]:
    """A state dict of torchvision's R50-FPN detectors as one of ours (`build_detector.load_detector_state`).

    category_ids: of our classes, in order; the rows of other categories, on which nothing was trained, are left out.
    epsilon: that of the norms in the weights' own training, 0 for those published.
    """
    rows = [0, *category_ids]
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        place = _our_name(name)
        if place.endswith("running_var"):
            tensor = tensor + (epsilon - NORM_EPSILON)
        if name.startswith("roi_heads.box_predictor.cls_score"):
            tensor = tensor[rows]
        elif name.startswith("roi_heads.box_predictor.bbox_pred"):
            tensor = tensor.unflatten(0, (-1, 4))[rows[1:]].flatten(0, 1)
        elif name.startswith("roi_heads.mask_predictor.mask_fcn_logits"):
            tensor = tensor[rows[1:]]
        elif name == "roi_heads.box_head.fc6.weight":  # channels first there, last in ours
            side = int((tensor.shape[1] // 256) ** 0.5)
            tensor = tensor.unflatten(1, (-1, side, side)).permute(0, 2, 3, 1).flatten(1)
        ours[place] = tensor.contiguous()
    for name in [name for name in ours if name.endswith("running_var")]:
        ours[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return ours


PREFIXES = {
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


def _our_name(name: str) -> str:
    """Names of today's torchvision; its published files have some older ones ("inner_blocks.0.weight", "mask_fcn1")."""
    for theirs, ours in PREFIXES.items():
        if not name.startswith(theirs):
            continue
        rest = name.removeprefix(theirs)
        parts = rest.split(".")
        if ours in ("body.laterals.", "body.outputs.") and len(parts) == 2:
            rest = f"{parts[0]}.0.{parts[1]}"
        elif theirs.endswith("mask_fcn"):
            rest = f"{int(parts[0]) - 1}.0.{parts[1]}"
        return ours + rest
    raise ValueError(
        f"the state dict has {name}, which torchvision's R50-FPN detectors have not; is it another model's?"
    )
