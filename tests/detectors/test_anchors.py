"""Anchors against torchvision's generator and cases worked by hand."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detectors.anchors import AnchorGrid, centred_inside, wholly_inside

CPU = torch.device("cpu")


def test_at_offset_zero_they_are_torchvisions_but_for_its_rounding() -> None:
    scales, ratios = (32, 64, 128), (0.5, 1.0, 2.0)
    generator = AnchorGenerator((scales,), (ratios,))
    images = ImageList(torch.zeros(1, 3, 80, 112), [(80, 112)])
    (expected,) = generator(images, [torch.zeros(1, 8, 5, 7)])
    anchors = AnchorGrid(scales=scales, ratios=ratios, stride=16, offset=0)(5, 7, CPU)
    assert anchors.shape == expected.shape == (5 * 7 * 9, 4)
    assert (anchors - expected).abs().max() <= 0.5
    square = torch.arange(len(anchors)) % 9 // 3 == 1
    torch.testing.assert_close(anchors[square], expected[square])


def test_the_first_cell_of_a_stride_16_map_is_centred_on_pixel_8() -> None:
    anchors = AnchorGrid(scales=(128,), ratios=(1.0, 4.0), stride=16)(2, 3, CPU)
    torch.testing.assert_close(anchors[0], torch.tensor([8.0 - 64, 8 - 64, 8 + 64, 8 + 64]))
    torch.testing.assert_close(anchors[1], torch.tensor([8.0 - 32, 8 - 128, 8 + 32, 8 + 128]))  # tall
    torch.testing.assert_close(anchors[2 * 4], anchors[0] + torch.tensor([16.0, 16, 16, 16]))  # row 1, column 1


def test_every_shape_keeps_the_area_of_its_scale() -> None:
    anchors = AnchorGrid(scales=(64, 128), ratios=(0.5, 1.0, 2.0))(1, 1, CPU)
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    torch.testing.assert_close((width * height).sqrt(), torch.tensor([64.0, 128.0]).repeat(3))
    torch.testing.assert_close(height / width, torch.tensor([0.5, 1.0, 2.0]).repeat_interleave(2))


def test_the_same_map_is_made_once_and_can_be_trained_on_after_inference() -> None:
    grid = AnchorGrid()
    with torch.inference_mode():
        first = grid(4, 4, CPU)
    assert grid(4, 4, CPU) is first
    assert not first.is_inference()


def test_anchors_on_the_padding_and_across_the_border_are_told_apart() -> None:
    anchors = AnchorGrid(scales=(16,), ratios=(1.0,), stride=16)(3, 3, CPU)  # exactly the cells
    sizes = torch.tensor([[48, 48], [20, 40]])
    centred, whole = centred_inside(anchors, sizes), wholly_inside(anchors, sizes)
    assert centred[0].all() and whole[0].all()
    # Second image: a row and a quarter, two columns and a half of cells.
    assert centred[1].tolist() == [True, True, False] + [False] * 6
    assert whole[1].tolist() == [True, True, False] + [False] * 6


def test_a_grid_without_anchors_is_refused() -> None:
    with pytest.raises(ValueError, match="positive scales"):
        AnchorGrid(scales=())
    with pytest.raises(ValueError, match="positive scales"):
        AnchorGrid(ratios=(0.0,))
