"""The pyramid against torchvision's, and the norms of heads."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detectors.bodies import FeaturePyramid, conv_layer, group_norm

CHANNELS, STRIDES = (8, 16, 24, 32), (4, 8, 16, 32)


class Maps(nn.Module):
    """A trunk that gives these maps."""

    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, pixels: Any, sizes: Any) -> tuple[Tensor, ...]:
        return tuple(self.maps)


def test_a_pyramid_equals_torchvisions() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, c, 70 // s + 1, 101 // s + 1) for c, s in zip(CHANNELS, STRIDES)]  # odd sizes too
    pyramid = FeaturePyramid(Maps(maps), CHANNELS, STRIDES, channels=12)
    reference = FeaturePyramidNetwork(list(CHANNELS), 12, LastLevelMaxPool())
    state = {
        name.replace("laterals", "inner_blocks").replace("outputs", "layer_blocks"): t
        for name, t in pyramid.state_dict().items()
    }
    reference.load_state_dict(state)
    expected = reference(OrderedDict((str(i), x) for i, x in enumerate(maps)))
    levels = pyramid(None, None)
    assert len(levels) == len(pyramid.strides) == 5 and pyramid.strides == (4, 8, 16, 32, 64)
    for level, other in zip(levels, expected.values()):
        torch.testing.assert_close(level, other)


def test_maps_that_do_not_double_their_stride_make_no_pyramid() -> None:
    with pytest.raises(ValueError, match=r"twice the stride of the one before, not at \(4, 16\)"):
        FeaturePyramid(Maps([]), (8, 8), (4, 16))


def test_groups_of_a_norm_divide_its_channels() -> None:
    assert group_norm(256).num_groups == 32
    assert group_norm(12).num_groups == 12
    assert group_norm(40).num_groups == 20


def test_a_layer_with_a_norm_has_no_bias_of_its_own() -> None:
    with_norm = conv_layer(4, 8, 3, group_norm, relu=True)
    assert with_norm[0].bias is None and isinstance(with_norm[1], nn.GroupNorm)
    assert conv_layer(4, 8, 1, None)[0].bias is not None
