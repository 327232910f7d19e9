"""What all annotation formats share: judging boxes, reporting faults, and building the flat data set.

Legend: I images, K objects. The rules for boxes: four finite numbers, of positive size, inside the image.
What can only be a mistake (not a number, negative size, wholly outside) is refused; what official data
contain is fixed and noted once (zero size: left out; reaching beyond the edge: clipped where boxes are used).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vertebra.data.datasets.records import DetectionDataset, Extras, Strings
from vertebra.ground.errors import DataError

CLIPPED = "it is clipped; if there are many, see whether they are corners instead of x, y, width, height"
TINY_PX = 1e-3  # a side below this is no side
EDGE_PX = 1.0  # boxes may reach this far beyond the image without a word: annotators round


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


def build_dataset(
    *,
    root: Path,
    source: str,
    class_names: Sequence[str],
    category_ids: Sequence[int],
    image_ids: Sequence[int],
    file_names: Iterable[str],
    sizes_hw_I2: np.ndarray,
    owners_K: np.ndarray,
    xywh_K4: np.ndarray,
    labels_K: np.ndarray,
    crowd_K: np.ndarray,
    difficult_K: np.ndarray,
    areas_K: np.ndarray,
    annotation_ids_K: np.ndarray,
    segmentations: Sequence[str] | None = None,
    supercategories: Sequence[str] = (),
    notes: Sequence[str] = (),
    labelled: bool = True,
    extras: Extras | None = None,
) -> DetectionDataset:
    """Objects in any order, owners_K being the index of each one's image, sorted by image (stable)."""
    if not len(image_ids):
        raise DataError(source, "no images", "there is nothing to train or test on, check the annotations")
    order_K = np.argsort(owners_K, kind="stable")
    counts_I = np.bincount(owners_K, minlength=len(image_ids))
    return DetectionDataset(
        root=root,
        source=source,
        class_names=tuple(class_names),
        category_ids=tuple(category_ids),
        image_ids_I=np.asarray(image_ids, np.int64),
        file_names=Strings(file_names),
        sizes_hw_I2=np.asarray(sizes_hw_I2, np.int32).reshape(-1, 2),
        starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_I)]),
        bbox_xywh_K4=np.asarray(xywh_K4, np.float64).reshape(-1, 4)[order_K],
        labels_K=np.asarray(labels_K, np.int64)[order_K],
        crowd_K=np.asarray(crowd_K, bool)[order_K],
        difficult_K=np.asarray(difficult_K, bool)[order_K],
        areas_K=np.asarray(areas_K, np.float64)[order_K],
        annotation_ids_K=np.asarray(annotation_ids_K, np.int64)[order_K],
        segmentations=None if segmentations is None else Strings(segmentations[k] for k in order_K),
        supercategories=tuple(supercategories),
        notes=tuple(notes),
        labelled=labelled,
        extras=None if extras is None else extras.take(range(len(image_ids)), order_K.tolist()),
    )


def unite(datasets: Sequence[DetectionDataset], source: str) -> DetectionDataset:
    """Several data sets of the same classes as one. Raises DataError where classes or image ids clash."""
    first = datasets[0]
    if len(datasets) == 1:
        return first
    for other in datasets[1:]:
        if (other.class_names, other.category_ids) != (first.class_names, first.category_ids):
            raise DataError(
                source, f"{first.source} and {other.source} have different classes", "unite sets of the same classes"
            )
        if other.labelled != first.labelled:
            raise DataError(source, "some of its parts have no annotations", "unite sets that all have them")
    image_ids_I = np.concatenate([one.image_ids_I for one in datasets])
    unique, counts = np.unique(image_ids_I, return_counts=True)
    if len(unique) < len(image_ids_I):
        twice = unique[counts > 1]
        raise DataError(source, f"{len(twice)} images are in it twice (id {twice[0]} is one)", "unite disjoint sets")
    root = Path(os.path.commonpath([one.root.resolve() for one in datasets]))
    prefixes = [one.root.resolve().relative_to(root) for one in datasets]
    names = ((prefix / name).as_posix() for prefix, one in zip(prefixes, datasets) for name in one.file_names)
    count = sum(len(one.labels_K) for one in datasets)
    images_before = np.cumsum([0, *(len(one) for one in datasets[:-1])])
    owners = [
        before + np.repeat(np.arange(len(one)), np.diff(one.starts)) for before, one in zip(images_before, datasets)
    ]
    segmentations = None
    if any(one.segmentations is not None for one in datasets):
        segmentations = [
            text
            for one in datasets
            for text in (one.segmentations if one.segmentations is not None else [""] * len(one.labels_K))
        ]
    return build_dataset(
        root=root,
        source=source,
        class_names=first.class_names,
        category_ids=first.category_ids,
        image_ids=image_ids_I.tolist(),
        file_names=names,
        sizes_hw_I2=np.concatenate([one.sizes_hw_I2 for one in datasets]),
        owners_K=np.concatenate(owners),
        xywh_K4=np.concatenate([one.bbox_xywh_K4 for one in datasets]),
        labels_K=np.concatenate([one.labels_K for one in datasets]),
        crowd_K=np.concatenate([one.crowd_K for one in datasets]),
        difficult_K=np.concatenate([one.difficult_K for one in datasets]),
        areas_K=np.concatenate([one.areas_K for one in datasets]),
        annotation_ids_K=np.arange(1, count + 1),
        segmentations=segmentations,
        supercategories=first.supercategories,
        notes=[note for one in datasets for note in one.notes],
        labelled=first.labelled,
        extras=_united_extras(datasets),
    )


def _united_extras(datasets: Sequence[DetectionDataset]) -> Extras | None:
    """All parts' extras; the header is kept where it is one and the same."""
    parts = [one.extras for one in datasets if one.extras is not None]
    if len(parts) < len(datasets):
        return None
    images = [text for part in parts for text in part.images]
    objects = [text for part in parts for text in part.objects]
    same = len({part.header for part in parts}) == 1
    return Extras(images, objects, parts[0].header if same else "{}")
