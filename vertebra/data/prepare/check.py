"""All faults of a data set in one pass: annotations and every image, decoded as training would.

Readers stop at the first thing they cannot use; this goes on and lists everything, fatal or fixed by the reader.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from vertebra.data.datasets.annotations import Fault
from vertebra.data.datasets.catalog import (
    DET_SOURCE,
    VOC_SOURCE,
    XML_PREFIX,
    YOLO_PREFIX,
    check_root,
    find_json,
    given_path,
    open_classification,
)
from vertebra.data.datasets.coco import ParsedCoco, find_images, parse_coco
from vertebra.data.datasets.imagenet import find_split, is_image
from vertebra.data.datasets.imagenet_det import det_classes, parse_imagenet_det
from vertebra.data.datasets.localisation import read_localisation
from vertebra.data.datasets.masks import segmentation_fault
from vertebra.data.datasets.shards import find_index
from vertebra.data.datasets.voc import class_names_of, find_devkit, parse_voc
from vertebra.data.datasets.xml_folders import folder_classes, parse_xml_folder
from vertebra.data.datasets.xml_sets import ParsedXml, box_faults, image_id, strange_names
from vertebra.data.datasets.yolo import parse_yolo
from vertebra.data.loading.decode import decode_bytes, decode_image
from vertebra.data.prepare.shard_files import damaged_shards
from vertebra.ground.errors import BadSample, DataError

CHECKED_AT_ONCE = 4096  # images
_Image = TypeVar("_Image")
Expected = tuple[Path, tuple[int, int] | None]  # an image and the size its annotation gives


@dataclass
class _Survey:
    """What one source holds: its faults but for those of classes and images, and the images to decode."""

    image_ids: list[int]
    expected: Sequence[Expected]
    faults: list[Fault]
    xml: ParsedXml | None = None
    class_names: Sequence[str] | None = None  # None: those that the united VOC sets share


def check_detection(root: Path | str, source: str) -> list[Fault]:
    """Faults of a source as open_detection takes it, annotations first, then images; none: an empty list."""
    root = Path(root)
    faults: list[Fault] = []
    surveys: list[_Survey] = []
    try:
        check_root(root)
    except DataError as error:
        return [Fault.of(error)]
    for part in source.split("+"):
        try:
            surveys.append(_survey(root, part))
        except DataError as error:
            faults.append(Fault.of(error))
    shared = class_names_of([one.xml for one in surveys if one.xml is not None and one.class_names is None])
    for one in surveys:
        faults += one.faults
        if one.xml is not None:
            faults += [*strange_names(one.xml, one.class_names or shared), *box_faults(one.xml)]
    if "+" in source:
        twice = [number for number, count in Counter(i for one in surveys for i in one.image_ids).items() if count > 1]
        faults += [Fault(root, f"image id {one} is in {source} twice", "unite disjoint sets") for one in twice]
    return faults + list(_image_faults([image for survey in surveys for image in survey.expected]))


def _survey(root: Path, source: str) -> _Survey:
    if match := VOC_SOURCE.fullmatch(source):
        return _survey_xml(parse_voc(find_devkit(root, match[1]), match[1], match[2]), None)
    if match := DET_SOURCE.fullmatch(source):
        return _survey_xml(parse_imagenet_det(root, match[1].lower()), det_classes(root).wnids)
    if source.startswith(XML_PREFIX):
        folder = given_path(root, source)
        return _survey_xml(parse_xml_folder(folder), folder_classes(folder))
    if source.startswith(YOLO_PREFIX):
        yolo = parse_yolo(given_path(root, source))
        return _Survey(yolo.image_ids(), list(zip(yolo.images, yolo.sizes_hw)), yolo.faults)
    annotations, base, images = find_json(root, source)
    parsed = parse_coco(annotations)
    if not parsed.images:
        nothing = Fault(annotations, "lists no images", "there is nothing to train or test on")
        return _Survey([], [], [*parsed.faults, nothing])
    place = images or find_images(annotations, base, parsed.images[0]["file_name"])
    expected: list[Expected] = [(place / one["file_name"], (one["height"], one["width"])) for one in parsed.images]
    faults = [*parsed.faults, *_segmentation_faults(parsed)]
    return _Survey([one["id"] for one in parsed.images], expected, faults)


def _survey_xml(parsed: ParsedXml, class_names: Sequence[str] | None) -> _Survey:
    expected = [(parsed.root / one.file_name, size) for one, size in zip(parsed.images, parsed.sizes_hw)]
    ids = [image_id(one.stem) for one in parsed.images]
    return _Survey(ids, expected, parsed.faults, parsed, class_names)


def check_classification(root: Path | str, split: str) -> list[Fault]:
    """Faults of what open_classification(root, split) reads; none: an empty list."""
    try:
        dataset = open_classification(root, split)
    except DataError as error:
        return [Fault.of(error)]
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
        faults += [Fault.of(error) for error in damaged_shards(index)]
    return faults + list(_bad_samples(lambda i: decode_bytes(dataset.read(i), dataset.name(i)), range(len(dataset))))


def check_localisation(root: Path | str, split: str) -> list[Fault]:
    """Faults of what open_localisation(root, split) reads, boxes first, then images; none: an empty list."""
    try:
        dataset, faults = read_localisation(Path(root), split)
    except DataError as error:
        return [Fault.of(error)]
    if dataset is None:
        return faults
    sizes = (tuple(size_hw) for size_hw in dataset.objects.sizes_hw_I2.tolist())
    return faults + list(_image_faults(zip(dataset.images.paths, sizes)))


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
        for first in range(0, len(images), CHECKED_AT_ONCE):  # `map` holds an object for each that waits
            for error in pool.map(look, images[first : first + CHECKED_AT_ONCE]):
                if error is not None:
                    yield Fault(Path(error.where), error.reason, error.hint or "replace it")
