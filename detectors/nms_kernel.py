"""Greedy suppression on a GPU in Triton: outputs of fixed size, and the host waits for nothing.

One program an image goes through the candidates, best first, 64 at a time: against all that were kept before
them, then among themselves; it stops when enough are kept. The arithmetic is that of torchvision's kernel for
the CPU operation by operation (no fused multiply-add, division rounded to nearest), so that both keep the same
boxes to the last tie. To be imported where Triton is needed only: not every machine has it.

Legend: N images, K candidates an image, D places for what is kept.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # candidates at a time: one bit of an int64 each
KEPT_BLOCK = 64  # kept boxes that they are held against at a time; with 8 warps no register spills (sm_80, sm_90)
OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": False}


@triton.jit
def _overlaps(ax0, ay0, ax1, ay1, bx0, by0, bx1, by1, threshold):  # type: ignore[no-untyped-def]
    width = tl.maximum(tl.minimum(ax1, bx1) - tl.maximum(ax0, bx0), 0.0)
    height = tl.maximum(tl.minimum(ay1, by1) - tl.maximum(ay0, by0), 0.0)
    shared = width * height
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    return tl.div_rn(shared, union) > threshold  # two empty boxes: not a number, which is not greater


@triton.jit
def _keep_best(  # type: ignore[no-untyped-def]
    boxes_ptr,  # N K 4
    groups_ptr,  # N K
    order_ptr,  # N K: candidates, best first
    candidates_ptr,  # N: how many of them may be kept
    index_ptr,  # N D: what is kept, best first
    found_ptr,  # N: how many of the D
    kept_boxes_ptr,  # N D 4: work space
    kept_groups_ptr,  # N D: work space
    K,
    D,
    threshold,
    GROUPED: tl.constexpr,
    BLOCK: tl.constexpr,
    KEPT_BLOCK: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    boxes_ptr += image * K * 4
    order_ptr += image * K
    index_ptr += image * D
    kept_boxes_ptr += image * D * 4
    if GROUPED:
        groups_ptr += image * K
        kept_groups_ptr += image * D
    candidates = tl.load(candidates_ptr + image)

    place = tl.arange(0, BLOCK)
    bit = tl.full((BLOCK,), 1, tl.int64) << place.to(tl.int64)
    start = tl.zeros((), tl.int32)
    found = tl.zeros((), tl.int32)
    while (start < candidates) & (found < D):
        real = start + place < candidates
        candidate = tl.load(order_ptr + start + place, mask=real, other=0)
        corner = boxes_ptr + candidate * 4
        x0, y0, x1, y1 = tl.load(corner), tl.load(corner + 1), tl.load(corner + 2), tl.load(corner + 3)
        if GROUPED:
            group = tl.load(groups_ptr + candidate)

        # Against the boxes kept so far.
        alive = real
        for first in range(0, found, KEPT_BLOCK):
            earlier = first + tl.arange(0, KEPT_BLOCK)
            taken = earlier < found
            kept_corner = kept_boxes_ptr + earlier * 4
            kx0 = tl.load(kept_corner, mask=taken, other=0.0)
            ky0 = tl.load(kept_corner + 1, mask=taken, other=0.0)
            kx1 = tl.load(kept_corner + 2, mask=taken, other=0.0)
            ky1 = tl.load(kept_corner + 3, mask=taken, other=0.0)
            hit = _overlaps(
                x0[:, None], y0[:, None], x1[:, None], y1[:, None],
                kx0[None, :], ky0[None, :], kx1[None, :], ky1[None, :], threshold,
            )  # fmt: skip
            hit = hit & taken[None, :]
            if GROUPED:
                kept_group = tl.load(kept_groups_ptr + earlier, mask=taken, other=0)
                hit = hit & (group[:, None] == kept_group[None, :])
            alive = alive & (tl.max(hit.to(tl.int32), axis=1) == 0)

        # Among themselves: row i, better than column j, may suppress it.
        hit = _overlaps(
            x0[:, None], y0[:, None], x1[:, None], y1[:, None],
            x0[None, :], y0[None, :], x1[None, :], y1[None, :], threshold,
        )  # fmt: skip
        hit = hit & (place[:, None] < place[None, :])
        if GROUPED:
            hit = hit & (group[:, None] == group[None, :])
        suppressors = tl.sum(tl.where(hit, bit[:, None], 0), axis=0)
        # A candidate is kept if none of its suppressors is. Each round settles at least one more candidate, so
        # what no longer changes is the greedy choice.
        kept = tl.sum(tl.where(alive, bit, 0))
        before = ~kept
        while kept != before:
            before = kept
            kept = tl.sum(tl.where(alive & ((suppressors & before) == 0), bit, 0))

        is_kept = ((kept >> place.to(tl.int64)) & 1).to(tl.int32)
        slot = found + tl.cumsum(is_kept, axis=0) - is_kept
        stored = (is_kept > 0) & (slot < D)
        tl.store(index_ptr + slot, candidate, mask=stored)
        corner = kept_boxes_ptr + slot * 4
        tl.store(corner, x0, mask=stored)
        tl.store(corner + 1, y0, mask=stored)
        tl.store(corner + 2, x1, mask=stored)
        tl.store(corner + 3, y1, mask=stored)
        if GROUPED:
            tl.store(kept_groups_ptr + slot, group, mask=stored)
        found += tl.sum(is_kept)
        start += BLOCK
        tl.debug_barrier()  # what one thread has stored, others load in the next round
    tl.store(found_ptr + image, found)


def keep_best(
    boxes_NK4: Tensor, scores_NK: Tensor, groups_NK: Tensor | None, iou: float, count: int
) -> tuple[Tensor, Tensor]:
    """`nms.nms_batch` on a GPU: index_ND int64, valid_ND bool. No host wait."""
    images, candidates = scores_NK.shape
    usable_NK = scores_NK > float("-inf")
    order_NK = scores_NK.where(usable_NK, float("-inf")).argsort(dim=1, descending=True, stable=True)
    index_ND = order_NK.new_zeros(images, count)
    found_N = index_ND.new_zeros(images, dtype=torch.int32)
    if images and candidates and count:
        boxes_NK4 = boxes_NK4.contiguous()
        grouped = groups_NK is not None
        groups_NK = groups_NK.contiguous() if groups_NK is not None else order_NK
        kept_groups_ND = torch.empty_like(index_ND, dtype=groups_NK.dtype) if grouped else index_ND
        with torch.cuda.device_of(boxes_NK4):  # Triton starts on the current device
            _keep_best[(images,)](
                boxes_NK4,
                groups_NK,
                order_NK,
                usable_NK.sum(dim=1, dtype=torch.int32),
                index_ND,
                found_N,
                boxes_NK4.new_empty(images, count, 4),
                kept_groups_ND,
                candidates,
                count,
                rounded_down(iou),
                GROUPED=grouped,
                BLOCK=BLOCK,
                KEPT_BLOCK=KEPT_BLOCK,
                **OPTIONS,
            )
    return index_ND, torch.arange(count, device=index_ND.device) < found_N.unsqueeze(1)


@lru_cache
def rounded_down(threshold: float) -> float:
    """The largest float32 that is not above `threshold`: a float32 exceeds the one exactly if it exceeds the other."""
    exact = torch.tensor(threshold, dtype=torch.float64, device="cpu")
    nearest = exact.float()
    if nearest.double() > exact:
        nearest = nearest.nextafter(torch.tensor(float("-inf"), device="cpu"))
    return nearest.item()
