"""IoU of boxes against pycocotools, to the last bit."""

from __future__ import annotations

import numpy as np
from pycocotools import mask

from vertebra.ground.boxes import corners_to_sizes, iou


def test_iou_is_that_of_pycocotools_with_crowds_and_empty_boxes():
    random = np.random.default_rng(0)
    first_D4, second_G4 = (random.uniform(0, 60, (count, 4)) for count in (80, 50))
    first_D4[:10, 2:] *= random.integers(0, 2, (10, 2))
    second_G4[:10, 2:] *= random.integers(0, 2, (10, 2))
    first_D4[10:20] = second_G4[10:20]
    crowd_G = random.random(50) < 0.3
    expected_DG = mask.iou(first_D4, second_G4, crowd_G.astype(np.uint8))
    assert np.array_equal(iou(first_D4[:, None], second_G4, crowd_G), expected_DG)
    assert (expected_DG == 0).any() and (expected_DG == 1).any()


def test_corners_become_sizes():
    assert corners_to_sizes(np.array([[1.0, 2.0, 4.0, 6.0]])).tolist() == [[1.0, 2.0, 3.0, 4.0]]
