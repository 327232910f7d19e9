"""Losses against torchvision's detectors with the same samples, and against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork

from detectors.anchors import centred_inside
from detectors.box_head import RegionOutput, Regions
from detectors.boxes import encode
from detectors.losses import GlobalCounts, cross_entropy, masked_sum, smooth_l1
from detectors.rpn import RPNOutput
from tests.detectors.test_boxes import random_boxes
from tests.detectors.tiny import squares, tiny_detector

TORCHVISION_BETA = 1 / 9


class SameSamples:
    """In the place of torchvision's sampler: the anchors that Vertebra drew."""

    def __init__(self, positive: list[torch.Tensor], negative: list[torch.Tensor]) -> None:
        self.masks = positive, negative

    def __call__(self, labels: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        for positive, negative, label in zip(*self.masks, labels):
            assert (label[positive.bool()] == 1).all() and (label[negative.bool()] == 0).all()
        return self.masks


def test_rpn_losses_equal_torchvisions_on_the_same_samples() -> None:
    images, targets = squares(2, seed=3)
    rpn = tiny_detector().rpn
    rpn.beta = TORCHVISION_BETA
    generator = torch.Generator().manual_seed(0)
    anchors = rpn.anchors[0](12, 12, torch.device("cpu"))
    logits = torch.randn(2, len(anchors), generator=generator)
    deltas = torch.randn(2, len(anchors), 4, generator=generator)
    output = RPNOutput(anchors, logits, deltas, (len(anchors),))
    losses = rpn.losses(output, rpn.sample(output, images, targets))

    matches = rpn.matcher(anchors, centred_inside(anchors, images.sizes_hw_N2), targets)
    samples = rpn.sampler(matches, targets.draw_seeds_N)
    positive, negative = torch.zeros(2, 2, len(anchors), dtype=torch.uint8)
    positive.scatter_(1, samples.index_NS, samples.positive_NS.byte())
    negative.scatter_(1, samples.index_NS, (samples.valid_NS & ~samples.positive_NS).byte())

    reference = RegionProposalNetwork(
        AnchorGenerator(), torch.nn.Identity(), 0.7, 0.3, 64, 0.5, {}, {}, 0.7, score_thresh=0.0
    )
    reference.fg_bg_sampler = SameSamples(list(positive), list(negative))
    truths = [{"boxes": b[v]} for b, v in zip(targets.boxes_NG4, targets.valid_NG)]
    labels, matched = reference.assign_targets_to_anchors([anchors, anchors], truths)
    wanted = reference.box_coder.encode(matched, [anchors, anchors])
    expected = reference.compute_loss(logits.flatten()[:, None], deltas.flatten(0, 1), labels, wanted)
    torch.testing.assert_close(losses["loss_rpn_cls"], expected[0])
    torch.testing.assert_close(losses["loss_rpn_box"], expected[1])


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_head_losses_equal_torchvisions_on_the_same_regions(class_agnostic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    classes, shape = 5, (2, 30)
    head = tiny_detector(classes, beta=TORCHVISION_BETA).box_head
    head.predictor.class_agnostic = class_agnostic
    boxes, truth = random_boxes(*shape, seed=1), random_boxes(*shape, seed=2)
    labels = torch.randint(0, classes + 1, shape, generator=generator)
    logits = torch.randn(*shape, classes + 1, generator=generator)
    deltas = torch.randn(*shape, 1 if class_agnostic else classes, 4, generator=generator)
    every = torch.ones(shape, dtype=torch.bool)
    regions = Regions(boxes, labels, truth, torch.zeros_like(labels), every)
    losses = head.losses(regions, RegionOutput(torch.empty(0), logits, deltas))

    wanted = encode(truth, boxes, head.delta_weights).flatten(0, 1)
    # torchvision has deltas for background as well, and none without class.
    reference = torch.cat([deltas[:, :, :1] * 0, deltas.expand(-1, -1, classes, -1)], dim=2).flatten(0, 1).flatten(1)
    expected = fastrcnn_loss(logits.flatten(0, 1), reference, [labels.flatten()], [wanted])
    torch.testing.assert_close(losses["loss_box_cls"], expected[0])
    torch.testing.assert_close(losses["loss_box_reg"], expected[1])


def test_slots_that_nothing_filled_weigh_nothing() -> None:
    head = tiny_detector(5).box_head
    boxes, truth = random_boxes(2, 30, seed=1), random_boxes(2, 30, seed=2)
    labels = torch.arange(60).view(2, 30) % 6
    logits, deltas = torch.randn(2, 30, 6), torch.randn(2, 30, 5, 4)
    every = torch.ones(2, 30, dtype=torch.bool)

    def losses(columns: int, valid: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = (value[:, :columns] for value in (boxes, labels, truth, labels, valid))
        output = RegionOutput(torch.empty(0), logits[:, :columns], deltas[:, :columns])
        return head.losses(Regions(*parts), output)

    expected = losses(20, every)
    logits[:, 20:] = float("inf")
    padded = losses(30, every & (torch.arange(30) < 20))
    for name, value in expected.items():
        torch.testing.assert_close(padded[name], value)


def test_smooth_l1_is_quadratic_below_beta_and_l1_at_zero() -> None:
    difference = torch.tensor([[0.05, -0.5, 2.0, 0.0]])
    zero = torch.zeros(1, 4)
    torch.testing.assert_close(smooth_l1(difference, zero, beta=0.0), torch.tensor([2.55]))
    by_hand = 0.05**2 / 2 / 0.1 + (0.5 - 0.05) + (2 - 0.05)
    torch.testing.assert_close(smooth_l1(difference, zero, beta=0.1), torch.tensor([by_hand]))


def test_losses_are_float32_whatever_the_layers_computed_in() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert smooth_l1(torch.ones(2, 4).bfloat16(), torch.zeros(2, 4), 0.0).dtype == torch.float32
        assert cross_entropy(torch.ones(2, 3).bfloat16(), torch.zeros(2, dtype=torch.int64)).dtype == torch.float32


def test_a_count_is_at_least_one_and_what_is_not_selected_may_be_infinite() -> None:
    counts = GlobalCounts(torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool))
    assert (counts[0], counts[1]) == (1, 3)
    losses = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
    total = masked_sum(losses, torch.tensor([True, False, False]))
    total.backward()
    assert total == 1
    assert losses.grad is not None and losses.grad.tolist() == [1, 0, 0]
