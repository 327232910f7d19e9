"""The chain from disk to figure: a detector that is told the truth, over the real loader, scores 100."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from data import detection_loader, open_detection
from detectors.structures import Detections
from evaluation.coco import coco_figures
from evaluation.inference import predict_detections
from evaluation.voc import voc_figures


class Oracle(nn.Module):
    """Gives back the loader's own truth boxes, in pixels of the resized image; all with score 1."""

    def __init__(self, loader) -> None:
        super().__init__()
        self.waiting = iter(loader)

    def detect(self, images):
        _, targets = next(self.waiting).inputs
        scores_NG = torch.ones(targets.valid_NG.shape)
        return Detections(targets.boxes_NG4, scores_NG, targets.labels_NG, targets.valid_NG)


@pytest.mark.parametrize("source", ["voc2007/test", "coco/val2017"])
def test_truth_through_loader_and_back_scores_100(fixtures_dir: Path, source):
    dataset = open_detection(fixtures_dir.parent, source)

    def loader():
        return detection_loader(
            dataset,
            train=False,
            global_batch=4,
            shorter_sides=(100,),
            longer_side=200,
            canvases=(),
            flip=0.0,
            crowd="ignore",
            difficult="train",
            seed=0,
            workers=0,
            iterations=None,
            limit=24,
        )

    found = predict_detections(Oracle(loader()), loader(), dataset.category_ids)
    truth = dataset.coco_truth()
    seen = {image_id for batch in loader() for image_id in batch.image_ids}
    truth["images"] = [image for image in truth["images"] if image["id"] in seen]
    truth["annotations"] = [entry for entry in truth["annotations"] if entry["image_id"] in seen]
    assert len(seen) == 24 and len(found) > 24
    assert voc_figures(truth, found, iou=0.9, metric="voc10").mAP == pytest.approx(100)
    assert coco_figures(truth, found)["AP"] > 99
