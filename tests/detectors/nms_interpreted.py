"""The GPU's kernel in Triton's interpreter against torchvision; started by test_nms_kernel.py (TRITON_INTERPRET=1)."""

from __future__ import annotations

import torch

from detectors.nms_kernel import BLOCK, keep_best
from tests.detectors.nms_cases import STYLES, assert_kept_is_expected, candidates


def check(style: str, images: int, count: int, places: int, iou: float, grouped: bool) -> None:
    boxes, scores, groups = candidates(style, images, count, seed=count + places)
    used = groups if grouped else None
    assert_kept_is_expected(keep_best(boxes, scores, used, iou, places), boxes, scores, used, iou)


def main() -> None:
    for style in STYLES:
        for grouped in (False, True):
            check(style, images=2, count=150, places=40, iou=0.5, grouped=grouped)
    # Fewer candidates than a block, a whole block, one more; fewer places than are kept in the first block.
    for count in (0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1):
        for places in (0, 1, 3, 200):
            check("spread", images=1, count=count, places=places, iou=0.7, grouped=count % 2 == 0)
    check("spread", images=0, count=5, places=5, iou=0.7, grouped=False)
    # 6 / 20 is a little more than 0.3 in float32, and 0.3 in float64 lies between them; 7 / 10 is a little less.
    for iou, side in ((0.3, 7), (0.7, 0)):
        first, second = [0.0, 0, 13 if side else 10, 1], [float(side), 0, 20 if side else 7, 1]
        boxes, scores = torch.tensor([[first, second]]), torch.tensor([[2.0, 1.0]])
        found = keep_best(boxes, scores, None, iou, 2)
        assert_kept_is_expected(found, boxes, scores, None, iou)
        assert found[1].sum() == (1 if side else 2)
    # A chain in which each box overlaps the next only: every other one is kept, the longest way to a settled block.
    chain = torch.arange(BLOCK + 10.0)[:, None] * torch.tensor([6.0, 0, 6, 0]) + torch.tensor([0.0, 0, 10, 10])
    scores = torch.linspace(1, 0, len(chain))
    index, valid = keep_best(chain[None], scores[None], None, 0.2, len(chain))
    assert index[valid].tolist() == list(range(0, len(chain), 2))
    nans = torch.tensor([[float("nan"), 1.0, float("inf")]])
    boxes = torch.tensor([[[0.0, 0, 9, 9], [0.0, 0, 9, 9], [50.0, 0, 59, 9]]])
    index, valid = keep_best(boxes, nans, None, 0.5, 3)
    assert index[valid].tolist() == [2, 1]


if __name__ == "__main__":
    main()
