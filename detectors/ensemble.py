"""Ensembles: regions that any RPN proposes, scored and regressed by every detector, their answers averaged (He et al.
2015, appendix B).

Legend: N images, P regions an image, K classes with background (0), Q boxes a region (classes, or 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detectors.postprocess import RegionScores
from detectors.rpn import Proposals
from detectors.structures import Detections
from detectors.views import View


class MeanView:
    """The mean of several views: of their probabilities and of their boxes (in pixels).

    proposers: the views whose proposals are joined. Masks are the first view's.
    """

    def __init__(self, views: Sequence[View], proposers: Sequence[View]) -> None:
        self.views, self.proposers = tuple(views), tuple(proposers)

    def propose(self) -> Proposals:
        """The union; what two of them propose counts twice, which suppression mends."""
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
