"""Vertebra's backbones in detectron2: import this file, and name one in a configuration of detectron2's.

    MODEL:
      BACKBONE: {NAME: build_vertebra_fpn_backbone, FREEZE_AT: 2}
      VERTEBRA: {NAME: "timm:tf_efficientnet_lite0", WEIGHTS: model.safetensors}
      PIXEL_MEAN: [127.5, 127.5, 127.5]
      PIXEL_STD: [127.5, 127.5, 127.5]

VERTEBRA.NAME and WEIGHTS are what --backbone and --weights take. BACKBONE.FREEZE_AT counts stages, the stem as 1;
RESNETS.NORM (FrozenBN, BN, SyncBN), RESNETS.OUT_FEATURES and RES5_DILATION mean what they mean for its own ResNets, and
maps are called res2 to res5 by their strides. The network's own normalisation is left out, as detectron2 normalises
before it pads: PIXEL_MEAN and PIXEL_STD must be the network's, in the order of INPUT.FORMAT, which may be BGR or RGB.

Without a pyramid the backbone is `build_vertebra_backbone`; cut at VERTEBRA.CUT_STRIDE (C4) it goes with
`ROI_HEADS.NAME: VertebraROIHeads`, the network above the cut, whatever that is (VGG's fc6 and fc7: a
ROI_BOX_HEAD.POOLER_RESOLUTION of 7). A LazyConfig calls `vertebra_backbone` and `region_head`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import isclose, log2
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones import Backbone, create_backbone
from backbones.blocks import global_average
from backbones.chain import PixelNorm
from backbones.cut import MapTrunk, RegionHead, Trunk
from backbones.norms import freeze_norms
from vertebra.build.weights import resolve_weights, start_from
from vertebra.ground.errors import UserError

try:
    import detectron2 as package
    from detectron2.config import CfgNode
    from detectron2.config.defaults import _C as defaults
    from detectron2.modeling import BACKBONE_REGISTRY, FPN, ROI_HEADS_REGISTRY
    from detectron2.modeling import Backbone as TheirBackbone
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.roi_heads import Res5ROIHeads
except ModuleNotFoundError as error:
    hint = "pip install 'git+https://github.com/facebookresearch/detectron2'"
    raise UserError("detectron2", f"cannot be imported ({error})", hint) from None

logger = logging.getLogger(__name__)

VERSION: str = package.__version__
defaults.MODEL.VERTEBRA = CfgNode({"NAME": "r50", "WEIGHTS": "none", "CUT_STRIDE": 16})


class VertebraBackbone(TheirBackbone):
    """A part of a network as detectron2 takes it: normalised pixels to maps by name.

    maps: their names, finest first. bgr: the order in which pixels come. pixel_mean, pixel_std: in that order.
    """

    def __init__(self, trunk: Trunk | MapTrunk, maps: Sequence[str], *, bgr: bool) -> None:
        super().__init__()
        specs = trunk.specs if isinstance(trunk, MapTrunk) else (trunk.chain[-1].spec,)
        order = -1 if bgr else 1
        self.pixel_mean = trunk.pixel_norm.mean_values[::order]
        self.pixel_std = trunk.pixel_norm.std_values[::order]
        self.trunk, self.bgr = trunk, bgr
        trunk.pixel_norm = PixelNorm((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self._out_features = list(maps)
        self._out_feature_channels = {name: spec.channels for name, spec in zip(maps, specs)}
        self._out_feature_strides = {name: spec.stride for name, spec in zip(maps, specs)}

    def forward(self, pixels_N3HW: Tensor) -> dict[str, Tensor]:
        maps = self.trunk(pixels_N3HW.flip(1) if self.bgr else pixels_N3HW)
        return dict(zip(self._out_features, (maps,) if isinstance(maps, Tensor) else maps))


class RegionNetwork(nn.Module):
    """The network above a cut, in the place of detectron2's res5: pooled regions to maps, whose mean is the vector.

    A network that makes its vectors in another way gives them as maps of one cell.
    """

    def __init__(self, region_head: RegionHead) -> None:
        super().__init__()
        self.region_head = region_head
        self.gives_maps = region_head.tail == (global_average,)
        self.channels = region_head.map_channels if self.gives_maps else region_head.out_channels

    def forward(self, regions_RCHW: Tensor) -> Tensor:
        maps_RCHW = self.region_head.maps(regions_RCHW)
        return maps_RCHW if self.gives_maps else self.region_head.vectors(maps_RCHW)[..., None, None]


def vertebra_backbone(
    name: str,
    weights: str = "none",
    *,
    maps: Sequence[str] = ("res2", "res3", "res4", "res5"),
    cut_stride: int | None = None,
    freeze_at: int = 2,
    norm: str = "FrozenBN",
    dilate_last: bool = False,
    bgr: bool = True,
) -> VertebraBackbone:
    """Return a network for detectron2: its `maps`, or its part below the cut at `cut_stride`, for C4.

    name, weights: as --backbone and --weights take them; bgr: what INPUT.FORMAT says; the others: see this file's head.
    """
    net = open_network(name, weights, freeze_at=freeze_at, norm=norm, dilate_last=dilate_last)
    if cut_stride is not None:
        return VertebraBackbone(net.cut(cut_stride).trunk, [f"res{log2(cut_stride):.0f}"], bgr=bgr)
    return VertebraBackbone(net.maps([map_name.replace("res", "c") for map_name in maps]), maps, bgr=bgr)


def region_head(
    name: str,
    weights: str = "none",
    *,
    cut_stride: int = 16,
    roi_size: int | None = None,
    freeze_at: int = 2,
    norm: str = "FrozenBN",
) -> RegionNetwork:
    """Return the network above the cut, the `res5` of detectron2's Res5ROIHeads; roi_size: its POOLER_RESOLUTION."""
    net = open_network(name, weights, freeze_at=freeze_at, norm=norm)
    return RegionNetwork(net.cut(cut_stride, roi_size).head)


def open_network(name: str, weights: str, *, freeze_at: int, norm: str, dilate_last: bool = False) -> Backbone:
    """Return a network with its weights, as wide as these say, its first stages fixed."""
    state, origin = resolve_weights(weights or "none", name)
    identity = origin.get("backbone", {})
    known = ("num_classes", "width", "shortcut", "stride_in")
    options = {fact: identity[fact] for fact in known if identity.get(fact) is not None}
    net = create_backbone(name, dilate_last=dilate_last, **options)
    if state:
        start_from(net, state, origin, Path(weights))
    elif freeze_at:
        logger.warning(
            "%s begins with random weights, and its first %d stages are fixed: MODEL.WEIGHTS must bring them, or set "
            "MODEL.VERTEBRA.WEIGHTS or MODEL.BACKBONE.FREEZE_AT 0",
            *(name, freeze_at),
        )
    if norm == "FrozenBN":
        freeze_norms(net)
    elif norm == "SyncBN":
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    elif norm != "BN":
        raise UserError("MODEL.RESNETS.NORM", f"is {norm!r}", "choose FrozenBN, BN or SyncBN")
    net.freeze(2**freeze_at if freeze_at else 0)
    return net


def _options(cfg: Any) -> dict[str, Any]:
    own = {"name": cfg.MODEL.VERTEBRA.NAME, "weights": cfg.MODEL.VERTEBRA.WEIGHTS}
    return {**own, "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT, "norm": cfg.MODEL.RESNETS.NORM}


def _backbone(cfg: Any, maps: Sequence[str]) -> VertebraBackbone:
    is_cut = cfg.MODEL.ROI_HEADS.NAME == "VertebraROIHeads"
    backbone = vertebra_backbone(
        **_options(cfg),
        maps=maps,
        cut_stride=cfg.MODEL.VERTEBRA.CUT_STRIDE if is_cut else None,
        dilate_last=cfg.MODEL.RESNETS.RES5_DILATION == 2,
        bgr=cfg.INPUT.FORMAT == "BGR",
    )
    for key, found, wanted in (
        ("PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN, backbone.pixel_mean),
        ("PIXEL_STD", cfg.MODEL.PIXEL_STD, backbone.pixel_std),
    ):
        if not all(isclose(one, other, rel_tol=1e-3) for one, other in zip(found, wanted)):
            raise UserError(
                f"MODEL.{key}",
                f"is {list(found)}, and {cfg.MODEL.VERTEBRA.NAME} was trained with {list(wanted)} ({cfg.INPUT.FORMAT})",
                f"set MODEL.{key} to that",
            )
    return backbone


@BACKBONE_REGISTRY.register()
def build_vertebra_backbone(cfg: Any, input_shape: Any) -> VertebraBackbone:
    """The network's maps RESNETS.OUT_FEATURES, or its part below the cut."""
    return _backbone(cfg, cfg.MODEL.RESNETS.OUT_FEATURES)


@BACKBONE_REGISTRY.register()
def build_vertebra_fpn_backbone(cfg: Any, input_shape: Any) -> FPN:
    """detectron2's pyramid on the network's maps FPN.IN_FEATURES, each of which must have twice the stride before."""
    fpn = cfg.MODEL.FPN
    return FPN(
        bottom_up=_backbone(cfg, fpn.IN_FEATURES),
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=fpn.FUSE_TYPE,
    )


@ROI_HEADS_REGISTRY.register()
class VertebraROIHeads(Res5ROIHeads):
    """detectron2's heads of a C4 detector, with the part of the network above the cut in the place of res5."""

    @classmethod
    def above(cls, network: RegionNetwork) -> type[VertebraROIHeads]:
        """Return such heads with a network that is there already."""

        class OnNetwork(cls):  # type: ignore[misc, valid-type]
            @classmethod
            def _build_res5_block(cls, cfg: Any) -> tuple[RegionNetwork, int]:
                return cls._checked(cfg, network)

        return OnNetwork

    @classmethod
    def _build_res5_block(cls, cfg: Any) -> tuple[RegionNetwork, int]:
        network = region_head(
            **_options(cfg),
            cut_stride=cfg.MODEL.VERTEBRA.CUT_STRIDE,
            roi_size=cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
        )
        return cls._checked(cfg, network)

    @staticmethod
    def _checked(cfg: Any, network: RegionNetwork) -> tuple[RegionNetwork, int]:
        """The network and its channels. Raises UserError where masks need what it does not make."""
        if cfg.MODEL.MASK_ON and not network.gives_maps:
            raise UserError(
                "MODEL.MASK_ON",
                "needs a map of each region, and the network above the cut makes a vector of it",
                "choose a residual net, or build_vertebra_fpn_backbone",
            )
        return network, network.channels
