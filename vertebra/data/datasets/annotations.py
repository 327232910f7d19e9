"""What all annotation formats share: faults, the rules for boxes, and building the flat data set.

Legend: I images, K objects. The rules for boxes: four finite numbers, of positive size, inside the image.
What can only be a mistake (not a number, negative size, wholly outside) is refused; what official data
contain is fixed and noted once (zero size: left out; reaching beyond the edge: clipped where boxes are used).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vertebra.data.datasets.records import PER_IMAGE, PER_OBJECT, DetectionDataset, Strings, joined, taken
from vertebra.ground.errors import DataError

CLIPPED = "it is clipped; if there are many, see whether they are corners instead of x, y, width, height"
TINY_PX = 1e-3  # a side below this is no side
EDGE_PX = 1.0  # boxes may reach this far beyond the image without a word: annotators round
Floats = Sequence[float] | np.ndarray
Ints = Sequence[int] | np.ndarray
Bools = Sequence[bool] | np.ndarray
_Part = TypeVar("_Part")
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a data set. fatal: readers refuse it; else they fix it and go on.

    kind: the same few words for all faults that are fixed alike, by which they are counted.
    """

    path: Path
    reason: str
    hint: str
    fatal: bool = True
    kind: str = ""

    @classmethod
    def of(cls, error: DataError) -> Fault:
        return cls(Path(error.where), error.reason, error.hint)

    def __str__(self) -> str:
        return str(DataError(self.path, self.reason, self.hint))


def refuse(faults: Sequence[Fault]) -> None:
    """Raise DataError for the first fatal fault, with the number of the others."""
    fatal = [fault for fault in faults if fault.fatal]
    if fatal:
        more = f" ({len(fatal) - 1} more; `python tools/prepare_data.py check` lists all)" if fatal[1:] else ""
        raise DataError(fatal[0].path, fatal[0].reason, fatal[0].hint + more)


def summarise(faults: Iterable[Fault]) -> tuple[str, ...]:
    """One sentence for each kind of fault that was fixed, with its count and an example."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        if not fault.fatal:
            kinds.setdefault(fault.kind, []).append(fault)
    return tuple(f"{alike[0].path}: {len(alike)} {kind}, such as: {alike[0].reason}" for kind, alike in kinds.items())


def judge_boxes(
    xywh_K4: np.ndarray,
    sizes_hw_K2: np.ndarray,
    name: Callable[[int], str],
    path: Path | Callable[[int], Path],
) -> tuple[np.ndarray, list[Fault]]:
    """Which boxes to keep (K bool), and what is wrong with any. name(k) says which box it is."""
    whole_K2 = sizes_hw_K2[:, ::-1].astype(np.float64)
    start_K2, size_K2 = xywh_K4[:, :2], xywh_K4[:, 2:]
    with np.errstate(invalid="ignore", over="ignore"):
        end_K2 = start_K2 + size_K2
        seen_K2 = np.minimum(end_K2, whole_K2) - np.maximum(start_K2, 0)
        beyond_K = (np.maximum(-start_K2, end_K2 - whole_K2) > EDGE_PX).any(axis=1)
        not_numbers_K = ~np.isfinite(xywh_K4).all(axis=1)
        negative_K = (size_K2 < 0).any(axis=1)
        zero_K = (size_K2 < TINY_PX).any(axis=1)
        outside_K = (seen_K2 < TINY_PX).any(axis=1)
    verdicts = (
        (not_numbers_K, True, "has a box that is not four finite numbers", "correct or remove it", ""),
        (negative_K, True, "has a box of negative size", "boxes are x, y, width, height: correct it", ""),
        (zero_K, False, "has a box of zero size", "it is left out", "boxes of zero size were left out"),
        (outside_K, True, "has a box wholly outside the image", "correct or remove it", ""),
        (beyond_K, False, "has a box that reaches beyond the image", CLIPPED, "boxes beyond the edge were clipped"),
    )
    faults: list[Fault] = []
    clear_K = np.ones(len(xywh_K4), bool)
    for wrong_K, fatal, reason, hint, kind in verdicts:
        for k in np.flatnonzero(wrong_K & clear_K).tolist():
            box = ", ".join(f"{number:g}" for number in xywh_K4[k])
            height, width = sizes_hw_K2[k]
            where = path if isinstance(path, Path) else path(k)
            reason_k = f"{name(k)} {reason} (x y w h {box} in {width} x {height})"
            faults.append(Fault(where, reason_k, hint, fatal, kind))
        clear_K &= ~wrong_K
    return ~(not_numbers_K | negative_K | zero_K | outside_K), faults


@dataclass(frozen=True)
class Classes:
    """names: of labels 1, 2, ...; ids: what files and results call them, 1, 2, ... where there are none."""

    names: Sequence[str]
    ids: Sequence[int] = ()
    supercategories: Sequence[str] = ()


@dataclass
class Images:
    """I images, a column a field. extras: JSON texts, see DetectionDataset."""

    ids: Ints = field(default_factory=list)
    file_names: Iterable[str] = field(default_factory=list)
    sizes_hw: Sequence[tuple[int, int]] | np.ndarray = field(default_factory=list)
    extras: Sequence[str] | None = None


@dataclass
class Objects:
    """K objects in any order, a column a field; None: none is crowd, none difficult, areas are boxes', ids 1..K.

    owners_K: the places of their images. xywh_K4: pixels. labels_K: 1..C. segmentations, extras: JSON texts, see
    DetectionDataset.
    """

    owners_K: Ints
    xywh_K4: np.ndarray
    labels_K: Ints
    crowd_K: Bools | None = None
    difficult_K: Bools | None = None
    areas_K: Floats | None = None
    ids_K: Ints | None = None
    segmentations: Sequence[str] | None = None
    extras: Sequence[str] | None = None


def build_dataset(
    root: Path,
    source: str,
    classes: Classes,
    images: Images,
    objects: Objects,
    *,
    notes: Sequence[str] = (),
    labelled: bool = True,
    header: str = "{}",
) -> DetectionDataset:
    """The data set, its objects sorted by image (stable)."""
    xywh_K4 = np.asarray(objects.xywh_K4, np.float64).reshape(-1, 4)
    owners_K = np.asarray(objects.owners_K, np.int64)
    order_K = np.argsort(owners_K, kind="stable")
    image_ids_I = np.asarray(images.ids, np.int64)
    nowhere_K = np.zeros(len(xywh_K4), bool)
    columns: dict[str, Any] = {
        "bbox_xywh_K4": xywh_K4,
        "labels_K": np.asarray(objects.labels_K, np.int64),
        "crowd_K": np.asarray(nowhere_K if objects.crowd_K is None else objects.crowd_K, bool),
        "difficult_K": np.asarray(nowhere_K if objects.difficult_K is None else objects.difficult_K, bool),
        "areas_K": xywh_K4[:, 2] * xywh_K4[:, 3] if objects.areas_K is None else np.asarray(objects.areas_K, float),
        "annotation_ids_K": np.arange(1, len(xywh_K4) + 1) if objects.ids_K is None else np.asarray(objects.ids_K),
        "segmentations": None if objects.segmentations is None else Strings(objects.segmentations),
        "object_extras": None if objects.extras is None else Strings(objects.extras),
    }
    return DetectionDataset(
        root=root,
        source=source,
        class_names=tuple(classes.names),
        category_ids=tuple(classes.ids) or tuple(range(1, len(classes.names) + 1)),
        image_ids_I=image_ids_I,
        file_names=Strings(images.file_names),
        sizes_hw_I2=np.asarray(images.sizes_hw, np.int32).reshape(-1, 2),
        starts=np.concatenate([[0], np.cumsum(np.bincount(owners_K, minlength=len(image_ids_I)))]),
        supercategories=tuple(classes.supercategories),
        notes=tuple(notes),
        labelled=labelled,
        image_extras=None if images.extras is None else Strings(images.extras),
        header=header,
        **{name: taken(column, order_K) for name, column in columns.items()},
    )


@dataclass(frozen=True)
class Parsed:
    """What a reader made of files: all of it that can be used, and all that is wrong with any.

    dataset: None where nothing could be read.
    """

    dataset: DetectionDataset | None
    faults: Sequence[Fault]

    def opened(self) -> DetectionDataset:
        """The data set, with notes on what was fixed. Raises DataError where a fault is fatal, or nothing is there."""
        refuse(self.faults)
        assert self.dataset is not None, "without one there is a fatal fault"
        if not len(self.dataset):
            raise DataError(self.dataset.source, "no images", "there is nothing to train or test on")
        return replace(self.dataset, notes=(*summarise(self.faults), *self.dataset.notes))


def parse_each(parts: Iterable[_Part], parse: Callable[[_Part], _Read]) -> tuple[list[_Read], list[Fault]]:
    """What could be read of the parts, and a fault for each that could not."""
    read, faults = [], []
    for part in parts:
        try:
            read.append(parse(part))
        except DataError as error:
            faults.append(Fault.of(error))
    return read, faults


def unite(parts: Sequence[Parsed], source: str, faults: Sequence[Fault] = ()) -> Parsed:
    """Several data sets as one. Different classes, and images that are in two of them, are fatal faults."""
    faults = [*faults, *(fault for part in parts for fault in part.faults)]
    datasets = [part.dataset for part in parts if part.dataset is not None]
    if len(datasets) < 2:
        return Parsed(datasets[0] if datasets else None, faults)
    first = datasets[0]
    for other in datasets[1:]:
        if (other.class_names, other.category_ids) != (first.class_names, first.category_ids):
            reason = f"{first.source} and {other.source} have different classes"
            faults.append(Fault(Path(source), reason, "unite sets of the same classes"))
        if other.labelled != first.labelled:
            reason = "some of its parts have no annotations"
            faults.append(Fault(Path(source), reason, "unite sets that all have them"))
    united = _concatenate(datasets, source)
    return Parsed(united, [*faults, *twice(united.image_ids_I, source)])


def twice(image_ids: Ints, source: str) -> list[Fault]:
    """A fault where images have the same id."""
    unique, counts = np.unique(np.asarray(image_ids), return_counts=True)
    if not (counts > 1).any():
        return []
    some = f"{(counts > 1).sum()} images are in it twice (id {unique[counts > 1][0]} is one)"
    return [Fault(Path(source), some, "unite disjoint sets")]


def _concatenate(datasets: Sequence[DetectionDataset], source: str) -> DetectionDataset:
    """One data set of all images and objects, which are numbered anew; the first one's classes."""
    first, root = datasets[0], datasets[0].root
    columns: dict[str, Any] = {
        name: joined([getattr(one, name) for one in datasets]) for name in (*PER_IMAGE, *PER_OBJECT)
    }
    if len({one.root for one in datasets}) > 1:
        roots = [one.root.resolve() for one in datasets]
        root = Path(os.path.commonpath(roots))
        places = zip((one.relative_to(root) for one in roots), datasets)
        columns["file_names"] = Strings((place / name).as_posix() for place, one in places for name in one.file_names)
    if any(one.segmentations is not None for one in datasets):  # of the others, no object has any
        columns["segmentations"] = Strings.joined(
            [one.segmentations or Strings([""] * len(one.labels_K)) for one in datasets]
        )
    columns["annotation_ids_K"] = np.arange(1, len(columns["labels_K"]) + 1)
    return replace(
        first,
        root=root,
        source=source,
        starts=np.concatenate([[0], np.cumsum(np.concatenate([np.diff(one.starts) for one in datasets]))]),
        notes=tuple(note for one in datasets for note in one.notes),
        header=first.header if len({one.header for one in datasets}) == 1 else "{}",
        **columns,
    )
