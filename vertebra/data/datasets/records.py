"""Data sets in memory: a few flat arrays each, and views of them one image at a time.

Legend: I images, K annotated objects of the whole set, G objects of one image. Python lists of boxes would
cost ten times the memory, and every use of them by a forked worker would copy their pages (reference
counts are writes); flat arrays are shared by all workers for good.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vertebra.data.datasets.faults import are_empty
from vertebra.data.datasets.folders import bytes_of
from vertebra.data.datasets.strings import Strings
from vertebra.data.loading.decode import decode_bytes, decode_image, read_bytes

if TYPE_CHECKING:
    from vertebra.data.datasets.shards import Shards

Column = np.ndarray | Strings | None
# The columns of a DetectionDataset.
PER_IMAGE = ("image_ids_I", "file_names", "sizes_hw_I2", "image_extras")
PER_OBJECT = (
    *("bbox_xywh_K4", "labels_K", "crowd_K", "difficult_K", "areas_K", "annotation_ids_K"),
    *("segmentations", "object_extras"),
)


@dataclass(frozen=True)
class DetectionDataset:
    """Images with labelled boxes.

    class_names: label l is class_names[l - 1] and category_ids[l - 1] in files.
    file_names: I names relative to `root`; sizes_hw_I2: int32; starts: int64, I + 1 long, image i's objects
    are starts[i]:starts[i + 1] of the K-long arrays. bbox_xywh_K4 (float64) and areas_K are the numbers of
    the file, from which coco_truth() gives them back unchanged; annotation_ids_K are positive and unique.
    segmentations: JSON text an object ("" for none), or None. notes: sentences on what the reader fixed.
    labelled: False where the truth is not published (test sets): then there are no objects, and nothing to score.
    image_extras, object_extras, header: what the files say beyond what is used here, as JSON objects, for conversions;
    only where they were asked for.
    """

    root: Path
    source: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids_I: np.ndarray
    file_names: Strings
    sizes_hw_I2: np.ndarray
    starts: np.ndarray
    bbox_xywh_K4: np.ndarray
    labels_K: np.ndarray
    crowd_K: np.ndarray
    difficult_K: np.ndarray
    areas_K: np.ndarray
    annotation_ids_K: np.ndarray
    segmentations: Strings | None = None
    supercategories: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    labelled: bool = True
    image_extras: Strings | None = None
    object_extras: Strings | None = None
    header: str = "{}"

    def __len__(self) -> int:
        return len(self.image_ids_I)

    def path(self, index: int) -> Path:
        return self.root / self.file_names[index]

    def name(self, index: int) -> str:
        """The place of image `index`, for messages."""
        return str(self.path(index))

    def decode(self, index: int) -> np.ndarray:
        """The pixels of image `index`, uint8 RGB HW3. Raises BadSample."""
        height, width = self.sizes_hw_I2[index].tolist()
        return decode_image(self.path(index), size_hw=(height, width))

    @property
    def owners_K(self) -> np.ndarray:
        """The place of each object's image, int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def absent(self) -> list[str]:
        """Return the names of files that are missing or empty."""
        return [name for name in self.file_names if not bytes_of(self.root / name)]

    def boxes_G4(self, index: int) -> np.ndarray:
        """float32 x0 y0 x1 y1 of image `index`, clipped to it."""
        xywh_G4 = self.bbox_xywh_K4[self.starts[index] : self.starts[index + 1]]
        height, width = self.sizes_hw_I2[index]
        corners_G4 = np.concatenate([xywh_G4[:, :2], xywh_G4[:, :2] + xywh_G4[:, 2:]], axis=1)
        return np.clip(corners_G4, 0, (width, height, width, height)).astype(np.float32)

    def subset(self, indices: Sequence[int] | np.ndarray) -> DetectionDataset:
        """The images at these places, with their objects; fingerprint and truth are those of the part."""
        chosen_I = np.asarray(indices, np.int64)
        counts_I = np.diff(self.starts)[chosen_I]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_I)])
        chosen_K = np.arange(starts[-1]) + np.repeat(self.starts[chosen_I] - starts[:-1], counts_I)
        columns: dict[str, Any] = {name: taken(getattr(self, name), chosen_I) for name in PER_IMAGE}
        columns |= {name: taken(getattr(self, name), chosen_K) for name in PER_OBJECT}
        return replace(self, starts=starts, **columns)

    def with_objects(self, keep_K: np.ndarray) -> DetectionDataset:
        """All images, with those of their objects that `keep_K` (bool) chooses."""
        kept_K = np.flatnonzero(keep_K)
        counts_I = np.bincount(self.owners_K[kept_K], minlength=len(self))
        columns: dict[str, Any] = {name: taken(getattr(self, name), kept_K) for name in PER_OBJECT}
        return replace(self, starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_I)]), **columns)

    def coco_truth(self) -> dict[str, Any]:
        """The annotations as a COCO JSON value, with the file's own numbers; `difficult` is its own field.

        Extras, where they were read, are further fields.
        """
        images = [
            {"id": int(image_id), "file_name": name, "width": int(width), "height": int(height)}
            for image_id, name, (height, width) in zip(self.image_ids_I, self.file_names, self.sizes_hw_I2)
        ]
        if self.image_extras is not None:
            images = [{**json.loads(more), **image} for more, image in zip(self.image_extras, images)]
        image_ids_K = self.image_ids_I[self.owners_K]
        annotations: list[dict[str, Any]] = []
        for k in range(len(self.labels_K)):
            annotation = {
                "id": int(self.annotation_ids_K[k]),
                "image_id": int(image_ids_K[k]),
                "category_id": self.category_ids[self.labels_K[k] - 1],
                "bbox": self.bbox_xywh_K4[k].tolist(),
                "area": float(self.areas_K[k]),
                "iscrowd": int(self.crowd_K[k]),
                "difficult": int(self.difficult_K[k]),
            }
            if self.object_extras is not None:
                annotation = {**json.loads(self.object_extras[k]), **annotation}
            if self.segmentations is not None and self.segmentations[k]:
                annotation["segmentation"] = json.loads(self.segmentations[k])
            annotations.append(annotation)
        supercategories = self.supercategories or ("",) * len(self.class_names)
        categories = [
            {"id": category_id, "name": name, "supercategory": supercategory}
            for category_id, name, supercategory in zip(
                self.category_ids, self.class_names, supercategories, strict=True
            )
        ]
        header = json.loads(self.header)
        return {**header, "images": images, "annotations": annotations, "categories": categories}

    def fingerprint(self) -> str:
        """sha256 over classes, image list and annotations; the same wherever the files lie, with masks or not.

        Boxes of zero size, which nothing is learnt from, are not in it.
        """
        if (empty_K := are_empty(self.bbox_xywh_K4)).any():
            return self.with_objects(~empty_K).fingerprint()
        digest = hashlib.sha256(json.dumps([self.class_names, self.category_ids]).encode())
        self.file_names.update_hash(digest)
        for array, kind in (
            (self.image_ids_I, "<i8"),
            (self.sizes_hw_I2, "<i4"),
            (self.starts, "<i8"),
            (self.bbox_xywh_K4, "<f8"),
            (self.labels_K, "<i8"),
            (self.crowd_K, "u1"),
            (self.difficult_K, "u1"),
            (self.areas_K, "<f8"),
        ):
            digest.update(array.astype(kind).tobytes())
        return digest.hexdigest()


def taken(column: Column, places: np.ndarray) -> Any:
    """The column's values at these places."""
    if isinstance(column, Strings):
        return column.take(places)
    return None if column is None else column[places]


def joined(columns: Sequence[Column]) -> Any:
    """The values of all columns, one after the other; None where any has none."""
    if any(column is None for column in columns):
        return None
    strings = [column for column in columns if isinstance(column, Strings)]
    return Strings.joined(strings) if strings else np.concatenate(columns)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)  # arrays have no one truth to compare: a set is equal to itself alone
class ClassificationDataset:
    """Images with one label each, 0..C-1.

    file_names: relative to `root`. pixels_IHW3: the images themselves, uint8 RGB, where the data set's files
    hold arrays instead of pictures (CIFAR's python batches); else None. shards: the tar files that hold the images'
    files; None: they lie on disk each by itself.
    """

    root: Path
    split: str
    class_names: tuple[str, ...]
    file_names: Strings
    labels_I: np.ndarray
    pixels_IHW3: np.ndarray | None = None
    shards: Shards | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.labels_I)

    @property
    def source(self) -> str:
        return f"{self.split} of {self.root}"

    def path(self, index: int) -> Path:
        return self.root / self.file_names[index]

    def read(self, index: int) -> bytes:
        """The file of image `index` as it is. Raises BadSample."""
        return read_bytes(self.path(index)) if self.shards is None else self.shards.read(index)

    def decode(self, index: int) -> np.ndarray:
        """The pixels of image `index`, uint8 RGB HW3. Raises BadSample."""
        if self.pixels_IHW3 is not None:
            return self.pixels_IHW3[index]
        return decode_bytes(self.read(index), self.name(index))

    def fetch(self, indices: Sequence[int]) -> None:
        """Get these at once where that is faster than one by one: those of remote shards."""
        if self.shards is not None:
            self.shards.fetch(indices)

    def name(self, index: int) -> str:
        """The place of image `index`, for messages."""
        return str(self.path(index)) if self.shards is None else self.shards.name(index)

    def subset(self, indices: Sequence[int] | np.ndarray) -> ClassificationDataset:
        """The images at these places; the fingerprint is that of the part."""
        chosen_I = np.asarray(indices, np.int64)
        return replace(
            self,
            file_names=self.file_names.take(chosen_I),
            labels_I=self.labels_I[chosen_I],
            pixels_IHW3=None if self.pixels_IHW3 is None else self.pixels_IHW3[chosen_I],
            shards=None if self.shards is None else self.shards.subset(chosen_I),
        )

    def fingerprint(self) -> str:
        """sha256 over classes, image list, labels, and the pixels of a set of arrays."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        self.file_names.update_hash(digest)
        digest.update(self.labels_I.astype("<i8").tobytes())
        if self.pixels_IHW3 is not None:
            digest.update(self.pixels_IHW3.tobytes())
        return digest.hexdigest()
