"""Test-time improvements of He et al. 2015, appendix B, each a switch of its own: box refinement and voting, several
sizes, mirrored images, ensembles.

A view is a batch of images as a detector sees it: it proposes regions and scores any that it is asked about. Several
sizes, mirrored images and other detectors are further views, or a view made of views, so that all of them combine.
Global context is no such switch: it is learnt, so that a box head has it or not.

Legend: N images, H W canvas, S sizes, P regions an image, X any boxes of an image, C classes, K = C + 1 with background
(0), Q boxes a region (C, or 1), M = N * P, T candidates, D detections an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from backbones.structures import mirror
from detectors.boxes import box_area, box_iou, clip, decode, of_class, usable
from detectors.faster_rcnn import FasterRCNN
from detectors.postprocess import Candidates, PostProcess, RegionScores
from detectors.rpn import Proposals
from detectors.structures import Detections, ImageBatch

# Of each image: so that an ensemble with the proposals of several RPNs needs no more memory than a detector alone.
REGIONS_AT_A_TIME = 1024
VOTE_IOU = 0.5  # Gidaris & Komodakis 2015, §5

RegionMaps = Callable[[Tensor], Tensor]  # boxes NP4 -> the maps MCHW that the head makes of them


class View(Protocol):
    """Boxes are in pixels of the batch's images, as they are given to the detector."""

    def propose(self) -> Proposals:
        """Return where objects may be."""

    def score(self, boxes_NP4: Tensor) -> RegionScores:
        """Return the classes of regions, and for every class where the object's box ends."""

    def add_masks(self, detections: Detections) -> Detections:
        """Return the detections with their masks, if the detector makes any."""


class DetectorView:
    """Images as one detector sees them at their own size. region_maps: None, or what reads regions instead of the
    detector's own way on these images' maps."""

    def __init__(self, detector: FasterRCNN, images: ImageBatch, region_maps: RegionMaps | None = None) -> None:
        self.detector, self.images = detector, images
        self.maps = detector.body(images.pixels_N3HW, images.sizes_hw_N2)
        self.region_maps = region_maps or partial(detector.box_head.region_maps, self.maps)

    def propose(self) -> Proposals:
        rpn = self.detector.rpn
        return rpn.propose(rpn(self.maps), self.images, rpn.test_limits)

    def score(self, boxes_NP4: Tensor) -> RegionScores:
        return join([self._score(part_NR4) for part_NR4 in boxes_NP4.split(REGIONS_AT_A_TIME, dim=1)])

    def _score(self, boxes_NP4: Tensor) -> RegionScores:
        head, sizes_hw_N2 = self.detector.box_head, self.images.sizes_hw_N2
        output = head.read(self.region_maps(head.to_read(boxes_NP4, sizes_hw_N2)), len(boxes_NP4))
        boxes_NPQ4 = decode(output.deltas_NRQ4, boxes_NP4.unsqueeze(2), head.delta_weights)
        boxes_NX4 = clip(boxes_NPQ4.flatten(1, 2), sizes_hw_N2)
        return RegionScores(output.logits_NRK.float().softmax(dim=-1), boxes_NX4.view_as(boxes_NPQ4))

    def add_masks(self, detections: Detections) -> Detections:
        return self.detector.add_masks(self.maps, detections)


class MultiScaleView(DetectorView):
    """Images as a detector sees them at the batch's own and all other sizes that it has. Each region is read at the two
    sizes at which it is nearest to what the network was trained to see (Ren et al. 2015, "Object detection networks on
    convolutional feature maps"); proposals come from the batch's size alone ("in the detector, not the RPN").

    region_px: root of the area at which a region is read best; 224, the side of ImageNet's training images, is the rule
    of SPP-net and its successors. The maxima over the two readings are taken of every pooled value, before the head.
    Each size is pooled for all regions, so that shapes are fixed: pooling is the small part of the work next to the
    head, which runs once a region. Raises ValueError where the batch has one size.
    """

    def __init__(self, detector: FasterRCNN, images: ImageBatch, region_px: float = 224.0) -> None:
        super().__init__(detector, images, lambda boxes_NP4: detector.box_head.head.maps(self._pool_two(boxes_NP4)))
        self.region_px = region_px
        scales = sorted((images, *images.other_scales), key=lambda scale: scale.sizes_hw[0][0] * scale.sizes_hw[0][1])
        if len(scales) < 2:
            raise ValueError("Multi-scale testing needs images at two sizes or more; the batch has one.")
        self.scales_maps = [
            self.maps if scale is images else detector.body(scale.pixels_N3HW, scale.sizes_hw_N2) for scale in scales
        ]
        sizes_hw_SN2 = torch.stack([scale.sizes_hw_N2 for scale in scales])
        self.factors_SN2 = (sizes_hw_SN2 / images.sizes_hw_N2).flip(2).float()  # of x and y; by size, ascending

    def _pool_two(self, boxes_NP4: Tensor) -> Tensor:
        first_NP = self._lower_size(boxes_NP4)
        merged: Tensor | None = None
        for place, (maps, factor_N2) in enumerate(zip(self.scales_maps, self.factors_SN2)):
            read_M = ((first_NP == place) | (first_NP + 1 == place)).flatten()
            pooled = self.detector.box_head.pool(maps, boxes_NP4 * factor_N2.repeat(1, 2).unsqueeze(1))
            pooled = pooled.masked_fill_(~read_M.view(-1, 1, 1, 1), float("-inf"))
            merged = pooled if merged is None else torch.maximum(merged, pooled)
        assert merged is not None
        return merged

    def _lower_size(self, boxes_NP4: Tensor) -> Tensor:
        """Return the first of the two neighbouring sizes between which a region's area is region_px² (or would come
        nearest to it), int64 NP."""
        area_SNP = self.factors_SN2.prod(dim=2).unsqueeze(2) * box_area(boxes_NP4)
        below_NP = (area_SNP <= self.region_px**2).sum(dim=0)
        return (below_NP - 1).clamp(0, len(self.factors_SN2) - 2)


class MirroredView:
    """Another view's answers about mirrored images, in pixels of the images as they were. view: of `mirror_images`."""

    def __init__(self, view: View, sizes_hw_N2: Tensor) -> None:
        self.view, self.sizes_hw_N2 = view, sizes_hw_N2

    def propose(self) -> Proposals:
        proposals = self.view.propose()
        return replace(proposals, boxes_NP4=mirror_boxes(proposals.boxes_NP4, self.sizes_hw_N2))

    def score(self, boxes_NP4: Tensor) -> RegionScores:
        scores = self.view.score(mirror_boxes(boxes_NP4, self.sizes_hw_N2))
        boxes_NX4 = mirror_boxes(scores.boxes_NPQ4.flatten(1, 2), self.sizes_hw_N2)
        return replace(scores, boxes_NPQ4=boxes_NX4.view_as(scores.boxes_NPQ4))

    def add_masks(self, detections: Detections) -> Detections:
        mirrored = replace(detections, boxes_ND4=mirror_boxes(detections.boxes_ND4, self.sizes_hw_N2))
        masks_NDMM = self.view.add_masks(mirrored).masks_NDMM
        return replace(detections, masks_NDMM=None if masks_NDMM is None else masks_NDMM.flip(3))


def mirror_images(images: ImageBatch) -> ImageBatch:
    """Every image mirrored left to right where it lies on the canvas, at all its sizes; the padding stays."""
    return replace(
        images,
        pixels_N3HW=mirror(images.pixels_N3HW, images.sizes_hw_N2),
        other_scales=tuple(mirror_images(other) for other in images.other_scales),
    )


def mirror_boxes(boxes_NX4: Tensor, sizes_hw_N2: Tensor) -> Tensor:
    """The boxes of the same things in the mirrored images."""
    width_N1 = sizes_hw_N2[:, 1:].to(boxes_NX4.dtype)
    x0_NX, y0_NX, x1_NX, y1_NX = boxes_NX4.unbind(-1)
    return torch.stack([width_N1 - x1_NX, y0_NX, width_N1 - x0_NX, y1_NX], dim=-1)


class MeanView:
    """The mean of several views: of their probabilities and of their boxes (in pixels).

    proposers: the views whose proposals are joined. Masks are the first view's.
    """

    def __init__(self, views: Sequence[View], proposers: Sequence[View]) -> None:
        self.views, self.proposers = tuple(views), tuple(proposers)

    def propose(self) -> Proposals:
        """Return the union; what two of them propose counts twice, until suppression."""
        each = [view.propose() for view in self.proposers]
        return Proposals(
            torch.cat([proposals.boxes_NP4 for proposals in each], dim=1),
            torch.cat([proposals.valid_NP for proposals in each], dim=1),
        )

    def score(self, boxes_NP4: Tensor) -> RegionScores:
        first, *others = (view.score(boxes_NP4) for view in self.views)
        probabilities_NPK, boxes_NPQ4 = first.probabilities_NPK, first.boxes_NPQ4
        for scores in others:  # one box for all classes and one a class: the former stands for every class
            probabilities_NPK = probabilities_NPK + scores.probabilities_NPK
            boxes_NPQ4 = boxes_NPQ4 + scores.boxes_NPQ4
        return RegionScores(probabilities_NPK / len(self.views), boxes_NPQ4 / len(self.views))

    def add_masks(self, detections: Detections) -> Detections:
        return self.views[0].add_masks(detections)


def join(parts: Sequence[RegionScores]) -> RegionScores:
    """The scores of several groups of the same images' regions, one group after the other."""
    return RegionScores(
        torch.cat([part.probabilities_NPK for part in parts], dim=1),
        torch.cat([part.boxes_NPQ4 for part in parts], dim=1),
    )


def regressed(proposals: Proposals, scores: RegionScores) -> Proposals:
    """Each proposal's box after regression: that of its likeliest class, background aside, so that P proposals give P.

    Those whose box is empty or not finite are not valid.
    """
    boxes_NP4 = of_class(scores.boxes_NPQ4, scores.probabilities_NPK[..., 1:].argmax(dim=2))
    valid_NP = proposals.valid_NP & usable(boxes_NP4)
    return Proposals(boxes_NP4.where(valid_NP.unsqueeze(-1), 0), valid_NP)


def vote(detections: Detections, candidates: Candidates, iou: float = VOTE_IOU) -> Detections:
    """The detections with each box the mean, weighted by score, of the candidates of its class that overlap it by `iou`
    or more; itself is one of them (Gidaris & Komodakis 2015, §5). Scores stay as they are."""
    weight_NT = candidates.scores_NT.clamp(min=0)  # -inf: no candidate
    same_class_NDT = detections.labels_ND.unsqueeze(2) == (candidates.class_NT + 1).unsqueeze(1)
    near_NDT = box_iou(detections.boxes_ND4, candidates.boxes_NT4) >= iou
    weight_NDT = weight_NT.unsqueeze(1) * (near_NDT & same_class_NDT)
    total_ND1 = weight_NDT.sum(dim=2, keepdim=True)
    # No matrix product: autocast or TF32 would round coordinates, by up to 4 px at 1000.
    sums = [(weight_NDT * side_NT.unsqueeze(1)).sum(dim=2) for side_NT in candidates.boxes_NT4.unbind(2)]
    mean_ND4 = torch.stack(sums, dim=2) / total_ND1.clamp(min=torch.finfo(torch.float32).tiny)
    return replace(detections, boxes_ND4=mean_ND4.where(detections.valid_ND.unsqueeze(2), 0))


class ImprovedDetector(nn.Module):
    """Detects like the `detectors` that it is made of, which share classes and test input.

    region_px: None, or multi-scale testing, see `MultiScaleView`. mirror: the answers of the detectors for the image
    and for the mirrored image are averaged; proposals come from the image alone. refine: every region is read again
    from its regressed box, and all predictions vote on where the kept boxes end. postprocess: of all that was scored;
    with `refine` the paper has nms_iou 0.3. Masks are made once, of the final boxes, by the first detector, from the
    unmirrored image at the batch's own size. Raises ValueError for detectors of different numbers of classes.
    """

    def __init__(
        self,
        detectors: Sequence[FasterRCNN],
        postprocess: PostProcess,
        *,
        refine: bool = False,
        region_px: float | None = None,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        classes = {detector.box_head.predictor.classes for detector in detectors}
        if len(classes) != 1:
            raise ValueError(f"An ensemble's detectors need the same classes; these have {sorted(classes)} of them.")
        self.detectors = nn.ModuleList(detectors)
        self.classes = classes.pop()
        self.postprocess = postprocess
        self.refine, self.region_px, self.mirror = refine, region_px, mirror

    @torch.no_grad()
    def detect(self, images: ImageBatch) -> Detections:
        """Return what is in the images, best first. Call `.eval()` first: this does not change the mode of norms."""
        view = self.view(images)
        proposals = view.propose()
        scores, valid_NP = view.score(proposals.boxes_NP4), proposals.valid_NP
        if self.refine:
            again = regressed(proposals, scores)
            scores = join([scores, view.score(again.boxes_NP4)])
            valid_NP = torch.cat([valid_NP, again.valid_NP], dim=1)
        candidates = self.postprocess.select(scores, valid_NP)
        detections = self.postprocess.suppress(candidates, images, self.classes)
        if self.refine:
            detections = vote(detections, candidates)
        return view.add_masks(detections)

    def view(self, images: ImageBatch) -> View:
        """The images as all detectors see them, mirrored and at several sizes if asked for."""
        straight = self._views(images)
        mirrored: list[View] = []
        if self.mirror:
            mirrored = [MirroredView(view, images.sizes_hw_N2) for view in self._views(mirror_images(images))]
        return straight[0] if len(straight) + len(mirrored) == 1 else MeanView([*straight, *mirrored], straight)

    def _views(self, images: ImageBatch) -> list[View]:
        """One view for each detector."""
        views: list[View] = []
        for detector in self.detectors:
            assert isinstance(detector, FasterRCNN)
            if self.region_px is None:
                views.append(DetectorView(detector, images))
            else:
                views.append(MultiScaleView(detector, images, self.region_px))
        return views
