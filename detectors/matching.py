"""Matching of boxes with truths, by overlap (Faster R-CNN, §3.1.2; Fast R-CNN, §2.3).

Legend: N images, A boxes an image (anchors or proposals), G padded truths, g truths of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.boxes import box_area, box_intersection, iou_from_intersection
from detectors.structures import Targets

# Truths are taken this many at a time, so that the overlaps of a crowded image do not fill the memory.
TRUTHS_A_CHUNK = 64


@dataclass(frozen=True)
class Matches:
    """positive_NA, negative_NA: bool, never both; neither means: not to be learnt from.

    truth_NA: int64, the truth that a box overlaps most (0 where there is none); iou_NA: how much.
    """

    positive_NA: Tensor
    negative_NA: Tensor
    truth_NA: Tensor
    iou_NA: Tensor


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """Thresholds of the match.

    positive: a box with at least this IoU with a truth is positive.
    negative: a box with less than this IoU with every truth is negative ...
    negative_from: ... and at least this with some truth (Fast R-CNN takes 0.1, a search for hard examples; without
        effect in images without truths).
    best_for_truth: the boxes that overlap a truth most are positive even below `positive` (RPN).
    ignore: a box of which at least this share lies in an ignored truth (a crowd, a difficult object) is not
        negative, so that finding it is neither rewarded nor punished.
    """

    positive: float
    negative: float
    negative_from: float = 0.0
    best_for_truth: bool = False
    ignore: float = 0.5

    def __call__(self, boxes_NA4: Tensor, eligible_NA: Tensor, targets: Targets) -> Matches:
        """Match boxes (NA4, or A4 for all images) with truths; boxes that are not eligible are neither."""
        area_A = box_area(boxes_NA4)
        to_find_NG = targets.valid_NG & ~targets.ignore_NG
        to_ignore_NG = targets.valid_NG & targets.ignore_NG

        iou_NA = boxes_NA4.new_full(eligible_NA.shape, -1.0)
        truth_NA = torch.zeros_like(eligible_NA, dtype=torch.int64)
        best_NA = torch.zeros_like(eligible_NA)
        ignored_NA = torch.zeros_like(eligible_NA)
        for start in range(0, targets.valid_NG.shape[1], TRUTHS_A_CHUNK):
            chunk = slice(start, start + TRUTHS_A_CHUNK)
            truths_Ng4 = targets.boxes_NG4[:, chunk]
            shared_NgA = box_intersection(truths_Ng4, boxes_NA4)
            iou_NgA = iou_from_intersection(shared_NgA, box_area(truths_Ng4), area_A)
            iou_NgA.masked_fill_(~to_find_NG[:, chunk, None] | ~eligible_NA[:, None], -1.0)
            chunk_iou_NA, chunk_truth_NA = iou_NgA.max(dim=1)
            truth_NA = torch.where(chunk_iou_NA > iou_NA, chunk_truth_NA + start, truth_NA)
            iou_NA = torch.maximum(iou_NA, chunk_iou_NA)
            if self.best_for_truth:
                # A truth that no box touches has no best box: without the clamp every box would be.
                highest_Ng1 = iou_NgA.amax(dim=2, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
                best_NA = best_NA | (iou_NgA == highest_Ng1).any(dim=1)
            covered_NA = shared_NgA.mul_(to_ignore_NG[:, chunk, None]).amax(dim=1)
            ignored_NA = ignored_NA | ((covered_NA >= self.ignore * area_A) & (covered_NA > 0))

        positive_NA = ((iou_NA >= self.positive) | best_NA) & eligible_NA
        negative_NA = (iou_NA < self.negative) & eligible_NA & ~positive_NA & ~ignored_NA
        if self.negative_from > 0:
            negative_NA = negative_NA & ((iou_NA >= self.negative_from) | ~to_find_NG.any(dim=1, keepdim=True))
        return Matches(positive_NA, negative_NA, truth_NA, iou_NA)
