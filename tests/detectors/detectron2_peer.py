"""detectron2's detectors beside Vertebra's with the same weights.

`make peers` sets up an environment with detectron2 and runs the tests that need it: see tests/peers.sh.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from detectors.faster_rcnn import FasterRCNN
from vertebra.build.trained_detector import read_detector

OLD_NUMPY = {"bool": bool, "int": int, "float": float, "object": object}
IS_THERE = importlib.util.find_spec("detectron2") is not None
needed = pytest.mark.skipif(not IS_THERE, reason="detectron2 cannot be imported: say make peers")


def make_importable() -> None:
    """Give back what detectron2 0.6 expects of its time, and an empty module in the place of its C++ operations."""
    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.Resampling.BILINEAR  # type: ignore[attr-defined]
    for name, kind in OLD_NUMPY.items():
        if name not in vars(np):
            setattr(np, name, kind)
    if "detectron2._C" not in sys.modules and importlib.util.find_spec("detectron2._C") is None:
        sys.modules["detectron2._C"] = types.ModuleType("detectron2._C")


if IS_THERE:
    make_importable()


def config_of(name: str) -> Any:
    """The configuration of a detector of its model zoo, on a CPU and without weights; few proposals."""
    import detectron2
    from detectron2.config import get_cfg

    config = get_cfg()
    config.merge_from_file(str(Path(detectron2.__file__).parent / "model_zoo" / "configs" / f"{name}.yaml"))
    config.MODEL.DEVICE, config.MODEL.WEIGHTS = "cpu", ""
    config.MODEL.RPN.POST_NMS_TOPK_TRAIN, config.MODEL.RPN.POST_NMS_TOPK_TEST = 200, 100
    config.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 64
    config.INPUT.MASK_FORMAT = "bitmask"
    return config


def detectron2s(config: Any, *, seed: int = 0) -> Any:
    """Its detector with random weights, scaled so that maps keep their size and some classes get high scores."""
    from detectron2.modeling import build_model

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
            elif ".anchor_deltas." in name or ".objectness_logits." in name or "mask_head.predictor" in name:
                tensor.normal_(0, 0.1 if "mask" in name else 0.01)
    return model


def vertebras(reference: Any, folder: Path) -> FasterRCNN:
    """Our detector of the weights of `reference`, written as its model zoo's are, with as many proposals."""
    state, rpn = reference.state_dict(), reference.proposal_generator
    content = {"model": {name: tensor.numpy() for name, tensor in state.items()}, "__author__": "a test"}
    (folder / "model.pkl").write_bytes(pickle.dumps(content))
    trained = read_detector(f"detectron2:{folder / 'model.pkl'}")
    changes = {
        "proposals": (rpn.post_nms_topk[True], rpn.post_nms_topk[False]),
        "rois": reference.roi_heads.batch_size_per_image,
    }
    return trained.restore(trained.recipe.model_copy(update={"model": trained.recipe.model.model_copy(update=changes)}))
