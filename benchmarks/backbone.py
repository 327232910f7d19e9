"""Our ResNet forward and backward against torchvision's: same weights, same images, one alternating run.

python benchmarks/backbone.py --backbone r50 --batch 8 --rounds 7
python benchmarks/backbone.py --backbone timm:tf_efficientnet_lite0    # as we run it beside as timm does
python benchmarks/backbone.py --device cuda --batch 64 --rounds 20

Two questions: at fp32, both in channels_last, is ours as fast; and what does our default on this machine
(channels_last, bf16 where it is fast) take of torchvision's default (fp32, contiguous)? Norms use the batch's
statistics unless --frozen, where torchvision gets its own FrozenBatchNorm2d, as in its detectors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from common import (  # first: it makes the rooms importable
    RESULTS,
    conclude,
    parse_timing,
    side_by_side,
    timing_parser,
)

import torch  # isort: skip
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from backbones import create_backbone
from backbones.norms import freeze_norms
from vertebra.engine import precision as precisions

THEIRS = {"r18": "resnet18", "r34": "resnet34", "r50": "resnet50", "r101": "resnet101", "r152": "resnet152"}


class Theirs(nn.Module):
    """The library's network on the same raw pixels: its reference training normalises in the loader, here once."""

    def __init__(self, name: str, state: dict[str, Tensor], *, frozen: bool, channels_last: bool) -> None:
        super().__init__()
        if name.startswith("timm:"):
            import timm

            self.net = timm.create_model(name.removeprefix("timm:"))
        else:
            norm = torchvision.ops.FrozenBatchNorm2d if frozen else nn.BatchNorm2d
            self.net = torchvision.models.get_model(THEIRS[name], norm_layer=norm)
        self.net.load_state_dict(state, strict=not frozen)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.layout)
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1))

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        x = (pixels_N3HW.float() - self.mean) / self.std
        return self.net(x.contiguous(memory_format=self.layout)).float()


def training_step(net: nn.Module, pixels_N3HW: Tensor, labels_N: Tensor, precision: str) -> Callable[[], None]:
    """Forward, loss and backward, without the optimiser, which is the same for both."""
    net.train()

    def step() -> None:
        net.zero_grad(set_to_none=True)
        with precisions.autocast(pixels_N3HW.device, precision):
            loss = F.cross_entropy(net(pixels_N3HW), labels_N)
        loss.backward()

    return step


def inference(net: nn.Module, pixels_N3HW: Tensor, precision: str) -> Callable[[], None]:
    """Forward alone, in evaluation."""
    net.eval()

    def step() -> None:
        with torch.no_grad(), precisions.autocast(pixels_N3HW.device, precision):
            net(pixels_N3HW)

    return step


def candidates(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The timed calls, by name."""
    device = torch.device(args.device)
    torch.manual_seed(0)
    default = precisions.resolve("auto", device)
    pixels_N3HW = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8, device=device)
    labels_N = torch.randint(0, 1000, (args.batch,), device=device)
    ours = create_backbone(args.backbone)
    state = ours.state_dict()
    if args.frozen:
        freeze_norms(ours)
    library = "timm" if args.backbone.startswith("timm:") else "torchvision"
    theirs = {
        layout: Theirs(args.backbone, state, frozen=args.frozen, channels_last=layout == "channels_last")
        for layout in ("contiguous", "channels_last")
    }
    nets: dict[str, tuple[nn.Module, str]] = {
        "ours fp32": (ours, "fp32"),
        f"{library} fp32 channels_last": (theirs["channels_last"], "fp32"),
        f"{library} fp32 (its default)": (theirs["contiguous"], "fp32"),
        f"ours {default} (our default)": (ours, default),
        f"{library} {default} channels_last": (theirs["channels_last"], default),
    }
    calls = {}
    for name, (net, precision) in nets.items():
        net.to(device)
        if args.forward_only:
            calls[name] = inference(net, pixels_N3HW, precision)
        else:
            calls[name] = training_step(net, pixels_N3HW, labels_N, precision)
    return calls


def main() -> None:
    parser = timing_parser(__doc__, rounds=7, device=True, threads=None)
    parser.add_argument("--backbone", default="r50", help=f"{', '.join(THEIRS)}, or timm:NAME (default r50)")
    parser.add_argument("--batch", type=int, default=8, help="images (default 8)")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default 224)")
    parser.add_argument("--frozen", action="store_true", help="norms frozen, as in a detector")
    parser.add_argument("--forward-only", action="store_true", help="inference instead of forward and backward")
    args = parse_timing(parser)
    if args.backbone not in THEIRS and (not args.backbone.startswith("timm:") or args.frozen):
        parser.error("--backbone: one of ours, or timm:NAME, its norms not --frozen")
    seconds = side_by_side(args, candidates(args))
    work = ("inference" if args.forward_only else "training") + ("_frozen" if args.frozen else "")
    name = args.backbone.replace(":", "_")
    path = args.output or RESULTS / f"backbone_{name}_{work}_{args.device}.json"
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    conclude(path, setting, seconds, ((0, 1), (0, 2), (3, 2), (3, 4)))


if __name__ == "__main__":
    main()
