"""COCO, and anybody's JSON in its form (https://cocodataset.org/#format-data).

Category ids need not be contiguous: labels 1..C are the categories by ascending id, and go back to the ids in
results. `difficult` is read where it stands (a field of our own for VOC's flag). A file image_info_*.json without
annotations, as COCO's test sets come, is images without truth.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.datasets.annotations import Classes, Images, Objects, Parsed, build_dataset
from vertebra.data.datasets.coco_layout import UNLABELLED, find_images
from vertebra.data.datasets.faults import Fault, judge_boxes
from vertebra.ground import rules
from vertebra.ground.entries import MASKS, Entries
from vertebra.ground.errors import DataError
from vertebra.ground.parse import no_garbage_collection, parse_json

Json = dict[str, Any]
# What is used of a file, an image and an object; all else is carried in conversions alone.
_LISTS = frozenset({"images", "annotations", "categories"})
_IMAGE_KEYS = frozenset({"id", "file_name", "width", "height"})
_OBJECT_KEYS = frozenset({"id", "image_id", "category_id", "bbox", "area", "iscrowd", "difficult", "segmentation"})


def parse_coco(
    path: Path, root: Path, folder: Path | None, source: str, *, segmentations: bool = True, extras: bool = False
) -> Parsed:
    """The data set of one annotation file; what breaks a rule (see `ground.rules`) is left out as a fault.

    folder: that of the images, which becomes the data set's root; None: it is looked for beside the annotations and
    in `root`. segmentations: keep polygons and RLE, and judge them (without them a large set takes a fraction of the
    memory). extras: keep what is not used as well. Raises DataError where nothing can be read at all.
    """
    faults: list[Fault] = []

    def add(entry: str, reason: str, hint: str) -> None:
        faults.append(Fault(path, f"{entry}: {reason}", hint))

    with no_garbage_collection():
        value = load_annotations(path)
        categories, images = Entries("category", value["categories"], add), Entries("image", value["images"], add)
        annotations = Entries("annotation", value.get("annotations", []), add)
        classes, listed = _classes(categories, path, faults), _images(images, path, faults)
        objects, kept, notes = _objects(
            annotations, (categories, classes), (images, listed), path, faults, segmentations
        )
        if extras:
            listed.extras = [_rest(one, _IMAGE_KEYS) for one in images.good(images.entries)]
            objects.extras = [_rest(one, _OBJECT_KEYS) for one in kept]
        first = next(iter(listed.file_names), None)
        dataset = build_dataset(
            root if first is None else folder or find_images(path, root, first),
            source,
            classes,
            listed,
            objects,
            notes=notes,
            labelled="annotations" in value,
            header=_rest(value, _LISTS) if extras else "{}",
        )
    return Parsed(dataset, faults)


def _classes(categories: Entries, path: Path, faults: list[Fault]) -> Classes:
    """Labels 1, 2, ... are the categories by ascending id."""
    ids, names = categories.ids(), categories.column("name", rules.texts, required=True)
    supercategories = [str(one.get("supercategory", "")) for one in categories.entries]
    good = sorted(categories.good(list(zip(ids, names, supercategories))))
    for twice, count in Counter(name for _, name, _ in good).items():
        if count > 1:
            faults.append(Fault(path, f"category name {twice!r} occurs {count} times", "make it unique"))
    if not categories.entries:
        faults.append(Fault(path, "`categories` is empty", "list the classes there"))
    return Classes(*([one[field] for one in good] for field in (1, 0, 2)))


def _images(images: Entries, path: Path, faults: list[Fault]) -> Images:
    columns = images.ids(), images.column("file_name", rules.texts, required=True)
    sides = (images.column(side, rules.sides, required=True) for side in ("height", "width"))
    ids, names, sizes_hw = (images.good(column) for column in (*columns, list(zip(*sides))))
    again = "images are listed more than once"
    for name, count in Counter(names).items():
        if count > 1:
            faults.append(Fault(path, f"{name} is listed {count} times", "list each image once", False, again))
    if not images.entries:
        faults.append(Fault(path, "lists no images", "there is nothing to train or test on"))
    return Images(ids, names, sizes_hw)


def _objects(
    annotations: Entries,
    categories: tuple[Entries, Classes],
    images: tuple[Entries, Images],
    path: Path,
    faults: list[Fault],
    segmentations: bool,
) -> tuple[Objects, list[Json], list[str]]:
    """The columns of the annotations that can be used, these annotations, and notes on what was fixed."""
    category_ids = annotations.known(
        "category_id", categories[0], "`categories`", lambda _: "add it, or correct the id"
    )
    image_ids = annotations.known("image_id", images[0], "`images`", lambda _: "add it, or remove the annotation")
    xywh_K4 = annotations.column("bbox", rules.boxes, required=True)
    flags = {flag: annotations.column(flag, rules.flags) for flag in rules.FLAGS}
    size_of = dict(zip(images[1].ids, images[1].sizes_hw))
    sizes_hw = [size_of.get(image_id, (None, None)) for image_id in image_ids]
    if segmentations:
        annotations.masks(sizes_hw)
    areas_K = annotations.areas(xywh_K4, sizes_hw)

    good_K = np.flatnonzero(annotations.good_K)
    places = {image_id: place for place, image_id in enumerate(images[1].ids)}
    labels = {category_id: label for label, category_id in enumerate(categories[1].ids, start=1)}
    owners_K = np.array([places[one] for one in annotations.good(image_ids)], np.int64)
    labels_K = np.array([labels[one] for one in annotations.good(category_ids)], np.int64)
    sizes_hw_I2 = np.array(images[1].sizes_hw, np.int32).reshape(-1, 2)

    def name(k: int) -> str:
        one = annotations.entries[good_K[k]]
        known = f"annotation {one['id']}" if "id" in one else f"annotation number {good_K[k]}"
        return f"{known} of image {one['image_id']}"

    keep_K, box_faults = judge_boxes(xywh_K4[good_K], sizes_hw_I2[owners_K], name, path, keep_empty=True)
    faults += box_faults
    kept_K = good_K[keep_K]
    kept = [annotations.entries[k] for k in kept_K.tolist()]
    ids_K, notes = _annotation_ids(kept, path)
    objects = Objects(
        owners_K[keep_K],
        xywh_K4[kept_K],
        labels_K[keep_K],
        crowd_K=flags["iscrowd"][kept_K],
        difficult_K=flags["difficult"][kept_K],
        areas_K=areas_K[kept_K],
        ids_K=ids_K,
    )
    if segmentations and any(one.get(MASKS) for one in kept):
        objects.segmentations = [json.dumps(mask) if (mask := one.get(MASKS)) else "" for one in kept]
    return objects, kept, notes


def _annotation_ids(objects: list[Json], path: Path) -> tuple[np.ndarray, list[str]]:
    """The file's ids where they are unique and positive (pycocotools takes 0 for 'unmatched'), else 1..K."""
    ids = [one.get("id") for one in objects]
    read = rules.ids(ids)
    if None not in ids and not read.wrong and min(read.values, default=1) > 0 and len(set(read.values)) == len(ids):
        return np.array(read.values, np.int64), []
    note = f"{path}: annotation ids are missing, repeated, not positive or no numbers; they were numbered anew"
    return np.arange(1, len(ids) + 1), [note]


def _rest(value: Json, known: frozenset[str]) -> str:
    return json.dumps({key: more for key, more in value.items() if key not in known})


def load_annotations(path: Path) -> dict[str, Any]:
    """Read a file with lists of images, annotations and categories. Raises DataError."""
    try:
        with open(path, "rb") as file:
            value = parse_json(file.read())
    except FileNotFoundError as error:
        raise DataError(path, "no such annotation file", "check the path") from error
    except IsADirectoryError as error:
        raise DataError(path, "is a directory", "name the JSON file in it") from error
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    except ValueError as error:  # JSON or UTF-8
        raise DataError(path, f"does not parse as JSON ({error})", "it may be cut off, fetch it again") from error
    if not isinstance(value, dict):
        raise DataError(
            path,
            f"holds a JSON {type(value).__name__}, not COCO annotations",
            "give the file with `images`, `annotations` and `categories` (a list of results is not truth)",
        )
    for key in ("images", "annotations", "categories"):
        if key == "annotations" and key not in value and path.name.startswith(UNLABELLED):
            continue
        if not isinstance(value.get(key), list):
            hint = f" (images without truth: call the file {UNLABELLED}*.json)" if key == "annotations" else ""
            raise DataError(
                path, f"has no list `{key}`", f"COCO annotations need images, annotations, categories{hint}"
            )
    return value
