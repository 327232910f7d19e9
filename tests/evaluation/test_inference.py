"""Detections back in the pixels of the images on disk, and what happens around the model."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as rle
from torch import nn

from tests.evaluation.networks import CATEGORY_IDS, Fixed, Table, classification_batch, detection_batch
from vertebra.evaluation.predict.classes import predict_classes
from vertebra.evaluation.predict.detections import predict_detections
from vertebra.ground.errors import UserError


def batch(*image_ids, resized=(60, 80), original=(120, 200)):
    return detection_batch(image_ids, resized=resized, original=original)


def test_boxes_come_back_in_original_pixels_as_xywh():
    # Height 60 -> 120 (twice), width 80 -> 200 (2.5 times).
    found = predict_detections(Fixed((10, 20, 30, 50, 0.75, 2, 1)), [batch(5)], CATEGORY_IDS)
    assert found == [{"image_id": 5, "category_id": 7, "bbox": [25.0, 40.0, 50.0, 60.0], "score": 0.75}]


def test_boxes_are_clipped_to_the_image():
    found = predict_detections(Fixed((-10, -5, 90, 70, 0.5, 1, 1)), [batch(5)], CATEGORY_IDS)
    assert found[0]["bbox"] == [0, 0, 200, 120]


def test_padding_is_left_out_and_an_image_may_have_nothing():
    model = Fixed((0, 0, 9, 9, 0.9, 3, 1), (0, 0, 9, 9, 0.8, 0, 0))
    assert [row["category_id"] for row in predict_detections(model, [batch(5, 6)], CATEGORY_IDS)] == [90, 90]
    assert predict_detections(Fixed(), [batch(5, 6)], CATEGORY_IDS) == []
    assert predict_detections(Fixed(), [], CATEGORY_IDS) == []


@pytest.mark.parametrize("masks_DMM", [None, torch.rand(2, 14, 14, generator=torch.Generator().manual_seed(0))])
def test_the_json_made_image_by_image_is_that_of_all(masks_DMM):
    model = Fixed((10, 20, 30, 50.123, 0.7, 2, 1), (0, 0, 9, 9, 0.3, 1, 1), masks_DMM=masks_DMM)
    found = predict_detections(model, [batch(5, 6), batch(7)], CATEGORY_IDS)
    files = [io.BytesIO(), io.BytesIO(), io.BytesIO()]
    found.write(files[0])
    replace(found, parts=()).write(files[1])
    predict_detections(Fixed(), [batch(5, 6)], CATEGORY_IDS).write(files[2])
    assert len(found.parts) == 3 and files[0].getvalue() == files[1].getvalue()
    assert json.loads(files[0].getvalue()) == list(found) and len(found) == 6
    assert json.loads(files[2].getvalue()) == []


@pytest.mark.parametrize("row", [(0, 0, float("nan"), 9, 0.9, 1, 1), (0, 0, 9, 9, float("inf"), 1, 1)])
def test_numbers_that_are_not_finite_are_an_error_that_names_the_image(row):
    with pytest.raises(UserError, match="image id 5 is not finite; its weights have most likely diverged"):
        predict_detections(Fixed(row), [batch(5)], CATEGORY_IDS)


def test_masks_come_back_in_the_size_of_the_image_on_disk():
    masks_DMM = torch.rand(2, 14, 14, generator=torch.Generator().manual_seed(0))
    rows = [(10, 20, 30, 50, 0.75, 2, 1), (0, 0, 9, 9, 0.5, 1, 0)]
    (found,) = predict_detections(Fixed(*rows, masks_DMM=masks_DMM), [batch(5)], CATEGORY_IDS)
    json.dumps(found)
    # Height 60 -> 120 (twice), width 80 -> 200 (2.5 times): the box is 25 40 75 100.
    mask_HW = rle.decode(found["segmentation"])
    assert mask_HW.shape == (120, 200)
    # torch's bilinear resize has the same convention where it repeats the edge, and within half a cell of it differs.
    resized_hw = F.interpolate(masks_DMM[:1, None], (60, 50), mode="bilinear", align_corners=False)[0, 0]
    inner = (slice(3, 57), slice(2, 48))
    clear_hw = (resized_hw - 0.5).abs()[inner] > 1e-4
    assert torch.equal(
        torch.from_numpy(mask_HW[40:100, 25:75])[inner][clear_hw] == 1, resized_hw[inner][clear_hw] > 0.5
    )
    mask_HW[40:100, 25:75] = 0
    assert not mask_HW.any()


def test_an_image_without_detections_has_no_masks_either():
    model = Fixed((0, 0, 9, 9, 0.5, 1, 0), masks_DMM=torch.zeros(1, 14, 14))
    assert predict_detections(model, [batch(5)], CATEGORY_IDS) == []


def test_a_mask_that_is_not_finite_is_an_error():
    model = Fixed((0, 0, 9, 9, 0.5, 1, 1), masks_DMM=torch.full((1, 14, 14), float("nan")))
    with pytest.raises(UserError, match="image id 5 is not finite"):
        predict_detections(model, [batch(5)], CATEGORY_IDS)


def test_padding_may_hold_anything():
    assert predict_detections(Fixed((0, 0, float("nan"), 9, 0.9, 0, 0)), [batch(5)], CATEGORY_IDS) == []


def test_the_model_runs_in_evaluation_mode_and_gets_its_own_modes_back():
    model = Fixed((0, 0, 9, 9, 0.9, 1, 1))
    model.norm, model.head = nn.BatchNorm2d(3).eval(), nn.Dropout()
    predict_detections(model, [batch(5)], CATEGORY_IDS)
    assert (model.training, model.norm.training, model.head.training) == (True, False, True)


def test_autocast_and_times_are_called_once_a_batch():
    entered, times_s = [], []

    @contextlib.contextmanager
    def autocast():
        entered.append(True)
        yield

    predict_detections(Fixed(), [batch(1, 2), batch(3)], CATEGORY_IDS, autocast=autocast, times_s=times_s)
    assert (len(entered), len(times_s)) == (2, 2)
    assert all(time_s > 0 for time_s in times_s)


def test_a_missing_image_is_an_error():
    with pytest.raises(UserError, match="image id 9"):
        predict_detections(Fixed(), [batch(1)], CATEGORY_IDS, image_order=[1, 9])


def test_low_precision_logits_are_ranked_with_ties_to_the_lower_class():
    logits_IC = torch.tensor([[1.0, 3.0, 2.0], [2.0, 2.0, 2.0], [0.0, 1.0, 1.0]], dtype=torch.bfloat16)
    predicted = predict_classes(
        Table(logits_IC), [classification_batch((0, 1), (2, 2)), classification_batch((2,), (1,))]
    )
    assert predicted.image_ids_N.tolist() == [0, 1, 2]
    assert predicted.labels_N.tolist() == [2, 2, 1]
    assert predicted.best_NK[:, 0].tolist() == [1, 0, 1]
    assert predicted.rank_N.tolist() == [1, 2, 0]
    assert predicted.classes == 3


def test_class_scores_that_are_not_finite_are_an_error():
    with pytest.raises(UserError, match="image id 1 is not finite"):
        predict_classes(Table(torch.tensor([[0.0, 1.0], [0.0, float("nan")]])), [classification_batch((0, 1), (0, 0))])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_what_the_cpu_gives():
    class OnDevice(Fixed):
        def detect(self, images):
            self.rows_D7 = self.rows_D7.to(images.pixels_N3HW.device)
            return super().detect(images)

    row = (10, 20, 30, 50, 0.75, 2, 1)
    on_gpu = predict_detections(OnDevice(row), [batch(5, 6)], CATEGORY_IDS, device="cuda")
    assert on_gpu == predict_detections(Fixed(row), [batch(5, 6)], CATEGORY_IDS)
