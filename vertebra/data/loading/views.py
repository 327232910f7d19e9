"""Views of an image at test: crops of one size, and the whole image at several; decoded once, all views from that.

Legend: N images of a batch, n those of them that share a size, V crops of one image, S side of a crop, H W height and
width. Whole images come in all sizes, so those of a batch are sorted into groups of one size each: most photographs
have one of a few sizes, and no image is padded or warped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detectors.structures import Size, TensorStructure
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.loading.decode import decode_bytes, shrink_factor, stored_size
from vertebra.data.loading.loaders import Batch, Loader
from vertebra.data.loading.sampling import Request, Share, need_images, sequential_requests
from vertebra.data.transforms.geometry import resize_shorter, size_at
from vertebra.ground.errors import DataError

BATCH_BYTES = 32 << 20  # of pixels in a worker's batch: shared memory is scarce in containers
USUAL_ASPECT = 4 / 3


@dataclass(frozen=True)
class Crops:
    """size x size px from the image with its shorter side at `shorter`: the centre, or the four corners and it.

    Raises DataError where the crop is larger than the image.
    """

    size: int
    shorter: int
    corners: bool = False

    def __post_init__(self) -> None:
        if self.shorter < self.size:
            where = f"resize {self.shorter} is below the crop's size {self.size}"
            raise DataError(where, hint=f"set it to {self.size} or more")

    @property
    def usual_pixels(self) -> float:
        return (5 if self.corners else 1) * self.size**2

    def __call__(self, image_HW3: np.ndarray) -> np.ndarray:
        """VSS3: top left, top right, bottom left, bottom right (with `corners`), centre."""
        image_HW3 = resize_shorter(image_HW3, self.shorter)
        bottom, right = (side - self.size for side in image_HW3.shape[:2])
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right)] if self.corners else []
        places.append((bottom // 2, right // 2))
        return np.stack([image_HW3[top : top + self.size, left : left + self.size] for top, left in places])


@dataclass(frozen=True)
class Whole:
    """The uncropped image with its shorter side at `shorter` px."""

    shorter: int

    @property
    def usual_pixels(self) -> float:
        return self.shorter**2 * USUAL_ASPECT

    def __call__(self, image_HW3: np.ndarray) -> np.ndarray:
        """1HW3."""
        return resize_shorter(image_HW3, self.shorter)[None]


View = Crops | Whole


@dataclass(frozen=True)
class Group(TensorStructure):
    """Views of one size: rows_n are their images' places in the batch (int64); pixels_nV3HW uint8 RGB.

    place_n4: where a view lies on disk, where that is known (float32): x and y of its upper left corner, and how many
    pixels on disk one of its pixels spans in x and y.
    """

    rows_n: Tensor
    pixels_nV3HW: Tensor
    place_n4: Tensor | None = None

    @property
    def pixels_n3HW(self) -> Tensor:
        """The only view of each image."""
        return self.pixels_nV3HW.squeeze(1)


@dataclass(frozen=True)
class ViewBatch(TensorStructure):
    """groups: for each view that was asked for, in that order, all images of the batch in groups of one size.

    sizes_hw_N2: of the images on disk (int64), where the views' places are known.
    """

    groups: tuple[tuple[Group, ...], ...]
    sizes_hw_N2: Tensor | None = None

    def __len__(self) -> int:
        return sum(len(group.rows_n) for group in self.groups[0])

    def _map(self, change: Callable[[Tensor], Tensor]) -> ViewBatch:
        groups = tuple(tuple(group._map(change) for group in groups) for groups in self.groups)
        return replace(super()._map(change), groups=groups)


@dataclass(frozen=True, eq=False)
class ViewReader:
    """Answers requests with (ViewBatch, labels_N): all views of each image; image ids are places in the data set.

    sizes_hw_I2: of the images on disk, as their annotations have them; with them, views know their places.
    """

    dataset: ClassificationDataset
    views: Sequence[View]
    sizes_hw_I2: np.ndarray | None = None

    def __call__(self, request: Request) -> Batch:
        indices = list(request.indices)
        self.dataset.fetch(indices)
        views_of_images = [self._views_of(index) for index in indices]
        groups = tuple(_by_size(images) for images in zip(*views_of_images))
        sizes_hw_N2 = None if self.sizes_hw_I2 is None else torch.from_numpy(self.sizes_hw_I2[indices]).long()
        labels_N = torch.from_numpy(self.dataset.labels_I[indices])
        return Batch((ViewBatch(groups, sizes_hw_N2), labels_N), request.indices, iteration=request.iteration)

    def batch_bytes(self, images: int) -> int:
        return int(images * 3 * sum(view.usual_pixels for view in self.views))

    def _views_of(self, index: int) -> list[_PlacedView]:
        if self.dataset.pixels_IHW3 is not None:
            return [_PlacedView(view(self.dataset.pixels_IHW3[index])) for view in self.views]
        content, name = self.dataset.read(index), self.dataset.name(index)
        annotated_hw: Size | None = None if self.sizes_hw_I2 is None else tuple(self.sizes_hw_I2[index].tolist())
        shorter = min(annotated_hw or stored_size(content) or (0, 0))
        decoded: dict[int, np.ndarray] = {}
        views = []
        for view in self.views:
            # As much of a large JPEG as this view needs, and no more for the other views: figures of a view are the
            # same whatever it is evaluated beside.
            shrink = shrink_factor((shorter, shorter), (view.shorter, view.shorter))
            if shrink not in decoded:
                decoded[shrink] = decode_bytes(content, name, size_hw=annotated_hw, shrink=shrink)
            image_HW3 = decoded[shrink]
            pixels_VHW3 = view(image_HW3)
            place = None
            if annotated_hw is not None:
                height, width = image_HW3.shape[:2]
                resized_hw = size_at(height, width, view.shorter)
                place = place_of_centre(pixels_VHW3.shape[1:3], resized_hw, annotated_hw)
            views.append(_PlacedView(pixels_VHW3, place))
        return views


class _PlacedView(NamedTuple):
    """One view of an image, and its place as in Group."""

    pixels_VHW3: np.ndarray
    place: list[float] | None = None


def place_of_centre(view_hw: Size, resized_hw: Size, size_hw: Size) -> list[float]:
    """The place on disk (see Group) of the view in the middle of an image of `size_hw` that became `resized_hw`."""
    y_span, x_span = (side / resized for side, resized in zip(size_hw, resized_hw))
    top, left = ((resized - seen) // 2 for resized, seen in zip(resized_hw, view_hw))
    return [left * x_span, top * y_span, x_span, y_span]


def _by_size(images: Sequence[_PlacedView]) -> tuple[Group, ...]:
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, one in enumerate(images):
        rows.setdefault(one.pixels_VHW3.shape, []).append(row)
    groups = []
    for rows_n in rows.values():
        pixels_nVHW3 = np.stack([images[row].pixels_VHW3 for row in rows_n])
        places = [place for row in rows_n if (place := images[row].place) is not None]
        pixels_nV3HW = torch.from_numpy(pixels_nVHW3).permute(0, 1, 4, 2, 3)
        groups.append(Group(torch.tensor(rows_n), pixels_nV3HW, torch.tensor(places) if places else None))
    return tuple(groups)


def images_at_once(views: Sequence[View], most: int) -> int:
    """Images in a batch: `most`, or as many as BATCH_BYTES have room for all views of."""
    return max(1, min(most, int(BATCH_BYTES / (3 * sum(view.usual_pixels for view in views)))))


def view_loader(
    dataset: ClassificationDataset, views: Sequence[View], share: Share, *, sizes_hw_I2: np.ndarray | None = None
) -> Loader:
    """Every image once over all processes, in order, as (ViewBatch, labels_N).

    share.batch: the most images in a batch; fewer where their views are large. sizes_hw_I2: of the images on disk;
    with them, views know their places. Raises DataError without images.
    """
    need_images(dataset, dataset.root)
    share = replace(share, batch=images_at_once(views, share.batch))
    return Loader(ViewReader(dataset, views, sizes_hw_I2), sequential_requests(len(dataset), share), share.workers)
