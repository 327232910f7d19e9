"""A segmenter that starts from random weights finds the objects of scenes that it has never seen, in a quarter of a
minute: small, drawn scenes, with one class for all objects."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests.cli.conftest import run
from vertebra.data.datasets.semantic import open_semantic
from vertebra.ground.labels import IGNORED

SIDE_PX = 64


def write_scenes(sample: Path, folder: Path) -> np.ndarray:
    """The sample set's scenes as one's own maps, small, 1 for any object; returns the held-out truth, NHW."""
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "masks" / split).mkdir(parents=True)
        whole, truth = open_semantic(sample, f"sample/{split}"), []
        for index in range(len(whole)):
            pixels = cv2.resize(whole.decode(index), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
            labels_HW = cv2.resize(whole.labels(index), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_NEAREST)
            truth.append(np.where(labels_HW == IGNORED, IGNORED, labels_HW > 0).astype(np.uint8))
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.png")
            Image.fromarray(truth[-1]).save(folder / "masks" / split / f"{index}.png")
    (folder / "classes.txt").write_text("background\nobject\n")
    return np.stack(truth)


def best_fixed_map(truth_NHW: np.ndarray) -> float:
    """The best mIoU, 0..100, of one map for all images: a pixel is of an object where it is in enough of the truths,
    none and all of them among the thresholds."""
    counted_NHW, share_HW = truth_NHW != IGNORED, (truth_NHW == 1).mean(axis=0)
    scores = []
    for least in np.linspace(0, 1.01, 102):
        found_NHW = np.broadcast_to(share_HW >= least, truth_NHW.shape)
        pairs = [((truth_NHW == c) & counted_NHW, (found_NHW == c) & counted_NHW) for c in (0, 1)]
        scores.append(100 * np.mean([(true & found).sum() / (true | found).sum() for true, found in pairs]))
    return max(scores)


def test_objects_of_unseen_scenes_are_found_after_training_from_random_weights(tmp_path: Path) -> None:
    run("prepare_data", "sample", "--data", tmp_path / "sample", "--scenes", 160, 60, "--objects", 4, 4)
    small = tmp_path / "small"
    truth_NHW = write_scenes(tmp_path / "sample", small)
    data = (
        "--dataset",
        "maps",
        "--data",
        small,
        "--train-source",
        f"maps:{small}/train",
        "--test-source",
        f"maps:{small}/val",
    )
    sides = ("--input.base-side", SIDE_PX, "--input.test-side", SIDE_PX, "--input.crop", SIDE_PX, SIDE_PX)
    net = ("--config", "sample/segmentation.yaml", "--weights", "none", "--width", 0.25, "--model.head", "fcn")
    steps = ("--solver.iterations", 200, "--solver.lr", 0.005, "--solver.warmup-iterations", 10)
    here = ("--device", "cpu", "--workers", 0, "--precision", "fp32", "--output", tmp_path / "run")
    run("train_seg", *net, *data, *sides, *steps, *here)
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["images"] == 60 and 30 < (least := best_fixed_map(truth_NHW)) < 60
    # Seeds 0, 1, 2 have 69.0, 70.6, 69.9; the best fixed map 52.2, one class everywhere 30.3.
    assert evaluation["segmentation"]["mIoU"] > least + 12, evaluation["classes"]
