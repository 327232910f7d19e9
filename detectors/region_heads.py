"""What reads a pooled region where the backbone has nothing left for it (DC5, FPN): two fully connected layers, or
convolutions and one. Above a cut backbone it is the network itself: `backbones.cut.RegionHead`.

Legend: M regions, C channels, B bins a side, V features of a region.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.bodies import MakeNorm, conv_layer


class LinearRegionHead(nn.Module):
    """Convolutions, if any, then hidden linear layers with ReLUs.

    convs 0, hidden 2: Lin et al. 2017, §5.2 ("2-fc MLP"); convs 4, hidden 1, norms: Wu & He 2018, §5.2, with which
    detectors are trained from random weights. make_norm: after each convolution, which then has no bias.
    roi_size: bins a side. out_channels: length of the vectors.

    The first linear layer reads its regions cell by cell, channels last, as they lie in memory.
    """

    def __init__(
        self,
        in_channels: int,
        roi_size: int = 7,
        *,
        width: int = 1024,
        hidden: int = 2,
        convs: int = 0,
        make_norm: MakeNorm | None = None,
    ) -> None:
        super().__init__()
        self.roi_size, self.in_channels, self.out_channels = roi_size, in_channels, width
        self.convs = nn.Sequential(
            *(conv_layer(in_channels, in_channels, 3, make_norm, relu=True) for _ in range(convs))
        )
        sizes = [in_channels * roi_size**2, *[width] * hidden]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for linear in self.linears:
            nn.init.kaiming_uniform_(linear.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(linear.bias)  # type: ignore[arg-type]

    def forward(self, regions_MCBB: Tensor) -> Tensor:
        """Pooled regions to vectors MV."""
        return self.vectors(self.maps(regions_MCBB))

    def maps(self, regions_MCBB: Tensor) -> Tensor:
        """The regions themselves: a mask is read from them, not from what the box is read from."""
        return regions_MCBB

    def vectors(self, regions_MCBB: Tensor) -> Tensor:
        x_MCBB = self.convs(regions_MCBB.contiguous(memory_format=torch.channels_last))
        x_MV = x_MCBB.permute(0, 2, 3, 1).flatten(1)
        for linear in self.linears:
            x_MV = F.relu(linear(x_MV), inplace=True)
        return x_MV
