"""Non-maximum suppression to a fixed number of boxes.

One operation of torch's, `vertebra::nms`, whose outputs have fixed sizes: a step that contains it traces without
a shape that depends on data, on any device. On CUDA it is a Triton kernel for which the host does not wait
(`nms_kernel`). On a CPU it is torchvision's kernel, called image by image; so it is on a GPU where Triton does not
work (Windows, no C compiler), and there the host does wait for the device.

Legend: N images, K candidates of one image, D places for what is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
import torchvision
from torch import Tensor

logger = logging.getLogger(__name__)


def nms_batch(
    boxes_NK4: Tensor, scores_NK: Tensor, iou: float, count: int, groups_NK: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The best `count` boxes of every image of which no two of one group overlap by more than `iou`.

    Returns index_ND int64, best first, and valid_ND bool; places that nothing could fill come last, are not valid,
    and point at candidate 0. Greedy: a box is kept unless it overlaps a better one that is kept; of equal scores
    the earlier candidate is the better. Candidates whose score is -inf (or NaN) are never kept, and never suppress
    others. Images never concern each other, nor do groups (int64, any numbers: classes, levels of a pyramid); None:
    one group. boxes: finite float32.
    """
    return _nms(boxes_NK4.detach().float(), scores_NK.detach(), groups_NK, iou, count)


def nms(boxes_K4: Tensor, scores_K: Tensor, iou: float, count: int) -> tuple[Tensor, Tensor]:
    """`nms_batch` of a single image: index_D int64, best first, valid_D bool."""
    index_1D, valid_1D = nms_batch(boxes_K4.unsqueeze(0), scores_K.unsqueeze(0), iou, count)
    return index_1D.squeeze(0), valid_1D.squeeze(0)


def nms_by_class(
    boxes_XK4: Tensor,
    scores_XK: Tensor,
    labels_XK: Tensor,
    *,
    iou: float,
    count: int,
    classes: int,
    extent_px: int,
) -> tuple[Tensor, Tensor]:
    """Suppression among boxes of the same label (0 <= label < `classes`) only, in one image (K4) or several (NK4);
    boxes lie within 0 .. `extent_px`. Returns index and valid, XD.

    Every class is moved to a square of its own, and the squares are laid out as a square, so that coordinates
    stay small enough for float32 (torchvision's version lays them on a diagonal, and waits for the largest
    coordinate). With many classes this is faster on a CPU than the exact `groups_NK` of `nms_batch` (1,000
    candidates, 80 classes: thirtyfold), with few it is slower (8,000, five levels: 2.5 times).
    """
    columns = max(1, round(classes**0.5))
    place_XK2 = torch.stack([labels_XK % columns, labels_XK // columns], dim=-1).to(boxes_XK4.dtype) * (extent_px + 1)
    moved_XK4 = boxes_XK4 + torch.cat([place_XK2, place_XK2], dim=-1)
    return (nms if moved_XK4.dim() == 2 else nms_batch)(moved_XK4, scores_XK, iou, count)


def _by_torchvision(
    boxes_NK4: Tensor, scores_NK: Tensor, groups_NK: Tensor | None, iou: float, count: int
) -> tuple[Tensor, Tensor]:
    index_ND = torch.zeros(len(boxes_NK4), count, dtype=torch.int64, device=boxes_NK4.device)
    valid_ND = torch.zeros_like(index_ND, dtype=torch.bool)
    for image in range(len(boxes_NK4)):
        groups_K = None if groups_NK is None else groups_NK[image]
        kept = _keep_best(boxes_NK4[image], scores_NK[image], groups_K, iou, count)
        index_ND[image, : len(kept)] = kept
        valid_ND[image, : len(kept)] = True
    return index_ND, valid_ND


_nms = torch.library.custom_op("vertebra::nms", _by_torchvision, mutates_args=())


@_nms.register_fake
def _(boxes_NK4: Tensor, scores_NK: Tensor, groups_NK: Tensor | None, iou: float, count: int) -> tuple[Tensor, Tensor]:
    shape = (boxes_NK4.shape[0], count)
    return boxes_NK4.new_empty(shape, dtype=torch.int64), boxes_NK4.new_empty(shape, dtype=torch.bool)


@_nms.register_kernel("cuda")
def _(boxes_NK4: Tensor, scores_NK: Tensor, groups_NK: Tensor | None, iou: float, count: int) -> tuple[Tensor, Tensor]:
    return (_kernel() or _by_torchvision)(boxes_NK4, scores_NK, groups_NK, iou, count)


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., tuple[Tensor, Tensor]] | None:
    """The function for GPUs, tried once; None where Triton is missing or cannot work (it needs a C compiler)."""
    try:
        from detectors.nms_kernel import keep_best

        keep_best(torch.zeros(1, 16, 4, device="cuda"), torch.zeros(1, 16, device="cuda"), None, 0.5, 16)
    except Exception as error:  # each kind of missing part raises its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        logger.warning(
            "Triton does not work on this machine (%s), so torchvision's suppression is used, for which the host "
            "waits at each step; install Triton and a C compiler (gcc) to save that time.",
            reason[:300],
        )
        return None
    return keep_best


def _keep_best(boxes_K4: Tensor, scores_K: Tensor, groups_K: Tensor | None, iou: float, count: int) -> Tensor:
    """Indices of at most `count` kept candidates of one image, best first.

    The suppression is greedy, so that a few of the best candidates are often enough: of 12,000 for 2,000 places,
    4,000 take a CPU a sixth of the time. Where they are not, what they suppressed need not be compared again.
    """
    usable_K = scores_K > float("-inf")
    order_K = scores_K.where(usable_K, float("-inf")).argsort(descending=True, stable=True)[: int(usable_K.sum())]
    kept, start, end = order_K[:0], 0, 2 * count
    while start < len(order_K) and len(kept) < count:
        best = torch.cat([kept, order_K[start:end]])
        kept = best[_suppress(boxes_K4[best], scores_K[best], None if groups_K is None else groups_K[best], iou)]
        start, end = end, 4 * end
    return kept[:count]


def _suppress(boxes_B4: Tensor, scores_B: Tensor, groups_B: Tensor | None, iou: float) -> Tensor:
    """Return the places, ascending, of those of B boxes, given best first, that are kept."""
    if groups_B is None:
        return torchvision.ops.nms(boxes_B4, scores_B, iou)
    by_group_B = groups_B.argsort(stable=True)
    sizes = groups_B[by_group_B].unique_consecutive(return_counts=True)[1].tolist()
    parts = (part.split(sizes) for part in (by_group_B, boxes_B4[by_group_B], scores_B[by_group_B]))
    kept = [place[torchvision.ops.nms(boxes, scores, iou)] for place, boxes, scores in zip(*parts)]
    return torch.cat([by_group_B[:0], *kept]).sort().values
