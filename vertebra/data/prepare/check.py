"""All faults of a data set in one pass: annotations and every image, decoded as training would.

Readers stop at the first thing they cannot use; this goes on and lists everything, fatal or fixed by the reader.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vertebra.data.datasets.catalog import open_classification, parse_detection
from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.folders import is_image
from vertebra.data.datasets.imagenet import find_split
from vertebra.data.datasets.localisation import read_localisation
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.shards import find_index
from vertebra.data.loading.decode import decode_bytes, decode_image
from vertebra.data.prepare.shard_files import damaged_shards
from vertebra.ground.errors import BadSample, DataError

CHECKED_AT_ONCE = 4096  # images


def check_detection(root: Path | str, source: str) -> list[Fault]:
    """Faults of a source as open_detection takes it, annotations first, then images; none: an empty list."""
    try:
        parsed = parse_detection(root, source, thorough=True)
    except DataError as error:
        return [Fault.of(error)]
    if parsed.dataset is None:
        return list(parsed.faults)
    return [*parsed.faults, *_image_faults(parsed.dataset)]


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
        others = [p for p in sorted(folder.glob("*/*")) if not is_image(p.name) and not p.name.startswith(".")]
        faults += [
            Fault(path, "does not have an image's name", "it is left out; rename it if it is one", fatal=False)
            for path in others
        ]
    if dataset.shards is not None and (index := find_index(root, split)) is not None:
        faults += [Fault.of(error) for error in damaged_shards(index)]
    return faults + list(_bad_samples(lambda i: decode_bytes(dataset.read(i), dataset.name(i)), len(dataset)))


def check_localisation(root: Path | str, split: str) -> list[Fault]:
    """Faults of what open_localisation(root, split) reads, boxes first, then images; none: an empty list."""
    try:
        dataset, faults = read_localisation(Path(root), split)
    except DataError as error:
        return [Fault.of(error)]
    if dataset is None:
        return faults
    return faults + list(_image_faults(dataset.objects))


def _image_faults(dataset: DetectionDataset) -> Iterator[Fault]:
    def decode(index: int) -> None:
        height, width = dataset.sizes_hw_I2[index].tolist()
        decode_image(dataset.path(index), size_hw=(height, width))

    return _bad_samples(decode, len(dataset))


def _bad_samples(decode: Callable[[int], object], images: int) -> Iterator[Fault]:
    """Decode every image, on all cores (OpenCV lets go of Python's lock)."""

    def fault_of(index: int) -> Fault | None:
        try:
            decode(index)
        except BadSample as error:
            return Fault(Path(error.where), error.reason, error.hint or "replace it")
        return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for first in range(0, images, CHECKED_AT_ONCE):  # `map` keeps an object for each that waits
            some = range(first, min(first + CHECKED_AT_ONCE, images))
            yield from (fault for fault in pool.map(fault_of, some) if fault is not None)
