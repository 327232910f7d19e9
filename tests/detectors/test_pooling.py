"""RoI pooling against torchvision's kernels, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torchvision import ops

from detectors import pooling
from detectors.pooling import RoIAlign, RoIPool, with_image_index
from tests.detectors.test_boxes import random_boxes


def some_features(stride: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """A map of 13 x 11 cells, and boxes within, across the border and of one pixel."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 13, 11, generator=generator).to(memory_format=torch.channels_last)
    boxes = random_boxes(2, 20, seed=1, canvas=11 * stride)
    boxes[:, 0] = torch.tensor([0.0, 0, 11 * stride, 13 * stride])
    boxes[:, 1] = torch.tensor([30.0, 30, 31, 31])
    boxes[:, 2] = torch.tensor([-40.0, -50, 60, 30])
    boxes[:, 3] = torch.tensor([11.0 * stride - 1, 13 * stride - 1, 11 * stride, 13 * stride])
    return features, boxes


def gradient(pooled: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    weight = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(3))
    return torch.autograd.grad((pooled * weight).sum(), features)[0]


@pytest.mark.parametrize("samples", [0, 1, 2])
@pytest.mark.parametrize("bins", [1, 7, 14])
def test_roi_align_equals_torchvisions_and_so_does_its_gradient(bins: int, samples: int) -> None:
    features, boxes = some_features()
    features.requires_grad_()
    pooled = RoIAlign(bins, 16, samples)([features], boxes)
    expected = ops.roi_align(features, with_image_index(boxes), bins, 1 / 16, samples, aligned=True)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient(pooled, features), gradient(expected, features), rtol=1e-4, atol=1e-4)
    assert bins == 1 or pooled.is_contiguous(memory_format=torch.channels_last)


def test_what_is_too_large_for_products_goes_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    features, boxes = some_features()
    by_products = RoIAlign(7, 16)([features], boxes)
    monkeypatch.setattr(pooling, "MOST_PARTIAL_VALUES", 0)
    by_kernel = RoIAlign(7, 16)([features], boxes)
    torch.testing.assert_close(by_products, by_kernel, rtol=1e-4, atol=1e-5)
    assert by_kernel.is_contiguous(memory_format=torch.channels_last)


def test_roi_align_in_bf16_is_off_by_no_more_than_bf16_rounds() -> None:
    features, boxes = some_features()
    exact = RoIAlign(7, 16)([features], boxes)
    rounded = RoIAlign(7, 16)([features.bfloat16()], boxes)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 3 * 2**-8 * features.abs().max()


def test_a_ramp_is_sampled_at_the_centres_of_the_bins() -> None:
    # Feature (i, j) holds its own position in pixels, so that each bin must hold its centre.
    x = (torch.arange(12.0) + 0.5) * 16
    features = torch.stack([x.expand(12, 12), x.view(12, 1).expand(12, 12)])[None]
    pooled = RoIAlign(2, 16)([features], torch.tensor([[[40.0, 64, 104, 128]]]))
    torch.testing.assert_close(pooled[0, 0], torch.tensor([[56.0, 88], [56, 88]]))
    torch.testing.assert_close(pooled[0, 1], torch.tensor([[80.0, 80], [112, 112]]))


def test_roi_pool_equals_torchvisions() -> None:
    features, boxes = some_features()
    pooled = RoIPool(7, 16)([features], boxes)
    assert torch.equal(pooled, ops.roi_pool(features, with_image_index(boxes), 7, 1 / 16))
    assert RoIPool(7, 16)([features.bfloat16()], boxes).dtype == torch.bfloat16


@pytest.mark.parametrize("pool", [RoIAlign(7, 16), RoIPool(7, 16)])
def test_padding_boxes_are_pooled_without_harm(pool: torch.nn.Module) -> None:
    features, _ = some_features()
    assert pool([features], torch.zeros(2, 3, 4)).isfinite().all()
