"""Under autocast coordinates and logits keep float32's digits: bf16 has 8 bits, steps of 4 px from 512 px on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from detectors.faster_rcnn import FasterRCNN, Proposer
from detectors.localizer import PerClassHead
from detectors.mask_head import MaskHead
from detectors.postprocess import Candidates, PostProcess
from detectors.rpn import RPNHead
from detectors.structures import Detections
from detectors.testtime import ImprovedDetector, vote
from tests.detectors.opinionated import opinionated, pictures
from tests.detectors.test_localizer import as_they_are, labelled, tiny_localizer
from tests.detectors.test_no_waits import c4_detector, fpn_detector, with_masks
from tests.detectors.test_testtime import at_scales
from tests.detectors.tiny import squares

POST = PostProcess(score_threshold=0.01, detections=20)
ALL_TRICKS = {"refine": True, "mirror": True, "region_px": 40.0}


class RoundedBoxes(TorchDispatchMode):
    """Notes every operation that gives a bf16 tensor of four numbers a row; `rounded` counts all bf16 tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.rounded = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.bfloat16:
                self.rounded += 1
                if leaf.dim() > 0 and leaf.shape[-1] == 4:
                    self.seen.append(f"{func} {tuple(leaf.shape)}")
        return result


def in_bf16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def cut_with_masks() -> FasterRCNN:
    detector = c4_detector(width=0.125)
    detector.box_head.pool.bins = 14  # 14, and 7 above the cut: no map is four cells wide
    detector.mask_head = MaskHead(64, 3, channels=8, convs=0)
    return detector


@pytest.mark.parametrize(
    "make", [opinionated, lambda: opinionated(context=True, masks=True), cut_with_masks, fpn_detector]
)
@pytest.mark.parametrize("improvements", [None, ALL_TRICKS], ids=["plain", "all"])
def test_no_box_is_rounded_when_detecting(make: Any, improvements: dict[str, Any] | None) -> None:
    detector = make().eval()
    images = at_scales(pictures(), (0.75,))
    model = detector if improvements is None else ImprovedDetector([detector, make().eval()], POST, **improvements)
    with in_bf16(), RoundedBoxes() as boxes:
        model.detect(images)
        Proposer(detector).detect(images)
    assert boxes.rounded > 10 and not boxes.seen


@pytest.mark.parametrize("make", [opinionated, cut_with_masks, fpn_detector])
def test_no_box_is_rounded_in_training(make: Any) -> None:
    images, targets = squares(2)
    with in_bf16(), RoundedBoxes() as boxes:
        losses = make().train()(images, with_masks(images, targets, targets.valid_NG.sum(dim=1).tolist()))
    assert boxes.rounded > 10 and not boxes.seen
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_no_box_is_rounded_when_locating() -> None:
    images, targets, classes_N = labelled(2)
    localizer = tiny_localizer(candidates=3)
    with in_bf16(), RoundedBoxes() as boxes:
        localizer(images, targets, classes_N)
        localizer.eval().locate(as_they_are(images), classes_N[:, None])
    assert boxes.rounded > 5 and not boxes.seen


def test_a_box_multiplied_under_autocast_would_be_seen() -> None:
    with in_bf16(), RoundedBoxes() as boxes:
        torch.ones(2, 3) @ torch.ones(3, 4)
    assert boxes.seen


def test_votes_are_the_same_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = 1000 * torch.rand(1, 20, 2, generator=generator)
    boxes = torch.cat([corners, corners + 16 + 200 * torch.rand(1, 20, 2, generator=generator)], dim=2)
    near = boxes.repeat(1, 5, 1) + 3 * torch.randn(1, 100, 4, generator=generator)
    candidates = Candidates(near, torch.rand(1, 100, generator=generator), torch.zeros(1, 100, dtype=torch.int64))
    ones = torch.ones(1, 20)
    detections = Detections(boxes, ones, ones.long(), ones.bool())
    expected = vote(detections, candidates)
    assert (expected.boxes_ND4 - boxes).abs().max() > 1
    with in_bf16():
        torch.testing.assert_close(vote(detections, candidates).boxes_ND4, expected.boxes_ND4, rtol=0, atol=1e-3)


def test_scores_of_anchors_differ_under_autocast() -> None:
    # In bf16 some 600 values stood for the best 2,000 of an image; the place in the list chose among equals.
    torch.manual_seed(0)
    maps = torch.randn(1, 64, 50, 84)
    with in_bf16():
        objectness = RPNHead(64, 15)(maps)[0]
        logits = PerClassHead(64, 2, 9)(maps, torch.tensor([[1]]))[0].flatten(1)
    for scores in (objectness, logits):
        assert scores.topk(2000).values.unique().numel() > 1950


def test_costs_are_counted_on_a_device_without_autocast() -> None:
    with torch.device("meta"):
        objectness, deltas = RPNHead(8, 3)(torch.zeros(1, 8, 4, 5))
    assert objectness.shape == (1, 60) and deltas.shape == (1, 60, 4)
