"""Box refinement: every region is read again from its regressed box, and all predictions vote on where the kept boxes
end (He et al. 2015, appendix B; Gidaris & Komodakis 2015, §5).

Legend: N images, P regions an image, C classes, K = C + 1 with background (0), Q boxes a region (C, or 1), T
candidates, D detections an image.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detectors.boxes import box_iou
from detectors.postprocess import Candidates, RegionScores
from detectors.rpn import Proposals
from detectors.structures import Detections
from detectors.views import View

VOTE_IOU = 0.5  # Gidaris & Komodakis 2015, §5


def regressed(proposals: Proposals, scores: RegionScores) -> Proposals:
    """Each proposal's box after regression: that of its likeliest class, background aside, so that P proposals give P.

    Those whose box is empty or not finite are not valid.
    """
    boxes_NP4 = scores.boxes_NPQ4[:, :, 0]
    if scores.boxes_NPQ4.shape[2] > 1:
        class_NP11 = scores.probabilities_NPK[..., 1:].argmax(dim=2)[..., None, None]
        boxes_NP4 = scores.boxes_NPQ4.gather(2, class_NP11.expand(-1, -1, 1, 4)).squeeze(2)
    usable_NP = (boxes_NP4[..., 2:] > boxes_NP4[..., :2]).all(dim=-1) & boxes_NP4.isfinite().all(dim=-1)
    valid_NP = proposals.valid_NP & usable_NP
    return Proposals(boxes_NP4.where(valid_NP.unsqueeze(-1), 0), valid_NP)


def twice(view: View, proposals: Proposals, scores: RegionScores) -> tuple[RegionScores, Tensor]:
    """The scores of the proposals, and after them those of their regressed boxes; and which are valid, N x 2P."""
    again = regressed(proposals, scores)
    new = view.score(again.boxes_NP4)
    joined = RegionScores(
        torch.cat([scores.probabilities_NPK, new.probabilities_NPK], dim=1),
        torch.cat([scores.boxes_NPQ4, new.boxes_NPQ4], dim=1),
    )
    return joined, torch.cat([proposals.valid_NP, again.valid_NP], dim=1)


def vote(detections: Detections, candidates: Candidates, iou: float = VOTE_IOU) -> Detections:
    """The detections with each box the mean, weighted by score, of the candidates of its class that overlap it by `iou`
    or more; itself is one of them. Scores stay as they are."""
    weight_NT = candidates.scores_NT.clamp(min=0)  # -inf: no candidate
    same_class_NDT = detections.labels_ND.unsqueeze(2) == (candidates.class_NT + 1).unsqueeze(1)
    near_NDT = box_iou(detections.boxes_ND4, candidates.boxes_NT4) >= iou
    weight_NDT = weight_NT.unsqueeze(1) * (near_NDT & same_class_NDT)
    total_ND1 = weight_NDT.sum(dim=2, keepdim=True)
    mean_ND4 = (weight_NDT @ candidates.boxes_NT4) / total_ND1.clamp(min=torch.finfo(torch.float32).tiny)
    return replace(detections, boxes_ND4=mean_ND4.where(detections.valid_ND.unsqueeze(2), 0))
