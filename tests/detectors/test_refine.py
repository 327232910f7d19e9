"""Box refinement and voting, against the paper's text carried out box by box."""

from __future__ import annotations

import pytest
import torch

from detectors.postprocess import Candidates, PostProcess, RegionScores
from detectors.rpn import Proposals
from detectors.structures import Detections
from detectors.testtime import DetectorView, ImprovedDetector, regressed, vote
from tests.detectors.opinionated import CLASSES, Box, answer, iou, opinionated, pictures, suppressed

SCORE, NMS, VOTE, MOST = 0.2, 0.3, 0.5, 20


@pytest.mark.parametrize("refine", [False, True])
def test_detections_equal_the_papers_text_carried_out_box_by_box(refine: bool) -> None:
    detector, images = opinionated(), pictures()
    post = PostProcess(score_threshold=SCORE, nms_iou=NMS, detections=MOST)
    found = ImprovedDetector([detector], post, refine=refine).detect(images)
    proposals = DetectorView(detector, images).propose()
    assert proposals.valid_NP.all() and found.valid_ND.any(dim=1).all()
    moved_by_votes = 0
    for n in range(len(images)):
        predictions: list[tuple[list[float], list[Box]]] = []
        for box in proposals.boxes_NP4[n].tolist():
            first = answer(detector, images, n, box)
            predictions.append(first)
            if refine:
                best = max(range(CLASSES), key=lambda c: first[0][c + 1])
                predictions.append(answer(detector, images, n, first[1][best]))
        expected = []
        for c in range(CLASSES):
            of_class = [(p[c + 1], boxes[c]) for p, boxes in predictions if p[c + 1] > SCORE]
            for score, box in suppressed(of_class, NMS):
                if refine:
                    near = [(s, b) for s, b in of_class if iou(b, box) >= VOTE]
                    total = sum(s for s, _ in near)
                    voted = [sum(s * b[side] for s, b in near) / total for side in range(4)]
                    moved_by_votes += voted != box
                    box = voted
                expected.append((score, c + 1, box))
        expected = sorted(expected, reverse=True)[:MOST]
        count = int(found.valid_ND[n].sum())
        assert count == len(expected)
        assert found.labels_ND[n][:count].tolist() == [label for _, label, _ in expected]
        scores, boxes = (torch.tensor([one[place] for one in expected]) for place in (0, 2))
        torch.testing.assert_close(found.scores_ND[n][:count], scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.boxes_ND4[n][:count], boxes, rtol=1e-4, atol=1e-3)
    assert moved_by_votes > 5 or not refine


def test_a_proposal_without_a_usable_box_is_not_read_again() -> None:
    boxes = torch.tensor([[[5.0, 5, 5, 20], [float("nan"), 0, 9, 9], [1, 2, 8, 9], [1, 2, 8, 9]]]).unsqueeze(2)
    proposals = Proposals(torch.ones(1, 4, 4), torch.tensor([[True, True, True, False]]))
    again = regressed(proposals, RegionScores(torch.ones(1, 4, CLASSES + 1), boxes))
    assert again.valid_NP.tolist() == [[False, False, True, False]]
    assert again.boxes_NP4.tolist() == [[[0.0] * 4, [0.0] * 4, [1.0, 2, 8, 9], [0.0] * 4]]


def test_a_box_moves_to_the_mean_of_its_class_alone_and_of_what_overlaps_it_enough() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 40], [0, 0, 10, 11], [0, 0, 10, 10]]])
    scores = torch.tensor([[0.6, 0.3, 0.9, 0.9, float("-inf")]])
    candidates = Candidates(boxes, scores, torch.tensor([[1, 1, 1, 0, 1]]))
    valid = torch.tensor([[True, False]])
    padded = torch.cat([boxes[:, :1], torch.zeros(1, 1, 4)], dim=1)
    found = vote(Detections(padded, torch.tensor([[0.6, 0.0]]), torch.tensor([[2, 0]]), valid), candidates)
    torch.testing.assert_close(found.boxes_ND4, torch.tensor([[[0.0, 0, 10, (6 + 3.6) / 0.9], [0.0, 0, 0, 0]]]))
    assert found.scores_ND[0].tolist() == pytest.approx([0.6, 0.0])


def test_a_network_that_diverged_detects_nothing_and_pools_nothing_that_is_no_number() -> None:
    detector, images = opinionated(), pictures()
    torch.nn.init.constant_(detector.box_head.predictor.deltas.bias, float("nan"))
    found = ImprovedDetector([detector], PostProcess(), refine=True, mirror=True).detect(images)
    assert not found.valid_ND.any() and found.boxes_ND4.isfinite().all()
