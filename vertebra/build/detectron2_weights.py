"""The tensors of detectron2's Faster and Mask R-CNN as ours, and ours as its: other names, and other orders.

Its pixels are BGR unless its configuration says otherwise, its anchors at a cell go by scale, then ratio, its
background is the last class, and its first linear layer reads a region channel by channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from backbones.resnet import BOTTLENECK_DEPTHS, DEPTHS
from vertebra.build.detector import FLAT_ROI_SIZE
from vertebra.build.detectron2_config import detectron2_config, nested
from vertebra.ground.errors import RecipeError
from vertebra.ground.files import write_atomically, write_text
from vertebra.ground.formats import first_few
from vertebra.recipes.schema_detection import DetectionRecipe

# Not learnt.
_CONSTANTS = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")


def from_detectron2(state: Mapping[str, Tensor], recipe: DetectionRecipe, *, bgr: bool = True) -> dict[str, Tensor]:
    """Return `state` of a GeneralizedRCNN as `detector.load_file_state` takes it.

    recipe: of the same detector here, see `detectron2_recipe`. bgr: the order of the pixels that it was trained on
    (INPUT.FORMAT). Raises ValueError for tensors that have no place in such a detector.
    """
    names = _modules(recipe)
    learnt = {name: tensor for name, tensor in state.items() if not name.startswith(_CONSTANTS)}
    unknown = [name for name in learnt if name.rpartition(".")[0] not in names]
    if unknown:
        raise ValueError(
            f"detectron2's {first_few(unknown)} have no place in a {recipe.model.title} on {recipe.backbone}; "
            "Faster and Mask R-CNN on ResNets can be read, with c4, dc5 or fpn"
        )
    ours: dict[str, Tensor] = {}
    for name, tensor in learnt.items():
        module, _, kind = name.rpartition(".")
        if (order := _order(names[module], tensor, recipe, bgr=bgr)) is not None:
            tensor = tensor.index_select(*order)
        ours[f"{names[module]}.{kind}"] = tensor
    return ours


def to_detectron2(state: Mapping[str, Tensor], recipe: DetectionRecipe) -> dict[str, Tensor]:
    """The inverse of `from_detectron2`, of a detector's file; for RGB pixels and the configuration of
    `detectron2_config`. Raises ValueError for a detector that it has not."""
    names = {ours: theirs for theirs, ours in _modules(recipe).items()}
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if recipe.engine == "detectron2" and name.startswith("model."):  # its own already, but for the backbone
            theirs[name.removeprefix("model.")] = tensor
            continue
        if module not in names:
            raise ValueError(f"detectron2's {recipe.model.title} on {recipe.backbone} has no place for {name}")
        if (order := _order(module, tensor, recipe, bgr=False)) is not None:
            dimension, places = order
            tensor = tensor.index_select(dimension, places.argsort())
        theirs[f"{names[module]}.{kind}"] = tensor
    return theirs


def save_detectron2(
    path: Path, state: Mapping[str, Tensor], recipe: DetectionRecipe, classes: int, identity: Mapping[str, Any]
) -> Path:
    """Write a detector's weights as detectron2 loads them; return the path of its configuration, beside them.

    identity: the backbone's. Raises ValueError for a detector that it has not.
    """
    if recipe.shortcut != "B":
        raise RecipeError(f"detectron2 has nothing like shortcut {recipe.shortcut}", hint="export a net of kind B")
    statistics = {name: identity[f"pixel_{name}"] for name in ("mean", "std") if f"pixel_{name}" in identity}
    config = detectron2_config(recipe, classes, **statistics)
    content = {"model": to_detectron2(state, recipe), "__author__": "Vertebra"}
    write_atomically(path, lambda file: torch.save(content, file))
    write_text(path.with_suffix(".yaml"), yaml.safe_dump(nested(config)))
    return path.with_suffix(".yaml")


def _modules(recipe: DetectionRecipe) -> dict[str, str]:
    """Its name of every module that may have tensors, to ours. Raises ValueError for a body or backbone it has not."""
    model, depth = recipe.model, int(recipe.backbone.removeprefix("r")) if recipe.backbone[1:].isdigit() else 0
    if depth not in DEPTHS or (depth not in BOTTLENECK_DEPTHS and model.body != "fpn"):
        raise ValueError(
            f"detectron2 has no {model.title} on {recipe.backbone}: r50, r101 and r152, with fpn r18, r34 too"
        )
    trunk = "backbone.bottom_up." if model.body == "fpn" else "backbone."
    names = {f"{trunk}stem.conv1": "backbone.conv1", f"{trunk}stem.conv1.norm": "backbone.bn1"}
    layers = {f"conv{n}": (f"conv{n}", f"bn{n}") for n in (1, 2, 3)} | {"shortcut": ("downsample.0", "downsample.1")}
    for stage, blocks in enumerate(DEPTHS[depth], start=1):
        place = f"roi_heads.res{stage + 1}" if model.body == "c4" and stage == 4 else f"{trunk}res{stage + 1}"
        for block in range(blocks):
            for layer, (conv, norm) in layers.items():
                names[f"{place}.{block}.{layer}"] = f"backbone.layer{stage}.{block}.{conv}"
                names[f"{place}.{block}.{layer}.norm"] = f"backbone.layer{stage}.{block}.{norm}"
    names |= {
        "proposal_generator.rpn_head.conv": "rpn.head.conv",
        "proposal_generator.rpn_head.objectness_logits": "rpn.head.objectness",
        "proposal_generator.rpn_head.anchor_deltas": "rpn.head.deltas",
        "roi_heads.box_predictor.cls_score": "box_head.predictor.scores",
        "roi_heads.box_predictor.bbox_pred": "box_head.predictor.deltas",
        "roi_heads.mask_head.deconv": "mask_head.upsample",
        "roi_heads.mask_head.predictor": "mask_head.predictor",
    }
    if model.body != "c4":
        convs = {f"roi_heads.box_head.conv{n + 1}": f"box_head.head.convs.{n}" for n in range(model.head_convs)}
        convs |= {f"roi_heads.mask_head.mask_fcn{n + 1}": f"mask_head.convs.{n}" for n in range(model.mask_convs)}
        if model.body == "fpn":
            convs |= {f"backbone.fpn_lateral{n + 2}": f"body.laterals.{n}" for n in range(4)}
            convs |= {f"backbone.fpn_output{n + 2}": f"body.outputs.{n}" for n in range(4)}
        names |= {theirs: f"{ours}.0" for theirs, ours in convs.items()}
        names |= {f"{theirs}.norm": f"{ours}.1" for theirs, ours in convs.items()}
        names |= {f"roi_heads.box_head.fc{n + 1}": f"box_head.head.linears.{n}" for n in range(2)}
    return names


def _order(module: str, tensor: Tensor, recipe: DetectionRecipe, *, bgr: bool) -> tuple[int, Tensor] | None:
    """The dimension and the places with which its tensor of our module is ours: `its.index_select(*order)`."""
    model = recipe.model
    if module in ("rpn.head.objectness", "rpn.head.deltas"):
        scales = 1 if model.body == "fpn" else len(model.anchor_sizes)
        by_scale = torch.arange(len(tensor)).view(scales, len(model.anchor_ratios), -1)
        return 0, by_scale.transpose(0, 1).flatten()
    if module == "box_head.predictor.scores":
        return 0, torch.arange(len(tensor)).roll(1)
    if module == "box_head.head.linears.0" and tensor.ndim == 2:
        side = model.roi_size or FLAT_ROI_SIZE
        return 1, torch.arange(tensor.shape[1]).view(-1, side, side).permute(1, 2, 0).flatten()
    return (1, torch.tensor([2, 1, 0])) if module == "backbone.conv1" and bgr else None
