"""RoIAlign on a pyramid against torchvision's kernel, level by level, and its multi-scale form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision import ops

from detectors.pooling import with_image_index
from detectors.pyramid_pooling import PyramidRoIAlign, level_of

STRIDES = (4, 8, 16, 32)
HEIGHT, WIDTH = 256, 352


def pyramid() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(HEIGHT // stride, WIDTH // stride) for stride in (*STRIDES, 64)]
    return [torch.randn(2, 8, *size, generator=generator).requires_grad_() for size in sizes]


def boxes_of_all_sizes() -> Tensor:
    """Within the image, from a pixel to all of it; also of no size at all, and exactly between two levels."""
    generator = torch.Generator().manual_seed(1)
    limit = torch.tensor([WIDTH, HEIGHT])
    centre = torch.rand(2, 100, 2, generator=generator) * limit
    half = torch.exp(torch.rand(2, 100, 2, generator=generator) * 6 - 1) / 2
    boxes = torch.cat([(centre - half).clamp(min=0), (centre + half).minimum(limit)], dim=-1)
    boxes[0, 0] = 0
    boxes[0, 1] = torch.tensor([0.0, 0, WIDTH, HEIGHT])
    boxes[1, 0] = torch.tensor([0.0, 0, 112, 112])
    return boxes


def by_kernel(maps: list[Tensor], boxes: Tensor, aligned: bool, samples: int = 2) -> Tensor:
    """Each level's regions by torchvision's kernel."""
    rois, level = with_image_index(boxes), level_of(boxes, STRIDES).flatten()
    pooled = torch.zeros(len(rois), maps[0].shape[1], 7, 7)
    for index, stride in enumerate(STRIDES):
        chosen = (level == index).nonzero().flatten()
        part = ops.roi_align(maps[index], rois[chosen], 7, 1 / stride, samples, aligned)
        pooled = pooled.index_copy(0, chosen, part)
    return pooled


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("way", "samples"), [("_from_table", 2), ("_on_canvas", 2), ("_on_canvas", 0)])
def test_regions_and_gradients_equal_the_kernels_on_each_level(way: str, samples: int, aligned: bool) -> None:
    maps, boxes = pyramid(), boxes_of_all_sizes()
    if not aligned and way == "_on_canvas":
        # Regions grown to a cell at the border: their samples outside count 0 in the kernel, here there is a border.
        boxes = boxes.where((boxes[..., 2:] - boxes[..., :2] > 64).all(-1, keepdim=True), torch.zeros(4))
    pool = PyramidRoIAlign(7, STRIDES, samples=samples, aligned=aligned)
    found = getattr(pool, way)(maps[:4], boxes, level_of(boxes, STRIDES))
    expected = by_kernel(maps, boxes, aligned, samples)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    for a, b in zip(torch.autograd.grad(found, maps[:4], weights), torch.autograd.grad(expected, maps[:4], weights)):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_levels_are_torchvisions() -> None:
    maps, boxes = pyramid(), boxes_of_all_sizes()
    reference = ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    expected = reference({str(i): x for i, x in enumerate(maps[:4])}, list(boxes), [(HEIGHT, WIDTH)] * 2)
    found = PyramidRoIAlign(7, STRIDES, aligned=False)(maps, boxes)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_region_of_224_px_is_read_at_stride_16_and_half_of_it_at_8() -> None:
    sides = torch.tensor([1.0, 55, 56, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack([torch.zeros(10), torch.zeros(10), sides, sides], dim=-1)[None]
    assert level_of(boxes, STRIDES).tolist() == [[0, 0, 0, 0, 1, 1, 2, 2, 3, 3]]


def test_bf16_maps_give_bf16_regions_near_those_of_float32() -> None:
    maps, boxes = pyramid(), boxes_of_all_sizes()
    pool = PyramidRoIAlign(7, STRIDES)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = pool([x.bfloat16() for x in maps], boxes)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), pool(maps, boxes), atol=0.05, rtol=0.05)


def test_bf16_gradients_of_many_regions_on_one_place_are_summed_in_float32() -> None:
    maps = [x.detach().bfloat16().requires_grad_() for x in pyramid()[:4]]
    exact = [x.detach().float().requires_grad_() for x in maps]
    generator = torch.Generator().manual_seed(3)
    centre = torch.tensor([100.0, 90]) + torch.randn(1, 500, 2, generator=generator)
    half = torch.rand(1, 500, 2, generator=generator) * 20 + 60
    boxes = torch.cat([centre - half, centre + half], dim=-1).expand(2, -1, -1)
    weights = torch.rand(1000, 8, 7, 7, generator=generator).bfloat16()
    pool = PyramidRoIAlign(7, STRIDES)
    found = torch.autograd.grad(pool(maps, boxes), maps, weights)
    expected = torch.autograd.grad(pool(exact, boxes), exact, weights.float())
    for a, b in zip(found, expected):
        assert (a.float() - b).norm() <= 0.005 * b.norm()
