"""All faults of a data set in one pass: annotations and every image, decoded as training would.

Readers stop at the first thing they cannot use; this goes on and lists everything, fatal or mended.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from data.annotations import Fault
from data.catalog import VOC_SOURCE, check_root, find_json, open_classification
from data.coco import ParsedCoco, find_images, parse_coco
from data.decode import decode_bytes, decode_image
from data.errors import BadSample, DataError
from data.imagenet import find_split, is_image
from data.localisation import read_localisation
from data.masks import segmentation_fault
from data.shard_files import damaged_shards
from data.shards import find_index
from data.voc import (
    ParsedVoc,
    box_faults,
    class_names_of,
    find_devkit,
    image_id,
    image_names,
    parse_voc,
    strange_names,
)

_Image = TypeVar("_Image")
Expected = tuple[Path, tuple[int, int] | None]  # an image and the size its annotation gives


def check_detection(root: Path | str, source: str) -> list[Fault]:
    """Faults of a source as open_detection takes it, annotations first, then images; none: an empty list."""
    root = Path(root)
    faults: list[Fault] = []
    image_ids: list[int] = []
    voc: list[ParsedVoc] = []
    expected: list[Expected] = []
    try:
        check_root(root)
    except DataError as error:
        return [_as_fault(error, root)]
    for part in source.split("+"):
        try:
            if match := VOC_SOURCE.fullmatch(part):
                devkit = find_devkit(root, match[1])
                voc.append(parse_voc(devkit / f"VOC{match[1]}", match[2]))
                names = image_names(voc[-1].folder, voc[-1].stems)
                expected += [(devkit / name, size_hw) for name, size_hw in zip(names, voc[-1].sizes_hw)]
                image_ids += [image_id(stem) for stem in voc[-1].stems]
            else:
                parsed, images = _check_json(root, part, faults)
                expected += images
                image_ids += [one["id"] for one in parsed.images]
        except DataError as error:
            faults.append(_as_fault(error, root))
    class_names = class_names_of(voc)
    for parsed_voc in voc:
        faults += [*parsed_voc.faults, *strange_names(parsed_voc, class_names), *box_faults(parsed_voc)]
    if "+" in source:
        twice = [one for one, count in Counter(image_ids).items() if count > 1]
        faults += [Fault(root, f"image id {one} is in {source} twice", "unite disjoint sets") for one in twice]
    return faults + list(_image_faults(expected))


def check_classification(root: Path | str, split: str) -> list[Fault]:
    """Faults of what open_classification(root, split) reads; none: an empty list."""
    try:
        dataset = open_classification(root, split)
    except DataError as error:
        return [_as_fault(error, Path(root))]
    folder = find_split(dataset.root, split)
    counts_C = np.bincount(dataset.labels_I, minlength=len(dataset.class_names))
    faults = [
        Fault((folder or dataset.root) / dataset.class_names[label], "has no image", "add some", fatal=False)
        for label in np.flatnonzero(counts_C == 0)
    ]
    if dataset.pixels_IHW3 is not None:
        return faults
    if folder is not None:
        strangers = [p for p in sorted(folder.glob("*/*")) if not is_image(p.name) and not p.name.startswith(".")]
        faults += [
            Fault(path, "does not have an image's name", "it is left out; rename it if it is one", fatal=False)
            for path in strangers
        ]
    if dataset.shards is not None and (index := find_index(root, split)) is not None:
        faults += [_as_fault(error, dataset.root) for error in damaged_shards(index)]
    return faults + list(_bad_samples(lambda i: decode_bytes(dataset.read(i), dataset.name(i)), range(len(dataset))))


def check_localisation(root: Path | str, split: str) -> list[Fault]:
    """Faults of what open_localisation(root, split) reads, boxes first, then images; none: an empty list."""
    try:
        dataset, faults = read_localisation(Path(root), split)
    except DataError as error:
        return [_as_fault(error, Path(root))]
    if dataset is None:
        return faults
    sizes = (tuple(size_hw) for size_hw in dataset.objects.sizes_hw_I2.tolist())
    return faults + list(_image_faults(zip(dataset.images.paths, sizes)))


def _check_json(root: Path, source: str, faults: list[Fault]) -> tuple[ParsedCoco, list[Expected]]:
    path, _, folder = find_json(root, source)
    parsed = parse_coco(path)
    faults += parsed.faults
    if not parsed.images:
        faults.append(Fault(path, "lists no images", "there is nothing to train or test on"))
        return parsed, []
    faults += _segmentation_faults(parsed)
    folder = folder or find_images(path, root, parsed.images[0]["file_name"])
    sizes = [(one["height"], one["width"]) for one in parsed.images]
    return parsed, [(folder / one["file_name"], size) for one, size in zip(parsed.images, sizes)]


def _segmentation_faults(parsed: ParsedCoco) -> Iterator[Fault]:
    for one, owner in zip(parsed.objects, parsed.owners_K.tolist()):
        if segmentation := one.get("segmentation"):
            height, width = parsed.sizes_hw_I2[owner].tolist()
            reason = segmentation_fault(segmentation, (height, width))
            if reason:
                name = f"annotation {one.get('id')} of image {one['image_id']}"
                yield Fault(parsed.path, f"{name} has a segmentation that does not decode ({reason})", "correct it")


def _image_faults(expected: Iterable[Expected]) -> Iterator[Fault]:
    return _bad_samples(lambda one: decode_image(one[0], size_hw=one[1]), list(expected))


def _bad_samples(decode: Callable[[_Image], object], images: Sequence[_Image]) -> Iterator[Fault]:
    """Decodes every image, on all cores (OpenCV lets go of Python's lock)."""

    def look(one: _Image) -> BadSample | None:
        try:
            decode(one)
        except BadSample as error:
            return error
        return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for error in pool.map(look, images):
            if error is not None:
                yield Fault(Path(error.path), error.reason, error.mend or "replace it")


def _as_fault(error: DataError, root: Path) -> Fault:
    """A sentence "path: reason; mend" taken apart again."""
    if isinstance(error, BadSample):
        return Fault(Path(error.path), error.reason, error.mend)
    path, colon, rest = str(error).partition(": ")
    if not colon:
        path, rest = str(root), str(error)
    reason, _, mend = rest.rpartition("; ")
    return Fault(Path(path), reason or rest, mend if reason else "mend it")
