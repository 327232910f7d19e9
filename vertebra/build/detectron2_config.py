"""detectron2's configuration as a recipe, and a recipe as its configuration: one table for both directions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import isqrt
from typing import Any

from torch import Tensor

from backbones.base import scaled
from backbones.chain import PIXEL_MEAN, PIXEL_STD
from backbones.resnet import BOTTLENECK_DEPTHS, DEPTHS
from vertebra.build.detector import FLAT_ROI_SIZE, MASK_ROI_SIZE
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema import flatten
from vertebra.recipes.schema_detection import DetectionRecipe

MSRA_MEAN, MSRA_STD = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)  # BGR, of its model zoo's backbones
STAGES = ("res2", "res3", "res4", "res5")
C4_ROI_SIZE = 14
RPN_SCORES = "proposal_generator.rpn_head.objectness_logits.weight"
BOXES, CLASSES = (f"roi_heads.box_predictor.{name}.weight" for name in ("bbox_pred", "cls_score"))


@dataclass(frozen=True)
class Key:
    """Its name of a field, and the field's value from its value and back."""

    name: str
    read: Callable[[Any], Any] = lambda value: value
    write: Callable[[Any], Any] = lambda value: value


def _word(name: str, ours: Mapping[Any, Any]) -> Key:
    """A key with a few values. ours: by its value."""

    def read(value: Any) -> Any:
        if value not in ours:
            raise ValueError(f"{name} is {value!r}, which has no counterpart here; {', '.join(map(repr, ours))} have")
        return ours[value]

    return Key(name, read, {mine: its for its, mine in ours.items()}.__getitem__)


KEYS: dict[str, Key | tuple[Key, Key]] = {
    "stride_in": _word("MODEL.RESNETS.STRIDE_IN_1X1", {True: "1x1", False: "3x3"}),
    "input.shorter_side": Key("INPUT.MIN_SIZE_TRAIN", lambda sides: sides if isinstance(sides, list) else [sides]),
    "input.test_shorter_side": Key("INPUT.MIN_SIZE_TEST"),
    "input.longer_side": Key("INPUT.MAX_SIZE_TEST"),
    "model.masks": Key("MODEL.MASK_ON"),
    "model.fpn_channels": Key("MODEL.FPN.OUT_CHANNELS"),
    "model.head_width": Key("MODEL.ROI_BOX_HEAD.FC_DIM"),
    "model.head_convs": Key("MODEL.ROI_BOX_HEAD.NUM_CONV"),
    "model.head_norms": _word("MODEL.ROI_BOX_HEAD.NORM", {"": "none", "GN": "group", "BN": "batch", "SyncBN": "sync"}),
    "model.pooling": _word("MODEL.ROI_BOX_HEAD.POOLER_TYPE", {"ROIAlignV2": "align", "ROIPool": "pool"}),
    "model.roi_size": Key("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"),
    # It counts stages, the stem among them; strides double from one to the next.
    "model.freeze_stride": Key(
        "MODEL.BACKBONE.FREEZE_AT",
        lambda stages: 2**stages if stages else 0,
        lambda stride: max(stride, 1).bit_length() - 1,
    ),
    "model.norms": _word("MODEL.RESNETS.NORM", {"FrozenBN": "frozen", "BN": "trained", "SyncBN": "sync"}),
    "model.anchor_sizes": Key(
        "MODEL.ANCHOR_GENERATOR.SIZES",
        lambda levels: [size for level in levels for size in level],
        lambda sizes: [sizes],
    ),
    "model.anchor_ratios": Key("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", lambda levels: levels[0], lambda one: [one]),
    "model.conventions": _word("MODEL.ANCHOR_GENERATOR.OFFSET", {0.0: "detectron2", 0.5: "vertebra"}),
    "model.rpn_cross_border": _word("MODEL.RPN.BOUNDARY_THRESH", {-1: True, 0: False}),
    "model.rpn_samples": Key("MODEL.RPN.BATCH_SIZE_PER_IMAGE"),
    "model.rpn_nms": Key("MODEL.RPN.NMS_THRESH"),
    "model.rpn_beta": Key("MODEL.RPN.SMOOTH_L1_BETA"),
    "model.proposals_before_nms": (Key("MODEL.RPN.PRE_NMS_TOPK_TRAIN"), Key("MODEL.RPN.PRE_NMS_TOPK_TEST")),
    "model.proposals": (Key("MODEL.RPN.POST_NMS_TOPK_TRAIN"), Key("MODEL.RPN.POST_NMS_TOPK_TEST")),
    "model.rois": Key("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"),
    "model.roi_positive": Key("MODEL.ROI_HEADS.POSITIVE_FRACTION"),
    "model.box_beta": Key("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"),
    "model.class_agnostic": Key("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"),
    "model.mask_convs": Key("MODEL.ROI_MASK_HEAD.NUM_CONV"),
    "model.mask_channels": Key("MODEL.ROI_MASK_HEAD.CONV_DIM"),
    "test.score": Key("MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
    "test.nms": Key("MODEL.ROI_HEADS.NMS_THRESH_TEST"),
    "test.detections": Key("TEST.DETECTIONS_PER_IMAGE"),
}
# Its model zoo's settings where they are not our defaults, of bodies without and with a pyramid.
_ZOO: dict[str, Any] = {
    "dataset": "coco",
    "weights": "detectron2",
    "stride_in": "1x1",
    "input.shorter_side": [640, 672, 704, 736, 768, 800],
    "input.test_shorter_side": 800,
    "input.longer_side": 1333,
    "model.conventions": "detectron2",
}
_ZOO_FPN = {"model.proposals_before_nms": [2000, 1000], "model.proposals": [1000, 1000]}


def detectron2_recipe(
    state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None, **changes: Any
) -> DetectionRecipe:
    """Return the recipe of a detector of detectron2's.

    What the tensors tell is theirs: body, masks, depth, widths. config: its configuration by dotted keys; what it
    lacks is as in the model zoo. changes: fields with other values, by dotted names. Raises ValueError for
    tensors of something else, and for a configuration without counterpart.
    """
    shapes = _of_tensors(state)
    values = _ZOO | (_ZOO_FPN if shapes["model.body"] == "fpn" else {}) | _of_config(config or {}) | shapes | changes
    recipe = validated(DetectionRecipe, nested(values), "detectron2's detector")
    cells = len(recipe.model.anchor_ratios) * (1 if recipe.model.body == "fpn" else len(recipe.model.anchor_sizes))
    found = len(state[RPN_SCORES])
    if found != cells:
        raise ValueError(
            f"it has {found} anchors a cell, and MODEL.ANCHOR_GENERATOR's sizes and ratios make {cells}: put its "
            "config.yaml, which its trainer writes, beside it"
        )
    return recipe


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, keys in KEYS.items():
        if isinstance(keys, Key):
            if keys.name in config:
                values[field] = keys.read(config[keys.name])
        elif all(key.name in config for key in keys):
            values[field] = [config[key.name] for key in keys]
    return values


def _of_tensors(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields that the names and shapes of a detector's tensors tell."""
    body = (
        "fpn"
        if "backbone.fpn_lateral2.weight" in state
        else "c4"
        if "roi_heads.res5.0.conv1.weight" in state
        else "dc5"
    )
    trunk = "backbone.bottom_up." if body == "fpn" else "backbone."
    places = [name.removeprefix(trunk).removeprefix("roi_heads.").split(".")[:2] for name in state]
    blocks = Counter(stage for stage, _ in {(place[0], place[-1]) for place in places if place[0] in STAGES})
    bottleneck = f"{trunk}res2.0.conv3.weight" in state
    depths = [
        depth
        for depth, counts in DEPTHS.items()
        if counts == tuple(blocks[stage] for stage in STAGES) and (depth in BOTTLENECK_DEPTHS) == bottleneck
    ]
    needed = [RPN_SCORES, BOXES, CLASSES, *(["roi_heads.box_head.fc1.weight"] if body != "c4" else [])]
    if not depths or any(name not in state for name in needed):
        raise ValueError("it is no Faster or Mask R-CNN of detectron2's on a ResNet with c4, dc5 or fpn")
    hidden, channels = state[RPN_SCORES].shape[1], state["proposal_generator.rpn_head.conv.weight"].shape[1]
    values: dict[str, Any] = {
        "backbone": f"r{depths[0]}",
        "width": len(state[f"{trunk}stem.conv1.weight"]) / 64,
        "model.body": body,
        "model.masks": "roi_heads.mask_head.deconv.weight" in state,
        "model.class_agnostic": len(state[BOXES]) == 4 and classes_of(state) > 1,
        "model.rpn_channels": None if hidden == channels else hidden,
        "model.roi_size": None,
    }
    if body == "fpn":
        values["model.fpn_channels"] = channels
    if body != "c4":
        first = state["roi_heads.box_head.fc1.weight"]
        values["model.head_convs"] = _layers(state, "roi_heads.box_head.conv{}.weight")
        values["model.head_width"], values["model.roi_size"] = len(first), isqrt(first.shape[1] // channels)
    if values["model.masks"]:
        values["model.mask_channels"] = state["roi_heads.mask_head.deconv.weight"].shape[1]
        if body != "c4":
            values["model.mask_convs"] = _layers(state, "roi_heads.mask_head.mask_fcn{}.weight")
    return values


def _layers(state: Mapping[str, Tensor], name: str) -> int:
    """How many layers it has whose names are numbered from 1 on."""
    return next(n for n in count(1) if name.format(n) not in state) - 1


def classes_of(state: Mapping[str, Tensor]) -> int:
    """How many classes a detector of detectron2's tells apart."""
    return len(state[CLASSES]) - 1


def detectron2_config(
    recipe: DetectionRecipe, classes: int, *, mean: Sequence[float] = PIXEL_MEAN, std: Sequence[float] = PIXEL_STD
) -> dict[str, Any]:
    """Return detectron2's configuration of the recipe's detector on one of its own ResNets, by dotted keys.

    mean, std: of the backbone's pixels, RGB. Raises RecipeError for what detectron2 has not.
    """
    if recipe.engine == "detectron2":  # whose conventions are its own
        own = recipe.model.model_copy(update={"conventions": "detectron2"})
        recipe = recipe.model_copy(update={"model": own})
    model, flat = recipe.model, flatten(recipe)
    for field, value, lacking in (
        ("model.conventions", model.conventions, model.conventions == "torchvision"),
        ("model.context", model.context, model.context),
        ("model.head_norms", model.head_norms, model.head_norms != "none" and model.body == "c4"),
    ):
        if lacking:
            raise RecipeError(f"detectron2 has nothing like {field} {value}", hint="leave it out for detectron2")
    fpn, c4 = model.body == "fpn", model.body == "c4"
    flat["model.roi_size"] = model.roi_size or (C4_ROI_SIZE if c4 else FLAT_ROI_SIZE)
    config: dict[str, Any] = {}
    for field, keys in KEYS.items():
        if isinstance(keys, Key):
            config[keys.name] = keys.write(flat[field])
        else:
            config |= {key.name: key.write(value) for key, value in zip(keys, flat[field])}
    if fpn:
        config["MODEL.ANCHOR_GENERATOR.SIZES"] = [[size] for size in model.anchor_sizes]
    channels = scaled(64, recipe.width)
    maps = [f"p{level}" for level in range(2, 7)] if fpn else ["res4" if c4 else "res5"]
    samples = 2 if fpn and model.conventions == "vertebra" else 0
    norm = config["MODEL.ROI_BOX_HEAD.NORM"]
    return config | {
        "VERSION": 2,
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.PIXEL_MEAN": list(mean),
        "MODEL.PIXEL_STD": list(std),
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone" if fpn else "build_resnet_backbone",
        "MODEL.RESNETS.DEPTH": int(recipe.backbone[1:]) if recipe.backbone[1:].isdigit() else 50,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": channels,
        "MODEL.RESNETS.WIDTH_PER_GROUP": channels,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": channels if recipe.backbone in ("r18", "r34") else 4 * channels,
        "MODEL.RESNETS.RES5_DILATION": 2 if model.body == "dc5" else 1,
        "MODEL.RESNETS.OUT_FEATURES": list(STAGES) if fpn else maps,
        "MODEL.FPN.IN_FEATURES": list(STAGES) if fpn else [],
        "MODEL.FPN.NORM": norm,
        "MODEL.RPN.IN_FEATURES": maps,
        "MODEL.RPN.CONV_DIMS": [model.rpn_channels or -1],
        "MODEL.ROI_HEADS.NAME": "Res5ROIHeads" if c4 else "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": maps[:4],
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [model.roi_background_from, 0.5] if model.roi_background_from else [0.5],
        "MODEL.ROI_HEADS.IOU_LABELS": [-1, 0, 1] if model.roi_background_from else [0, 1],
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1 if model.head_convs else 2,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": model.fpn_channels if fpn else 32 * channels,
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": samples,
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.NORM": norm,
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 0 if c4 else model.mask_convs,
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": MASK_ROI_SIZE,
        "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": samples,
        "INPUT.FORMAT": "RGB",
        "INPUT.MAX_SIZE_TRAIN": recipe.input.longer_side,
        "INPUT.MASK_FORMAT": "bitmask",
    }


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with dotted names as mappings in mappings."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree
