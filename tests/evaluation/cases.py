"""Truth and predictions made up for tests, and the readers of the published fixtures' text files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

Entry = dict[str, Any]


def truth_of(objects: Sequence[Entry], *, images: int | Sequence[int] = 1, classes: Sequence[str] = ("cat",)) -> Entry:
    """COCO truth with category ids 1.. in the order of `classes`, and image ids 1.. or those given."""
    ids = range(1, images + 1) if isinstance(images, int) else images
    return {
        "images": [{"id": id_, "file_name": f"{id_}.jpg", "width": 100, "height": 100} for id_ in ids],
        "categories": [{"id": id_, "name": name} for id_, name in enumerate(classes, start=1)],
        "annotations": [{"id": id_, **entry} for id_, entry in enumerate(objects, start=1)],
    }


def thing(box: Sequence[float], *, image: int = 1, category: int = 1, **flags: Any) -> Entry:
    area = float(box[2] * box[3])
    return {"image_id": image, "category_id": category, "bbox": list(box), "area": area, "iscrowd": 0, **flags}


def guess(box: Sequence[float], score: float, *, image: int = 1, category: int = 1) -> Entry:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


def perfect(truth: Entry, score: float = 1.0) -> list[Entry]:
    """A prediction on every object."""
    return [
        guess(entry["bbox"], score, image=entry["image_id"], category=entry["category_id"])
        for entry in truth["annotations"]
    ]


def random_case(
    seed: int,
    *,
    images: int = 12,
    classes: int = 4,
    most_truths: int = 6,
    most_guesses: int = 12,
    levels: int | None = None,
) -> tuple[Entry, list[Entry]]:
    """Truth and predictions with every oddity: empty images, a class without truth, crowds, difficult objects,
    duplicates, boxes of all sizes; equal scores where `levels` says how many distinct ones there are."""
    random = np.random.default_rng(seed)
    objects, guesses = [], []
    ids = sorted(random.choice(1000, images, replace=False).tolist())
    for image in ids[:-1]:
        for _ in range(random.integers(0, most_truths + 1)):
            size = random.choice([8, 40, 150], 2) * random.uniform(0.5, 1.5, 2)
            box = np.round([*random.uniform(0, 200, 2), *size], 1).tolist()
            category = int(random.integers(1, classes))  # the last class has none
            crowd, difficult = int(random.random() < 0.1), int(random.random() < 0.15)
            objects.append(thing(box, image=image, category=category, iscrowd=crowd, difficult=difficult))
            for _ in range(random.integers(0, 3)):
                near = np.abs(np.array(box) + random.normal(0, 0.15, 4) * size.mean())
                guesses.append(guess(near.tolist(), _score(random, levels), image=image, category=category))
        for _ in range(random.integers(0, most_guesses + 1)):
            box = [*random.uniform(0, 200, 2), *random.uniform(2, 150, 2)]
            category = int(random.integers(1, classes + 1))
            guesses.append(guess(box, _score(random, levels), image=image, category=category))
    order = random.permutation(len(guesses))
    names = [f"class{category}" for category in range(1, classes + 1)]
    return truth_of(objects, images=ids, classes=names), [guesses[place] for place in order]


def _score(random: np.random.Generator, levels: int | None) -> float:
    return float(random.random()) if levels is None else float(random.integers(1, levels + 1)) / levels


def with_masks(truth: Entry, predictions: list[Entry], *, boxes: bool) -> tuple[Entry, list[Entry]]:
    """The same with masks, and without boxes of predictions if not `boxes`: an ellipse with holes in each box."""
    kept = np.random.default_rng(0).random((400, 400)) < 0.95

    def mask(entry: Entry) -> Entry:
        x, y, w, h = entry["bbox"]
        rows, columns = np.mgrid[:400, :400]
        inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
        runs = rle.encode(np.asfortranarray((inside & kept).astype(np.uint8)))
        return {"size": runs["size"], "counts": runs["counts"].decode()}

    truth, predictions = copy.deepcopy(truth), copy.deepcopy(predictions)
    for image in truth["images"]:
        image.update(width=400, height=400)
    for entry in truth["annotations"]:
        entry["segmentation"] = mask(entry)
        entry["area"] = float(rle.area(entry["segmentation"]))
    for entry in predictions:
        entry["segmentation"] = mask(entry)
        if not boxes:
            del entry["bbox"]
    return truth, predictions


def read_text_set(truths: Path, detections: Path) -> tuple[Entry, list[Entry]]:
    """A fixture of one file an image: `name x y w h` for truths, `name score x y w h` for detections."""
    images = sorted(path.stem for path in truths.glob("*.txt"))
    objects, guesses = [], []
    for image, stem in enumerate(images, start=1):
        objects += [thing([*map(float, row[1:])], image=image) for row in _rows(truths / f"{stem}.txt")]
        guesses += [
            guess([*map(float, row[2:])], float(row[1]), image=image) for row in _rows(detections / f"{stem}.txt")
        ]
    return truth_of(objects, images=len(images), classes=("object",)), guesses


def _rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if line.strip()]


def repeated(truth, predictions, counts_I):
    """The truth and the predictions in which image i occurs counts_I[i] times, under new ids."""
    ids = [image["id"] for image in truth["images"]]
    images, annotations, copies = [], [], []
    for id_, count in zip(ids, counts_I):
        for _ in range(int(count)):
            new = len(images) + 1
            images.append({"id": new})
            annotations += [{**e, "image_id": new} for e in truth["annotations"] if e["image_id"] == id_]
            copies += [{**e, "image_id": new} for e in predictions if e["image_id"] == id_]
    return {**truth, "images": images, "annotations": annotations}, copies
