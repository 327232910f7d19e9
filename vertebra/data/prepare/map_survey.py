"""One pass over the maps of a set, in several processes: whether each can be used, and what is in them.

Legend: C classes, V the labels 0..255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.image_sizes import lies_on_its_side
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.loading.decode import open_header
from vertebra.data.prepare.looks import Progress, in_chunks
from vertebra.ground.errors import BadSample
from vertebra.ground.labels import IGNORED

_EMPTY = "maps without a labelled pixel, from which nothing is learnt"


@dataclass(frozen=True)
class MapSurvey:
    """faults: of maps that cannot be used, and those that say nothing. pixels_C: of each class; images_C: that have it.

    ignored: pixels that are. All of the maps that can be used, int64.
    """

    faults: tuple[Fault, ...]
    pixels_C: np.ndarray
    images_C: np.ndarray
    ignored: int


def survey_maps(
    dataset: SemanticDataset, *, processes: int = 0, progress: Progress = lambda done, total: None
) -> MapSurvey:
    """Read every map, and of every picture the size. processes: 0: as many as cores. Raises DataError.

    Faults: what SemanticDataset.labels refuses, and other sizes than the pictures'; all pixels ignored is not fatal.
    """
    found = in_chunks(partial(_survey, dataset), dataset, processes=processes, progress=progress)
    pixels_V, images_V = sum((counts_2V for _, counts_2V in found), np.zeros((2, 256), np.int64))
    count, faults = len(dataset.class_names), tuple(fault for faults, _ in found for fault in faults)
    return MapSurvey(faults, pixels_V[:count], images_V[:count], int(pixels_V[IGNORED]))


def _survey(dataset: SemanticDataset, chunk: Sequence[int]) -> tuple[list[Fault], np.ndarray]:
    """Return the faults of some maps, their pixels by label and how many of them have each label."""
    faults: list[Fault] = []
    counts_2V = np.zeros((2, 256), np.int64)
    for index in chunk:
        path, picture = dataset.map_path(index), dataset.path(index)
        try:
            labels_HW = dataset.labels(index)
        except BadSample as error:
            faults.append(Fault.of(error))
            continue
        if size_hw := _other_size(picture, labels_HW.shape):
            height, width = labels_HW.shape
            reason = f"is {width} x {height} pixels, its image {picture.name} {size_hw[1]} x {size_hw[0]}"
            faults.append(Fault(path, reason, "make the map anew, of the image's size"))
            continue
        counts_V = np.bincount(labels_HW.ravel(), minlength=256)
        if counts_V[IGNORED] == labels_HW.size:
            faults.append(Fault(path, "all of its pixels are ignored", "label it, or leave it out", False, _EMPTY))
        counts_2V += counts_V, counts_V > 0
    return faults, counts_2V


def _other_size(picture: Path, size_hw: tuple[int, ...]) -> tuple[int, int] | None:
    """Return a picture's size where a map of `size_hw` does not fit it; pictures that cannot be read say nothing."""
    try:
        with open_header(picture) as image:
            stored_hw = (image.height, image.width)
            turned = size_hw == stored_hw[::-1] and lies_on_its_side(image)
    except Exception:  # of a damaged file Pillow raises anything; decoding names what is wrong with it
        return None
    return None if size_hw == stored_hw or turned else stored_hw
