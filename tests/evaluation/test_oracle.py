"""The chain from disk to figure: a detector that is given the truth, over the real loader, scores 100."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import roi_align

from detectors.structures import Detections
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.loading.detection import detection_test_loader
from vertebra.data.loading.sampling import Share
from vertebra.data.transforms.canvases import FixedView
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.voc import voc_figures
from vertebra.evaluation.predict.detections import predict_detections


class Oracle(nn.Module):
    """Gives back the loader's own truth boxes, in pixels of the resized image; all with score 1."""

    def __init__(self, loader) -> None:
        super().__init__()
        self.waiting = iter(loader)

    def detect(self, images):
        _, targets = next(self.waiting).inputs
        scores_NG = torch.ones(targets.valid_NG.shape)
        return Detections(targets.boxes_NG4, scores_NG, targets.labels_NG, targets.valid_NG)


class MaskOracle(Oracle):
    """The same with the loader's own masks, averaged over the cells of a 56 x 56 grid on their box."""

    def detect(self, images):
        (images, targets), masks = (batch := next(self.waiting)).inputs, batch.inputs[1].masks
        found_NGMM = torch.zeros(*targets.valid_NG.shape, 56, 56)
        for k, (n, g) in enumerate(zip(masks.image_index_K.tolist(), masks.truth_index_K.tolist())):
            mask_HW = masks.whole(k, images.sizes_hw[n])
            box_14 = targets.boxes_NG4[n, g][None]
            found_NGMM[n, g] = roi_align(mask_HW[None, None].float(), [box_14], 56, aligned=True)[0, 0]
        scores_NG = torch.ones(targets.valid_NG.shape)
        return Detections(targets.boxes_NG4, scores_NG, targets.labels_NG, targets.valid_NG, found_NGMM)


def test_true_masks_through_a_grid_and_back_score_nearly_100(fixtures_dir: Path):
    dataset = open_detection(fixtures_dir.parent, "coco/val2017")
    dataset = dataset.subset([*range(0, len(dataset), 20)])

    def loader():
        return detection_test_loader(dataset, FixedView(800, 1400), Share(batch=2), masks=True)

    found = predict_detections(MaskOracle(loader()), loader(), dataset.category_ids)
    assert len(found) > 24
    figures = coco_figures(dataset.coco_truth(), found, iou_type="segm")
    assert figures["AP"] > 98  # a quarter of a pixel's shift would cost ten points


@pytest.mark.parametrize("source", ["voc2007/test", "coco/val2017"])
def test_truth_through_loader_and_back_scores_100(fixtures_dir: Path, source):
    dataset = open_detection(fixtures_dir.parent, source)

    def loader():
        return detection_test_loader(dataset, FixedView(100, 200), Share(batch=4, limit=24))

    found = predict_detections(Oracle(loader()), loader(), dataset.category_ids)
    truth = dataset.coco_truth()
    seen = {image_id for batch in loader() for image_id in batch.image_ids}
    truth["images"] = [image for image in truth["images"] if image["id"] in seen]
    truth["annotations"] = [entry for entry in truth["annotations"] if entry["image_id"] in seen]
    assert len(seen) == 24 and len(found) > 24
    assert voc_figures(truth, found, iou=0.9, metric="voc10").mAP == pytest.approx(100)
    assert coco_figures(truth, found)["AP"] > 99
