"""Region proposal network (Faster R-CNN, §3.1): for every anchor, whether there is an object, and where exactly.

On a pyramid the same head reads every level, each with anchors of its own size (Lin et al. 2017, §4.1).

Legend: N images, A anchors of all levels, one level after the other, K anchors a cell (in `propose`: candidates), S
sampled anchors, P proposals an image (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detectors.anchors import AnchorGrid, centred_inside, wholly_inside
from detectors.boxes import MIN_SIDE_PX, clip, decode, in_float32, take, usable
from detectors.losses import AnchorSamples, GlobalCounts, anchor_losses, sample_anchors
from detectors.matching import Matcher
from detectors.nms import nms_batch
from detectors.sampling import Sampler
from detectors.structures import Detections, ImageBatch, Targets

RPN_STREAM = 1  # keeps the RPN's random draws apart from the box head's


@dataclass(frozen=True)
class RPNOutput:
    """anchors_A4; objectness_NA: logits; deltas_NA4; all float32. level_sizes: how many anchors are each level's."""

    anchors_A4: Tensor
    objectness_NA: Tensor
    deltas_NA4: Tensor
    level_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Proposals:
    """boxes_NP4: float32, within their image, best first; valid_NP: bool, False for padding (boxes of
    zeros)."""

    boxes_NP4: Tensor
    valid_NP: Tensor


@dataclass(frozen=True, kw_only=True)
class ProposalLimits:
    """Most boxes of each level of an image before non-maximum suppression, and of all levels after it."""

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
        """objectness_NA and deltas_NA4, in the order of the anchors and in float32: bf16 would leave an image's best
        2,000 logits some 600 different values, and the place in the list would choose among equals."""
        hidden_NCHW = self.conv(features_NCHW).relu_()
        with in_float32(hidden_NCHW.device):
            hidden_NCHW = hidden_NCHW.float()
            objectness_NHWK = self.objectness(hidden_NCHW).permute(0, 2, 3, 1)
            deltas_NHWK4 = self.deltas(hidden_NCHW).permute(0, 2, 3, 1)
        return objectness_NHWK.flatten(1), deltas_NHWK4.reshape(features_NCHW.shape[0], -1, 4)


class RPN(nn.Module):
    """Head, anchors, what it learns from, and what it proposes.

    anchors: one grid a level, all with as many anchors a cell. Those centred on the padding beyond an image are left
    out of everything; with `on_padding` they take part, as easy negatives, as in detectron2 and torchvision. Anchors
    that cross the border of the image are learnt from, as in those two; with `cross_border=False` they are not, as in
    the paper. beta: of the smooth L1 loss, the paper's is 1/9.
    """

    def __init__(
        self,
        head: RPNHead,
        anchors: Sequence[AnchorGrid],
        *,
        train_limits: ProposalLimits,
        test_limits: ProposalLimits,
        samples: int = 256,
        cross_border: bool = True,
        on_padding: bool = False,
        beta: float = 0.0,
        nms_iou: float = 0.7,
    ) -> None:
        super().__init__()
        found = head.objectness.out_channels
        for grid in anchors:
            if found != grid.per_cell:
                raise ValueError(f"The RPN head has {found} anchors a cell, but the grid {grid.per_cell}.")
        self.head = head
        self.anchors = tuple(anchors)
        self.train_limits = train_limits
        self.test_limits = test_limits
        self.matcher = Matcher(positive=0.7, negative=0.3, best_for_truth=True)  # Faster R-CNN, §3.1.2
        self.sampler = Sampler(count=samples, positive_fraction=0.5, stream=RPN_STREAM)  # §3.1.3
        self.cross_border = cross_border
        self.on_padding = on_padding
        self.beta = beta
        self.nms_iou = nms_iou

    def forward(self, maps: Sequence[Tensor]) -> RPNOutput:
        """The head on every level: maps NCHW, one for each grid of anchors."""
        grids_A4 = [grid(x.shape[-2], x.shape[-1], x.device) for grid, x in zip(self.anchors, maps, strict=True)]
        outputs = [self.head(x) for x in maps]
        objectness_NA, deltas_NA4 = (torch.cat(parts, dim=1) if len(maps) > 1 else parts[0] for parts in zip(*outputs))
        level_sizes = tuple(len(grid_A4) for grid_A4 in grids_A4)
        anchors_A4 = torch.cat(grids_A4) if len(maps) > 1 else grids_A4[0]
        return RPNOutput(anchors_A4, objectness_NA, deltas_NA4, level_sizes)

    def sample(self, output: RPNOutput, images: ImageBatch, targets: Targets) -> AnchorSamples:
        """Draw the anchors to learn from, a fixed number an image."""
        eligible_NA = self.eligible(output.anchors_A4, images)
        if not self.cross_border:
            eligible_NA = eligible_NA & wholly_inside(output.anchors_A4, images.sizes_hw_N2)
        return sample_anchors(output.anchors_A4, eligible_NA, targets, matcher=self.matcher, sampler=self.sampler)

    def losses(self, output: RPNOutput, samples: AnchorSamples, count: Tensor | None = None) -> dict[str, Tensor]:
        """Return `loss_rpn_cls` and `loss_rpn_box`, see `anchor_losses`. count: default all valid samples'."""
        count = GlobalCounts(samples.valid_NS)[0] if count is None else count
        class_loss, box_loss = anchor_losses(
            output.objectness_NA, output.deltas_NA4, samples, count=count, beta=self.beta
        )
        return {"loss_rpn_cls": class_loss, "loss_rpn_box": box_loss}

    @torch.no_grad()
    def propose(self, output: RPNOutput, images: ImageBatch, limits: ProposalLimits) -> Proposals:
        """The best boxes of every image after non-maximum suppression; no gradient flows through them."""
        boxes_NK4, _, index_NP, valid_NP = self._suppress(output, images, limits)
        return Proposals(take(boxes_NK4, index_NP) * valid_NP.unsqueeze(-1), valid_NP)

    @torch.no_grad()
    def detect(self, output: RPNOutput, images: ImageBatch, limits: ProposalLimits) -> Detections:
        """Return the proposals as detections of a single class, 1: "object". Their score is the objectness."""
        boxes_NK4, scores_NK, index_NP, valid_NP = self._suppress(output, images, limits)
        return Detections(
            boxes_ND4=take(boxes_NK4, index_NP) * valid_NP.unsqueeze(-1),
            scores_ND=take(scores_NK, index_NP).sigmoid() * valid_NP,
            labels_ND=valid_NP.long(),
            valid_ND=valid_NP,
        )

    def _suppress(
        self, output: RPNOutput, images: ImageBatch, limits: ProposalLimits
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The candidates' boxes and logits; which of them are proposed, best first, and which places are filled."""
        anchors_A4 = output.anchors_A4
        scores_NA = output.objectness_NA.masked_fill(~self.eligible(anchors_A4, images), float("-inf"))
        scores_NK, index_NK, candidates = _best_of_levels(scores_NA, output.level_sizes, limits.before_nms)
        deltas_NK4 = take(output.deltas_NA4, index_NK)
        boxes_NK4 = clip(decode(deltas_NK4, anchors_A4[index_NK]), images.sizes_hw_N2)
        usable_NK = usable(boxes_NK4, MIN_SIDE_PX) & scores_NK.isfinite()
        boxes_NK4 = boxes_NK4.where(usable_NK.unsqueeze(-1), 0)
        scores_NK = scores_NK.masked_fill(~usable_NK, float("-inf"))
        level_NK = _level_numbers(candidates, scores_NK)  # boxes of different levels never suppress each other
        return boxes_NK4, scores_NK, *nms_batch(boxes_NK4, scores_NK, self.nms_iou, limits.after_nms, level_NK)

    def eligible(self, anchors_A4: Tensor, images: ImageBatch) -> Tensor:
        """Return which anchors take part at all, NA bool."""
        if self.on_padding:
            return anchors_A4.new_ones((images.sizes_hw_N2.shape[0], len(anchors_A4)), dtype=torch.bool)
        return centred_inside(anchors_A4, images.sizes_hw_N2)


def _best_of_levels(scores_NA: Tensor, level_sizes: Sequence[int], most: int) -> tuple[Tensor, Tensor, list[int]]:
    """The `most` best anchors of each level: scores NK and places NK among A; and how many of K are each level's."""
    scores, places, first = [], [], 0
    for level_NA in scores_NA.split(list(level_sizes), dim=1):
        best = level_NA.topk(min(most, level_NA.shape[1]))
        scores.append(best.values)
        places.append(best.indices + first)
        first += level_NA.shape[1]
    return torch.cat(scores, dim=1), torch.cat(places, dim=1), [part.shape[1] for part in places]


def _level_numbers(candidates: Sequence[int], like_NK: Tensor) -> Tensor | None:
    """Return the level of each candidate, NK int64; None where there is one level."""
    if len(candidates) == 1:
        return None
    levels = [like_NK.new_full((count,), level, dtype=torch.int64) for level, count in enumerate(candidates)]
    return torch.cat(levels).expand(like_NK.shape[0], -1)
