"""Images a second of our classification loader and of torchvision's, from the same JPEG files, in one alternating run.

python benchmarks/input_pipeline.py --data IMAGENETTE/train
python benchmarks/input_pipeline.py --data VOCdevkit/VOC2012/JPEGImages --rounds 7

--data is a folder of classes, or of images (one class then). Both sides read and decode every image every time, crop
at random (8 to 100 % of the area), bring the crop to 224 x 224 with antialiasing and mirror half of them.
torchvision's are ImageFolder, DataLoader and the transforms of its reference training, on PIL images (its default) and
on tensors; they end as normalised float batches. Ours ends as uint8 batches, which the network normalises on its
device. A round is one epoch over the chosen images by fresh worker processes, their start included; one worker is
one core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import (  # first: it makes the rooms importable
    RESULTS,
    alternate,
    draw_epoch,
    parse_timing,
    ratio,
    summary,
    timing_parser,
    write_result,
)

import torch  # isort: skip
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from vertebra.data.datasets.catalog import open_classification
from vertebra.data.datasets.folders import is_image
from vertebra.data.loading.classification import classification_train_loader
from vertebra.data.loading.sampling import Share
from vertebra.data.transforms.classification_views import ClassificationTransform

OURS, PIL, TENSORS = "ours", "torchvision, PIL (its default)", "torchvision, tensors"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def link_images(data: Path, images: int, batch: int, into: Path) -> int:
    """Links evenly spaced files of a folder (of classes, or of one) into INTO/train/<class>/; returns how many."""
    files = sorted(path for path in [*data.glob("*"), *data.glob("*/*")] if is_image(path.name) and path.is_file())
    count = min(images, len(files)) // batch * batch
    if not count:
        raise SystemExit(f"{data}: {len(files)} images in it and in folders below; a batch takes {batch}")
    for number in range(count):
        file = files[number * len(files) // count]
        folder = into / "train" / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).symlink_to(file.resolve())
        file.read_bytes()  # into the page cache
    return count


def ours(root: Path, args: argparse.Namespace, workers: int) -> Iterable[Any]:
    """An epoch of ours, as a training would set it up with --input.cache-mb 0."""
    transform = ClassificationTransform(size=args.size, shorter=args.size, augment="crop", flip=0.5)
    share = Share(batch=args.batch, workers=workers)
    return classification_train_loader(open_classification(root, "train"), transform, share, cache_mb=0)


def torchvision(root: Path, args: argparse.Namespace, workers: int, *, tensors: bool) -> Iterable[Any]:
    """An epoch of torchvision's, transformed on tensors or, as its reference does by default, on PIL images."""
    geometry = [v2.RandomResizedCrop(args.size, antialias=True), v2.RandomHorizontalFlip(0.5)]
    numbers = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor()]
    steps = [v2.ToImage(), *geometry, *numbers] if tensors else [*geometry, v2.ToImage(), *numbers]
    images = ImageFolder(str(root / "train"), v2.Compose(steps))
    return DataLoader(images, args.batch, shuffle=True, num_workers=workers)


def measure(root: Path, args: argparse.Namespace, workers: int) -> dict[str, list[float]]:
    """Seconds of each round, by candidate."""
    makers = {
        OURS: lambda: ours(root, args, workers),
        PIL: lambda: torchvision(root, args, workers, tensors=False),
        TENSORS: lambda: torchvision(root, args, workers, tensors=True),
    }
    return alternate({name: draw_epoch(make) for name, make in makers.items()}, rounds=args.rounds)


def report(seconds: dict[str, list[float]], images: int, workers: int) -> dict[str, Any]:
    """Prints and returns rates and ratios of rates (above 1: ours is faster)."""
    rates = {}
    for name, values in seconds.items():
        one = summary(values)
        rates[name] = {
            "images_per_s_per_core": images / one["median_s"] / workers,
            "slowest": images / one["max_s"] / workers,
            "fastest": images / one["min_s"] / workers,
            **one,
        }
        print(
            f"{workers} workers, {name:32s} {rates[name]['images_per_s_per_core']:6.0f} images/s per core"
            f"  ({rates[name]['slowest']:.0f} .. {rates[name]['fastest']:.0f}, n {one['n']})"
        )
    ratios = {f"ours / {name}": ratio(seconds[name], seconds[OURS]) for name in (PIL, TENSORS)}
    for name, times in ratios.items():
        print(f"{workers} workers, {name}: {times['median']:.2f}  ({times['min']:.2f} .. {times['max']:.2f})")
    return {"rates": rates, "speed_ratios": ratios}


def main() -> None:
    parser = timing_parser(__doc__, rounds=5, timed="epochs")
    parser.add_argument("--data", type=Path, required=True, help="folder of JPEG images, or of folders of them")
    parser.add_argument("--images", type=int, default=4096, help="of the folder, evenly spaced (default 4096)")
    parser.add_argument("--batch", type=int, default=64, help="images (default 64)")
    parser.add_argument("--size", type=int, default=224, help="side of the crops in pixels (default 224)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="loader processes (default 1 2)")
    parser.add_argument("--name", help="of the data in the result's file name (default: of the folder)")
    args = parse_timing(parser)
    if not args.data.is_dir():
        parser.error(f"--data {args.data}: no such folder")
    if min(args.workers) < 1:
        parser.error("--workers: at least 1, a figure is per worker process")

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        images = link_images(args.data, args.images, args.batch, Path(folder))
        for workers in args.workers:
            results[f"{workers} workers"] = report(measure(Path(folder), args, workers), images, workers)
    name = args.name or args.data.resolve().name
    settings = {key: getattr(args, key) for key in ("batch", "size", "rounds")} | {"data": name, "images": images}
    write_result(args.output or RESULTS / f"input_pipeline_{name}.json", {"settings": settings, **results})


if __name__ == "__main__":
    main()
