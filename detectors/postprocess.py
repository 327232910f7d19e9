"""From scores and deltas of all proposals to the few boxes that a detector reports.

Legend: N images, P proposals an image, C classes, K = C + 1 with background (0), Q box codes a proposal (C or
1), T candidates (proposal, class) an image, D detections an image (padded).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.boxes import Weights, clip, decode, take, usable
from detectors.nms import nms_by_class
from detectors.rpn import Proposals
from detectors.structures import Detections, ImageBatch


@dataclass(frozen=True)
class RegionScores:
    """Scored regions. probabilities_NPK: float32, of background and every class; boxes_NPQ4: where each
    class's object is, within the image."""

    probabilities_NPK: Tensor
    boxes_NPQ4: Tensor


@dataclass(frozen=True)
class Candidates:
    """The best pairs of proposal and class, before suppression. boxes_NT4, within the image; scores_NT: -inf where
    there is none; class_NT: 0..C-1."""

    boxes_NT4: Tensor
    scores_NT: Tensor
    class_NT: Tensor


@dataclass(frozen=True, kw_only=True)
class PostProcess:
    """Choice of what is reported.

    score_threshold: a detection scores more. nms_iou: no two of one class overlap by more. detections: an image.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    detections: int = 100

    @torch.no_grad()
    def __call__(
        self,
        proposals: Proposals,
        logits_NPK: Tensor,
        deltas_NPQ4: Tensor,
        images: ImageBatch,
        delta_weights: Weights,
    ) -> Detections:
        """Detections from the logits and deltas of one detector; only the candidates' boxes are decoded."""
        scores_NT, proposal_NT, class_NT = self._best(logits_NPK.float().softmax(dim=-1), proposals.valid_NP)
        deltas_NT4 = _of_candidates(deltas_NPQ4, proposal_NT, class_NT)
        boxes_NT4 = decode(deltas_NT4, take(proposals.boxes_NP4, proposal_NT), delta_weights)
        boxes_NT4 = clip(boxes_NT4, images.sizes_hw_N2)
        return self.suppress(_candidates(boxes_NT4, scores_NT, class_NT), images, logits_NPK.shape[2] - 1)

    @torch.no_grad()
    def select(self, scores: RegionScores, valid_NP: Tensor) -> Candidates:
        """The candidates among regions that have been scored, and their boxes decoded, already."""
        scores_NT, proposal_NT, class_NT = self._best(scores.probabilities_NPK, valid_NP)
        return _candidates(_of_candidates(scores.boxes_NPQ4, proposal_NT, class_NT), scores_NT, class_NT)

    def _best(self, probabilities_NPK: Tensor, valid_NP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score, proposal and class of each candidate: all that score enough, in a number that no data change.

        The probabilities of a region sum to 1, so that fewer than 1 / t of its classes score more than t.
        """
        probability_NPC = probabilities_NPK[..., 1:]
        regions, classes = probability_NPC.shape[1:]
        most = classes if self.score_threshold * classes <= 1 else max(1, int(1 / self.score_threshold))
        usable_NPC = (probability_NPC > self.score_threshold) & valid_NP.unsqueeze(-1)
        scores_NPC = probability_NPC.masked_fill(~usable_NPC, float("-inf")).flatten(1)
        best = scores_NPC.topk(regions * most)
        return best.values, best.indices // classes, best.indices % classes

    @torch.no_grad()
    def suppress(self, candidates: Candidates, images: ImageBatch, classes: int) -> Detections:
        """The best candidates of which no two of one class overlap too much."""
        boxes_NT4, scores_NT, class_NT = candidates.boxes_NT4, candidates.scores_NT, candidates.class_NT
        extent_px = max(images.pixels_N3HW.shape[-2:])
        index_ND, valid_ND = nms_by_class(
            *(boxes_NT4, scores_NT, class_NT),
            iou=self.nms_iou,
            count=self.detections,
            classes=classes,
            extent_px=extent_px,
        )
        return Detections(
            boxes_ND4=take(boxes_NT4, index_ND) * valid_ND.unsqueeze(-1),
            scores_ND=take(scores_NT, index_ND).where(valid_ND, 0),
            labels_ND=(take(class_NT, index_ND) + 1) * valid_ND,
            valid_ND=valid_ND,
        )


def _of_candidates(values_NPQ4: Tensor, proposal_NT: Tensor, class_NT: Tensor) -> Tensor:
    """The four numbers of each candidate's proposal that are its class's, or every class's, NT4."""
    codes = values_NPQ4.shape[2]
    return take(values_NPQ4.flatten(1, 2), proposal_NT * codes + (class_NT if codes > 1 else 0))


def _candidates(boxes_NT4: Tensor, scores_NT: Tensor, class_NT: Tensor) -> Candidates:
    """Candidates of which those whose box is empty or not finite are none."""
    usable_NT = usable(boxes_NT4)
    return Candidates(
        boxes_NT4.where(usable_NT.unsqueeze(-1), 0), scores_NT.masked_fill(~usable_NT, float("-inf")), class_NT
    )
