"""The detector's second stage (Fast R-CNN): the class of each region, and where exactly its box ends.

Legend: N images, P proposals an image, G padded truths, R regions an image, M = N * R, C classes, K = C + 1
classes with background (0), Q box codes a region (C, or 1 if they do not depend on the class), V features of
a region, B bins a side of a pooled region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from detectors.bodies import MakeNorm, conv_layer
from detectors.boxes import Weights, encode, in_float32, of_class, take
from detectors.losses import GlobalCounts, cross_entropy, masked_sum, smooth_l1
from detectors.matching import Matcher
from detectors.pooling import RoIAlign
from detectors.postprocess import PostProcess
from detectors.rpn import Proposals
from detectors.sampling import Sampler
from detectors.structures import Detections, ImageBatch, Targets

BOX_HEAD_STREAM = 2  # keeps the box head's random draws apart from the RPN's


@dataclass(frozen=True)
class Regions:
    """The regions that the second stage learns from.

    boxes_NR4; labels_NR int64, 0 is background; truth_NR4: the box of the truth, anything for background;
    valid_NR bool: False for slots that nothing could fill. truth_index_NR: the place of that truth among G.
    """

    boxes_NR4: Tensor
    labels_NR: Tensor
    truth_NR4: Tensor
    truth_index_NR: Tensor
    valid_NR: Tensor

    @property
    def positive_NR(self) -> Tensor:
        return (self.labels_NR > 0) & self.valid_NR


@dataclass(frozen=True)
class RegionOutput:
    """The second stage's output. maps_NRCHW: each region's before it became a vector; logits_NRK; deltas_NRQ4."""

    maps_NRCHW: Tensor
    logits_NRK: Tensor
    deltas_NRQ4: Tensor


class BoxPredictor(nn.Module):
    """Two sibling linear layers on a region's features (Fast R-CNN, §2.1)."""

    def __init__(self, in_features: int, classes: int, *, class_agnostic: bool = False) -> None:
        super().__init__()
        self.classes = classes
        self.class_agnostic = class_agnostic
        self.scores = nn.Linear(in_features, classes + 1)
        self.deltas = nn.Linear(in_features, 4 * (1 if class_agnostic else classes))
        for layer, std in ((self.scores, 0.01), (self.deltas, 0.001)):  # Fast R-CNN, §2.3
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, vectors_XV: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits XK and box deltas XQ4, in float32: bf16 would give many regions the same score."""
        with in_float32(vectors_XV.device):
            vectors_XV = vectors_XV.float()
            return self.scores(vectors_XV), self.deltas(vectors_XV).unflatten(-1, (-1, 4))


class LinearRegionHead(nn.Module):
    """Reads a pooled region where the backbone has nothing left for it (DC5, FPN): convolutions, if any, then hidden
    linear layers with ReLUs. Above a cut backbone the network itself does: `backbones.cut.RegionHead`.

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


class BoxHead(nn.Module):
    """Pools regions, runs a network on each, classifies and refines them.

    pool: (maps, boxes NR4) -> M x C x bins x bins. head: the network above the cut or what stands for it;
    `head.maps` takes that to maps MCHW, `head.vectors` those to vectors MV. append_truth: the truth boxes join the
    proposals in training (Fast R-CNN's code, detectron2, torchvision), so that there are positives from the first step
    on. context: the whole image is read as one region more, and the predictor reads its vector beside each region's,
    so that it has twice the features (He et al. 2015, appendix B, "global context").
    """

    delta_weights: Weights = (10.0, 10.0, 5.0, 5.0)  # the paper's normalisation by 0.1, 0.1, 0.2, 0.2

    def __init__(
        self,
        pool: nn.Module,
        head: Any,
        predictor: BoxPredictor,
        *,
        postprocess: PostProcess | None = None,
        matcher: Matcher | None = None,
        samples: int = 512,
        positive_fraction: float = 0.25,
        append_truth: bool = True,
        beta: float = 0.0,
        context: bool = False,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.head: Any = head  # RegionHead, LinearRegionHead
        self.predictor = predictor
        self.postprocess = postprocess or PostProcess()
        self.matcher = matcher or Matcher(positive=0.5, negative=0.5)
        self.sampler = Sampler(count=samples, positive_fraction=positive_fraction, stream=BOX_HEAD_STREAM)
        self.append_truth = append_truth
        self.beta = beta
        self.context = context

    @property
    def most_positive(self) -> int:
        """Most positive regions an image; they come first."""
        return int(self.sampler.count * self.sampler.positive_fraction)

    def forward(self, maps: Sequence[Tensor], boxes_NR4: Tensor, sizes_hw_N2: Tensor) -> RegionOutput:
        """Class logits and box deltas of the given regions; sizes: of the images, in which the regions are."""
        return self.read(self.region_maps(maps, self.to_read(boxes_NR4, sizes_hw_N2)), boxes_NR4.shape[0])

    def to_read(self, boxes_NR4: Tensor, sizes_hw_N2: Tensor) -> Tensor:
        """The regions that are read for the given ones: these, and for context each whole image last."""
        if not self.context:
            return boxes_NR4
        corner_N2 = sizes_hw_N2.flip(1).to(boxes_NR4.dtype)
        whole_N4 = torch.cat([torch.zeros_like(corner_N2), corner_N2], dim=1)
        return torch.cat([boxes_NR4, whole_N4.unsqueeze(1)], dim=1)

    def read(self, maps_MCHW: Tensor, images: int) -> RegionOutput:
        """Class logits and box deltas of the maps that `region_maps` makes of the regions of `to_read`."""
        maps_NRCHW = maps_MCHW.unflatten(0, (images, -1))
        vectors_NRV = self.head.vectors(maps_MCHW).unflatten(0, (images, -1))
        if self.context:
            maps_NRCHW, vectors_NRV, whole_N1V = maps_NRCHW[:, :-1], vectors_NRV[:, :-1], vectors_NRV[:, -1:]
            vectors_NRV = torch.cat([vectors_NRV, whole_N1V.expand_as(vectors_NRV)], dim=2)
        return RegionOutput(maps_NRCHW, *self.predictor(vectors_NRV))

    def region_maps(self, maps: Sequence[Tensor], boxes_NR4: Tensor) -> Tensor:
        """The maps MCHW that the head makes of regions before it makes them vectors."""
        # Means of cells can be taken after 1x1 layers as well as before. Who counts FLOPs wants those of the network as
        # it is known.
        is_counted = is_in_torch_dispatch_mode(include_infra_modes=False)
        if isinstance(self.pool, RoIAlign) and getattr(self.head, "reads_by_1x1", False) and not is_counted:
            pool = self.pool.as_products(maps[0], boxes_NR4)
            if pool is not None:
                return self.head.maps(maps[0], pool)
        return self.head.maps(self.pool(maps, boxes_NR4))

    @torch.no_grad()
    def sample(self, proposals: Proposals, targets: Targets) -> Regions:
        """Draw the regions to learn from, a fixed number an image."""
        boxes_NP4, valid_NP = proposals.boxes_NP4, proposals.valid_NP
        if self.append_truth:
            boxes_NP4 = torch.cat([boxes_NP4, targets.boxes_NG4], dim=1)
            valid_NP = torch.cat([valid_NP, targets.valid_NG & ~targets.ignore_NG], dim=1)
        matches = self.matcher(boxes_NP4, valid_NP, targets)
        samples = self.sampler(matches, targets.draw_seeds_N)
        truth_index_NR = take(matches.truth_NA, samples.index_NS)
        return Regions(
            boxes_NR4=take(boxes_NP4, samples.index_NS),
            labels_NR=take(targets.labels_NG, truth_index_NR) * samples.positive_NS,
            truth_NR4=take(targets.boxes_NG4, truth_index_NR),
            truth_index_NR=truth_index_NR,
            valid_NR=samples.valid_NS,
        )

    def losses(self, regions: Regions, output: RegionOutput, count: Tensor | None = None) -> dict[str, Tensor]:
        """Both losses are divided by `count`, the number of sampled regions, background included (of the whole batch),
        so that a positive region weighs the same however many there are (Fast R-CNN, §2.3; detectron2)."""
        logits_NRK, deltas_NRQ4 = output.logits_NRK, output.deltas_NRQ4
        count = GlobalCounts(regions.valid_NR)[0] if count is None else count
        deltas_NR4 = of_class(deltas_NRQ4, regions.labels_NR - 1)
        wanted_NR4 = encode(regions.truth_NR4, regions.boxes_NR4, self.delta_weights)
        class_loss_NR = cross_entropy(logits_NRK, regions.labels_NR)
        box_loss_NR = smooth_l1(deltas_NR4, wanted_NR4, self.beta)
        return {
            "loss_box_cls": masked_sum(class_loss_NR, regions.valid_NR) / count,
            "loss_box_reg": masked_sum(box_loss_NR, regions.positive_NR) / count,
        }

    def detect(self, maps: Sequence[Tensor], proposals: Proposals, images: ImageBatch) -> Detections:
        """Classify and refine all proposals, and keep the best."""
        output = self(maps, proposals.boxes_NP4, images.sizes_hw_N2)
        return self.postprocess(proposals, output.logits_NRK, output.deltas_NRQ4, images, self.delta_weights)
