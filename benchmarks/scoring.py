"""Seconds for COCO's twelve figures, ours and pycocotools', on lists in memory, with every check of the files.

python benchmarks/scoring.py                              # 500 images with 100 detections each, boxes
python benchmarks/scoring.py --images 5000 --rounds 5     # COCO val's size: pycocotools takes a minute a round

Beside them reading a file of predictions, the figures once it is read, and what an evaluation waits for at its end, its
predictions' JSON made image by image as they came: writing the file, and the figures.

The set is that of benchmarks/resampling.py: 80 classes as unequal as COCO's, 7.3 objects an image. The largest
difference of any figure of any class is printed and written too. Seconds of the processor, one thread.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import (  # first: it makes the rooms importable
    RESULTS,
    alternate,
    conclude,
    parse_timing,
    print_times,
    timing_parser,
)
from resampling import detections, truth_like_coco

import numpy as np  # isort: skip
from pydantic_core import to_json

from vertebra.evaluation.metrics.coco import FIGURES, coco_figures
from vertebra.evaluation.metrics.files import read_predictions, read_truth
from vertebra.ground.files import write_atomically, write_json


def pycocotools_figures(truth: dict[str, Any], predictions: list[dict[str, Any]]) -> dict[str, float]:
    """Return the twelve figures, 0..100, and each class's AP under its name; NaN where there is no truth."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = truth
        index.createIndex()
        # loadRes writes into the entries
        judge = COCOeval(index, index.loadRes([dict(entry) for entry in predictions]), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    classes = judge.eval["precision"][..., 0, -1].mean(axis=(0, 1))
    names = [category["name"] for category in truth["categories"]]
    values = [*zip(FIGURES, judge.stats), *zip(names, classes)]
    return {name: math.nan if value < 0 else 100 * float(value) for name, value in values}


def largest_difference(truth: dict[str, Any], predictions: list[dict[str, Any]]) -> float:
    """Return the largest difference of a figure, 0..100; AssertionError where only one side has it."""
    expected, found = pycocotools_figures(truth, predictions), coco_figures(truth, predictions)
    ours = {**found.figures, **{name: values["AP"] for name, values in found.per_class.items()}}
    assert all(math.isnan(ours[name]) == math.isnan(value) for name, value in expected.items())
    return max(abs(ours[name] - value) for name, value in expected.items() if not math.isnan(value))


def main() -> None:
    parser = timing_parser(__doc__, rounds=5)
    parser.add_argument("--images", type=int, default=500, help="default 500")
    parser.add_argument("--detections", type=int, default=100, help="an image (default 100)")
    args = parse_timing(parser)
    if min(args.images, args.detections) < 1:
        parser.error("--images, --detections: at least 1")
    random = np.random.default_rng(0)
    truth = truth_like_coco(args.images, random)
    found = detections(truth, args.detections, random)
    difference = largest_difference(truth, found)
    print(f"{args.images} images, {len(found)} detections; largest difference of a figure: {difference:.1e}")
    checked = read_truth(truth)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "predictions.json"
        write_json(file, found, compact=True)
        read = read_predictions(file, checked)
        starts = np.flatnonzero(np.diff(read.image_id_K, prepend=-1, append=-1))
        parts = tuple(to_json(found[first:last])[1:-1] for first, last in pairwise(starts))
        predicted = replace(read, truth=None, checked=frozenset(), parts=parts)

        def end_of_evaluation() -> None:
            write_atomically(file.with_name("end.json"), predicted.write)
            coco_figures(checked, predicted)

        seconds = alternate(
            {
                "ours": lambda: coco_figures(truth, found) and None,
                "pycocotools": lambda: pycocotools_figures(truth, found) and None,
                "reading": lambda: read_predictions(file, checked) and None,
                "ours, once read": lambda: coco_figures(checked, read) and None,
                "the end of an evaluation": end_of_evaluation,
            },
            rounds=args.rounds,
            warmup=0,
            clock=time.process_time,
        )
    print_times(seconds)
    setting = {name: value for name, value in vars(args).items() if name != "output"} | {"difference": difference}
    conclude(Path(args.output or RESULTS / "scoring.json"), setting, seconds, [(0, 1)])


if __name__ == "__main__":
    main()
