"""What grows with a data set, and whether no faster than it: seconds and memory at 1,000, 10,000 and 100,000 images.

python benchmarks/scale.py
python benchmarks/scale.py --sizes 1000 10000 --parts check score

Makes sets up in COCO's layout (48 x 64 pixels, 7 objects and 10 detections an image; a tenth as many images to test on)
in a temporary folder: 100,000 images take half a minute and 700 MB there. Each part at each size is a process of its
own, which first does the part on 20 images: that and the imports count neither for its seconds nor for its memory.
Of the loader's one worker, private memory (what is not shared with the main process) is read all along an epoch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import RESULTS, write_result  # first: it makes the rooms importable

import numpy as np  # isort: skip

SIZES = (1_000, 10_000, 100_000)
FEW = 20  # images of the set that a process begins with
HEIGHT, WIDTH, CLASSES = 48, 64, 80
OBJECTS, DETECTIONS, SIDES = 7, 10, ("a", "b")
LOOKS = 40  # at a worker's memory in an epoch
WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
LARGEST = {"report": 10_000}  # images; what a report shows is not made for more


def make_set(folder: Path, images: int) -> None:
    """Write `images` to train on, a tenth to test on, and two sides' predictions for the first."""
    random = np.random.default_rng(images)
    for split, count in (("train2017", images), ("val2017", max(1, images // 10))):
        _write_pictures(folder / split, count, random)
        truth_K = _boxes(count, OBJECTS, random)
        _write_json(folder / f"annotations/instances_{split}.json", _truth(truth_K, count))
        if split == "train2017":
            for side in SIDES:
                _write_json(folder / f"{side}.json", _predictions(truth_K, count, random))


def _write_pictures(folder: Path, count: int, random: np.random.Generator) -> None:
    """Write noise, and link it into folders of classes too."""
    import cv2

    folder.mkdir(parents=True)
    for image in range(count):
        cells = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)  # few, so that no picture looks like another
        path, home = folder / f"{image:012d}.jpg", folder.parent / f"classes/{folder.name}/{image % CLASSES:03d}"
        cv2.imwrite(str(path), cv2.resize(cells, (WIDTH, HEIGHT)))
        home.mkdir(parents=True, exist_ok=True)
        os.link(path, home / path.name)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _boxes(count: int, each: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """`each` boxes of each image inside it, and their classes."""
    corner_K2 = random.uniform(0, (WIDTH - 8, HEIGHT - 8), (count * each, 2))
    sides_K2 = random.uniform(4, (WIDTH, HEIGHT) - corner_K2)
    return {
        "image": np.repeat(np.arange(count), each),
        "class": 1 + random.integers(0, CLASSES, count * each),
        "box": np.concatenate([corner_K2, sides_K2], axis=1).round(2),
    }


def _truth(boxes_K: dict[str, np.ndarray], count: int) -> dict[str, Any]:
    columns = zip(*(boxes_K[name].tolist() for name in ("image", "class", "box")))
    annotations = [
        {
            "id": k,
            "image_id": image,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for k, (image, label, box) in enumerate(columns, start=1)
    ]
    return {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(count)],
        "annotations": annotations,
        "categories": [{"id": c, "name": f"class {c}", "supercategory": ""} for c in range(1, CLASSES + 1)],
    }


def _predictions(truth_K: dict[str, np.ndarray], count: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """One near each object, the rest anywhere."""
    near_K4 = (truth_K["box"] + random.normal(0, 0.8, truth_K["box"].shape)).clip(0.5)
    wrong_K = _boxes(count, DETECTIONS - OBJECTS, random)
    box_K4 = np.concatenate([near_K4, wrong_K["box"]]).round(2)
    score_K = np.concatenate([random.beta(4, 2, len(near_K4)), random.beta(2, 4, len(box_K4) - len(near_K4))])
    image_K, class_K = (np.concatenate([truth_K[name], wrong_K[name]]).tolist() for name in ("image", "class"))
    return [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, label, box, score in zip(image_K, class_K, box_K4.tolist(), score_K.round(4).tolist())
    ]


# The parts: each does its work on the set in a folder, and returns what there is to tell of it.


def check(folder: Path) -> dict[str, Any]:
    """All annotations and pictures of both splits, and pictures that are in both."""
    from vertebra.cli.prepare_data import main

    assert main(["check", "--data", str(folder), "--source", "coco/train2017", "coco/val2017"]) == 0
    return {}


def open_set(folder: Path) -> dict[str, Any]:
    """Parse the annotations, as the first process of a machine does."""
    from vertebra.data.datasets.catalog import open_detection

    return {"objects": len(open_detection(folder, "coco/train2017").labels_K)}


def open_classes(folder: Path) -> dict[str, Any]:
    """List the pictures of a set that lie in folders of classes."""
    from vertebra.data.datasets.catalog import open_classification

    return {"pictures": len(open_classification(folder / "classes", "train2017"))}


def epoch_order(folder: Path) -> dict[str, Any]:
    """Which images are in each batch of an epoch."""
    return {"batches": len(list(_loader(folder, workers=0).requests))}


def read(folder: Path) -> dict[str, Any]:
    """Truth and predictions of one side, checked as `vertebra score` does."""
    from vertebra.evaluation.metrics.files import read_predictions, read_truth

    truth = read_truth(folder / "annotations/instances_train2017.json")
    return {"predictions": len(read_predictions(folder / f"{SIDES[0]}.json", truth))}


def score(folder: Path) -> dict[str, Any]:
    """COCO's twelve figures of one side, its files read and checked."""
    from vertebra.cli.score import main

    files = [str(folder / "annotations/instances_train2017.json"), str(folder / f"{SIDES[0]}.json")]
    assert main(["--truth", files[0], "--predictions", files[1], "--metric", "coco"]) == 0
    return {}


def report(folder: Path) -> dict[str, Any]:
    """The report on two sides' predictions, with pictures and intervals."""
    from vertebra.cli.compare import main

    sides = [f"{side}={folder / side}.json" for side in SIDES]
    truth = ["--truth", str(folder / "annotations/instances_train2017.json"), "--images", str(folder / "train2017")]
    assert main(["--predictions", *sides, *truth, "--report", str(folder / "report")]) == 0
    return {}


def loader(folder: Path) -> dict[str, Any]:
    """An epoch of batches from one loader process."""
    from host_memory import private_mb, with_children

    batches = _loader(folder, workers=1)
    every, private = max(1, len(batches) // LOOKS), []
    for number, _ in enumerate(batches):
        if number % every == 0:
            private.append(round(private_mb(with_children(os.getpid())[1:]), 2))
    quarter = max(1, len(private) // 4)
    second, last = (statistics.median(some) for some in (private[quarter : 2 * quarter] or private, private[-quarter:]))
    return {"worker_mb": last, "worker_growth_mb": round(last - second, 2), "worker_all_mb": private}


def _loader(folder: Path, workers: int) -> Any:
    from vertebra.data.datasets.catalog import open_detection
    from vertebra.data.loading.detection import detection_train_loader
    from vertebra.data.loading.sampling import Share
    from vertebra.data.loading.targets import TruthPolicy
    from vertebra.data.transforms.detection_views import ViewDraw

    dataset = open_detection(folder, "coco/train2017", segmentations=False)
    views = ViewDraw((HEIGHT,), WIDTH, flip=0.5)
    return detection_train_loader(dataset, views, TruthPolicy(), Share(batch=16, workers=workers))


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "check": check,
    "open": open_set,
    "classes": open_classes,
    "epoch": epoch_order,
    "read": read,
    "score": score,
    "report": report,
    "loader": loader,
}


def measure_here(part: Callable[[Path], dict[str, Any]], few: Path, folder: Path) -> dict[str, Any]:
    """Do the part in this process, after it has done it on few images."""
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        part(few)
        Path("/proc/self/clear_refs").write_text("5")  # getrusage's peak is the largest process that led here
        before_mb, started, processor = _memory_mb("VmRSS"), time.perf_counter(), _processor_s()
        told = part(folder)
    seconds = {"seconds": time.perf_counter() - started, "processor_s": _processor_s() - processor}
    return {name: round(value, 3) for name, value in seconds.items()} | {
        "peak_mb": round(_memory_mb("VmHWM") - before_mb, 1),
        **told,
    }


def _memory_mb(line: str) -> float:
    """Of this process: "VmRSS", what is resident, or "VmHWM", the most that was since `clear_refs` was written."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{line}:")[2].split()[0]) / 2**10


def _processor_s() -> float:
    used = [resource.getrusage(whose) for whose in WHOSE]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(part: str, few: Path, folder: Path) -> dict[str, Any]:
    """Do the part in a new process, on one core's worth of threads, without what was parsed before."""
    environment = {**os.environ, "VERTEBRA_CACHE": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--here", part, str(few), str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def growths(found: dict[int, dict[str, Any]], what: str) -> list[float]:
    """How many times as much each size takes as the one before it."""
    values = [one[what] for _, one in sorted(found.items())]
    return [round(after / max(before, 1e-3), 2) for before, after in pairwise(values)]


def lines(results: dict[str, dict[int, dict[str, Any]]]) -> Iterator[str]:
    """The table, for people."""
    for part, found in results.items():
        for what, unit in (("processor_s", "s"), ("peak_mb", "MB"), ("worker_mb", "MB"), ("worker_growth_mb", "MB")):
            if all(what in one for one in found.values()):
                values = "".join(f"{one[what]:12.2f}" for _, one in sorted(found.items()))
                ratios = "" if "growth" in what else "   ".join(map(str, growths(found, what)))
                yield f"{part:8s} {what:17s}{values} {unit:3s} x {ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="images (default 1000 10000 100000)")
    parser.add_argument("--parts", nargs="+", default=tuple(PARTS), choices=PARTS)
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS / "scale.json", help="result file")
    args = parser.parse_args()
    if args.here:
        part, few, folder = args.here
        print(json.dumps(measure_here(PARTS[part], Path(few), Path(folder))))
        return
    results: dict[str, dict[int, dict[str, Any]]] = {part: {} for part in args.parts}
    with tempfile.TemporaryDirectory() as name:
        few = Path(name) / "few"
        make_set(few, FEW)
        for images in sorted(args.sizes):
            folder = Path(name) / str(images)
            make_set(folder, images)
            for part in args.parts:
                if images > LARGEST.get(part, images):
                    continue
                results[part][images] = found = measure(part, few, folder)
                told = "  ".join(f"{what} {value}" for what, value in found.items() if not isinstance(value, list))
                print(f"{images:7d} images  {part:8s} {told}", flush=True)
    print(*lines(results), sep="\n")
    growth = {
        part: {what: growths(found, what) for what in ("seconds", "processor_s", "peak_mb")}
        for part, found in results.items()
    }
    setting = {
        "sizes": args.sizes,
        "objects": OBJECTS,
        "detections": DETECTIONS,
        "load_average_15_min": os.getloadavg()[2],
    }
    write_result(args.output, {"setting": setting, "growth": growth, "parts": results})


if __name__ == "__main__":
    main()
