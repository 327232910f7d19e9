"""Made-up runs of detectors, for tests of the report on them, and a reader of the report's tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vertebra.evaluation.metrics.summary import summarise

PROTOCOL = {"solver.lr": 0.02, "solver.iterations": 90, "data.source": "sample/val", "data.sides": [224]}
EMPTY_CLASS = "never <b>seen</b> | here"
WEIGHTS = {
    "source": "runs/backbone/model.safetensors",
    "training_data": {"name": "objects", "images": 900},
    "protocol_hash": "aa",
    "figures": {"top1": 81.25, "top5": 99.0},
}


def make_truth(images: int = 12) -> dict[str, Any]:
    """Three classes, the last without an object; one crowd, one difficult object, one image without objects."""
    random = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, images):  # the last image stays empty
        for _ in range(int(random.integers(1, 4))):
            x, y = random.uniform(0, 60, size=2)
            width, height = random.uniform(12, 36, size=2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(random.choice([3, 7])),
                    "bbox": [float(x), float(y), float(width), float(height)],
                    "area": float(width * height),
                    "iscrowd": 0,
                    "difficult": 0,
                }
            )
    annotations[0]["iscrowd"], annotations[3]["difficult"] = 1, 1
    return {
        "images": [{"id": i, "file_name": f"{i:03d}.jpg", "width": 100, "height": 100} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "ring"}, {"id": 7, "name": "star"}, {"id": 9, "name": EMPTY_CLASS}],
    }


def make_predictions(truth: dict[str, Any], *, share: float, seed: int) -> list[dict[str, Any]]:
    """A share of the truths, a little off, and a false positive in every other image."""
    random = np.random.default_rng(seed)
    predictions = []
    for annotation in truth["annotations"]:
        if random.random() < share:
            box = np.array(annotation["bbox"]) + random.normal(0, 1.2, size=4)
            predictions.append(_prediction(annotation["image_id"], annotation["category_id"], box, random))
    for image in truth["images"][::2]:
        box = np.array([*random.uniform(0, 60, size=2), *random.uniform(12, 36, size=2)])
        predictions.append(_prediction(image["id"], 3, box, random))
    return predictions


def _prediction(image_id: int, category_id: int, box: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
    score = round(float(random.uniform(0.2, 1)), 4)
    return {"image_id": image_id, "category_id": category_id, "bbox": [float(v) for v in box], "score": score}


def make_run(
    directory: Path,
    name: str,
    predictions: list[dict[str, Any]],
    *,
    truth: dict[str, Any] | None = None,
    protocol: dict[str, Any] = PROTOCOL,
    **provenance: Any,
) -> Path:
    """A run directory as training leaves it; `provenance` overrides its fields."""
    truth = truth or make_truth()
    directory.mkdir(parents=True)
    cost = {"parameters": 11_700_000, "flops": 1.82e9, "time_per_image_s": 0.0352, "input_hw": [224, 224]}
    evaluation = summarise(truth, predictions) | {"cost": cost, "image_root": str(directory.parent / "images")}
    facts = {
        "backbone": {"name": name, "width": 1.0, "shortcut": "B", "stride_in": "3x3"},
        "protocol": protocol,
        "protocol_hash": "cafe",
        "weights": WEIGHTS,
        "commit": "0123abc",
        "command": f"python tools/train_det.py --backbone {name}",
        "machine": {"cpu": "a processor", "cores": 2, "gpus": []},
        "sample_hash": "5eed",
        "seed": 0,
        "finished": True,
        "training_s": 241.3,
    } | provenance
    (directory / "truth.json").write_text(json.dumps(truth))
    (directory / "predictions.json").write_text(json.dumps(predictions))
    (directory / "evaluation.json").write_text(json.dumps(evaluation))
    (directory / "provenance.json").write_text(json.dumps(facts))
    (directory / "config.yaml").write_text(yaml.safe_dump({"backbone": name, "seed": facts["seed"]}))
    lines = [{"iteration": i, "loss": 2.0 / i, "loss_rpn": 1.0 / i, "lr": 0.02} for i in range(1, 40)]
    lines += [{"iteration": i, "AP": i / 2, "AP50": float(i)} for i in (20, 39)]
    (directory / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"iteration": 40, "lo'
    )
    return directory


def trained_run(root: Path, name: str, share: float, draw: int = 1, **facts: Any) -> Path:
    """A run of the backbone `name` in root/name that finds about a share of the objects."""
    truth = facts.get("truth") or make_truth()
    return make_run(root / name, name, make_predictions(truth, share=share, seed=draw), **facts)


def write_images(directory: Path) -> None:
    import cv2

    directory.mkdir()
    for image in make_truth()["images"]:
        pixels = np.random.default_rng(image["id"]).integers(0, 255, (100, 100, 3), dtype=np.uint8)
        cv2.imwrite(str(directory / image["file_name"]), pixels)


def other_truth() -> dict[str, Any]:
    """The truth with one box moved."""
    truth = make_truth()
    truth["annotations"][0]["bbox"][0] += 1
    return truth


def rows_of(markdown: str) -> dict[str, str]:
    """Lines of Markdown's tables by their first cell, what stands in brackets aside; the first of equal names."""
    rows: dict[str, str] = {}
    for line in markdown.splitlines():
        if line.startswith("| "):
            rows.setdefault(line.split("|")[1].strip().split(" (")[0], line)
    return rows
