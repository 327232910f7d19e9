"""Our ResNet detectors against torchvision's: same images, same boxes, same limits, one alternating run.

python benchmarks/detector.py --train --size 320 480 --batch 2 --threads 1
python benchmarks/detector.py --size 800 1056 --threads 2
python benchmarks/detector.py --head c4 --size 480 640
python benchmarks/detector.py --train --device cuda --size 800 1056 --batch 8 --rounds 20
.venv-peers/bin/python benchmarks/detector.py --detectron2 --only fp32    # after make peers, which sets that up

A training step is forward and backward, without the optimiser, which is the same for both: conv1 and conv2_x frozen,
norms frozen, 256 anchors and 512 regions an image of 2000 proposals. Inference is one batch from pixels to detections,
of 1000 proposals. Neither resizes. Weights are random, and proposals are the anchors: they are suppressed above an IoU
of 0.9 instead of 0.7, so that no fewer survive than with trained weights. The regions of both are printed.
torchvision has no C4 of its own: it is its Faster R-CNN on its ResNet, cut before conv5_x. detectron2's are its model
zoo's, with the same limits.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

from common import (  # first: it makes the rooms importable
    RESULTS,
    conclude,
    parse_timing,
    side_by_side,
    timing_parser,
)

import torch  # isort: skip
import torchvision
from backbone import THEIRS
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detectors.faster_rcnn import FasterRCNN
from detectors.structures import ImageBatch, Masks, Targets
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import make_detector
from vertebra.build.torchvision_detectors import torchvision_recipe
from vertebra.engine import precision as precisions
from vertebra.recipes.command_line import find_recipe, load_recipe
from vertebra.recipes.schema_detection import DetectionRecipe

CLASSES = 80
TRUTHS = 8  # an image; COCO has 7
NMS_IOU = 0.9
ANCHOR_SIZES = (32, 64, 128, 256, 512)  # px, of C4


def our_detector(head: str, backbone: str, *, regions: int, proposals: int, width: float = 1.0) -> FasterRCNN:
    """By the recipe of torchvision's detector, our own conventions; C4 by COCO's."""
    if head == "c4":
        recipe = load_recipe(DetectionRecipe, find_recipe("detection/coco_c4_1x.yaml"))
    else:
        recipe = torchvision_recipe("maskrcnn_resnet50_fpn" if head == "mask_fpn" else "fasterrcnn_resnet50_fpn")
    changes = {"conventions": "vertebra", "rois": regions, "proposals": (recipe.model.proposals[0], proposals)}
    settings = recipe.model.model_copy(update=changes)
    recipe = recipe.model_copy(update={"model": settings, "backbone": backbone, "width": width})
    model = make_detector(recipe, make_detector_backbone(recipe), CLASSES)
    model.rpn.nms_iou = NMS_IOU
    nn.init.zeros_(model.rpn.head.deltas.weight)
    return model


def their_detector(head: str, backbone: str, size: tuple[int, int], *, regions: int, proposals: int) -> nn.Module:
    """torchvision's, its norms frozen, the layers trained that it trains by default; images of `size` keep it."""
    limits = {"box_batch_size_per_image": regions, "rpn_post_nms_top_n_test": proposals}
    if head == "c4":
        model = _their_c4(THEIRS[backbone], **limits)
    else:
        pyramid = resnet_fpn_backbone(backbone_name=THEIRS[backbone], weights=None)
        make = detection.MaskRCNN if head == "mask_fpn" else detection.FasterRCNN
        model = make(pyramid, CLASSES + 1, **limits)
    model.rpn.nms_thresh = NMS_IOU
    nn.init.zeros_(model.rpn.head.bbox_pred.weight)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model.transform = GeneralizedRCNNTransform(min(size), max(size), mean, std)
    return model


def _their_c4(name: str, **limits: int) -> nn.Module:
    """Faster R-CNN on conv4_x of torchvision's ResNet, conv5_x on each region, with the limits of our recipe."""
    body = torchvision.models.get_model(name, norm_layer=torchvision.ops.FrozenBatchNorm2d)
    body.conv1.requires_grad_(False)
    body.layer1.requires_grad_(False)
    trunk = nn.Sequential(*list(body.children())[:-3])
    trunk.out_channels = body.fc.in_features // 2  # type: ignore[assignment]
    return detection.FasterRCNN(
        trunk,
        rpn_anchor_generator=AnchorGenerator((ANCHOR_SIZES,), ((0.5, 1.0, 2.0),)),
        rpn_pre_nms_top_n_train=12000,
        rpn_pre_nms_top_n_test=6000,
        rpn_post_nms_top_n_train=2000,
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 14, 0),
        box_head=nn.Sequential(body.layer4, body.avgpool, nn.Flatten()),
        box_predictor=FastRCNNPredictor(body.fc.in_features, CLASSES + 1),
        **limits,
    )


def detectron2s_detector(head: str, *, regions: int, proposals: int) -> nn.Module:
    """detectron2's R-50, its norms and first layers frozen as its zoo's configurations say, but its stride in the 3x3
    layers as in ours and torchvision's: in the 1x1, as its zoo has it, is less work."""
    from detectron2.utils.events import EventStorage

    from tests.detectors.detectron2_peer import config_of, detectron2s

    EventStorage().__enter__()  # its losses log into the innermost, and there has to be one
    task, name = ("InstanceSegmentation", "mask_rcnn") if head == "mask_fpn" else ("Detection", "faster_rcnn")
    config = config_of(f"COCO-{task}/{name}_R_50_{'C4' if head == 'c4' else 'FPN'}_1x")
    config.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = regions
    config.MODEL.RPN.POST_NMS_TOPK_TRAIN, config.MODEL.RPN.POST_NMS_TOPK_TEST = 2000, proposals
    config.MODEL.RPN.NMS_THRESH, config.MODEL.RESNETS.STRIDE_IN_1X1 = NMS_IOU, False
    model = detectron2s(config)
    nn.init.zeros_(model.proposal_generator.rpn_head.anchor_deltas.weight)
    return model


def detectron2s_inputs(images: ImageBatch, targets: Targets, masks: list[Tensor]) -> list[dict[str, Any]]:
    """The same images as detectron2 takes them. masks: of each image's truths, or none."""
    from detectron2.structures import BitMasks, Boxes, Instances

    inputs = []
    for n, (pixels_3HW, size) in enumerate(zip(images.pixels_N3HW, images.sizes_hw)):
        truth = Instances(size, gt_boxes=Boxes(targets.boxes_NG4[n]), gt_classes=targets.labels_NG[n] - 1)
        if masks:
            truth.gt_masks = BitMasks(masks[n])
        inputs.append({"image": pixels_3HW, "instances": truth})
    return inputs


def batch_of(size: tuple[int, int], images: int, device: torch.device) -> tuple[ImageBatch, Targets]:
    """Noise, boxes of all sizes, and their masks: the lower halves of the boxes."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    pixels_N3HW = torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=generator)
    side_NG2 = torch.exp(torch.rand(images, TRUTHS, 2, generator=generator) * 2.5 + 2.5).minimum(
        torch.tensor([width, height]) * 0.9
    )
    corner_NG2 = torch.rand(images, TRUTHS, 2, generator=generator) * (torch.tensor([width, height]) - side_NG2)
    boxes_NG4 = torch.cat([corner_NG2, corner_NG2 + side_NG2], dim=-1)
    shape = boxes_NG4.shape[:2]
    nothing = torch.zeros(shape, dtype=torch.bool)
    masks_KHW = torch.zeros(images * TRUTHS, height, width, dtype=torch.uint8)
    for mask_HW, (x0, y0, x1, y1) in zip(masks_KHW, boxes_NG4.flatten(0, 1).round().int().tolist()):
        mask_HW[(y0 + y1) // 2 : y1, x0:x1] = 1
    place_K = torch.arange(images * TRUTHS)
    masks = Masks.of(list(masks_KHW), place_K // TRUTHS, place_K % TRUTHS)
    labels_NG = torch.randint(1, CLASSES + 1, shape, generator=generator)
    sizes = (size,) * images
    targets = Targets(
        boxes_NG4,
        labels_NG,
        ~nothing,
        nothing,
        nothing,
        nothing,
        torch.arange(images),
        tuple(range(images)),
        sizes,
        masks,
    )
    return ImageBatch(pixels_N3HW, torch.tensor(sizes), sizes).to(device), targets.to(device)


def our_step(model: FasterRCNN, images: ImageBatch, targets: Targets, precision: str, train: bool) -> None:
    """One training step, or one batch of detections."""
    device = images.pixels_N3HW.device
    with precisions.autocast(device, precision):
        if not train:
            with torch.no_grad():
                model.detect(images)
            return
        losses = model(images, targets)
    model.zero_grad(set_to_none=True)
    sum(losses.values()).backward()  # type: ignore[union-attr]


def their_step(model: nn.Module, inputs: tuple[Any, ...], device: torch.device, precision: str, train: bool) -> None:
    """The same of a detector that takes images as its loader makes them, and truth in training."""
    with precisions.autocast(device, precision):
        if not train:
            with torch.no_grad():
                model(*inputs)
            return
        losses = model(*inputs)
    model.zero_grad(set_to_none=True)
    sum(losses.values()).backward()


def regions_of(predictor: nn.Module, call: Callable[[], None]) -> int:
    """Count the regions that the box head judges in one call."""
    counts: list[int] = []
    handle = predictor.register_forward_hook(lambda module, inputs, output: counts.append(inputs[0][..., 0].numel()))
    call()
    handle.remove()
    return sum(counts)


def candidates(args: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], dict[str, nn.Module]]:
    """The timed calls, by name, and the predictors of those in float32, which see the regions of a call."""
    device = torch.device(args.device)
    default = precisions.resolve("auto", device)
    torch.manual_seed(0)
    images, targets = batch_of(tuple(args.size), args.batch, device)
    pixels = list(images.pixels_N3HW.float() / 255)
    truth = [{"boxes": targets.boxes_NG4[n], "labels": targets.labels_NG[n]} for n in range(args.batch)]
    masks: list[Tensor] = []
    if args.head == "mask_fpn":
        assert targets.masks is not None
        whole = [targets.masks.whole(k, tuple(args.size)) for k in range(args.batch * TRUTHS)]
        masks = list(torch.stack(whole).unflatten(0, (args.batch, TRUTHS)))
        truth = [{**one, "masks": mask} for one, mask in zip(truth, masks)]
    inputs = (pixels, truth) if args.train else (pixels,)
    limits = {"regions": args.regions, "proposals": args.proposals}
    ours = our_detector(args.head, args.backbone, **limits).to(device).train(args.train)
    theirs, theirs_last = (
        their_detector(args.head, args.backbone, tuple(args.size), **limits)
        .to(device, memory_format=layout)
        .train(args.train)
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    calls: dict[str, Callable[[], None]] = {}
    predictors = {
        "ours fp32": ours.box_head.predictor,
        "torchvision fp32 (its default)": theirs.roi_heads.box_predictor,
    }
    calls["ours fp32"] = partial(our_step, ours, images, targets, "fp32", args.train)
    calls["torchvision fp32 (its default)"] = partial(their_step, theirs, inputs, device, "fp32", args.train)
    if default != "fp32":
        calls[f"ours {default} (our default)"] = partial(our_step, ours, images, targets, default, args.train)
        named = f"torchvision {default} channels_last"
        calls[named] = partial(their_step, theirs_last, inputs, device, default, args.train)
    if args.detectron2:
        peer = detectron2s_detector(args.head, **limits).to(device).train(args.train)
        given = (detectron2s_inputs(images, targets, masks),)
        named = "detectron2 fp32 (its default)"
        calls[named] = partial(their_step, peer, given, device, "fp32", args.train)
        predictors[named] = peer.roi_heads.box_predictor
    return {name: call for name, call in calls.items() if args.only in name}, predictors


def main() -> None:
    parser = timing_parser(__doc__, rounds=5, device=True, threads=1)
    parser.add_argument("--train", action="store_true", help="a training step instead of inference")
    parser.add_argument("--backbone", choices=THEIRS, default="r50")
    parser.add_argument("--head", choices=("fpn", "mask_fpn", "c4"), default="fpn", help="and body (default fpn)")
    parser.add_argument(
        "--masks", action="store_const", const="mask_fpn", dest="head", help="Mask R-CNN: --head mask_fpn"
    )
    parser.add_argument("--regions", type=int, default=512, help="of an image, to train the box head (default 512)")
    parser.add_argument("--proposals", type=int, default=1000, help="of an image, in inference (default 1000)")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1056), help="height and width (default 800 1056)")
    parser.add_argument("--batch", type=int, default=1, help="images (default 1)")
    parser.add_argument("--detectron2", action="store_true", help="its R-50 too")
    parser.add_argument("--only", default="", help="candidates whose name has this; of one: its peak memory, MB")
    args = parse_timing(parser)

    calls, predictors = candidates(args)
    counts = [f"{name} {regions_of(predictors[name], call)}" for name, call in calls.items() if name in predictors]
    print(f"regions in a call: {', '.join(counts)}")
    seconds = side_by_side(args, calls)
    if len(seconds) == 1:
        print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        return
    work = "training" if args.train else "inference"
    threads = f"{torch.get_num_threads()}thread" if args.device == "cpu" else args.device
    path = args.output or RESULTS / f"{args.backbone}_{args.head}_{work}_{args.size[0]}x{args.size[1]}_{threads}.json"
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    pairs = [
        (a, b)
        for (a, one), (b, other) in permutations(enumerate(seconds), 2)
        if one.startswith("ours") > other.startswith("ours") and ("fp32" not in one or "fp32" in other)
    ]
    conclude(path, setting, seconds, pairs)


if __name__ == "__main__":
    main()
