"""Images a second of our detection loader with each augmentation, by albumentations too, and of torchvision's.

python benchmarks/detection_pipeline.py --data COCO

--data is COCO's folder, of which --split is read. Both sides decode every image every time and bring image and boxes
(and masks, where it says so) to their size. torchvision's are its CocoDetection wrapped for its transforms v2 and the
transforms of its reference training of detectors, on tensors, with the resizing that its models do. Ours ends as padded
batches. "albumentations: photometric" is our loader with the same changes of colours, and the mirroring, as a pipeline
of albumentations, where that is installed. A round is one epoch in this process with one thread, of which the CPU's
seconds are counted: what a worker does, on a busy machine too. All candidates take turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
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

import cv2  # isort: skip
import torch  # isort: skip
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from vertebra.data.datasets.catalog import open_detection
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.loading.detection import TruthPolicy, detection_train_loader
from vertebra.data.loading.sampling import Share, evenly
from vertebra.data.transforms.detection_views import DetectionAugmentation, ViewDraw
from vertebra.data.transforms.pipeline import Pipeline

SHORTER, LONGER, SQUARE, JITTER = (640, 672, 704, 736, 768, 800), 1333, 1024, (0.1, 2.0)
PLAIN, SSD, LSJ = "resize and flip", "SSD's colours and crops", "large-scale jitter"
COLOURS = "photometric"
OURS: dict[str, DetectionAugmentation] = {
    PLAIN: DetectionAugmentation(),
    "sides of a range": DetectionAugmentation(any_side=True),
    COLOURS: DetectionAugmentation(photometric=1.0),
    "crop range": DetectionAugmentation(crop="range"),
    "crop iou": DetectionAugmentation(crop="iou"),
    SSD: DetectionAugmentation(crop="iou", photometric=1.0),
    LSJ: DetectionAugmentation(jitter=JITTER),
}
BOTH = (PLAIN, SSD, LSJ)
STEPS = [
    {"HorizontalFlip": {"p": 0.5}},
    {"RandomBrightnessContrast": {"brightness_limit": 0.125, "contrast_limit": 0.5, "p": 0.5}},
    {"HueSaturationValue": {"hue_shift_limit": 9, "sat_shift_limit": 60, "val_shift_limit": 0, "p": 0.5}},
]


def ours(dataset: DetectionDataset, name: str, batch: int, *, masks: bool) -> Iterable[Any]:
    """An epoch of ours."""
    square = name == LSJ
    views = ViewDraw((SQUARE,), SQUARE, 0.5, OURS[name]) if square else ViewDraw(SHORTER, LONGER, 0.5, OURS[name])
    return detection_train_loader(dataset, views, TruthPolicy(), Share(batch=batch), masks=masks)


def by_albumentations(dataset: DetectionDataset, pipeline: Pipeline, batch: int, *, masks: bool) -> Iterable[Any]:
    """An epoch of ours, with the pipeline in the place of flip and colours."""
    views, share = ViewDraw(SHORTER, LONGER), Share(batch=batch)
    return detection_train_loader(dataset, views, TruthPolicy(), share, masks=masks, pipeline=pipeline)


def torchvision(images: Any, name: str, batch: int) -> Iterable[Any]:
    """An epoch of torchvision's."""
    shorter = [v2.RandomShortestSize(list(SHORTER), LONGER)]
    steps = {
        PLAIN: shorter,
        SSD: [v2.RandomPhotometricDistort(), v2.RandomIoUCrop(), *shorter],
        LSJ: [v2.ScaleJitter((SQUARE, SQUARE), JITTER), v2.RandomCrop((SQUARE, SQUARE), pad_if_needed=True)],
    }[name]
    change = v2.Compose([v2.ToImage(), *steps, v2.RandomHorizontalFlip(0.5), v2.SanitizeBoundingBoxes()])
    seen = _Changed(images, change)
    return DataLoader(seen, batch, shuffle=True, collate_fn=_together)


class _Changed(torch.utils.data.Dataset):
    def __init__(self, images: Any, change: Callable[..., Any]) -> None:
        self.images, self.change = images, change

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Any:
        return self.change(*self.images[place])


def _together(samples: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*samples))


def candidates(args: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], int]:
    """By name, and how many images each draws. Only images with objects: torchvision's crops need one."""
    whole = open_detection(args.data, f"coco/{args.split}", segmentations=True)
    filled = [place for place in range(len(whole)) if whole.starts[place] < whole.starts[place + 1]]
    count = min(len(filled), args.images) // args.batch * args.batch
    if not count:
        raise SystemExit(f"{args.data}: {len(filled)} images with objects; a batch takes {args.batch}")
    dataset = whole.subset([filled[i] for i in evenly(len(filled), count)])
    annotations = args.data / "annotations" / f"instances_{args.split}.json"
    read = CocoDetection(str(args.data / args.split), str(annotations))
    places = {image_id: place for place, image_id in enumerate(read.ids)}
    chosen = [places[image_id] for image_id in dataset.image_ids_I.tolist()]
    calls = {}
    for masks in (False, True):
        keys = {"boxes", "labels", "masks"} if masks else {"boxes", "labels"}
        images = Subset(wrap_dataset_for_transforms_v2(read, target_keys=keys), chosen)
        for name in (*BOTH, COLOURS) if masks else OURS:
            label = f"{name}, masks" if masks else name
            calls[label] = draw_epoch(lambda n=name, m=masks: ours(dataset, n, args.batch, masks=m))
            if name in BOTH:
                calls[f"torchvision: {label}"] = draw_epoch(lambda n=name, i=images: torchvision(i, n, args.batch))
            if name == COLOURS and find_spec("albumentations"):
                steps = Pipeline(json.dumps(STEPS), ["bboxes", "masks"] if masks else ["bboxes"])
                calls[f"albumentations: {label}"] = draw_epoch(
                    lambda p=steps, m=masks: by_albumentations(dataset, p, args.batch, masks=m)
                )
    return calls, count


def main() -> None:
    parser = timing_parser(__doc__, rounds=5, timed="epochs")
    parser.add_argument("--data", type=Path, required=True, help="COCO's folder: annotations and images")
    parser.add_argument("--split", default="val2017", help="of COCO (default val2017)")
    parser.add_argument("--images", type=int, default=512, help="with objects, evenly spaced (default 512)")
    parser.add_argument("--batch", type=int, default=8, help="images (default 8)")
    args = parse_timing(parser)
    calls, images = candidates(args)
    cv2.setNumThreads(0)
    seconds = alternate(calls, rounds=args.rounds, clock=time.process_time)
    rates = {}
    for name, values in seconds.items():
        one = summary(values)
        rates[name] = {"images_per_s": images / one["median_s"], **one}
        slowest, fastest = images / one["max_s"], images / one["min_s"]
        print(f"{name:45s} {rates[name]['images_per_s']:6.1f} images/s  ({slowest:.1f} .. {fastest:.1f}, n {one['n']})")
    ratios = {}
    for theirs in seconds:
        library, _, name = theirs.partition(": ")
        if name:
            key = name if library == "torchvision" else theirs
            ratios[key] = one = ratio(seconds[theirs], seconds[name])
            print(f"ours / {library}, {name}: {one['median']:.2f}  ({one['min']:.2f} .. {one['max']:.2f})")
    settings = {"split": args.split, "images": images, "batch": args.batch, "rounds": args.rounds, "threads": 1}
    result = {"settings": settings, "rates": rates, "speed_ratios": ratios}
    write_result(args.output or RESULTS / f"detection_pipeline_{args.split}.json", result)


if __name__ == "__main__":
    main()
