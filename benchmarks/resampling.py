"""Seconds for the bootstrap of one pair of detectors on a problem of COCO val's size.

python benchmarks/resampling.py    # AP and AP50; all sizes as well, with every class; the kinds of error
python benchmarks/resampling.py --images 500 --resamples 100

5,000 images, 80 classes as unequal as COCO's (a third of the objects are people), 7.3 objects an image with crowds
among them, 100 detections an image and side: near every object some, the rest anywhere. Matching is timed apart, as it
does not grow with the resamples; the kinds of error (`why.resampling`) are timed from lists to figures.
Seconds of the clock, and of the processor, which is the one to read on a busy machine (one thread). That the figures
are pycocotools' is held by tests and by benchmarks/scoring.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common import RESULTS, write_result  # first: it makes the rooms importable

import numpy as np  # isort: skip

from vertebra.evaluation.metrics.average_precision import COCO_LEVELS
from vertebra.evaluation.metrics.coco import match_coco
from vertebra.evaluation.statistics.resampling import COCO_FIGURES, Resampled, draw_counts, reweigh
from vertebra.evaluation.why.resampling import resample_errors

CLASSES = 80
OBJECTS = 7.3  # an image, as in val2017
TASKS = {"AP and AP50": ("AP", "AP50"), "all sizes and classes": tuple(COCO_FIGURES)}


def truth_like_coco(images: int, random: np.random.Generator) -> dict[str, Any]:
    """COCO JSON: classes as unequal as COCO's, a third each small, medium and large, 1 % crowds."""
    shares_C = np.concatenate([[0.3], 0.7 * (1 / np.arange(2, CLASSES + 1) ** 0.7)])
    shares_C[1:] *= 0.7 / shares_C[1:].sum()
    annotations = []
    for image, count in enumerate(random.poisson(OBJECTS, images)):
        here_C = random.permutation(CLASSES)[: 1 + random.poisson(2)]  # few classes an image
        weights_C = shares_C[here_C] / shares_C[here_C].sum()
        for category in random.choice(here_C, count, p=weights_C):
            width, height = np.exp(random.uniform(np.log(8), np.log(320), 2))
            x, y = random.uniform(0, 640 - width), random.uniform(0, 480 - min(height, 480))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(category) + 1,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(random.random() < 0.01),
                }
            )
    return {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(images)],
        "categories": [{"id": c, "name": f"class{c}"} for c in range(1, CLASSES + 1)],
        "annotations": annotations,
    }


def detections(truth: dict[str, Any], each: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """COCO results: two near most objects, the better one with the higher score, and false ones up to `each`."""
    found: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for entry in truth["annotations"]:
        box_4, extent = np.array(entry["bbox"]), np.array(entry["bbox"][2:] * 2)
        for spread, most in ((0.06, 1.0), (0.25, 0.5)):
            if random.random() < 0.85:
                near = box_4 + random.normal(0, spread, 4) * extent
                near[2:] = near[2:].clip(1)
                found[entry["image_id"]].append(
                    {
                        "image_id": entry["image_id"],
                        "category_id": entry["category_id"],
                        "bbox": near.tolist(),
                        "score": most * random.random(),
                    }
                )
    popular = [entry["category_id"] for entry in truth["annotations"]]
    for image, mine in found.items():
        for _ in range(each - len(mine)):
            width, height = np.exp(random.uniform(np.log(8), np.log(320), 2))
            box = [random.uniform(0, 500), random.uniform(0, 400), width, height]
            score, category = 0.6 * random.random() ** 2, popular[random.integers(len(popular))]
            mine.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    return [entry for mine in found.values() for entry in mine[:each]]


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    start, processor = time.perf_counter(), time.process_time()
    result = call()
    return result, {"clock_s": time.perf_counter() - start, "processor_s": time.process_time() - processor}


def say(what: str, seconds: dict[str, float]) -> None:
    print(f"{what:58s} {seconds['clock_s']:7.1f} s  (processor {seconds['processor_s']:.1f} s)", flush=True)


def say_differences(first: Mapping[str, Resampled], second: Mapping[str, Resampled]) -> None:
    for name, one in first.items():
        change_S = second[name].mean_S - one.mean_S
        low, high = np.quantile(change_S[1:], [0.025, 0.975])
        print(f"    {name:15s} {one.mean_S[0]:6.2f}  {change_S[0]:+.2f}  ({low:+.2f} .. {high:+.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="default 5000")
    parser.add_argument("--detections", type=int, default=100, help="an image and side (default 100)")
    parser.add_argument("--resamples", type=int, default=1000, help="default 1000")
    parser.add_argument("--output", type=Path, default=RESULTS / "resampling.json", help="result file")
    args = parser.parse_args()
    if min(args.images, args.detections, args.resamples) < 1:
        parser.error("--images, --detections and --resamples: at least 1")

    random = np.random.default_rng(0)
    truth = truth_like_coco(args.images, random)
    sides = [detections(truth, args.detections, random) for _ in range(2)]
    print(f"{args.images} images, {len(truth['annotations'])} objects, {len(sides[0])} detections a side")
    seconds: dict[str, dict[str, float]] = {}
    matches, seconds["matching both, all sizes"] = timed(lambda: [match_coco(truth, side) for side in sides])
    say("matching both, all sizes", seconds["matching both, all sizes"])
    counts_SI, seconds["drawing"] = timed(lambda: draw_counts(args.images, args.resamples, 0))
    for task, figures in TASKS.items():
        chosen = {name: COCO_FIGURES[name] for name in figures}
        name = f"{task}, {args.resamples} resamples of the pair"
        (first, second), seconds[name] = timed(
            lambda chosen=chosen: [reweigh(one, counts_SI, chosen, COCO_LEVELS) for one in matches]
        )
        say(name, seconds[name])
        say_differences(first, second)
    name = f"AP50 and kinds of error, {args.resamples} resamples of the pair"
    (first, second), seconds[name] = timed(lambda: [resample_errors(truth, side, counts_SI) for side in sides])
    say(name, seconds[name])
    say_differences(first, second)
    result: dict[str, Any] = {"setting": {k: v for k, v in vars(args).items() if k != "output"}, "seconds": seconds}
    write_result(args.output, result)


if __name__ == "__main__":
    main()
