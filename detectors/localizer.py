"""Localisation of an image's object: a region proposal network in a per-class form (He et al. 2015, appendix C).

On the trunk's map stand a 3x3 convolution and two sibling 1x1 ones: for each of C classes a binary classifier of
every anchor, and a box regressor with reference to it. In training only those of the image's own class are computed
and learn; at test, only those of given classes (the truth's, or a classifier's best five). So a
thousand classes cost what one does.

Legend: N images, n those of one view and size, C classes, Q given classes, K anchors a cell, A anchors of
the map, S sampled anchors, G padded truths, M channels of the hidden map, D candidates an image and class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from detectors.anchors import AnchorGrid, centred_inside
from detectors.boxes import box_iou, clip, decode, in_float32, of_class, take
from detectors.losses import GlobalCounts, anchor_losses, sample_anchors
from detectors.matching import Matcher
from detectors.sampling import Sampler
from detectors.structures import ImageBatch, Targets

LOCALIZER_STREAM = 3  # keeps its random draws apart from other parts'
LOCATED = 0.5  # overlap with a truth from which on an object counts as located


class ViewGroup(Protocol):
    """Views of one size. rows_n: places of their images in the batch; pixels_n3HW: uint8 RGB; place_n4: x and y of a
    view's corner on disk, and how many pixels on disk one of its pixels spans in x and y."""

    @property
    def rows_n(self) -> Tensor: ...

    @property
    def pixels_n3HW(self) -> Tensor: ...

    @property
    def place_n4(self) -> Tensor | None: ...


class PlacedViews(Protocol):
    """groups: for each view, all images of the batch in groups of one size; sizes_hw_N2: of the images on disk."""

    @property
    def groups(self) -> Sequence[Sequence[ViewGroup]]: ...

    @property
    def sizes_hw_N2(self) -> Tensor | None: ...


class PerClassHead(nn.Module):
    """The 3x3 convolution, C binary classifiers and C box regressors of K anchors a cell.

    The siblings' output channels are ordered by class, then by anchor (then by x, y, width, height).
    """

    def __init__(
        self, in_channels: int, classes: int, anchors_per_cell: int, hidden_channels: int | None = None
    ) -> None:
        super().__init__()
        hidden = in_channels if hidden_channels is None else hidden_channels
        self.classes, self.anchors_per_cell = classes, anchors_per_cell
        self.conv = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        self.cls = nn.Conv2d(hidden, classes * anchors_per_cell, kernel_size=1)
        self.reg = nn.Conv2d(hidden, classes * anchors_per_cell * 4, kernel_size=1)
        for layer in (self.conv, self.cls, self.reg):
            nn.init.normal_(layer.weight, std=0.01)  # as the RPN's (Ren et al. 2015, §3.1.3)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features_NCHW: Tensor, classes_NQ: Tensor) -> tuple[Tensor, Tensor]:
        """logits_NQA and deltas_NQA4 of the given classes, each image's own, in the order of the anchors; float32, as
        the best of all anchors is one of many equals in bf16."""
        hidden_NPM = self.conv(features_NCHW).relu_().flatten(2).mT
        with in_float32(hidden_NPM.device):
            hidden_NPM = hidden_NPM.float()
            logits_NQPK = self._of_classes(self.cls, hidden_NPM, classes_NQ)
            deltas_NQPJ = self._of_classes(self.reg, hidden_NPM, classes_NQ)
        return logits_NQPK.flatten(2), deltas_NQPJ.unflatten(3, (-1, 4)).flatten(2, 3)

    def _of_classes(self, sibling: nn.Conv2d, hidden_NPM: Tensor, classes_NQ: Tensor) -> Tensor:
        """outputs_NQPJ of a 1x1 convolution's channels of those classes: J a class, at P places."""
        (images, asked), bias = classes_NQ.shape, sibling.bias
        assert bias is not None
        weight_NRM = sibling.weight.reshape(self.classes, -1, sibling.in_channels)[classes_NQ].flatten(1, 2)
        bias_NR = bias.view(self.classes, -1)[classes_NQ].flatten(1)
        outputs_NPR = hidden_NPM @ weight_NRM.mT + bias_NR[:, None]
        return outputs_NPR.view(images, -1, asked, bias_NR.shape[1] // asked).transpose(1, 2)


class Localizer(nn.Module):
    """trunk: (pixels N3HW, sizes N2) -> features NCHW; its parameters are the backbone's own, under their uncut names.

    samples: anchors an image that are learnt from, half of them positive (the paper: 8, 1:1; what positives lack is
    made up by negatives, as in the RPN). candidates, vote_iou: see `locate`. beta: of the smooth L1 loss.
    """

    def __init__(
        self,
        *,
        trunk: nn.Module,
        head: PerClassHead,
        anchors: AnchorGrid,
        matcher: Matcher | None = None,
        samples: int = 8,
        positive_fraction: float = 0.5,
        beta: float = 1 / 9,
        candidates: int = 1,
        vote_iou: float = 0.5,
    ) -> None:
        super().__init__()
        if head.anchors_per_cell != anchors.per_cell:
            raise ValueError(
                f"The localizer's head has {head.anchors_per_cell} anchors a cell, but the grid {anchors.per_cell}."
            )
        self.trunk, self.head, self.anchors = trunk, head, anchors
        self.matcher = matcher or Matcher(positive=0.7, negative=0.3, best_for_truth=True)
        self.sampler = Sampler(count=samples, positive_fraction=positive_fraction, stream=LOCALIZER_STREAM)
        self.beta, self.candidates, self.vote_iou = beta, candidates, vote_iou

    def forward(self, images: ImageBatch, targets: Targets, classes_N: Tensor) -> dict[str, Tensor]:
        """Both losses, over the sampled anchors of the whole batch, and, for the log, `located`: per cent of the images
        whose best box overlaps a truth by half. classes_N: of the images, 0..C-1; all truths count as of that class."""
        features_NCHW = self.trunk(images.pixels_N3HW, images.sizes_hw_N2)
        logits_N1A, deltas_N1A4 = self.head(features_NCHW, classes_N[:, None])
        logits_NA, deltas_NA4 = logits_N1A[:, 0], deltas_N1A4[:, 0]
        rows, columns = features_NCHW.shape[-2:]
        anchors_A4 = self.anchors(rows, columns, features_NCHW.device)
        eligible_NA = centred_inside(anchors_A4, images.sizes_hw_N2)
        samples = sample_anchors(anchors_A4, eligible_NA, targets, matcher=self.matcher, sampler=self.sampler)
        count = GlobalCounts(samples.valid_NS)[0]
        class_loss, box_loss = anchor_losses(logits_NA, deltas_NA4, samples, count=count, beta=self.beta)
        located = self._located(logits_NA, deltas_NA4, anchors_A4, images, targets)
        return {"loss_loc_cls": class_loss, "loss_loc_box": box_loss, "located": located}

    @torch.no_grad()
    def _located(
        self, logits_NA: Tensor, deltas_NA4: Tensor, anchors_A4: Tensor, images: ImageBatch, targets: Targets
    ) -> Tensor:
        best_N1 = logits_NA.argmax(dim=1, keepdim=True)
        boxes_N14 = clip(decode(take(deltas_NA4, best_N1), anchors_A4[best_N1]), images.sizes_hw_N2)
        iou_NG = box_iou(targets.boxes_NG4, boxes_N14)[..., 0].masked_fill(~targets.valid_NG, 0)
        return 100.0 * (iou_NG.amax(dim=1) >= LOCATED).float().mean()

    @torch.no_grad()
    def locate(self, views: PlacedViews, classes_NQ: Tensor) -> tuple[Tensor, Tensor]:
        """One box for each given class of each image, boxes_NQ4 in pixels of the images on disk and within them,
        and its probability scores_NQ. Call `.eval()` first.

        views: with their places. The box is the one of the highest score over all anchors and views; with more than one
        candidate a view, the mean, by score, of those candidates that overlap it by `vote_iou`.
        """
        assert views.sizes_hw_N2 is not None
        shape = (*classes_NQ.shape, len(views.groups), self.candidates)
        boxes_NQVD4 = torch.zeros(*shape, 4, device=classes_NQ.device)
        scores_NQVD = torch.zeros(shape, device=classes_NQ.device)
        for number, groups in enumerate(views.groups):
            for group in groups:
                assert group.place_n4 is not None
                boxes_nQD4, scores_nQD = self.best_boxes(group.pixels_n3HW, classes_NQ[group.rows_n])
                corner_n114, span_n114 = (part.repeat(1, 2)[:, None, None] for part in group.place_n4.split(2, dim=1))
                found = boxes_nQD4.shape[2]
                boxes_NQVD4[group.rows_n, :, number, :found] = boxes_nQD4 * span_n114 + corner_n114
                scores_NQVD[group.rows_n, :, number, :found] = scores_nQD
        boxes_NT4 = clip(boxes_NQVD4.flatten(1, 3), views.sizes_hw_N2)
        boxes_NQD4 = boxes_NT4.unflatten(1, (classes_NQ.shape[1], -1))
        return elect(boxes_NQD4, scores_NQVD.flatten(2), self.vote_iou)

    def best_boxes(self, pixels_n3HW: Tensor, classes_nQ: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates with the highest scores, boxes_nQD4 in pixels of the view and scores_nQD, best first."""
        height, width = pixels_n3HW.shape[-2:]
        sizes_hw_n2 = torch.tensor([[height, width]], device=pixels_n3HW.device).expand(len(pixels_n3HW), 2)
        features_nCHW = self.trunk(pixels_n3HW, sizes_hw_n2)
        logits_nQA, deltas_nQA4 = self.head(features_nCHW, classes_nQ)
        rows, columns = features_nCHW.shape[-2:]
        anchors_A4 = self.anchors(rows, columns, features_nCHW.device)
        inside_n1A = centred_inside(anchors_A4, sizes_hw_n2)[:, None]
        best = logits_nQA.masked_fill(~inside_n1A, float("-inf")).topk(min(self.candidates, len(anchors_A4)))
        deltas_nQD4 = deltas_nQA4.gather(2, best.indices[..., None].expand(*best.indices.shape, 4))
        boxes_nQD4 = decode(deltas_nQD4, anchors_A4[best.indices])
        return boxes_nQD4, best.values.sigmoid()


def elect(boxes_NQD4: Tensor, scores_NQD: Tensor, vote_iou: float) -> tuple[Tensor, Tensor]:
    """Return the candidate of D with the highest score, moved to the mean, by score, of those that overlap it by
    `vote_iou` or more (box voting: Gidaris & Komodakis 2015); its own score stays."""
    scores_NQ, best_NQ = scores_NQD.max(dim=2)
    chosen_NQ4 = of_class(boxes_NQD4, best_NQ)
    if boxes_NQD4.shape[2] == 1:
        return chosen_NQ4, scores_NQ
    votes_NQD = scores_NQD * (box_iou(chosen_NQ4.unsqueeze(2), boxes_NQD4)[:, :, 0] >= vote_iou)
    votes_NQD.scatter_add_(2, best_NQ[..., None], torch.full_like(scores_NQ[..., None], 1e-12))  # where all are 0
    mean_NQ4 = (boxes_NQD4 * votes_NQD[..., None]).sum(dim=2) / votes_NQD.sum(dim=2, keepdim=True)
    return mean_NQ4, scores_NQ
