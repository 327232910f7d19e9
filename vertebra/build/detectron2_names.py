"""Weights of a detectron2 C4 detector under our names, for our Faster R-CNN.

What differs besides names: detectron2's pixels are BGR, its anchors at a cell go by scale, then ratio, and its
background is the last class. What a detector must be given to be the same one: `stride_in="1x1"` and
`DETECTRON2_MEAN`, `DETECTRON2_STD` for the MSRA weights that its model zoo starts from, `AnchorGrid(offset=0)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

DETECTRON2_MEAN, DETECTRON2_STD = (123.675, 116.28, 103.53), (1.0, 1.0, 1.0)  # RGB; of the MSRA weights

_LAYER = re.compile(
    r"(?:backbone|roi_heads)\.(?:stem\.(?P<stem>conv1)|res(?P<stage>\d)\.(?P<block>\d+)\.(?P<layer>conv\d|shortcut))"
    r"(?P<norm>\.norm)?\.(?P<kind>weight|bias|running_mean|running_var)"
)
_OTHERS = {
    "proposal_generator.rpn_head.conv": "rpn.head.conv",
    "proposal_generator.rpn_head.objectness_logits": "rpn.head.objectness",
    "proposal_generator.rpn_head.anchor_deltas": "rpn.head.deltas",
    "roi_heads.box_predictor.cls_score": "box_head.predictor.scores",
    "roi_heads.box_predictor.bbox_pred": "box_head.predictor.deltas",
}
# What the detector computes or is told, and does not learn.
_CONSTANTS = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")


def from_detectron2(state: Mapping[str, Tensor], *, scales: int, bgr: bool = True) -> dict[str, Tensor]:
    """`state` (of a GeneralizedRCNN with a ResNet-C4) as `build_detector.load_file_state` takes it.

    scales: of the anchors at a cell (five in the model zoo). bgr: of the pixels it was trained on
    (`INPUT.FORMAT`). Raises ValueError for names that no C4 box detector has (FPN, masks, deformable convolutions).
    """
    learnt = {name: tensor for name, tensor in state.items() if not name.startswith(_CONSTANTS)}
    unknown = [name for name in learnt if _our_name(name) is None]
    if unknown:
        raise ValueError(
            f"detectron2's {', '.join(unknown[:3])}{' and others' if len(unknown) > 3 else ''} have no place in a "
            "Faster R-CNN on C4; convert weights of one of its R50-C4 or R101-C4 detectors."
        )
    return {str(_our_name(name)): _our_order(name, tensor, scales, bgr) for name, tensor in learnt.items()}


def _our_name(name: str) -> str | None:
    layer = _LAYER.fullmatch(name)
    if layer is None:
        module, _, kind = name.rpartition(".")
        return f"{_OTHERS[module]}.{kind}" if module in _OTHERS else None
    part = layer["stem"] or layer["layer"]
    if part == "shortcut":
        part = "downsample.1" if layer["norm"] else "downsample.0"
    elif layer["norm"]:
        part = part.replace("conv", "bn")
    block = f"layer{int(layer['stage']) - 1}.{layer['block']}." if layer["stage"] else ""
    return f"backbone.{block}{part}.{layer['kind']}"


def _our_order(name: str, tensor: Tensor, scales: int, bgr: bool) -> Tensor:
    if name == "backbone.stem.conv1.weight" and bgr:
        return tensor.flip(1)
    if ".objectness_logits." in name:
        return tensor.unflatten(0, (scales, -1)).transpose(0, 1).flatten(0, 1)
    if ".anchor_deltas." in name:
        return tensor.unflatten(0, (scales, -1, 4)).transpose(0, 1).flatten(0, 2)
    return tensor.roll(1, dims=0) if ".cls_score." in name else tensor  # the background moves from last to first
