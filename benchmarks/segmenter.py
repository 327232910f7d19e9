"""Our DeepLabv3 against torchvision's `deeplabv3_resnet50`: same weights, same images, one alternating run.

python benchmarks/segmenter.py --train --size 480 480 --batch 2 --rounds 7
python benchmarks/segmenter.py --size 480 480 --batch 1 --rounds 15

Both at output stride 8, 21 classes. A training step is forward, loss and backward of both heads, without the optimiser,
which is the same for both; inference is one batch from pixels to scores of every pixel, without the auxiliary head.
torchvision gets its pixels normalised, as its reference training does that in the loader. The peak memory is that of a
process that has made nothing but one of them, and called it three times.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from common import (  # first: it makes the rooms importable
    RESULTS,
    conclude,
    parse_timing,
    side_by_side,
    timing_parser,
)

import torch  # isort: skip
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from backbones import create_backbone
from backbones.structures import ImageBatch
from segmenters.segmenter import IGNORED
from vertebra.build.segmenter import make_segmenter
from vertebra.engine import precision as precisions
from vertebra.recipes.schema_segmentation import SegmentationRecipe

CLASSES = 21
AUXILIARY = 0.5  # weight of that loss in torchvision's reference training


def their_segmenter(train: bool) -> nn.Module:
    torch.manual_seed(0)
    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=train).train(train)


def our_segmenter(train: bool) -> nn.Module:
    """With the weights of torchvision's, whose tensors come in the order of ours."""
    model = {"head": "deeplabv3", "output_stride": 8, "auxiliary": AUXILIARY if train else 0.0}
    recipe = SegmentationRecipe(backbone="r50", weights="none", model=model)
    segmenter = make_segmenter(recipe, create_backbone("r50", output_stride=8), CLASSES)
    theirs = their_segmenter(train).state_dict()
    segmenter.load_state_dict(dict(zip(segmenter.state_dict(), theirs.values(), strict=True)))
    return segmenter.train(train)


def step(model: nn.Module, losses: Callable[[], dict[str, Tensor]], precision: str, device: torch.device) -> None:
    """Forward, losses, backward."""
    with precisions.autocast(device, precision):
        total = sum(losses().values())
    model.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[union-attr]


@torch.no_grad()
def scores(model: nn.Module, images: ImageBatch | Tensor, precision: str, device: torch.device) -> None:
    with precisions.autocast(device, precision):
        model(images)


def their_losses(model: nn.Module, pixels_N3HW: Tensor, labels_NHW: Tensor) -> dict[str, Tensor]:
    """As in torchvision's references/segmentation."""
    weights = {"out": 1.0, "aux": AUXILIARY}
    return {
        name: weights[name] * F.cross_entropy(logits, labels_NHW, ignore_index=IGNORED)
        for name, logits in model(pixels_N3HW).items()
    }


def call(args: argparse.Namespace, name: str, precision: str) -> Callable[[], None]:
    """What is timed, of ours or of torchvision's."""
    device, size = torch.device(args.device), tuple(args.size)
    torch.manual_seed(0)
    pixels_N3HW = torch.randint(0, 256, (args.batch, 3, *size), dtype=torch.uint8, device=device)
    labels_NHW = torch.randint(0, CLASSES, (args.batch, *size), device=device)
    labels_NHW[:, ::16] = IGNORED
    if name.startswith("ours"):
        model = our_segmenter(args.train).to(device)
        sizes = (size,) * args.batch
        images = ImageBatch(pixels_N3HW, torch.tensor(sizes, device=device), sizes)
        losses = partial(model, images, labels_NHW.byte())
    else:
        model = their_segmenter(args.train).to(device)
        images = (pixels_N3HW.float() - 116) / 58
        if "channels_last" in name:
            model, images = (one.to(memory_format=torch.channels_last) for one in (model, images))
        losses = partial(their_losses, model, images, labels_NHW)
    if args.train:
        return partial(step, model, losses, precision, device)
    return partial(scores, model, images, precision, device)


def peak_mb(name: str) -> float:
    """Return the peak memory of a process that runs this candidate alone."""
    command = [sys.executable, *sys.argv, "--only", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = timing_parser(__doc__, rounds=7, device=True, threads=1)
    parser.add_argument("--train", action="store_true", help="a training step instead of inference")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 480), help="height and width (default 480 480)")
    parser.add_argument("--batch", type=int, default=2, help="images (default 2)")
    parser.add_argument("--only", help="print the peak memory of this candidate, MB, and nothing else")
    args = parse_timing(parser)
    default = precisions.resolve("auto", torch.device(args.device))
    names = {"ours fp32": "fp32", "torchvision fp32 (its default)": "fp32"}
    if default != "fp32":
        names |= {f"ours {default} (our default)": default, f"torchvision {default} channels_last": default}
    if args.only:
        timed = call(args, args.only, names[args.only])
        for _ in range(3):
            timed()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    memory_mb = {name: peak_mb(name) for name in names}
    for name, peak in memory_mb.items():
        print(f"{name:36s} peak memory of its process {peak:.0f} MB")
    seconds = side_by_side(args, {name: call(args, name, precision) for name, precision in names.items()})
    work = "training" if args.train else "inference"
    threads = f"{torch.get_num_threads()}thread" if args.device == "cpu" else args.device
    path = args.output or RESULTS / f"deeplabv3_r50_{work}_{args.size[0]}x{args.size[1]}_{threads}.json"
    setting = {name: value for name, value in vars(args).items() if name not in ("output", "only")}
    pairs = [(0, 1), (2, 1), (2, 3)] if len(names) == 4 else [(0, 1)]
    conclude(path, {**setting, "peak_mb": memory_mb}, seconds, pairs)


if __name__ == "__main__":
    main()
