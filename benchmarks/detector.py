"""Our R50-FPN Faster and Mask R-CNN against torchvision's: same images, same boxes, same limits, one alternating run.

python benchmarks/detector.py --train --size 320 480 --batch 2 --threads 1
python benchmarks/detector.py --size 800 1056 --threads 2
python benchmarks/detector.py --train --device cuda --size 800 1056 --batch 8 --rounds 20

A training step is forward and backward, without the optimiser, which is the same for both: conv1 and conv2_x frozen,
norms frozen, 256 anchors and 512 regions an image of 2000 proposals. Inference is one batch from pixels to detections,
of 1000 proposals. Neither resizes. Weights are random, and proposals are the anchors: they are suppressed above an IoU
of 0.9 instead of 0.7, so that no fewer survive than with trained weights. The regions of both are printed.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from functools import partial

from common import (  # first: it makes the rooms importable
    RESULTS,
    alternate,
    clock_of,
    conclude,
    parse_timing,
    summary,
    timing_parser,
)

import torch  # isort: skip
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detectors.faster_rcnn import FasterRCNN
from detectors.structures import ImageBatch, Masks, Targets
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import make_detector
from vertebra.build.outside_detectors import torchvision_recipe
from vertebra.engine import precision as precisions

CLASSES = 80
TRUTHS = 8  # an image; COCO has 7
NMS_IOU = 0.9


def our_detector(masks: bool) -> FasterRCNN:
    """By the recipe of torchvision's detector, our own conventions."""
    recipe = torchvision_recipe("maskrcnn_resnet50_fpn" if masks else "fasterrcnn_resnet50_fpn")
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"conventions": "vertebra"})})
    model = make_detector(recipe, make_detector_backbone(recipe), CLASSES)
    model.rpn.nms_iou = NMS_IOU
    nn.init.zeros_(model.rpn.head.deltas.weight)
    return model


def their_detector(masks: bool, channels_last: bool, size: tuple[int, int]) -> nn.Module:
    """torchvision's, its norms frozen, the layers trained that it trains by default; images of `size` keep it."""
    make = torchvision.models.detection.maskrcnn_resnet50_fpn if masks else None
    make = make or torchvision.models.detection.fasterrcnn_resnet50_fpn
    model = make(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    model.rpn.nms_thresh = NMS_IOU
    nn.init.zeros_(model.rpn.head.bbox_pred.weight)
    model.backbone.body = _frozen(model.backbone.body)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model.transform = GeneralizedRCNNTransform(min(size), max(size), mean, std)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def _frozen(body: nn.Module) -> nn.Module:
    """The trunk as torchvision has it with pre-trained weights: its FrozenBatchNorm2d, conv1 and layer1 fixed."""
    for module in list(body.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                norm = torchvision.ops.FrozenBatchNorm2d(child.num_features)
                norm.load_state_dict({k: v for k, v in child.state_dict().items() if k in norm.state_dict()})
                setattr(module, name, norm)
    for name, parameter in body.named_parameters():
        if name.startswith(("conv1", "layer1")):
            parameter.requires_grad_(False)
    return body


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
    offsets = tuple(range(0, (len(place_K) + 1) * height * width, height * width))
    masks = Masks.of(masks_KHW.flatten(), place_K // TRUTHS, place_K % TRUTHS, offsets)
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


def their_step(
    model: nn.Module, pixels: list[Tensor], truth: list[dict[str, Tensor]], precision: str, train: bool
) -> None:
    """The same of torchvision's, on pixels 0..1, which its loader makes."""
    with precisions.autocast(pixels[0].device, precision):
        if not train:
            with torch.no_grad():
                model(pixels)
            return
        losses = model(pixels, truth)
    model.zero_grad(set_to_none=True)
    sum(losses.values()).backward()


def regions_of(pool: nn.Module, call: Callable[[], None]) -> int:
    """Count the regions that the box head pools in one call."""
    counts: list[int] = []
    handle = pool.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    call()
    handle.remove()
    return sum(counts)


def candidates(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The timed calls, by name."""
    device = torch.device(args.device)
    default = precisions.resolve("auto", device)
    torch.manual_seed(0)
    images, targets = batch_of(tuple(args.size), args.batch, device)
    pixels = list(images.pixels_N3HW.float() / 255)
    truth = []
    for n in range(args.batch):
        one: dict[str, Tensor] = {"boxes": targets.boxes_NG4[n], "labels": targets.labels_NG[n]}
        if args.masks:
            assert targets.masks is not None
            one["masks"] = targets.masks.bits(
                torch.arange(targets.masks.offsets[-1], device=targets.boxes_NG4.device)
            ).view(args.batch, TRUTHS, *args.size)[n]
        truth.append(one)
    ours = our_detector(args.masks).to(device).train(args.train)
    theirs, theirs_last = (
        their_detector(args.masks, last, tuple(args.size)).to(device).train(args.train) for last in (False, True)
    )
    calls: dict[str, Callable[[], None]] = {}
    calls["ours fp32"] = partial(our_step, ours, images, targets, "fp32", args.train)
    calls["torchvision fp32 (its default)"] = partial(their_step, theirs, pixels, truth, "fp32", args.train)
    if default != "fp32":
        calls[f"ours {default} (our default)"] = partial(our_step, ours, images, targets, default, args.train)
        named = f"torchvision {default} channels_last"
        calls[named] = partial(their_step, theirs_last, pixels, truth, default, args.train)
    if not args.only:
        counts = [
            regions_of(pool, calls[name])
            for pool, name in zip((ours.box_head.pool, theirs.roi_heads.box_roi_pool), list(calls))
        ]
        print(f"regions in a call: ours {counts[0]}, torchvision's {counts[1]}")
    return {name: call for name, call in calls.items() if args.only in name}


def main() -> None:
    parser = timing_parser(__doc__, rounds=5, device=True, threads=1)
    parser.add_argument("--train", action="store_true", help="a training step instead of inference")
    parser.add_argument("--masks", action="store_true", help="Mask R-CNN instead of Faster R-CNN")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1056), help="height and width (default 800 1056)")
    parser.add_argument("--batch", type=int, default=1, help="images (default 1)")
    parser.add_argument("--only", default="", help="only candidates whose name has this; prints their peak memory, MB")
    args = parse_timing(parser)

    seconds = alternate(candidates(args), rounds=args.rounds, device=args.device, clock=clock_of(args))
    for name, values in seconds.items():
        one = summary(values)
        print(f"{name:36s} median {one['median_s']:.3f} s  ({one['min_s']:.3f} .. {one['max_s']:.3f}, n {one['n']})")
    if args.only:
        print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        return
    work = ("mask_" if args.masks else "") + ("training" if args.train else "inference")
    threads = f"{torch.get_num_threads()}thread" if args.device == "cpu" else args.device
    path = args.output or RESULTS / f"r50_fpn_{work}_{args.size[0]}x{args.size[1]}_{threads}.json"
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    conclude(path, setting, seconds, [(0, 1), (2, 1), (2, 3)] if len(seconds) == 4 else [(0, 1)])


if __name__ == "__main__":
    main()
