"""Shared by all annotation formats: the flat data set from columns, reading several sources, and uniting them.

Legend: I images, K objects.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from vertebra.data.datasets.faults import Fault, refuse, summarise
from vertebra.data.datasets.records import PER_IMAGE, PER_OBJECT, DetectionDataset, joined, taken
from vertebra.data.datasets.strings import Strings
from vertebra.ground.doubts import ObjectColumns, doubts
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted

Floats = Sequence[float] | np.ndarray
Ints = Sequence[int] | np.ndarray
Bools = Sequence[bool] | np.ndarray
_Set = TypeVar("_Set")
_Part = TypeVar("_Part")
_Read = TypeVar("_Read")


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
    """K objects in any order, a column a field; None: none is crowd, none difficult, areas are boxes', ids 1, 2, ...

    owners_K: the places of their images. xywh_K4: pixels. labels_K: 1..C. segmentations, extras: JSON texts, see
    DetectionDataset. keep_K: which of them are part of the data set; None: all.
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
    keep_K: np.ndarray | None = None


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
    keep_K = np.ones(len(owners_K), bool) if objects.keep_K is None else objects.keep_K
    kept_K = np.flatnonzero(keep_K)
    order_K = kept_K[np.argsort(owners_K[kept_K], kind="stable")]
    image_ids_I = np.asarray(images.ids, np.int64)
    nowhere_K = np.zeros(len(xywh_K4), bool)
    columns: dict[str, Any] = {
        "bbox_xywh_K4": xywh_K4,
        "labels_K": np.asarray(objects.labels_K, np.int64),
        "crowd_K": np.asarray(nowhere_K if objects.crowd_K is None else objects.crowd_K, bool),
        "difficult_K": np.asarray(nowhere_K if objects.difficult_K is None else objects.difficult_K, bool),
        "areas_K": xywh_K4[:, 2] * xywh_K4[:, 3] if objects.areas_K is None else np.asarray(objects.areas_K, float),
        "annotation_ids_K": np.cumsum(keep_K) if objects.ids_K is None else np.asarray(objects.ids_K),
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
        starts=np.concatenate([[0], np.cumsum(np.bincount(owners_K[kept_K], minlength=len(image_ids_I)))]),
        supercategories=tuple(classes.supercategories),
        notes=tuple(notes),
        labelled=labelled,
        image_extras=None if images.extras is None else Strings(images.extras),
        header=header,
        **{name: taken(column, order_K) for name, column in columns.items()},
    )


@dataclass(frozen=True)
class ParsedSet(Generic[_Set]):
    """A reader's result: everything that can be used, and everything that is wrong.

    dataset: None where nothing could be read.
    """

    dataset: _Set | None
    faults: Sequence[Fault]

    def opened(self) -> _Set:
        """The data set, with notes on what was fixed. Raises DataError where a fault is fatal, or nothing is there."""
        refuse(self.faults)
        dataset: Any = self.dataset
        assert dataset is not None, "without one there is a fatal fault"
        if not len(dataset):
            raise DataError(dataset.source, "no images", "there is nothing to train or test on")
        return replace(dataset, notes=(*summarise(self.faults), *dataset.notes))


Parsed = ParsedSet[DetectionDataset]


def doubted(parsed: Parsed) -> Parsed:
    """The same, with a word on what is odd in the set as a whole."""
    if (one := parsed.dataset) is None:
        return parsed
    objects = ObjectColumns(one.owners_K, one.labels_K, one.bbox_xywh_K4, one.areas_K, one.crowd_K | one.difficult_K)
    odd = [Fault(Path(one.source), reason, hint, fatal=False) for reason, hint in doubts(objects)]
    return Parsed(one, [*parsed.faults, *odd])


def parse_each(parts: Iterable[_Part], parse: Callable[[_Part], _Read]) -> tuple[list[_Read], list[Fault]]:
    """Parse each part; return what could be read, and a fault for each part that could not."""
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
    return Parsed(united, [*faults, *repeated_ids(united.image_ids_I, source)])


def repeated_ids(image_ids: Ints, source: str) -> list[Fault]:
    """A fault where images have the same id."""
    unique, counts = np.unique(np.asarray(image_ids), return_counts=True)
    if not (counts > 1).any():
        return []
    some = f"{counted((counts > 1).sum(), 'image')} in it twice (such as id {unique[counts > 1][0]})"
    return [Fault(Path(source), some, "unite disjoint sets")]


def common_root(roots: Sequence[Path]) -> tuple[Path, list[Path]]:
    """Return the directory that all lie below, and the place of each below it."""
    whole = [root.resolve() for root in roots]
    root = Path(os.path.commonpath(whole))
    return root, [one.relative_to(root) for one in whole]


def names_below(places: Sequence[Path], names: Sequence[Strings]) -> Strings:
    """Return the names of several data sets' files, each below its set's place."""
    return Strings((place / name).as_posix() for place, files in zip(places, names) for name in files)


def _concatenate(datasets: Sequence[DetectionDataset], source: str) -> DetectionDataset:
    """One data set of all images and objects, which are numbered anew; the first one's classes."""
    first, root = datasets[0], datasets[0].root
    columns: dict[str, Any] = {
        name: joined([getattr(one, name) for one in datasets]) for name in (*PER_IMAGE, *PER_OBJECT)
    }
    if len({one.root for one in datasets}) > 1:
        root, places = common_root([one.root for one in datasets])
        columns["file_names"] = names_below(places, [one.file_names for one in datasets])
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
