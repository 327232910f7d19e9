"""Made-up runs of segmenters, as train_seg.py leaves them, for tests of the report on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vertebra.data.datasets.maps import palette
from vertebra.evaluation.metrics.pixels import PixelCounts, confusion, counts_3C
from vertebra.evaluation.predict.segmentation import write_map
from vertebra.ground.labels import IGNORED

CLASSES = ("ground", "ring", "star & <b>", "rare")
PROTOCOL = {"model.head": "fcn", "model.output_stride": 16, "solver.lr": 0.02, "train_fingerprint": "ab"}


def draw_maps(skill: float, seed: int, images: int = 14, truth_seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction of each image: about `skill` of the blocks right, some pixels ignored, the last class in two
    images alone."""
    truths, random = np.random.default_rng(truth_seed), np.random.default_rng(seed)
    drawn = []
    for image in range(images):
        blocks = truths.integers(0, 4 if image in (3, 8) else 3, (6, 7 + image % 3)).astype(np.uint8)
        wrong = random.random(blocks.shape) > skill + 0.15 * np.sin(image)
        found = np.where(wrong, random.integers(0, 4, blocks.shape), blocks).astype(np.uint8)
        labels, found = (np.kron(one, np.ones((4, 5), np.uint8)) for one in (blocks, found))
        labels[truths.random(labels.shape) < 0.1] = IGNORED
        drawn.append((labels, found))
    return drawn


def segmenter_run(
    root: Path,
    name: str,
    skill: float,
    seed: int = 0,
    *,
    protocol: dict[str, Any] = PROTOCOL,
    truth_seed: int = 0,
    old: bool = False,
) -> Path:
    """A run directory root/NAME_SEED; old: as it was before it had a `cost` and images.json."""
    directory = root / f"{name}_{seed}"
    directory.mkdir(parents=True)
    maps = draw_maps(skill, seed=100 * len(name) + seed, truth_seed=truth_seed)
    counts = PixelCounts.of([counts_3C(confusion(*one, len(CLASSES))) for one in maps])
    np.savez_compressed(directory / "pixel_counts.npz", image_ids=np.arange(1, len(maps) + 1), **vars(counts))
    cost: dict[str, Any] = {"parameters": 1e6 * len(name), "time_per_image_s": 0.02 * len(name)}
    evaluation = {
        "segmentation": counts.figures(),
        "classes": dict(zip(CLASSES, counts.iou_SC()[0].tolist())),
        "images": len(maps),
        "image_root": str(root / "pictures"),
        **(cost if old else {"cost": cost | {"flops": 1e9 * len(name), "latency_s": 0.03, "input_hw": [24, 40]}}),
    }
    facts = {
        "backbone": {"name": name},
        "protocol": protocol,
        "protocol_hash": str(sorted(protocol.items())),
        "weights": {"source": "none"},
        "finished": True,
        "training_s": 60.0,
    }
    files = {"evaluation": evaluation, "provenance": facts}
    if not old:
        files["images"] = [{"id": i + 1, "picture": f"{i}.jpg", "map": f"{i}.png"} for i in range(len(maps))]
        for i, pair in enumerate(maps):
            for folder, map_HW in zip(("truth", "maps"), pair):
                write_map(directory / folder / f"{i}.png", map_HW, palette())
    for file, content in files.items():
        (directory / f"{file}.json").write_text(json.dumps(content))
    recipe = {"backbone": name, "seed": seed, "model": {"output_stride": 16}, "solver": {"batch_size": 8}}
    (directory / "config.yaml").write_text(yaml.safe_dump(recipe))
    lines: list[dict[str, Any]] = [{"iteration": i, "loss": 2.0 / i, "time_s": 0.5} for i in range(1, 30)]
    lines += [{"iteration": i, "mIoU": i / 2.0, "pixel_accuracy": float(i)} for i in (15, 29)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory
