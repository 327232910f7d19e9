"""The pyramid against torchvision's, and the norms of heads."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
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


def test_maps_at_other_strides_make_no_pyramid() -> None:
    with pytest.raises(ValueError, match=r"at strides \(4, 8, 16, 32\), not at \(4, 14\)"):
        FeaturePyramid(Maps([]), (8, 8), (4, 14))


def test_a_single_map_has_the_simple_pyramid() -> None:
    """Li et al. 2022, §3, layer by layer: two deconvolutions, one, none, and pooling; nothing is added up."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 3, 5)
    pyramid = FeaturePyramid(Maps([x]), (8,), (16,), channels=6)
    (up4, norm, gelu, up2), up = list(pyramid.rescaled[0]), pyramid.rescaled[1][0]
    y = F.conv_transpose2d(x, up4.weight, up4.bias, stride=2)
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
    assert isinstance(gelu, nn.GELU) and gelu.approximate == "none"
    y = F.conv_transpose2d(0.5 * y * (1 + torch.erf(y / 2**0.5)), up2.weight, up2.bias, stride=2)
    maps = [y, F.conv_transpose2d(x, up.weight, up.bias, stride=2), x, F.max_pool2d(x, 2, ceil_mode=True)]
    levels = pyramid(None, None)
    for side, level, lateral, output in zip(maps, levels, pyramid.laterals, pyramid.outputs):
        torch.testing.assert_close(level, output(lateral(side)))
    assert [level.shape[1:] for level in levels[:4]] == [(6, 12, 20), (6, 6, 10), (6, 3, 5), (6, 2, 3)]
    assert pyramid.strides == (4, 8, 16, 32, 64)


def test_levels_that_a_trunk_lacks_are_made_from_the_nearest_coarser_map() -> None:
    maps = [torch.randn(1, 8, 6, 6), torch.randn(1, 12, 3, 3)]
    pyramid = FeaturePyramid(Maps(maps), (8, 12), (16, 32), channels=4)
    assert pyramid.sources == [0, 0, 0, 1] and pyramid.adds_up
    assert [level.shape[2] for level in pyramid(None, None)] == [24, 12, 6, 3, 2]


def test_groups_of_a_norm_divide_its_channels() -> None:
    assert group_norm(256).num_groups == 32
    assert group_norm(12).num_groups == 12
    assert group_norm(40).num_groups == 20


def test_a_layer_with_a_norm_has_no_bias_of_its_own() -> None:
    with_norm = conv_layer(4, 8, 3, group_norm, relu=True)
    assert with_norm[0].bias is None and isinstance(with_norm[1], nn.GroupNorm)
    assert conv_layer(4, 8, 1, None)[0].bias is not None
