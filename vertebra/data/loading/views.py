"""Views of an image at test: crops of one size, and the whole image at several; decoded once, all views from that.

Legend: N images of a batch, n those of them that share a size, V crops of one image, S side of a crop, H W height and
width. Whole images come in all sizes, so those of a batch are sorted into groups of one size each: most photographs
have one of a few sizes, and no image is padded or warped for the company's sake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.loading.decode import decode_bytes, shrink_factor, stored_size
from vertebra.data.loading.loaders import Batch, Loader
from vertebra.data.loading.sampling import Request, Share, need_images, sequential_requests
from vertebra.data.transforms.transforms import resize_shorter
from vertebra.ground.errors import DataError

BATCH_BYTES = 32 << 20  # pixels of a batch that a worker hands over: shared memory is scarce in containers
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
            raise DataError(
                f"resize {self.shorter} is below the crop's size {self.size}; set it to {self.size} or more"
            )

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
class Group:
    """Views of one size: rows_n are their images' places in the batch (int64); pixels_nV3HW uint8 RGB."""

    rows_n: Tensor
    pixels_nV3HW: Tensor

    def to(self, device: torch.device | str) -> Group:
        return Group(
            self.rows_n.to(device, non_blocking=True),
            self.pixels_nV3HW.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Group:
        return Group(self.rows_n.pin_memory(), self.pixels_nV3HW.pin_memory())


@dataclass(frozen=True)
class ViewBatch:
    """groups: for each view that was asked for, in that order, all images of the batch in groups of one size."""

    groups: tuple[tuple[Group, ...], ...]

    def __len__(self) -> int:
        return sum(len(group.rows_n) for group in self.groups[0])

    def to(self, device: torch.device | str) -> ViewBatch:
        return ViewBatch(tuple(tuple(one.to(device) for one in groups) for groups in self.groups))

    def pin_memory(self) -> ViewBatch:
        return ViewBatch(tuple(tuple(one.pin_memory() for one in groups) for groups in self.groups))


class ViewReader:
    """Answers requests with all views of each image."""

    def __init__(self, dataset: ClassificationDataset, views: Sequence[View]) -> None:
        self.dataset, self.views = dataset, tuple(views)

    def __call__(self, request: Request) -> Batch:
        self.dataset.fetch(request.indices)
        taken = [self._views_of(index) for index in request.indices]
        groups = tuple(_by_size([views[place] for views in taken]) for place in range(len(self.views)))
        labels_N = torch.from_numpy(self.dataset.labels_I[list(request.indices)])
        return Batch((ViewBatch(groups), labels_N), request.indices, iteration=request.iteration)

    def _views_of(self, index: int) -> list[np.ndarray]:
        if self.dataset.pixels_IHW3 is not None:
            return [view(self.dataset.pixels_IHW3[index]) for view in self.views]
        content, name = self.dataset.read(index), self.dataset.name(index)
        size_hw = stored_size(content)
        decoded: dict[int, np.ndarray] = {}
        taken = []
        for view in self.views:
            # As much of a large JPEG as this view needs, and no more for the other views: figures of a view are the
            # same whatever it is evaluated beside.
            shorter = min(size_hw) if size_hw else 0
            shrink = shrink_factor((shorter, shorter), (view.shorter, view.shorter))
            if shrink not in decoded:
                decoded[shrink] = decode_bytes(content, name, shrink=shrink)
            taken.append(view(decoded[shrink]))
        return taken


def _by_size(taken: list[np.ndarray]) -> tuple[Group, ...]:
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, pixels_VHW3 in enumerate(taken):
        rows.setdefault(pixels_VHW3.shape, []).append(row)
    return tuple(
        Group(torch.tensor(rows_n), torch.from_numpy(np.stack([taken[row] for row in rows_n])).permute(0, 1, 4, 2, 3))
        for rows_n in rows.values()
    )


def images_at_once(views: Sequence[View], most: int) -> int:
    """Images in a batch: `most`, or as many as BATCH_BYTES have room for all views of."""
    return max(1, min(most, int(BATCH_BYTES / (3 * sum(view.usual_pixels for view in views)))))


def view_loader(dataset: ClassificationDataset, views: Sequence[View], share: Share) -> Loader:
    """Every image once over all processes, in order, as (ViewBatch, labels_N).

    share.batch: the most images in a batch; fewer where their views are large. Raises DataError without images.
    """
    need_images(dataset, dataset.root)
    share = replace(share, batch=images_at_once(views, share.batch))
    return Loader(ViewReader(dataset, views), sequential_requests(len(dataset), share), share.workers)
