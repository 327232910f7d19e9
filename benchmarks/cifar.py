"""Training a CIFAR net: our loop against a plain one in torchvision's manner, same net and weights, in turns.

python benchmarks/cifar.py --backbone cifar_r20 --cpu-seconds
python benchmarks/cifar.py --backbone cifar_r110 --device cuda --compile --steps 200 --rounds 9

A figure is seconds a step with all that a step takes: images read, padded, cropped and mirrored, forward, backward,
optimiser, what the log needs. Ours: images resident, `loop`. Plain: torchvision's transforms on single images
in a DataLoader, the net as a textbook has it, and after its reference training a look at loss and accuracy each step.
Images are random numbers: they cost what photographs do, as both sides hold them decoded. Both sides run in one
process, which on a CPU keeps freed memory for both (see `vertebra.engine.device`).
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import RESULTS, conclude, parse_timing, summary, timing_parser  # first: it makes the rooms importable

import numpy as np  # isort: skip
import torch
import torch.nn.functional as F
from PIL import Image
from steps import Stopwatch, train
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from backbones import create_backbone
from backbones.cifar import CIFAR_MEAN, CIFAR_STD
from backbones.classifier import Classifier
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.datasets.strings import Strings
from vertebra.data.loading.resident import read_resident, resident_train_loader
from vertebra.data.loading.sampling import Share
from vertebra.engine import distributed
from vertebra.engine import precision as precisions
from vertebra.engine.optim import sgd

IMAGES, BATCH, LR, DECAY = 50_000, 128, 0.1, 1e-4


class PlainBlock(nn.Module):
    """A basic block as a textbook has it, with the zero-padded shortcut; None: without one."""

    def __init__(self, inputs: int, planes: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.stride, self.added, self.residual = stride, planes - inputs, residual

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.residual:
            out += x if self.stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))
        return self.relu(out)


class PlainNet(nn.Module):
    """Our CIFAR net's parameters under the same names, normalised pixels in, logits out."""

    def __init__(self, depth: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for index, planes in enumerate((16, 32, 64)):
            blocks = []
            for place in range((depth - 2) // 6):
                blocks.append(PlainBlock(inputs, planes, 2 if index and not place else 1, residual))
                inputs = planes
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class PlainImages(Dataset[Any]):
    """As torchvision.datasets.CIFAR10 gives them: one PIL image at a time, through its transforms."""

    def __init__(self, pixels_IHW3: np.ndarray, labels_I: np.ndarray) -> None:
        self.pixels_IHW3, self.labels_I = pixels_IHW3, labels_I
        mean, std = ([value / 255 for value in values] for values in (CIFAR_MEAN, CIFAR_STD))
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels_I)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels_IHW3[index])), int(self.labels_I[index])


def random_images(count: int = IMAGES) -> ClassificationDataset:
    """As many as CIFAR-10 has for training."""
    rng = np.random.default_rng(0)
    pixels_IHW3, labels_I = rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)
    names = Strings(map(str, range(count)))
    return ClassificationDataset(Path("random"), "train", tuple("0123456789"), names, labels_I, pixels_IHW3)


def stopwatch(args: argparse.Namespace) -> Stopwatch:
    clock = time.process_time if args.cpu_seconds else time.perf_counter
    return Stopwatch(args.warm, args.steps, torch.device(args.device), clock)


def ours(args: argparse.Namespace, images: ClassificationDataset, precision: str) -> Callable[[], Stopwatch]:
    """Our loop, loader and net; a call trains for a while."""
    world = distributed.start(args.device)
    resident = read_resident(images, size=32, device=world.device)
    torch.manual_seed(0)
    model = Classifier(create_backbone(args.backbone, num_classes=10)).to(world.device)

    def call() -> Stopwatch:
        watch = stopwatch(args)
        batches = resident_train_loader(resident, Share(batch=BATCH, stop=watch.iterations), augment="pad", flip=0.5)
        optimizer = sgd(model, lr=LR, momentum=0.9, weight_decay=DECAY)
        return train(model, optimizer, batches, watch, precision=precision, compile=args.compile)

    return call


def plain(
    args: argparse.Namespace, images: ClassificationDataset, precision: str, tuned: bool
) -> Callable[[], Stopwatch]:
    """The plain loop; tuned: channels_last, and the precision that ours has."""
    device, name = torch.device(args.device), args.backbone
    torch.manual_seed(0)
    source = create_backbone(name, num_classes=10)
    net = PlainNet(int(re.sub(r"\D", "", name)), residual=name.startswith("cifar_r"))
    net.load_state_dict(source.state_dict())
    check_same(net, source)
    layout = torch.channels_last if tuned else torch.contiguous_format
    net.to(device, memory_format=layout).train()
    optimizer = torch.optim.SGD(net.parameters(), LR, momentum=0.9, weight_decay=DECAY)
    assert images.pixels_IHW3 is not None
    loader = DataLoader(
        PlainImages(images.pixels_IHW3, images.labels_I), BATCH, shuffle=True, drop_last=True,
        num_workers=args.workers, pin_memory=args.device == "cuda",
    )  # fmt: skip

    def call() -> Stopwatch:
        watch = stopwatch(args)
        for pixels, labels in watch.watch(loader):
            pixels = pixels.to(device, non_blocking=True).contiguous(memory_format=layout)
            labels = labels.to(device, non_blocking=True)
            with precisions.autocast(device, precision):
                logits = net(pixels)
                loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item(), (logits.argmax(1) == labels).float().mean().item()
        return watch

    return call


@torch.no_grad()
def check_same(net: PlainNet, ours: nn.Module) -> None:
    """Both nets are the same function, to rounding."""
    pixels_N3HW = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CIFAR_MEAN, CIFAR_STD))
    torch.testing.assert_close(net.eval()((pixels_N3HW - mean) / std), ours.eval()(pixels_N3HW), rtol=1e-3, atol=1e-4)


def main() -> None:
    parser = timing_parser(__doc__, rounds=7, device=True, threads=1)
    parser.add_argument("--backbone", default="cifar_r20", help="a CIFAR net (default cifar_r20)")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a call (default 8)")
    parser.add_argument("--warm", type=int, default=2, help="steps of a call before them (default 2)")
    parser.add_argument("--workers", type=int, default=0, help="of the plain DataLoader (default 0)")
    parser.add_argument("--compile", action="store_true", help="ours compiled; give --warm 30 or so")
    args = parse_timing(parser)
    if args.cpu_seconds and args.workers:
        parser.error("--cpu-seconds counts one process: no --workers with it")

    images = random_images()
    default = precisions.resolve("auto", torch.device(args.device))
    calls = {
        f"ours {default} (our default)": ours(args, images, default),
        "plain fp32 (its default)": plain(args, images, "fp32", tuned=False),
        "ours fp32": ours(args, images, "fp32"),
        f"plain {default} channels_last": plain(args, images, default, tuned=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, args.rounds):  # one turn to warm up
        for name, call in calls.items():
            step_s = call().step_s
            if turn >= 0:
                seconds[name].append(step_s)
    for name, values in seconds.items():
        one = summary(values)
        print(f"{name:32s} median {one['median_s']:.4f} s a step  ({one['min_s']:.4f} .. {one['max_s']:.4f}), "
              f"{BATCH / one['median_s']:.0f} images/s")  # fmt: skip
    compiled = "_compiled" if args.compile else ""
    path = args.output or RESULTS / f"{args.backbone}_training{compiled}_{args.device}.json"
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    conclude(path, setting, seconds, ((0, 1), (2, 1), (0, 3)))


if __name__ == "__main__":
    main()
