"""Masks on a grid over a box, in the image's own size: against torch's grid_sample over the whole image, and RLE."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from vertebra.evaluation.metrics.masks import paste_to_rle, windows
from vertebra.ground.rle import to_json

SIZE_HW = (48, 64)
# Inside, up to every edge, beyond every edge, a pixel's width, between two pixels' centres, empty, inside out.
BOXES = [
    (10.3, 5.2, 40.9, 33.3),
    (0, 0, 64, 48),
    (-7.5, -3.1, 80.2, 60.6),
    (60.0, 40.0, 64.0, 48.0),
    (20.0, 0.0, 21.0, 48.0),
    (0.0, 47.0, 64.0, 48.0),
    (12.6, 7.0, 13.4, 20.0),
    (5.0, 5.0, 5.0, 9.0),
    (9.0, 9.0, 5.0, 5.0),
    (70.0, 10.0, 90.0, 20.0),
    (-20.0, -20.0, -4.0, -4.0),
    (4.5, 4.5, 4.5, 30.0),
    (-64.0, -48.0, 128.0, 96.0),
]


def sampled(probabilities_MM, box, size_hw):
    """The probability at each pixel's centre by grid_sample in float64; 0 in a box without an area."""
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return np.zeros(size_hw)
    height, width = size_hw
    y_H = ((torch.arange(height, dtype=torch.float64) + 0.5) - y0) / (y1 - y0) * 2 - 1
    x_W = ((torch.arange(width, dtype=torch.float64) + 0.5) - x0) / (x1 - x0) * 2 - 1
    grid_HW2 = torch.stack([x_W.expand(height, width), y_H[:, None].expand(height, width)], dim=2)
    values = F.grid_sample(torch.from_numpy(probabilities_MM).double()[None, None], grid_HW2[None], align_corners=False)
    return values[0, 0].numpy()


def paste(probabilities_MM, box, size_hw):
    """The object's mask, uint8 0/1, on the whole image."""
    mask_HW = np.zeros(size_hw, np.uint8)
    for top, left, bits_wh in windows(probabilities_MM[None], np.asarray(box)[None], size_hw):
        mask_HW[top : top + bits_wh.shape[1], left : left + bits_wh.shape[0]] = bits_wh.T
    return mask_HW


def agrees(probabilities_MM, box, size_hw):
    """Whether `paste` is the threshold of what grid_sample says; within rounding of 0.5 it may be either."""
    wanted_HW = sampled(probabilities_MM, box, size_hw)
    clear_HW = np.abs(wanted_HW - 0.5) > 1e-5
    return np.array_equal(paste(probabilities_MM, box, size_hw)[clear_HW] == 1, wanted_HW[clear_HW] >= 0.5)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("cells", [1, 7, 28])
def test_masks_are_what_grid_sample_says_over_the_whole_image(box, cells):
    random = np.random.default_rng(cells)
    for probabilities_MM in (random.random((cells, cells)), np.ones((cells, cells)), np.zeros((cells, cells))):
        assert agrees(probabilities_MM.astype(np.float32), box, SIZE_HW)


@settings(max_examples=60)
@given(st.lists(st.floats(-20, 90), min_size=4, max_size=4), st.integers(1, 28), st.integers(0, 2**32 - 1))
def test_masks_are_what_grid_sample_says_for_any_box(box, cells, seed):
    probabilities_MM = np.random.default_rng(seed).random((cells, cells)).astype(np.float32)
    assert agrees(probabilities_MM, box, SIZE_HW)


def test_a_sure_mask_by_hand():
    mask_HW = paste(np.ones((14, 14), np.float32), (2.4, 1.6, 5.5, 3.4), (6, 8))
    # Centres 2.5, 3.5, 4.5 and 5.5 (on the edge, where the probability is just 0.5) across; 2.5 down.
    assert np.argwhere(mask_HW).tolist() == [[2, 2], [2, 3], [2, 4], [2, 5]]


@pytest.mark.parametrize("cells", [2, 28])
def test_run_lengths_are_those_of_pycocotools_to_the_byte(cells):
    random = np.random.default_rng(0)
    boxes_D4 = np.array([*BOXES, *BOXES], np.float32)
    grids_DMM = np.concatenate([random.random((len(BOXES), cells, cells)), np.ones((len(BOXES), cells, cells))])
    grids_DMM = grids_DMM.astype(np.float32)
    runs = paste_to_rle(grids_DMM, boxes_D4, SIZE_HW)
    masks = [paste(grid_MM, box_4, SIZE_HW) for grid_MM, box_4 in zip(grids_DMM, boxes_D4)]
    assert list(runs) == [rle.encode(np.asfortranarray(mask_HW))["counts"] for mask_HW in masks]
    assert any(mask_HW.all() for mask_HW in masks) and any(not mask_HW.any() for mask_HW in masks)


def test_a_segmentation_goes_through_json_and_back():
    probabilities_MM = np.random.default_rng(1).random((28, 28)).astype(np.float32)
    box = (3.0, 4.0, 50.0, 47.5)
    (counts,) = paste_to_rle(probabilities_MM[None], np.array([box]), SIZE_HW)
    value = json.loads(json.dumps(to_json(counts, SIZE_HW)))
    assert value["size"] == [48, 64]
    assert np.array_equal(rle.decode(value), paste(probabilities_MM, box, SIZE_HW))


def test_no_detections_have_no_masks():
    assert paste_to_rle(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4)), SIZE_HW) == ()
