"""ONNX of an exported program: the one operation of ours in the operators that ONNX has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

OPSET = 18  # RoiAlign and NonMaxSuppression as they are here since 16; most runtimes know 18
LOWEST = -3.4e38  # above -inf, which marks candidates that are none


def onnx_program(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return torch's ONNXProgram, its inputs and outputs so named."""
    return torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        custom_translation_table={
            torch.ops.vertebra.nms.default: _nms,
            torch.ops.torchvision.roi_pool.default: _roi_pool,  # onnxscript's own takes other arguments
        },
        verbose=False,
    )


def _nms(boxes_NK4: Any, scores_NK: Any, groups_NK: Any, iou: float, count: int) -> tuple[Any, Any]:
    """`detectors.nms.nms_batch`. Groups are what ONNX has as classes: each candidate has a score in its own alone.

    NonMaxSuppression gives (image, group, candidate) of what is kept, in no order across groups: all others' scores
    become -inf, and the best are taken, of equal ones the earlier, as ours does.
    """
    from onnxscript import opset18

    op: Any = opset18

    def ints(*values: int) -> Any:
        return op.Constant(value_ints=values)

    zero, nothing = op.Constant(value_int=0), op.Constant(value_float=float("-inf"))
    scores_N1K = op.Unsqueeze(scores_NK, ints(1))
    if groups_NK is None:
        scores_NGK = scores_N1K
    else:
        one = op.Constant(value_int=1)
        groups_G = op.Range(zero, op.Add(op.ReduceMax(groups_NK, keepdims=0), one), one)
        is_own_NGK = op.Equal(op.Unsqueeze(groups_NK, ints(1)), op.Unsqueeze(groups_G, ints(0, 2)))
        scores_NGK = op.Where(is_own_NGK, scores_N1K, nothing)
    iou_1, lowest_1 = op.Constant(value_floats=[iou]), op.Constant(value_floats=[LOWEST])
    kept_X3 = op.NonMaxSuppression(boxes_NK4, scores_NGK, ints(count), iou_1, lowest_1)
    place_X2 = op.Gather(kept_X3, ints(0, 2), axis=1)
    kept_NK = op.ScatterND(op.Expand(nothing, op.Shape(scores_NK)), place_X2, op.GatherND(scores_NK, place_X2))
    # There may be fewer candidates than places.
    kept_NX = op.Pad(kept_NK, ints(0, 0, 0, count), nothing)
    best_ND, index_ND = op.TopK(kept_NX, ints(count), axis=1)
    valid_ND = op.Greater(best_ND, nothing)
    return op.Where(valid_ND, index_ND, zero), valid_ND


def _roi_pool(maps: Any, regions: Any, scale: float, height: int, width: int) -> tuple[Any, Any]:
    """torchvision's operation, which also gives the places of the maxima: nothing here reads them."""
    from onnxscript import opset18

    op: Any = opset18
    pooled = op.MaxRoiPool(maps, regions, pooled_shape=[height, width], spatial_scale=scale)
    return pooled, pooled
