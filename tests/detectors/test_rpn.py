"""The region proposal network: order of its outputs, and its proposals against torchvision's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection import rpn as torchvision_rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator

from detectors.anchors import AnchorGrid
from detectors.rpn import RPN, ProposalLimits, RPNHead, RPNOutput
from tests.detectors.tiny import make_images, squares, tiny_detector

LIMITS = ProposalLimits(before_nms=300, after_nms=60)


def random_output(rpn: RPN, images: int, cells: int = 12) -> RPNOutput:
    generator = torch.Generator().manual_seed(0)
    anchors = rpn.anchors[0](cells, cells, torch.device("cpu"))
    logits = torch.randn(images, len(anchors), generator=generator)
    return RPNOutput(anchors, logits, torch.randn(images, len(anchors), 4, generator=generator) / 2, (len(anchors),))


def blank_images(*sizes_hw: tuple[int, int], canvas: int = 96):
    return make_images(torch.zeros(len(sizes_hw), 3, canvas, canvas, dtype=torch.uint8), sizes_hw)


def test_outputs_are_in_the_order_of_the_anchors_as_torchvisions_are() -> None:
    torch.manual_seed(0)
    head = RPNHead(8, 3)
    features = torch.randn(2, 8, 4, 5)
    objectness, deltas = head(features)
    hidden = head.conv(features).relu()
    expected = torchvision_rpn.concat_box_prediction_layers([head.objectness(hidden)], [head.deltas(hidden)])
    torch.testing.assert_close(objectness.flatten(), expected[0].flatten())
    torch.testing.assert_close(deltas.flatten(0, 1), expected[1])


def test_a_head_that_does_not_fit_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="4 anchors a cell, but the grid 9"):
        RPN(RPNHead(8, 4), [AnchorGrid()], train_limits=LIMITS, test_limits=LIMITS)


def test_proposals_equal_torchvisions() -> None:
    rpn = tiny_detector().rpn
    output = random_output(rpn, images=2)
    proposals = rpn.propose(output, blank_images((96, 96), (96, 96)), LIMITS)

    limits = {"training": LIMITS.before_nms, "testing": LIMITS.before_nms}
    after = {"training": LIMITS.after_nms, "testing": LIMITS.after_nms}
    reference = torchvision_rpn.RegionProposalNetwork(
        AnchorGenerator(), torch.nn.Identity(), 0.7, 0.3, 64, 0.5, limits, after, rpn.nms_iou, score_thresh=0.0
    )
    decoded = reference.box_coder.decode(output.deltas_NA4.flatten(0, 1), [output.anchors_A4] * 2)
    expected, scores = reference.filter_proposals(
        decoded.view(2, -1, 4), output.objectness_NA.flatten()[:, None], [(96, 96)] * 2, [len(output.anchors_A4)]
    )
    for n in range(2):
        torch.testing.assert_close(proposals.boxes_NP4[n][proposals.valid_NP[n]], expected[n])
    detections = rpn.detect(output, blank_images((96, 96), (96, 96)), LIMITS)
    assert torch.equal(detections.boxes_ND4, proposals.boxes_NP4)
    assert torch.equal(detections.labels_ND, proposals.valid_NP.long())
    for n in range(2):
        torch.testing.assert_close(detections.scores_ND[n][detections.valid_ND[n]], scores[n])


def test_proposals_come_in_a_fixed_number_within_their_image() -> None:
    rpn = tiny_detector().rpn
    sizes = ((96, 96), (40, 96), (8, 8), (3, 3))
    proposals = rpn.propose(random_output(rpn, images=4), blank_images(*sizes), LIMITS)
    assert proposals.boxes_NP4.shape == (4, 60, 4)
    for n, (height, width) in enumerate(sizes):
        boxes = proposals.boxes_NP4[n][proposals.valid_NP[n]]
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert proposals.boxes_NP4[n][~proposals.valid_NP[n]].eq(0).all()
    assert proposals.valid_NP[0].all()
    assert not proposals.valid_NP[3].any()  # no anchor's centre lies within 3 x 3 pixels


def test_anchors_on_the_padding_are_neither_proposed_nor_learnt_from() -> None:
    images, targets = squares(2, sizes_hw=((96, 96), (48, 64)))
    rpn = tiny_detector().rpn
    output = random_output(rpn, images=2)
    centre = (output.anchors_A4[:, :2] + output.anchors_A4[:, 2:]) / 2
    outside = (centre[:, 0] > 64) | (centre[:, 1] > 48)
    changed = output.objectness_NA.clone()
    changed[1, outside] = 50.0
    shouting = replace(output, objectness_NA=changed)
    samples = rpn.sample(output, images, targets)
    for name, value in rpn.losses(output, samples).items():
        assert torch.equal(value, rpn.losses(shouting, rpn.sample(shouting, images, targets))[name])
    before, after = rpn.propose(output, images, LIMITS), rpn.propose(shouting, images, LIMITS)
    assert torch.equal(before.boxes_NP4, after.boxes_NP4)


def test_anchors_across_the_border_are_learnt_from_unless_the_paper_is_followed() -> None:
    images, targets = squares(1)
    rpn = tiny_detector().rpn
    output = random_output(rpn, images=1)
    crossing = (output.anchors_A4 < 0).any(dim=1) | (output.anchors_A4 > 96).any(dim=1)
    logits = output.objectness_NA.requires_grad_()

    def learnt() -> torch.Tensor:
        losses = rpn.losses(output, rpn.sample(output, images, targets))
        return torch.autograd.grad(losses["loss_rpn_cls"], logits)[0][0] != 0

    assert (learnt() & crossing).any()
    rpn.cross_border = False
    assert learnt().any() and not (learnt() & crossing).any()


def test_a_network_that_diverged_proposes_nothing_rather_than_crash_the_pooling() -> None:
    rpn = tiny_detector().rpn
    output = random_output(rpn, images=2)
    output.deltas_NA4[0] = float("nan")
    output.objectness_NA[1] = float("nan")
    proposals = rpn.propose(output, blank_images((96, 96), (96, 96)), LIMITS)
    assert proposals.boxes_NP4.isfinite().all()
    assert not proposals.valid_NP.any()
