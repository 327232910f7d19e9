"""Region proposal network (Faster R-CNN, §3.1): at every anchor, is there an object, and where exactly?

Legend: N images, A anchors of the feature map, K anchors a cell, S sampled anchors, P proposals an image
(padded).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detectors.anchors import AnchorGrid, centred_inside, wholly_inside
from detectors.boxes import Weights, clip, decode, encode, take
from detectors.losses import binary_cross_entropy, global_count, masked_sum, smooth_l1
from detectors.matching import Matcher
from detectors.nms import nms
from detectors.sampling import Sampler
from detectors.structures import ImageBatch, Targets

RPN_STREAM = 1  # tells the RPN's random draws from the box head's
DELTA_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class RPNOutput:
    """anchors_A4; objectness_NA: logits; deltas_NA4. The last two in the precision of the convolutions."""

    anchors_A4: Tensor
    objectness_NA: Tensor
    deltas_NA4: Tensor


@dataclass(frozen=True)
class Proposals:
    """boxes_NP4: float32, within their image, best first; valid_NP: bool, False for padding (boxes of
    zeros)."""

    boxes_NP4: Tensor
    valid_NP: Tensor


@dataclass(frozen=True, kw_only=True)
class ProposalLimits:
    """How many boxes an image go into non-maximum suppression, and how many come out."""

    before_nms: int
    after_nms: int


class RPNHead(nn.Module):
    """A 3x3 convolution and two sibling 1x1 convolutions: objectness and box deltas of every anchor.

    One logit an anchor where the paper has two classes: the difference of its two logits is the same model.
    """

    def __init__(self, in_channels: int, anchors_per_cell: int, hidden_channels: int | None = None) -> None:
        super().__init__()
        hidden = in_channels if hidden_channels is None else hidden_channels
        self.conv = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        self.objectness = nn.Conv2d(hidden, anchors_per_cell, kernel_size=1)
        self.deltas = nn.Conv2d(hidden, anchors_per_cell * 4, kernel_size=1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)  # Faster R-CNN, §3.1.3
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """objectness_NA and deltas_NA4, in the order of the anchors."""
        hidden_NCHW = self.conv(features_NCHW).relu_()
        objectness_NHWK = self.objectness(hidden_NCHW).permute(0, 2, 3, 1)
        deltas_NHWK4 = self.deltas(hidden_NCHW).permute(0, 2, 3, 1)
        return objectness_NHWK.flatten(1), deltas_NHWK4.reshape(len(features_NCHW), -1, 4)


class RPN(nn.Module):
    """Head, anchors, what it learns from, and what it proposes.

    Anchors centred on the padding beyond an image are left out of everything. (detectron2 and torchvision
    keep them, as easy negatives.) Anchors that cross the border of the image are learnt from, as in those
    two; with `cross_border=False` they are not, as in the paper. beta: of the smooth L1 loss, the paper's is
    1/9.
    """

    def __init__(
        self,
        head: RPNHead,
        anchors: AnchorGrid,
        *,
        train_limits: ProposalLimits,
        test_limits: ProposalLimits,
        matcher: Matcher | None = None,
        samples: int = 256,
        positive_fraction: float = 0.5,
        cross_border: bool = True,
        beta: float = 0.0,
        nms_iou: float = 0.7,
        min_side_px: float = 1e-3,
    ) -> None:
        super().__init__()
        if head.objectness.out_channels != anchors.per_cell:
            found = head.objectness.out_channels
            raise ValueError(f"The RPN head has {found} anchors a cell, but the grid {anchors.per_cell}.")
        self.head = head
        self.anchors = anchors
        self.train_limits = train_limits
        self.test_limits = test_limits
        self.matcher = matcher or Matcher(positive=0.7, negative=0.3, best_for_truth=True)
        self.sampler = Sampler(count=samples, positive_fraction=positive_fraction, stream=RPN_STREAM)
        self.cross_border = cross_border
        self.beta = beta
        self.nms_iou = nms_iou
        self.min_side_px = min_side_px

    def forward(self, features_NCHW: Tensor) -> RPNOutput:
        rows, columns = features_NCHW.shape[-2:]
        anchors_A4 = self.anchors(rows, columns, features_NCHW.device)
        return RPNOutput(anchors_A4, *self.head(features_NCHW))

    def losses(self, output: RPNOutput, images: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """Both losses are divided by the number of sampled anchors (of the whole batch).

        For the box loss that is about the paper's number of anchor positions with its lambda of 10, and what
        detectron2 and torchvision do.
        """
        inside = centred_inside if self.cross_border else wholly_inside
        with torch.no_grad():
            anchors_A4 = output.anchors_A4
            matches = self.matcher(anchors_A4, inside(anchors_A4, images.sizes_hw_N2), targets)
            samples = self.sampler(matches, targets.draw_seeds_N)
            truth_NS4 = take(targets.boxes_NG4, take(matches.truth_NA, samples.index_NS))
            wanted_NS4 = encode(truth_NS4, anchors_A4[samples.index_NS], DELTA_WEIGHTS)
            count = global_count(samples.valid_NS)
        objectness_NS = take(output.objectness_NA, samples.index_NS)
        class_loss_NS = binary_cross_entropy(objectness_NS, samples.positive_NS)
        box_loss_NS = smooth_l1(take(output.deltas_NA4, samples.index_NS), wanted_NS4, self.beta)
        return {
            "loss_rpn_cls": masked_sum(class_loss_NS, samples.valid_NS) / count,
            "loss_rpn_box": masked_sum(box_loss_NS, samples.positive_NS) / count,
        }

    @torch.no_grad()
    def propose(self, output: RPNOutput, images: ImageBatch, limits: ProposalLimits) -> Proposals:
        """The best boxes of every image after non-maximum suppression; no gradient flows through them."""
        anchors_A4 = output.anchors_A4
        usable_NA = centred_inside(anchors_A4, images.sizes_hw_N2)
        scores_NA = output.objectness_NA.float().masked_fill(~usable_NA, float("-inf"))
        best = scores_NA.topk(min(limits.before_nms, scores_NA.shape[1]))
        deltas_NK4 = take(output.deltas_NA4, best.indices)
        boxes_NK4 = clip(decode(deltas_NK4, anchors_A4[best.indices], DELTA_WEIGHTS), images.sizes_hw_N2)
        # A NaN, which the loss will report, must not reach the pooling kernels: it would be an address there.
        large_NK = (boxes_NK4[..., 2:] - boxes_NK4[..., :2] >= self.min_side_px).all(dim=-1)
        finite_NK = best.values.isfinite() & boxes_NK4.isfinite().all(dim=-1)
        usable_NK = large_NK & finite_NK
        boxes_NK4 = boxes_NK4.where(usable_NK.unsqueeze(-1), 0)
        scores_NK = best.values.masked_fill(~usable_NK, float("-inf"))
        kept = [nms(b, s, self.nms_iou, limits.after_nms) for b, s in zip(boxes_NK4, scores_NK)]
        index_NP, valid_NP = (torch.stack(parts) for parts in zip(*kept))
        return Proposals(take(boxes_NK4, index_NP) * valid_NP.unsqueeze(-1), valid_NP)
