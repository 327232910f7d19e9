"""Candidates that make suppression hard, and what torchvision's kernel keeps of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import ops

from tests.detectors.test_boxes import random_boxes

STYLES = ("spread", "clustered", "tied", "integer", "identical", "empty boxes", "all refused", "half refused")


def candidates(style: str, images: int, count: int, seed: int, groups: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """boxes_NK4, scores_NK and groups_NK of one of the STYLES."""
    generator = torch.Generator().manual_seed(seed)
    boxes_NK4 = random_boxes(images, count, seed=seed)
    scores_NK = torch.randn(images, count, generator=generator)
    if style == "clustered":
        centres = random_boxes(images, 5, seed=seed + 1)
        which = torch.randint(0, 5, (images, count), generator=generator)
        jitter = torch.randn(images, count, 4, generator=generator)
        boxes_NK4 = torch.stack([centre[index] for centre, index in zip(centres, which)]) + jitter
    elif style == "tied":
        scores_NK = scores_NK.mul(2).round()
    elif style == "integer":  # overlaps of exactly 0.5 and other thresholds
        boxes_NK4, scores_NK = boxes_NK4.div(10).round(), scores_NK.round()
    elif style == "identical":
        boxes_NK4, scores_NK = boxes_NK4[:, :1].expand(-1, count, -1), torch.zeros_like(scores_NK)
    elif style == "empty boxes":
        boxes_NK4[..., 2:] = boxes_NK4[..., :2]
    elif style == "all refused":
        scores_NK = torch.full_like(scores_NK, float("-inf"))
    elif style == "half refused":
        scores_NK = scores_NK.masked_fill(scores_NK < 0, float("-inf"))
    return boxes_NK4, scores_NK, torch.randint(0, groups, (images, count), generator=generator)


def expected(boxes_K4: Tensor, scores_K: Tensor, groups_K: Tensor | None, iou: float, count: int) -> list[int]:
    """What one image keeps, best first: torchvision's kernel group by group; of equal scores the earlier is better."""
    kept: list[int] = []
    for group in [None] if groups_K is None else groups_K.unique().tolist():
        usable_K = scores_K > float("-inf")
        place = (usable_K if group is None else usable_K & (groups_K == group)).nonzero().squeeze(1)
        kept += place[ops.nms(boxes_K4[place], scores_K[place], iou)].tolist()
    return sorted(kept, key=lambda index: (-scores_K[index].item(), index))[:count]


def assert_kept_is_expected(
    found: tuple[Tensor, Tensor], boxes_NK4: Tensor, scores_NK: Tensor, groups_NK: Tensor | None, iou: float
) -> None:
    """`found` (index_ND, valid_ND) is what torchvision keeps, padded with zeros."""
    index_ND, valid_ND = (part.cpu() for part in found)
    assert index_ND.dtype == torch.int64 and valid_ND.dtype == torch.bool
    for n, (index_D, valid_D) in enumerate(zip(index_ND, valid_ND)):
        groups_K = None if groups_NK is None else groups_NK[n]
        wanted = expected(boxes_NK4[n], scores_NK[n], groups_K, iou, len(index_D))
        padding = len(index_D) - len(wanted)
        assert index_D.tolist() == wanted + [0] * padding
        assert valid_D.tolist() == [True] * len(wanted) + [False] * padding
