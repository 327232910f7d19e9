"""COCO's panoptic annotations as semantic maps, things and stuff in one list of classes (Kirillov et al. 2019).

A pixel's colour is the id of its segment, R + 256 G + 256² B, and the JSON gives each segment of an image a category.
Colour 0 belongs to no segment: it is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vertebra.data.datasets.coco import load_annotations
from vertebra.data.datasets.maps import MOST_CLASSES, Coding, Codings
from vertebra.ground.errors import DataError
from vertebra.ground.labels import IGNORED

_COLOURS = 1 << 24


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of all images: those of image i are ids_S[starts[i]:starts[i + 1]], with their labels.

    stems: of the images' maps.
    """

    starts: np.ndarray
    ids_S: np.ndarray
    labels_S: np.ndarray
    stems: tuple[str, ...]

    def of(self, stems: Sequence[str]) -> Codings:
        """Return the codings of the maps of these stems."""
        number_of = {stem: number for number, stem in enumerate(self.stems)}
        numbers_I = np.array([number_of[stem] for stem in stems], np.int64)
        return Codings((self,), np.zeros(len(stems), np.int64), numbers_I)

    def at(self, index: int) -> Coding:
        """Return what the colours of one image's map mean."""
        own = slice(self.starts[index], self.starts[index + 1])
        ids = self.ids_S[own].tolist()
        colours = [(number & 255, number >> 8 & 255, number >> 16) for number in ids]
        pairs = (((0, 0, 0), IGNORED), *zip(colours, self.labels_S[own].tolist()))
        return Coding(Coding.of({}).table, pairs)

    def facts(self, indices: np.ndarray) -> bytes:
        """Return what tells the codings of these images from others, for a hash."""
        return b"".join(
            column[self.starts[index] : self.starts[index + 1]].tobytes() + b"\n"
            for index in indices.tolist()
            for column in (self.ids_S, self.labels_S)
        )


def read_panoptic(path: Path) -> tuple[tuple[str, ...], Segments]:
    """Return the classes of a panoptic annotation file and the segments of its images.

    The classes are all categories by ascending id. Raises DataError.
    """
    value = load_annotations(path)
    try:
        categories = sorted((int(one["id"]), str(one["name"])) for one in value["categories"])
    except (KeyError, TypeError, ValueError):
        raise DataError(path, "a category lacks its id or its name", "restore the file") from None
    names = tuple(name for _, name in categories)
    labels = {number: label for label, (number, _) in enumerate(categories)}
    if not names or len({*names}) < len(names) or len(labels) < len(names):
        raise DataError(path, "names no category, or one twice", "make ids and names unique")
    if len(names) > MOST_CLASSES:
        raise DataError(path, f"names {len(names)} categories", f"labels have room for {MOST_CLASSES}")
    stems, counts, ids, classes = [], [0], [], []
    for number, annotation in enumerate(value["annotations"]):
        where = f"annotation {number} (counted from 0)"
        try:
            stems.append(Path(annotation["file_name"]).stem)
            segments = [(int(one["id"]), int(one["category_id"])) for one in annotation["segments_info"]]
        except (KeyError, TypeError, ValueError):
            reason = f"{where} is none of COCO's panoptic form"
            raise DataError(path, reason, "it needs file_name and segments_info of id, category_id") from None
        for one, category in segments:
            if category not in labels:
                reason = f"{where}: its segment {one} has the category {category}, which `categories` lacks"
                raise DataError(path, reason, "add it, or correct the id")
            if not 0 < one < _COLOURS:
                raise DataError(path, f"{where}: the segment id {one} is no colour", f"ids are 1 to {_COLOURS - 1}")
        counts.append(len(segments))
        ids += [one for one, _ in segments]
        classes += [labels[category] for _, category in segments]
    segments_S = np.array(ids, np.int64), np.array(classes, np.uint8)
    return names, Segments(np.cumsum(counts), *segments_S, tuple(stems))
