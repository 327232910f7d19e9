"""A trained detector, or several, tested with the improvements of He et al. 2015, appendix B, each a switch of its own.

Global context is none of them: it is learnt, so that the box head has it or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from detectors.ensemble import MeanView
from detectors.faster_rcnn import FasterRCNN
from detectors.mirror import MirroredView, mirror_images
from detectors.multi_scale import MultiScaleView
from detectors.postprocess import PostProcess
from detectors.refine import twice, vote
from detectors.structures import Detections, ImageBatch
from detectors.views import DetectorView, View


class ImprovedDetector(nn.Module):
    """Detects like the `detectors` that it is made of, which share classes and test input.

    region_px: None, or multi-scale testing, see `MultiScaleView`. mirror: what the detectors say of the image and of
    the mirrored image is averaged; proposals come from the image alone. refine: see `detectors.refine`. postprocess:
    what becomes of all that was scored; with `refine` the paper has nms_iou 0.3. Masks are made once, of the final
    boxes, by the first detector, from the unmirrored image at the batch's own size.
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
        """What is in the images, best first. Call `.eval()` first: this does not change the mode of norms."""
        view = self.view(images)
        proposals = view.propose()
        scores, valid_NP = view.score(proposals.boxes_NP4), proposals.valid_NP
        if self.refine:
            scores, valid_NP = twice(view, proposals, scores)
        candidates = self.postprocess.select(scores, valid_NP)
        detections = self.postprocess.suppress(candidates, images, self.classes)
        if self.refine:
            detections = vote(detections, candidates)
        return view.add_masks(detections)

    def view(self, images: ImageBatch) -> View:
        """The images as all detectors see them, mirrored and at several sizes if asked for."""
        straight = [self._view_of(detector, images) for detector in self.detectors]
        mirrored: list[View] = []
        if self.mirror:
            mirrored_images = mirror_images(images)
            mirrored = [
                MirroredView(self._view_of(detector, mirrored_images), images.sizes_hw_N2)
                for detector in self.detectors
            ]
        return straight[0] if len(straight) + len(mirrored) == 1 else MeanView([*straight, *mirrored], straight)

    def _view_of(self, detector: nn.Module, images: ImageBatch) -> View:
        assert isinstance(detector, FasterRCNN)
        if self.region_px is None:
            return DetectorView(detector, images)
        return MultiScaleView(detector, images, self.region_px)
