"""Proposals in files, on all three bodies: what body and RPN give by hand, in pixels of the image on disk."""

from __future__ import annotations

import pytest
import torch

from detectors.faster_rcnn import Proposer
from tests.evaluation.networks import detection_batch
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import make_detector
from vertebra.evaluation.predict.detections import predict_detections
from vertebra.recipes.schema_detection import DetectionRecipe, Detector

PROPOSALS = (20, 12)


@pytest.mark.parametrize("body", ["c4", "dc5", "fpn"])
def test_proposals_are_those_of_body_and_rpn_in_original_pixels(body):
    torch.manual_seed(0)
    small = {"c4": {}, "dc5": {"head_width": 16}, "fpn": {"head_width": 16, "fpn_channels": 16}}[body]
    settings = Detector(body=body, proposals=PROPOSALS, proposals_before_nms=(60, 40), **small)
    recipe = DetectionRecipe(backbone="r18", width=0.25, model=settings)
    model = make_detector(recipe, make_detector_backbone(recipe), 3).eval()
    batch = detection_batch((5,), resized=(96, 128), original=(192, 384))  # twice as high, three times as wide
    images, _ = batch.inputs
    images.pixels_N3HW.copy_(torch.randint(0, 256, images.pixels_N3HW.shape))

    found = predict_detections(Proposer(model), [batch], None)

    with torch.no_grad():
        output = model.rpn(model.body(images.pixels_N3HW, images.sizes_hw_N2))
        proposals = model.rpn.propose(output, images, model.rpn.test_limits)
    boxes = proposals.boxes_NP4[0][proposals.valid_NP[0]] * torch.tensor([3.0, 2.0, 3.0, 2.0])
    boxes[:, 2:] -= boxes[:, :2]
    assert 1 < len(found) <= PROPOSALS[1]
    assert [entry["bbox"] for entry in found] == [pytest.approx(box, abs=2e-3) for box in boxes.tolist()]
    assert all(set(entry) == {"image_id", "bbox", "score"} and entry["image_id"] == 5 for entry in found)
    scores = [entry["score"] for entry in found]
    assert scores == sorted(scores, reverse=True) and 0 < scores[-1] < scores[0] < 1
