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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.datasets.annotations import Fault, build_dataset, judge_boxes, refuse, summarise
from vertebra.data.datasets.records import DetectionDataset, Extras
from vertebra.ground.errors import DataError

_NO_BOX = (float("nan"),) * 4
UNLABELLED = "image_info_"  # how the owners' lists of test images begin
# What is used of an image and of an object; all else is carried in conversions alone.
_LISTS = ("images", "annotations", "categories")
_IMAGE_KEYS = frozenset({"id", "file_name", "width", "height"})
_OBJECT_KEYS = frozenset({"id", "image_id", "category_id", "bbox", "area", "iscrowd", "difficult", "segmentation"})


@dataclass
class ParsedCoco:
    """A JSON's content and all that is wrong with it; objects of unknown image or category are left out."""

    path: Path
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    objects: list[dict[str, Any]]
    owners_K: np.ndarray
    labels_K: np.ndarray
    xywh_K4: np.ndarray
    sizes_hw_I2: np.ndarray
    faults: list[Fault] = field(default_factory=list)
    labelled: bool = True
    header: dict[str, Any] = field(default_factory=dict)


def read_coco(
    path: Path,
    root: Path,
    images: Path | None,
    source: str,
    *,
    segmentations: bool = True,
    extras: bool = False,
) -> DetectionDataset:
    """The data set of one annotation file.

    images: the folder of the images, which becomes the data set's root; None: it is looked for beside the
    annotations and in `root`.
    segmentations: keep polygons and RLE (without them a large set takes a fraction of the memory). extras: keep
    what is not used as well. Raises DataError.
    """
    parsed = parse_coco(path)
    refuse(parsed.faults)
    if not parsed.images:
        raise DataError(path, "lists no images", "there is nothing to train or test on")
    folder = images or find_images(path, root, parsed.images[0]["file_name"])
    objects = parsed.objects
    texts = None
    if segmentations and any("segmentation" in one for one in objects):
        texts = [json.dumps(s) if (s := one.get("segmentation")) else "" for one in objects]
    ids, notes = _annotation_ids(objects, path)
    sizes_K2 = parsed.xywh_K4[:, 2:]
    areas = [one.get("area") for one in objects]
    return build_dataset(
        root=folder,
        source=source,
        class_names=[one["name"] for one in parsed.categories],
        category_ids=[one["id"] for one in parsed.categories],
        supercategories=[str(one.get("supercategory", "")) for one in parsed.categories],
        image_ids=[one["id"] for one in parsed.images],
        file_names=[one["file_name"] for one in parsed.images],
        sizes_hw_I2=parsed.sizes_hw_I2,
        owners_K=parsed.owners_K,
        xywh_K4=parsed.xywh_K4,
        labels_K=parsed.labels_K,
        crowd_K=np.array([bool(one.get("iscrowd", 0)) for one in objects], bool),
        difficult_K=np.array([bool(one.get("difficult", 0)) for one in objects], bool),
        areas_K=np.array([w * h if area is None else area for area, (w, h) in zip(areas, sizes_K2)], np.float64),
        annotation_ids_K=ids,
        segmentations=texts,
        notes=(*summarise(parsed.faults), *notes),
        labelled=parsed.labelled,
        extras=_extras(parsed) if extras else None,
    )


def parse_coco(path: Path) -> ParsedCoco:
    """Reads and judges everything in the file. Raises DataError only where nothing can be read at all."""
    with _no_garbage_collection():
        return _judge(path, _load(path))


def _judge(path: Path, value: dict[str, Any]) -> ParsedCoco:
    faults: list[Fault] = []
    labelled = "annotations" in value
    categories = _categories(value["categories"], path, faults)
    images = _images(value["images"], path, faults)
    labels = {one["id"]: place + 1 for place, one in enumerate(categories)}
    places = {one["id"]: place for place, one in enumerate(images)}
    sizes_hw_I2 = np.array([(one["height"], one["width"]) for one in images], np.int32).reshape(-1, 2)
    objects: list[dict[str, Any]] = []
    for number, one in enumerate(value.get("annotations", ())):
        if not isinstance(one, dict):
            faults.append(Fault(path, f"annotation number {number} is not an object", "remove it"))
        elif _hashable(one.get("image_id")) not in places:
            reason = f"{_name(one, number)} refers to image {one.get('image_id')!r}, which `images` does not list"
            faults.append(Fault(path, reason, "add the image or remove the annotation"))
        elif _hashable(one.get("category_id")) not in labels:
            reason = f"{_name(one, number)} has category {one.get('category_id')!r}, not one of `categories`"
            faults.append(Fault(path, reason, "add the category or correct the annotation"))
        else:
            objects.append(one)
    owners_K = np.array([places[one["image_id"]] for one in objects], np.int64)
    labels_K = np.array([labels[one["category_id"]] for one in objects], np.int64)
    xywh_K4 = np.array([_box(one.get("bbox")) for one in objects], np.float64).reshape(-1, 4)
    keep_K, box_faults = judge_boxes(
        xywh_K4,
        sizes_hw_I2[owners_K],
        lambda k: f"{_name(objects[k], k)} of image {objects[k]['image_id']}",
        path,
    )
    objects = [one for one, keep in zip(objects, keep_K.tolist()) if keep]
    return ParsedCoco(
        path, images, categories, objects, owners_K[keep_K], labels_K[keep_K], xywh_K4[keep_K], sizes_hw_I2,
        faults + box_faults, labelled, {key: more for key, more in value.items() if key not in _LISTS},
    )  # fmt: skip


def _extras(parsed: ParsedCoco) -> Extras:
    def rest(value: dict[str, Any], known: frozenset[str]) -> str:
        return json.dumps({key: more for key, more in value.items() if key not in known})

    images = [rest(one, _IMAGE_KEYS) for one in parsed.images]
    return Extras(images, [rest(one, _OBJECT_KEYS) for one in parsed.objects], json.dumps(parsed.header))


def find_images(path: Path, root: Path, first: str) -> Path:
    """The folder that holds `first`: beside the annotations, in the root, or where COCO would have it."""
    split = image_folder(path.stem.rpartition("_")[2])
    bases = (path.parent, path.parent.parent, root)
    folders = [base / inner for base in bases for inner in ("", "images", split, f"images/{split}", f"{split}/images")]
    for folder in folders:
        if (folder / first).is_file():
            return folder
    looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise DataError(path, f"its first image {first} is in none of {looked}", "put the images into one of them")


def image_folder(split: str) -> str:
    """Where the images of a split lie: test-dev2017 is a part of test2017."""
    return split.replace("test-dev", "test")


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
            value = json.load(file)
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
            faults.append(
                Fault(
                    path,
                    f"image {one['id']} ({one['file_name']}) lacks a positive `width` or `height`",
                    "add them",
                )
            )
        else:
            good.append(one)
    for twice, count in Counter(one["id"] for one in good).items():
        if count > 1:
            names = " and ".join([one["file_name"] for one in good if one["id"] == twice][:2])
            faults.append(Fault(path, f"image id {twice} occurs {count} times ({names})", "give each image its own id"))
    for name, count in Counter(one["file_name"] for one in good).items():
        if count > 1:
            faults.append(
                Fault(path, f"{name} is listed {count} times", "list each image once", False,
                      "images are listed more than once")
            )  # fmt: skip
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
