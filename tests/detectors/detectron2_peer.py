"""detectron2's R50-C4 beside Vertebra's with the same weights.

How to have detectron2 without building it: `pip download --no-deps --no-build-isolation pb1-detectron2==0.6` (with
torch in the environment), unpack it, put it on PYTHONPATH, and install "fvcore>=0.1.5,<0.1.6" "iopath>=0.1.7,<0.1.10"
"omegaconf>=2.1,<2.4" hydra-core yacs tabulate cloudpickle termcolor packaging black and "setuptools<81". A build of
its source does as well.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from backbones import create_backbone
from backbones.chain import PixelNorm
from backbones.norms import freeze_norms
from detectors.anchors import AnchorGrid
from detectors.bodies import SingleMap
from detectors.box_head import BoxHead, BoxPredictor
from detectors.faster_rcnn import FasterRCNN
from detectors.pooling import RoIAlign
from detectors.rpn import RPN, ProposalLimits, RPNHead
from vertebra.build.detector import load_file_state
from vertebra.build.outside_detectors import DETECTRON2_MEAN, DETECTRON2_STD, from_detectron2

SCALES, RATIOS, CLASSES = (32.0, 64.0, 128.0, 256.0, 512.0), (0.5, 1.0, 2.0), 80
BEFORE_NMS = (12000, 6000)  # in training, in tests
OLD_NUMPY = {"bool": bool, "int": int, "float": float, "object": object}


def is_there() -> bool:
    return importlib.util.find_spec("detectron2") is not None


def make_importable() -> None:
    """Gives back what detectron2 0.6 expects of its time, and an empty module in the place of its C++ operations."""
    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.Resampling.BILINEAR  # type: ignore[attr-defined]
    for name, kind in OLD_NUMPY.items():
        if name not in vars(np):
            setattr(np, name, kind)
    if "detectron2._C" not in sys.modules and importlib.util.find_spec("detectron2._C") is None:
        sys.modules["detectron2._C"] = types.ModuleType("detectron2._C")


def detectron2s(*, proposals: tuple[int, int] = (2000, 1000), regions: int = 512, seed: int = 0) -> Any:
    """Its R50-C4 with random weights, scaled so that maps keep their size and some classes get high scores.

    proposals: an image in training, in tests; regions: an image that the box head learns from.
    """
    make_importable()
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()  # its defaults are R50-C4 on MSRA's weights
    config.MODEL.DEVICE = "cpu"
    config.MODEL.WEIGHTS = ""
    config.MODEL.MASK_ON = False
    config.MODEL.ANCHOR_GENERATOR.SIZES = [list(SCALES)]
    config.MODEL.RPN.PRE_NMS_TOPK_TRAIN, config.MODEL.RPN.PRE_NMS_TOPK_TEST = BEFORE_NMS
    config.MODEL.RPN.POST_NMS_TOPK_TRAIN, config.MODEL.RPN.POST_NMS_TOPK_TEST = proposals
    config.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = regions
    config.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    torch.manual_seed(seed)
    model = build_model(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("norm.running_var"):
                tensor.uniform_(0.8, 1.2).mul_(400 if ".stem." in name else 1)
            elif name.endswith("norm.weight"):
                tensor.uniform_(0.8, 1.2).mul_(0.3 if "conv3" in name else 1)
            elif name.endswith(("norm.running_mean", "norm.bias")):
                tensor.normal_(0, 0.1)
            elif ".cls_score." in name or ".bbox_pred." in name:
                tensor.normal_(0, 0.1 if ".cls_score." in name else 0.02)
            elif ".anchor_deltas." in name or ".objectness_logits." in name:
                tensor.normal_(0, 0.01)
    return model


def vertebras(reference: Any) -> FasterRCNN:
    """Our detector with the weights and the conventions of `reference`."""
    after = reference.proposal_generator.post_nms_topk
    backbone = create_backbone("r50", stride_in="1x1")
    backbone.pixel_norm = PixelNorm(DETECTRON2_MEAN, DETECTRON2_STD)
    freeze_norms(backbone)
    backbone.freeze(4)
    trunk, head = backbone.cut(stride=16)
    grid = AnchorGrid(scales=SCALES, ratios=RATIOS, stride=trunk.stride, offset=0.0)
    rpn = RPN(
        RPNHead(trunk.out_channels, grid.per_cell),
        [grid],
        train_limits=ProposalLimits(before_nms=BEFORE_NMS[0], after_nms=after[True]),
        test_limits=ProposalLimits(before_nms=BEFORE_NMS[1], after_nms=after[False]),
        on_padding=True,
    )
    predictor = BoxPredictor(head.out_channels, CLASSES)
    samples = reference.roi_heads.batch_size_per_image
    box_head = BoxHead(RoIAlign(head.roi_size, trunk.stride), head, predictor, samples=samples)
    body = SingleMap(trunk, trunk.out_channels, trunk.stride)
    detector = FasterRCNN(body=body, rpn=rpn, box_head=box_head)
    load_file_state(detector, from_detectron2(reference.state_dict(), scales=len(SCALES)), Path("detectron2"))
    return detector.to(memory_format=torch.channels_last)
