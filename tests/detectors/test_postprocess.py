"""From scores to detections, against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.roi_heads import RoIHeads

from detectors.postprocess import PostProcess
from detectors.rpn import Proposals
from tests.detectors.test_boxes import random_boxes
from tests.detectors.tiny import make_images

PAPER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
CLASSES = 4


def case(regions: int = 50, sharpness: float = 2.0, codes: int = CLASSES):
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(2, regions, seed=1, canvas=60)
    logits = torch.randn(2, regions, CLASSES + 1, generator=generator) * sharpness
    deltas = torch.randn(2, regions, codes, 4, generator=generator)
    images = make_images(torch.zeros(2, 3, 80, 96, dtype=torch.uint8), ((80, 96), (70, 90)))
    return Proposals(boxes, torch.ones(2, regions, dtype=torch.bool)), logits, deltas, images


@pytest.mark.parametrize("detections", [5, 100])
def test_detections_equal_torchvisions(detections: int) -> None:
    proposals, logits, deltas, images = case()
    found = PostProcess(detections=detections, nms_iou=0.4)(proposals, logits, deltas, images, PAPER_WEIGHTS)
    reference = RoIHeads(None, None, None, 0.5, 0.5, 64, 0.25, PAPER_WEIGHTS, 0.05, 0.4, detections)
    with_background = torch.cat([deltas[:, :, :1], deltas], dim=2)
    boxes, scores, labels = reference.postprocess_detections(
        logits.flatten(0, 1), with_background.flatten(2).flatten(0, 1), list(proposals.boxes_NP4), images.sizes_hw
    )
    for n in range(2):
        valid = found.valid_ND[n]
        torch.testing.assert_close(found.boxes_ND4[n][valid], boxes[n])
        torch.testing.assert_close(found.scores_ND[n][valid], scores[n])
        assert torch.equal(found.labels_ND[n][valid], labels[n])


def test_weak_objects_are_found_beside_any_number_of_strong_boxes_of_one() -> None:
    """950 regions on one object, two classes each above the threshold, and 50 objects of lower scores apart from it."""
    crowd = torch.tensor([0.0, 0.0, 60.0, 60.0]).expand(950, 4)
    apart = torch.stack([torch.tensor([80.0 + 20 * (i % 10), 20.0 * (i // 10)]) for i in range(50)])
    boxes = torch.cat([crowd, torch.cat([apart, apart + 10], dim=1)])
    logits = torch.zeros(1, 1000, 21)
    logits[0, :950, 1:3] = 6.0
    logits[0, 950:, 3] = 1.1  # 0.13 of a probability
    images = make_images(torch.zeros(1, 3, 100, 300, dtype=torch.uint8), ((100, 300),))
    proposals = Proposals(boxes[None], torch.ones(1, 1000, dtype=torch.bool))
    found = PostProcess()(proposals, logits, torch.zeros(1, 1000, 20, 4), images, PAPER_WEIGHTS)
    assert found.labels_ND[found.valid_ND].bincount().tolist()[1:] == [1, 1, 50]


def test_they_are_padded_sorted_and_within_their_image() -> None:
    proposals, logits, deltas, images = case(sharpness=4.0)
    found = PostProcess(score_threshold=0.5)(proposals, logits, deltas, images, PAPER_WEIGHTS)
    assert found.boxes_ND4.shape == (2, 100, 4)
    for n, (height, width) in enumerate(images.sizes_hw):
        valid = found.valid_ND[n]
        count = int(valid.sum())
        assert 0 < count < 100 and valid[:count].all()
        scores, boxes = found.scores_ND[n][:count], found.boxes_ND4[n][:count]
        assert (scores > 0.5).all() and (scores.diff() <= 0).all()
        assert (found.labels_ND[n][:count] > 0).all()
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
        for padding in (found.scores_ND, found.labels_ND, found.boxes_ND4):
            assert padding[n][count:].eq(0).all()


def test_padding_among_the_proposals_is_never_detected() -> None:
    proposals, logits, deltas, images = case()
    valid = torch.arange(50).expand(2, 50) < 10
    found = PostProcess()(Proposals(proposals.boxes_NP4, valid), logits, deltas, images, PAPER_WEIGHTS)
    first = Proposals(proposals.boxes_NP4[:, :10], valid[:, :10])
    expected = PostProcess()(first, logits[:, :10], deltas[:, :10], images, PAPER_WEIGHTS)
    assert torch.equal(found.boxes_ND4, expected.boxes_ND4)
    none = Proposals(proposals.boxes_NP4, torch.zeros_like(valid))
    assert not PostProcess()(none, logits, deltas, images, PAPER_WEIGHTS).valid_ND.any()


def test_one_box_code_serves_all_classes() -> None:
    proposals, logits, deltas, images = case(codes=1)
    found = PostProcess()(proposals, logits, deltas, images, PAPER_WEIGHTS)
    expected = PostProcess()(proposals, logits, deltas.expand(-1, -1, CLASSES, -1).contiguous(), images, PAPER_WEIGHTS)
    assert torch.equal(found.boxes_ND4, expected.boxes_ND4)


def test_a_network_that_diverged_detects_nothing() -> None:
    proposals, logits, deltas, images = case()
    logits[0] = float("nan")
    deltas[1] = float("nan")
    found = PostProcess()(proposals, logits, deltas, images, PAPER_WEIGHTS)
    assert not found.valid_ND.any() and found.boxes_ND4.isfinite().all()
