"""Batches for localisation: random crops with their boxes in step, and views at test that know where they lie.

Legend: N images of a batch, n those of them whose view has one size, G truths an image (padded), V views of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from detectors.structures import ImageBatch, Size, Targets, TensorStructure, padded_count
from vertebra.data.datasets.localisation import LocalisationDataset
from vertebra.data.loading.decode import decode_bytes, read_bytes, shrink_factor
from vertebra.data.loading.loaders import Batch, Loader
from vertebra.data.loading.sampling import (
    Request,
    Share,
    TrainPlan,
    TrainRequests,
    draw_seed,
    need_images,
    one_group,
    sequential_requests,
    try_samples,
)
from vertebra.data.loading.views import Crops, View, images_at_once
from vertebra.data.transforms.augment import PixelChange
from vertebra.data.transforms.transforms import Box, mirror, resize, resize_shorter, resized_crop, scale_crop

AUGMENTS = ("scale", "crop", "none")
DRAWS = 10  # of crops in search of one that shows the object


@dataclass(frozen=True, kw_only=True)
class TrainView:
    """What is seen of an image in training: size x size px.

    augment: "scale" (shorter side drawn from `shorter` to 480/256 of it, and a random crop: He et al. 2015, §3.4),
    "crop" (min_scale..1 of the area, resized), "none" (the centre crop of the test). flip: a chance. min_visible: a
    truth of which less than this share is in the crop is neither learnt from nor punished; a crop without any other
    truth is drawn again, DRAWS times at most. pixel_changes: applied to the view after that.
    """

    size: int
    shorter: int
    augment: str = "scale"
    min_scale: float = 0.25
    flip: float = 0.5
    min_visible: float = 0.5
    pixel_changes: Sequence[PixelChange] = ()

    def __post_init__(self) -> None:
        assert self.augment in AUGMENTS and self.size <= self.shorter, self

    def draw(self, height: int, width: int, boxes_G4: np.ndarray, rng: np.random.Generator) -> Box:
        """The crop, in pixels of the image; the last one drawn where none shows enough of a truth."""
        for _ in range(DRAWS):
            crop = self._draw(height, width, rng)
            if (visible(boxes_G4, crop) >= self.min_visible).any():
                break
        return crop

    def _draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        if self.augment == "scale":
            return scale_crop(height, width, self.size, self.shorter, rng)
        if self.augment == "crop":
            return resized_crop(height, width, self.min_scale, rng)
        side = max(1, round(self.size * min(height, width) / self.shorter))
        return Box((height - side) // 2, (width - side) // 2, side, side)


def visible(boxes_G4: np.ndarray, crop: Box) -> np.ndarray:
    """The share of each box's area that lies in the crop, 0..1."""
    seen_G4 = np.clip(boxes_G4, *_corners(crop))
    area_G, seen_G = (np.prod(b[:, 2:] - b[:, :2], axis=1, dtype=np.float64) for b in (boxes_G4, seen_G4))
    return seen_G / np.maximum(area_G, 1e-9)


def _corners(crop: Box) -> tuple[np.ndarray, np.ndarray]:
    low, high = (crop.left, crop.top), (crop.left + crop.width, crop.top + crop.height)
    return np.array(low * 2, np.float32), np.array(high * 2, np.float32)


@dataclass
class _Sample:
    index: int
    seed: int
    pixels_HW3: np.ndarray
    boxes_G4: np.ndarray
    seen_G: np.ndarray


class LocalisationReader:
    """Answers requests with (ImageBatch, Targets, classes_N int64); every truth of an image is of its class."""

    def __init__(self, dataset: LocalisationDataset, view: TrainView, *, seed: int, plan: TrainPlan) -> None:
        self.dataset, self.view, self.seed, self.plan = dataset, view, seed, plan

    def __call__(self, request: Request) -> Batch:
        skipped: list[str] = []
        samples = [
            try_samples(lambda index: self._sample(index, request.iteration), place, request, self.plan, skipped)
            for place in request.indices
        ]
        size = self.view.size
        pixels_NHW3 = np.stack([sample.pixels_HW3 for sample in samples])
        sizes_hw = ((size, size),) * len(samples)
        images = ImageBatch(torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2), torch.tensor(sizes_hw), sizes_hw)
        classes_N = torch.from_numpy(self.dataset.images.labels_I[[sample.index for sample in samples]])
        targets = self._targets(samples, classes_N)
        return Batch((images, targets, classes_N), targets.image_ids, tuple(skipped), request.iteration)

    def _sample(self, index: int, iteration: int) -> _Sample:
        objects, view = self.dataset.objects, self.view
        height, width = size_hw = tuple(objects.sizes_hw_I2[index].tolist())
        key = draw_seed(self.seed, iteration, int(objects.image_ids_I[index]))
        rng = np.random.default_rng(key)
        boxes_G4 = objects.boxes_G4(index)
        crop = view.draw(height, width, boxes_G4, rng)
        flip = bool(rng.random() < view.flip)
        path = objects.path(index)
        shrink = shrink_factor((crop.height, crop.width), (view.size, view.size))
        image_HW3 = decode_bytes(read_bytes(path), path, size_hw=size_hw, shrink=shrink)
        if shrink > 1:  # what is seen begins and ends with whole pixels of the shrunken image
            small = crop.shrunk(shrink)
            crop = Box(*(shrink * side for side in (small.top, small.left, small.height, small.width)))
            pixels_HW3 = small.cut(image_HW3)
        else:
            pixels_HW3 = crop.cut(image_HW3)
        pixels_HW3 = resize(pixels_HW3, view.size, view.size)

        seen_G = visible(boxes_G4, crop) >= view.min_visible
        low_4, high_4 = _corners(crop)
        boxes_G4 = (np.clip(boxes_G4, low_4, high_4) - low_4) * (view.size / (high_4 - low_4)[[2, 3, 2, 3]])
        if flip:
            pixels_HW3 = mirror(pixels_HW3)
            boxes_G4 = np.stack(
                [view.size - boxes_G4[:, 2], boxes_G4[:, 1], view.size - boxes_G4[:, 0], boxes_G4[:, 3]], 1
            )
        for change in view.pixel_changes:
            pixels_HW3 = change(np.ascontiguousarray(pixels_HW3), rng)
        return _Sample(index, key, pixels_HW3, boxes_G4.astype(np.float32), seen_G)

    def _targets(self, samples: Sequence[_Sample], classes_N: Tensor) -> Targets:
        objects, count = self.dataset.objects, len(samples)
        padded = padded_count(max(len(sample.boxes_G4) for sample in samples))
        boxes_NG4 = torch.zeros(count, padded, 4)
        valid_NG, ignore_NG = (torch.zeros(count, padded, dtype=torch.bool) for _ in range(2))
        for n, sample in enumerate(samples):
            truths = len(sample.boxes_G4)
            boxes_NG4[n, :truths] = torch.from_numpy(sample.boxes_G4)
            valid_NG[n, :truths] = True
            ignore_NG[n, :truths] = torch.from_numpy(~sample.seen_G)
        indices = [sample.index for sample in samples]
        return Targets(
            boxes_NG4=boxes_NG4,
            labels_NG=(classes_N[:, None] + 1) * valid_NG,
            valid_NG=valid_NG,
            crowd_NG=torch.zeros_like(valid_NG),
            difficult_NG=torch.zeros_like(valid_NG),
            ignore_NG=ignore_NG,
            draw_seeds_N=torch.tensor([sample.seed for sample in samples], dtype=torch.int64),
            image_ids=tuple(objects.image_ids_I[indices].tolist()),
            original_sizes_hw=tuple(map(tuple, objects.sizes_hw_I2[indices].tolist())),
        )


@dataclass(frozen=True)
class PlacedGroup(TensorStructure):
    """Views of one size: rows_n, their images' places in the batch (int64); pixels_n3HW uint8 RGB; place_n4 float32:
    x and y on disk of the view's upper left corner, and how many pixels on disk one of its pixels spans in x and y."""

    rows_n: Tensor
    pixels_n3HW: Tensor
    place_n4: Tensor


@dataclass(frozen=True)
class PlacedViews:
    """groups: for each view that was asked for, all images of the batch. sizes_hw_N2: of the images on disk."""

    groups: tuple[tuple[PlacedGroup, ...], ...]
    sizes_hw_N2: Tensor

    def __len__(self) -> int:
        return len(self.sizes_hw_N2)

    def to(self, device: torch.device | str) -> PlacedViews:
        groups = tuple(tuple(one.to(device) for one in groups) for groups in self.groups)
        return PlacedViews(groups, self.sizes_hw_N2.to(device, non_blocking=True))

    def pin_memory(self) -> PlacedViews:
        groups = tuple(tuple(one.pin_memory() for one in groups) for groups in self.groups)
        return PlacedViews(groups, self.sizes_hw_N2.pin_memory())


class PlacedViewReader:
    """Answers requests with (PlacedViews, classes_N); image ids are places in the data set."""

    def __init__(self, dataset: LocalisationDataset, views: Sequence[View]) -> None:
        self.dataset, self.views = dataset, tuple(views)

    def __call__(self, request: Request) -> Batch:
        indices = list(request.indices)
        sizes_hw_N2 = torch.from_numpy(self.dataset.objects.sizes_hw_I2[indices]).long()
        taken = [self._views_of(index) for index in indices]
        groups = tuple(_by_size([views[number] for views in taken]) for number in range(len(self.views)))
        classes_N = torch.from_numpy(self.dataset.images.labels_I[indices])
        views = PlacedViews(groups, sizes_hw_N2)
        return Batch((views, classes_N), request.indices, iteration=request.iteration)

    def _views_of(self, index: int) -> list[tuple[np.ndarray, list[float]]]:
        objects = self.dataset.objects
        path, size_hw = objects.path(index), tuple(objects.sizes_hw_I2[index].tolist())
        content, shorter = read_bytes(path), min(size_hw)
        decoded: dict[int, np.ndarray] = {}
        taken = []
        for view in self.views:
            shrink = shrink_factor((shorter, shorter), (view.shorter, view.shorter))
            if shrink not in decoded:
                decoded[shrink] = decode_bytes(content, path, size_hw=size_hw, shrink=shrink)
            taken.append(_placed(decoded[shrink], view, size_hw))
        return taken


def _placed(image_HW3: np.ndarray, view: View, size_hw: Size) -> tuple[np.ndarray, list[float]]:
    """A view's pixels, and its place (see PlacedGroup)."""
    resized_HW3 = resize_shorter(image_HW3, view.shorter)
    y_span, x_span = (side / seen for side, seen in zip(size_hw, resized_HW3.shape[:2]))
    pixels_HW3 = view(resized_HW3)[-1]
    top, left = ((whole - seen) // 2 for whole, seen in zip(resized_HW3.shape[:2], pixels_HW3.shape[:2]))
    return pixels_HW3, [left * x_span, top * y_span, x_span, y_span]


def _by_size(taken: Sequence[tuple[np.ndarray, list[float]]]) -> tuple[PlacedGroup, ...]:
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, (pixels_HW3, _) in enumerate(taken):
        rows.setdefault(pixels_HW3.shape, []).append(row)
    return tuple(
        PlacedGroup(
            rows_n=torch.tensor(rows_n),
            pixels_n3HW=torch.from_numpy(np.stack([taken[row][0] for row in rows_n])).permute(0, 3, 1, 2),
            place_n4=torch.tensor([taken[row][1] for row in rows_n]),
        )
        for rows_n in rows.values()
    )


def localisation_train_loader(dataset: LocalisationDataset, view: TrainView, share: Share) -> Loader:
    """Batches whose inputs are (ImageBatch, Targets, classes_N). Raises DataError."""
    need_images(dataset, dataset.objects.source)
    plan = one_group(len(dataset), share)
    reader = LocalisationReader(dataset, view, seed=share.seed, plan=plan)
    return Loader(reader, TrainRequests(plan, share), share.workers)


def localisation_test_loader(dataset: LocalisationDataset, views: Sequence[View], share: Share) -> Loader:
    """Every image once over all processes, in order, as (PlacedViews, classes_N).

    views: Crops (the centre alone) and Whole. share.batch: the most images in a batch; fewer where views are large.
    """
    assert not any(isinstance(view, Crops) and view.corners for view in views), "boxes are not looked for in corners"
    share = replace(share, batch=images_at_once(views, share.batch))
    return Loader(PlacedViewReader(dataset, views), sequential_requests(len(dataset), share), share.workers)
