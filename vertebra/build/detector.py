"""From a detection recipe and a backbone to the detector around it, and the names of its tensors in files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from backbones import Backbone
from backbones.cut import Part, RegionHead
from backbones.winograd import use_winograd
from detectors.anchors import AnchorGrid
from detectors.bodies import FeaturePyramid, MakeNorm, SingleMap, group_norm
from detectors.box_head import BoxHead, BoxPredictor, LinearRegionHead
from detectors.faster_rcnn import FasterRCNN
from detectors.mask_head import MaskHead
from detectors.matching import Matcher
from detectors.pooling import RoIAlign, RoIPool
from detectors.postprocess import PostProcess
from detectors.pyramid_pooling import PyramidRoIAlign
from detectors.rpn import RPN, ProposalLimits, RPNHead
from detectors.testtime import ImprovedDetector
from vertebra.build.backbone import freeze
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.session import Record
from vertebra.engine.weights import load_into, save_weights
from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema_detection import DetectionRecipe, DetectionTest, Detector

PYRAMID_KEYS = ("c2", "c3", "c4", "c5")
FLAT_ROI_SIZE = 7  # of regions that two linear layers read
MASK_ROI_SIZE = 14  # of regions that a mask is made of, half its side (He et al. 2017, fig. 4 right)
# A detector's layers that tell classes apart.
CLASS_LAYERS = (
    *("box_head.predictor", "mask_head.predictor"),
    *("model.roi_heads.box_predictor", "model.roi_heads.mask_head.predictor"),  # engine detectron2
)
# Equal in all detectors of an ensemble: they see the same pixels.
TEST_INPUT = ("test_shorter_side", "longer_side")


def make_detector(recipe: DetectionRecipe, backbone: Backbone, classes: int) -> FasterRCNN:
    """Return the recipe's detector on that backbone, in train mode; of engine detectron2 it is not a FasterRCNN, but
    gives losses and detections as one does."""
    settings = recipe.model
    if settings.norms == "sync" and over_gpus("model.norms"):
        nn.SyncBatchNorm.convert_sync_batchnorm(backbone)
    freeze(backbone, settings)
    if recipe.engine == "detectron2":
        from vertebra.build.detectron2_engine import Detectron2Detector

        return Detectron2Detector(recipe, backbone, classes)  # type: ignore[return-value]
    make_norm = _norm_maker(settings)
    body, head = (_cut if settings.body == "c4" else _uncut)(settings, backbone, make_norm)
    levels = body.strides[:-1] if settings.body == "fpn" else body.strides  # regions are pooled from these
    pool = _pooling(settings, head.roi_size, levels)
    mask_head = None
    if settings.masks:
        own_pool = None if settings.body == "c4" else _pooling(settings, MASK_ROI_SIZE, levels)
        as_detectron2 = settings.conventions == "detectron2"
        mask_head = MaskHead(
            head.map_channels if isinstance(head, RegionHead) else body.channels,
            classes,
            pool=own_pool,
            channels=settings.mask_channels,
            convs=0 if settings.body == "c4" else settings.mask_convs,
            make_norm=make_norm,
            samples=0 if as_detectron2 else 2,
            aligned=settings.conventions != "torchvision",
            binary=as_detectron2,
        )
    detector = FasterRCNN(
        body=body,
        rpn=_rpn(settings, body.channels, body.strides),
        box_head=_box_head(settings, recipe.test, pool, head, classes),
        mask_head=mask_head,
    )
    use_winograd(detector)
    return detector.to(memory_format=torch.channels_last)


def make_pyramid(backbone: Backbone, **options: Any) -> FeaturePyramid:
    """Return the pyramid on the maps that the backbone has. Raises BackboneError where these are too few."""
    keys = [key for key in PYRAMID_KEYS if key in backbone.feature_specs]
    maps = backbone.maps(keys if keys[1:] or keys > ["c2"] else PYRAMID_KEYS)  # one map at stride 4 is too few
    channels, strides = zip(*((spec.channels, spec.stride) for spec in maps.specs))
    return FeaturePyramid(maps, channels, strides, **options)


def _cut(settings: Detector, backbone: Backbone, make_norm: MakeNorm | None) -> tuple[SingleMap, RegionHead]:
    trunk, head = backbone.cut(stride=settings.cut_stride, roi_size=settings.roi_size)
    if make_norm is not None:
        head.extra_norm = make_norm(head.map_channels)
    return SingleMap(trunk, trunk.out_channels, trunk.stride), head


def _uncut(
    settings: Detector, backbone: Backbone, make_norm: MakeNorm | None
) -> tuple[SingleMap | FeaturePyramid, LinearRegionHead]:
    body: SingleMap | FeaturePyramid
    if settings.body == "fpn":
        body = make_pyramid(backbone, channels=settings.fpn_channels, make_norm=make_norm)
    else:
        trunk = backbone.trunk(list(backbone.feature_specs)[-1])
        body = SingleMap(trunk, trunk.out_channels, trunk.stride)
    head = LinearRegionHead(
        body.channels,
        settings.roi_size or FLAT_ROI_SIZE,
        width=settings.head_width,
        hidden=1 if settings.head_convs else 2,
        convs=settings.head_convs,
        make_norm=make_norm,
    )
    return body, head


def _rpn(settings: Detector, channels: int, strides: tuple[int, ...]) -> RPN:
    """Return one grid of anchors a level: all sizes on a single map, one size a level on a pyramid."""
    sizes = [(size,) for size in settings.anchor_sizes] if len(strides) > 1 else [settings.anchor_sizes]
    grids = [
        AnchorGrid(
            scales=scales,
            ratios=settings.anchor_ratios,
            stride=stride,
            offset=0.5 if settings.conventions == "vertebra" else 0.0,
            whole_pixels=settings.conventions == "torchvision",
        )
        for scales, stride in zip(sizes, strides, strict=True)
    ]
    before, after = settings.proposals_before_nms, settings.proposals
    return RPN(
        RPNHead(channels, grids[0].per_cell, settings.rpn_channels),
        grids,
        train_limits=ProposalLimits(before_nms=before[0], after_nms=after[0]),
        test_limits=ProposalLimits(before_nms=before[1], after_nms=after[1]),
        samples=settings.rpn_samples,
        beta=settings.rpn_beta,
        nms_iou=settings.rpn_nms,
        cross_border=settings.rpn_cross_border,
        on_padding=settings.conventions != "vertebra",
    )


def _pooling(settings: Detector, bins: int, strides: tuple[int, ...]) -> nn.Module:
    aligned = settings.conventions != "torchvision"
    if settings.body == "fpn":
        samples = 0 if settings.conventions == "detectron2" else 2
        return PyramidRoIAlign(bins, strides, samples=samples, aligned=aligned)
    if settings.pooling == "pool":
        return RoIPool(bins, strides[0])
    return RoIAlign(bins, strides[0], aligned=aligned)


def _box_head(settings: Detector, test: DetectionTest, pool: nn.Module, head: Any, classes: int) -> BoxHead:
    return BoxHead(
        pool,
        head,
        BoxPredictor(
            head.out_channels * (2 if settings.context else 1), classes, class_agnostic=settings.class_agnostic
        ),
        postprocess=PostProcess(score_threshold=test.score, nms_iou=test.nms, detections=test.detections),
        matcher=Matcher(positive=0.5, negative=0.5, negative_from=settings.roi_background_from),
        samples=settings.rois,
        positive_fraction=settings.roi_positive,
        beta=settings.box_beta,
        context=settings.context,
    )


def _norm_maker(settings: Detector) -> MakeNorm | None:
    if settings.head_norms == "none":
        return None
    if settings.head_norms == "group":
        return group_norm
    if settings.head_norms == "sync" and over_gpus("model.head_norms"):
        return nn.SyncBatchNorm
    return nn.BatchNorm2d


def over_gpus(field: str) -> bool:
    """Return True where batch statistics must be gathered from several GPUs; one process has them all by itself.

    Raises RecipeError for several processes on CPUs, which torch's synchronised norm does not know.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return False
    if not torch.cuda.is_available():
        raise RecipeError(
            f"{field} sync needs GPUs when there are several processes: choose trained or batch, or use one process"
        )
    return True


def make_tested(recipe: DetectionRecipe, detectors: Sequence[FasterRCNN]) -> nn.Module:
    """Return the detectors with the improvements of `recipe.test`; one detector itself where there are none."""
    test, first = recipe.test, detectors[0]
    if len(detectors) == 1 and not (test.refine or test.multi_scale or test.flip):
        return first
    return ImprovedDetector(
        detectors,
        replace(first.box_head.postprocess, nms_iou=test.refine_nms if test.refine else test.nms),
        refine=test.refine,
        region_px=test.multi_scale_region if test.multi_scale else None,
        mirror=test.flip,
    )


def check_member(
    name: str,
    member: DetectionRecipe,
    member_classes: Sequence[str],
    first: DetectionRecipe,
    first_classes: Sequence[str],
) -> None:
    """Raise ValueError for a detector that cannot join the first in an ensemble: of other classes, or another size."""
    if tuple(member_classes) != tuple(first_classes):
        raise ValueError(
            f"{name} knows other classes ({', '.join(member_classes)}) than the first detector "
            f"({', '.join(first_classes)}): an ensemble's detectors need the same, in the same order"
        )
    if {member.engine, first.engine} != {"vertebra"}:
        raise ValueError(f"{name} cannot join an ensemble: detectors of engine detectron2 are tested one by one")
    for field in TEST_INPUT:
        wanted, found = getattr(first.input, field), getattr(member.input, field)
        if found != wanted:
            raise ValueError(
                f"{name} is tested at input.{field} {found}, the first detector at {wanted}: an ensemble's detectors "
                "need the same images"
            )


def save_detector(
    run: RunDirectory, model: nn.Module, record: Record, facts: dict[str, Any], *, best: str | None
) -> None:
    """Write a detector's or localizer's weights on rank 0; also the best evaluated, where they are other ones.

    best: the figure that chose them.
    """
    facts["figures"] = record.figures
    if not run.world.is_main:
        return
    save_weights(run.weights, file_state(model), facts)
    if best and record.best is not None and record.best_iteration != record.iteration:
        checkpoint = run.checkpoints.best()
        assert checkpoint is not None, "an evaluation marks its checkpoint"
        origin = {"iterations": record.best_iteration, "figures": {best: record.best}, "chosen_by": best}
        save_weights(run.best_weights, file_state(model, checkpoint["model"]), {**facts, **origin})
        record.say_best(best, run.best_weights)


def file_state(model: nn.Module, state: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Return the tensors of a detector or localizer, its backbone's under the names of the uncut network.

    "body.trunk.layer1.0..." and "box_head.head.layer4.0..." are `backbone.layer1.0...` and `backbone.layer4.0...`.
    state: a state dict of the model's; default: that of now.
    """
    names = _file_names(model)
    return {names[name]: tensor for name, tensor in (state or model.state_dict()).items()}


def load_file_state(
    model: nn.Module, state: Mapping[str, torch.Tensor], path: Path, *, anew: Collection[str] = ()
) -> None:
    """The inverse of `file_state`; every key must be there. anew: beginnings of names that keep the model's values."""
    names = {in_file: name for name, in_file in _file_names(model).items()}
    given = {names.get(name, name): tensor for name, tensor in state.items()}
    load_into(model, given, path, allow_missing=anew, ignore=anew)


def _file_names(model: nn.Module) -> dict[str, str]:
    """Name of every tensor in the model's state dict, to its name in files."""
    names = {name: name for name in model.state_dict()}
    for place, part in model.named_modules():
        if isinstance(part, Part):
            own = part.state_dict()
            names |= {f"{place}.{name}": f"backbone.{name}" for name in own if not name.startswith("extra_norm.")}
    return names
