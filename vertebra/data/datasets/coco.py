"""COCO, and anybody's JSON in its form (https://cocodataset.org/#format-data).

Category ids need not be contiguous: labels 1..C are the categories by ascending id, and go back to the ids in
results. `difficult` is read where it stands (a field of our own for VOC's flag). A file image_info_*.json without
annotations, as COCO's test sets come, is images without truth.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.datasets.annotations import Classes, Images, Objects, Parsed, build_dataset
from vertebra.data.datasets.coco_layout import UNLABELLED, find_images
from vertebra.data.datasets.faults import Fault, judge_boxes
from vertebra.data.datasets.masks import segmentation_fault
from vertebra.ground.errors import DataError
from vertebra.ground.parse import parse_json

Json = dict[str, Any]
_NO_BOX = (float("nan"),) * 4
# What is used of a file, an image and an object; all else is carried in conversions alone.
_LISTS = ("images", "annotations", "categories")
_IMAGE_KEYS = frozenset({"id", "file_name", "width", "height"})
_OBJECT_KEYS = frozenset({"id", "image_id", "category_id", "bbox", "area", "iscrowd", "difficult", "segmentation"})


def parse_coco(
    path: Path,
    root: Path,
    folder: Path | None,
    source: str,
    *,
    segmentations: bool = True,
    extras: bool = False,
    thorough: bool = False,
) -> Parsed:
    """The data set of one annotation file; objects of an unknown image or category are left out as faults.

    folder: that of the images, which becomes the data set's root; None: it is looked for beside the annotations and
    in `root`. segmentations: keep polygons and RLE (without them a large set takes a fraction of the memory). extras:
    keep what is not used as well. thorough: decode every mask. Raises DataError where nothing can be read at all.
    """
    with _no_garbage_collection():
        value = _load(path)
        faults: list[Fault] = []
        categories = _categories(value["categories"], path, faults)
        images = _images(value["images"], path, faults)
        sizes_hw_I2 = np.array([(one["height"], one["width"]) for one in images], np.int32).reshape(-1, 2)
        kept, objects = _objects(value.get("annotations", ()), categories, images, sizes_hw_I2, path, faults)
        ids, notes = _annotation_ids(kept, path)
        objects.ids_K = ids
        if segmentations and any("segmentation" in one for one in kept):
            objects.segmentations = [json.dumps(s) if (s := one.get("segmentation")) else "" for one in kept]
        if thorough:
            faults += _mask_faults(kept, sizes_hw_I2[objects.owners_K], path)
        if extras:
            objects.extras = [_rest(one, _OBJECT_KEYS) for one in kept]
        dataset = build_dataset(
            (folder or find_images(path, root, images[0]["file_name"])) if images else root,
            source,
            Classes(
                [one["name"] for one in categories],
                [one["id"] for one in categories],
                [str(one.get("supercategory", "")) for one in categories],
            ),
            Images(
                [one["id"] for one in images],
                [one["file_name"] for one in images],
                sizes_hw_I2,
                [_rest(one, _IMAGE_KEYS) for one in images] if extras else None,
            ),
            objects,
            notes=notes,
            labelled="annotations" in value,
            header=_rest(value, frozenset(_LISTS)) if extras else "{}",
        )
    return Parsed(dataset, faults)


def _objects(
    values: Sequence[Any],
    categories: Sequence[Json],
    images: Sequence[Json],
    sizes_hw_I2: np.ndarray,
    path: Path,
    faults: list[Fault],
) -> tuple[list[Json], Objects]:
    """The annotations that can be used, and their columns."""
    labels = {one["id"]: place + 1 for place, one in enumerate(categories)}
    places = {one["id"]: place for place, one in enumerate(images)}
    known: list[Json] = []
    for number, one in enumerate(values):
        if not isinstance(one, dict):
            faults.append(Fault(path, f"annotation number {number} is not an object", "remove it"))
        elif _hashable(one.get("image_id")) not in places:
            reason = f"{_name(one, number)} refers to image {one.get('image_id')!r}, which `images` does not list"
            faults.append(Fault(path, reason, "add the image or remove the annotation"))
        elif _hashable(one.get("category_id")) not in labels:
            reason = f"{_name(one, number)} has category {one.get('category_id')!r}, not one of `categories`"
            faults.append(Fault(path, reason, "add the category or correct the annotation"))
        else:
            known.append(one)
    owners_K = np.array([places[one["image_id"]] for one in known], np.int64)
    xywh_K4 = np.array([_box(one.get("bbox")) for one in known], np.float64).reshape(-1, 4)

    def name(k: int) -> str:
        return f"{_name(known[k], k)} of image {known[k]['image_id']}"

    keep_K, box_faults = judge_boxes(xywh_K4, sizes_hw_I2[owners_K], name, path)
    faults += box_faults
    kept = [one for one, keep in zip(known, keep_K.tolist()) if keep]
    owners_K, xywh_K4 = owners_K[keep_K], xywh_K4[keep_K]
    areas = zip([one.get("area") for one in kept], (xywh_K4[:, 2] * xywh_K4[:, 3]).tolist())
    return kept, Objects(
        owners_K,
        xywh_K4,
        np.array([labels[one["category_id"]] for one in kept], np.int64),
        crowd_K=[bool(one.get("iscrowd", 0)) for one in kept],
        difficult_K=[bool(one.get("difficult", 0)) for one in kept],
        areas_K=np.array([of_box if area is None else area for area, of_box in areas], np.float64),
    )


def _mask_faults(kept: Sequence[Json], sizes_hw_K2: np.ndarray, path: Path) -> Iterator[Fault]:
    for one, (height, width) in zip(kept, sizes_hw_K2.tolist()):
        value = one.get("segmentation")
        if value and (reason := segmentation_fault(value, (height, width))):
            name = f"annotation {one.get('id')} of image {one['image_id']}"
            yield Fault(path, f"{name} has a segmentation that does not decode ({reason})", "correct it")


def _rest(value: Json, known: frozenset[str]) -> str:
    return json.dumps({key: more for key, more in value.items() if key not in known})


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of young objects, none of them garbage: looking for it would double the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _load(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            value = parse_json(file.read())
    except FileNotFoundError as error:
        raise DataError(path, "no such annotation file", "check the path") from error
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
    for key in _LISTS:
        if key == "annotations" and key not in value and path.name.startswith(UNLABELLED):
            continue
        if not isinstance(value.get(key), list):
            hint = f" (images without truth: call the file {UNLABELLED}*.json)" if key == "annotations" else ""
            raise DataError(
                path, f"has no list `{key}`", f"COCO annotations need images, annotations, categories{hint}"
            )
    return value


def _categories(values: list[Any], path: Path, faults: list[Fault]) -> list[dict[str, Any]]:
    good = []
    for number, one in enumerate(values):
        if isinstance(one, dict) and _is_id(one.get("id")) and isinstance(one.get("name"), str) and one["name"]:
            good.append(one)
        else:
            faults.append(Fault(path, f"category number {number} lacks an integer `id` or a `name`", "add them"))
    for key in ("id", "name"):
        for twice, count in Counter(one[key] for one in good).items():
            if count > 1:
                faults.append(Fault(path, f"category {key} {twice!r} occurs {count} times", "make it unique"))
    if not values:
        faults.append(Fault(path, "`categories` is empty", "list the classes there"))
    return sorted(good, key=lambda one: one["id"])


def _images(values: list[Any], path: Path, faults: list[Fault]) -> list[dict[str, Any]]:
    good = []
    for number, one in enumerate(values):
        if not (isinstance(one, dict) and _is_id(one.get("id")) and isinstance(one.get("file_name"), str)):
            faults.append(Fault(path, f"image number {number} lacks an integer `id` or a `file_name`", "add them"))
        elif not all(_is_id(one.get(key)) and one[key] > 0 for key in ("height", "width")):
            reason = f"image {one['id']} ({one['file_name']}) lacks a positive `width` or `height`"
            faults.append(Fault(path, reason, "add them"))
        else:
            good.append(one)
    for twice, count in Counter(one["id"] for one in good).items():
        if count > 1:
            names = " and ".join([one["file_name"] for one in good if one["id"] == twice][:2])
            faults.append(Fault(path, f"image id {twice} occurs {count} times ({names})", "give each image its own id"))
    again = "images are listed more than once"
    for name, count in Counter(one["file_name"] for one in good).items():
        if count > 1:
            faults.append(Fault(path, f"{name} is listed {count} times", "list each image once", False, again))
    if not values:
        faults.append(Fault(path, "lists no images", "there is nothing to train or test on"))
    return good


def _annotation_ids(objects: Sequence[dict[str, Any]], path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The file's ids where they are unique and positive (pycocotools takes 0 for 'unmatched'), else 1..K."""
    ids = [one.get("id") for one in objects]
    if all(_is_id(one) and one > 0 for one in ids) and len(set(ids)) == len(ids):  # type: ignore[operator]
        return np.array(ids, np.int64), ()
    note = f"{path}: annotation ids are missing, repeated or not positive; they were numbered anew"
    return np.arange(1, len(ids) + 1), (note,)


def _box(value: Any) -> Sequence[float]:
    if isinstance(value, list) and len(value) == 4 and all(isinstance(v, int | float) for v in value):
        return value
    return _NO_BOX


def _name(one: dict[str, Any], number: int) -> str:
    return f"annotation {one['id']}" if "id" in one else f"annotation number {number}"


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _hashable(value: Any) -> Any:
    return value if _is_id(value) else None
