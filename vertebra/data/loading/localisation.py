"""Batches for localisation: random crops with their boxes in step, and views at test that know where they lie.

Legend: N images of a batch, n those of them whose view has one size, G truths an image (padded), V views of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vertebra.data.datasets.localisation import LocalisationDataset
from vertebra.data.loading.decode import decode_image, shrink_factor
from vertebra.data.loading.loaders import Batch, Loader
from vertebra.data.loading.sampling import (
    Request,
    Share,
    TrainPlan,
    TrainRequests,
    draw_seed,
    need_images,
    one_group,
    try_samples,
)
from vertebra.data.loading.targets import DetectionSample, image_batch, padded_targets
from vertebra.data.loading.views import Crops, View, view_loader
from vertebra.data.transforms.classification_views import ClassificationTransform
from vertebra.data.transforms.geometry import Box, mirror, mirror_boxes, resize

DRAWS = 10  # of crops in search of one that shows the object


@dataclass(frozen=True, kw_only=True)
class TrainView(ClassificationTransform):
    """A classifier's view, but "pad", that is to show an object.

    min_visible: a truth with less than this share in the crop is ignored in training; a crop without any other truth is
    drawn again, DRAWS times at most.
    """

    augment: str = "scale"
    min_scale: float = 0.25
    flip: float = 0.5
    min_visible: float = 0.5

    def draw_showing(self, boxes_G4: np.ndarray, height: int, width: int, rng: np.random.Generator) -> Box:
        """The crop, in pixels of the image; the last one drawn where none shows enough of a truth."""
        for _ in range(DRAWS):
            crop = self.draw(height, width, rng)
            if (visible(boxes_G4, crop) >= self.min_visible).any():
                break
        return crop


def visible(boxes_G4: np.ndarray, crop: Box) -> np.ndarray:
    """The share of each box's area that lies in the crop, 0..1."""
    seen_G4 = np.clip(boxes_G4, *_corners(crop))
    area_G, seen_G = (np.prod(b[:, 2:] - b[:, :2], axis=1, dtype=np.float64) for b in (boxes_G4, seen_G4))
    return seen_G / np.maximum(area_G, 1e-9)


def _corners(crop: Box) -> tuple[np.ndarray, np.ndarray]:
    low, high = (crop.left, crop.top), (crop.left + crop.width, crop.top + crop.height)
    return np.array(low * 2, np.float32), np.array(high * 2, np.float32)


@dataclass(frozen=True, eq=False)
class LocalisationReader:
    """Answers requests with (ImageBatch, Targets, classes_N int64); every truth of an image is of its class."""

    dataset: LocalisationDataset
    view: TrainView
    plan: TrainPlan

    def __call__(self, request: Request) -> Batch:
        skipped: list[str] = []
        samples = [
            try_samples(lambda index: self._sample(index, request.iteration), place, request, self.plan, skipped)
            for place in request.indices
        ]
        images = image_batch([sample.pixels_HW3 for sample in samples], (self.view.size, self.view.size))
        classes_N = torch.from_numpy(self.dataset.images.labels_I[[sample.index for sample in samples]])
        targets = padded_targets(self.dataset.objects, samples)
        return Batch((images, targets, classes_N), targets.image_ids, tuple(skipped), request.iteration)

    def batch_bytes(self, images: int) -> int:
        return images * 3 * self.view.size**2

    def _sample(self, index: int, iteration: int) -> DetectionSample:
        objects, view = self.dataset.objects, self.view
        height, width = size_hw = tuple(objects.sizes_hw_I2[index].tolist())
        key = draw_seed(self.plan.seed, iteration, int(objects.image_ids_I[index]))
        rng = np.random.default_rng(key)
        boxes_G4, path = objects.boxes_G4(index), objects.path(index)
        truths_G = np.arange(objects.starts[index], objects.starts[index + 1])
        if view.pipeline is not None:
            seen = view.pipeline(decode_image(path, size_hw=size_hw), rng, boxes_G4)
            image_HW3, boxes_G4, truths_G = seen.image_HW3, seen.boxes_G4, truths_G[seen.places_G]
            height, width = image_HW3.shape[:2]
        crop = view.draw_showing(boxes_G4, height, width, rng)
        flip = bool(rng.random() < view.flip)
        shrink = 1
        if view.pipeline is None:
            shrink = shrink_factor((crop.height, crop.width), (view.size, view.size))
            image_HW3 = decode_image(path, size_hw=size_hw, shrink=shrink)
        small = crop.shrunk(shrink)  # what is seen begins and ends with whole pixels of the shrunken image
        crop = Box(*(shrink * side for side in (small.top, small.left, small.height, small.width)))
        pixels_HW3 = resize(small.cut(image_HW3), view.size, view.size)

        seen_G = visible(boxes_G4, crop) >= view.min_visible
        low_4, high_4 = _corners(crop)
        boxes_G4 = (np.clip(boxes_G4, low_4, high_4) - low_4) * (view.size / (high_4 - low_4)[[2, 3, 2, 3]])
        if flip:
            pixels_HW3 = mirror(pixels_HW3)
            boxes_G4 = mirror_boxes(boxes_G4, view.size)
        for change in view.pixel_changes:
            pixels_HW3 = change(np.ascontiguousarray(pixels_HW3), rng)
        return DetectionSample(index, key, pixels_HW3, boxes_G4.astype(np.float32), truths_G, ~seen_G)


def localisation_train_loader(dataset: LocalisationDataset, view: TrainView, share: Share) -> Loader:
    """Batches whose inputs are (ImageBatch, Targets, classes_N). Raises DataError."""
    need_images(dataset, dataset.objects.source)
    plan = one_group(len(dataset), share)
    reader = LocalisationReader(dataset, view, plan)
    return Loader(reader, TrainRequests(plan, share), share.workers)


def localisation_test_loader(dataset: LocalisationDataset, views: Sequence[View], share: Share) -> Loader:
    """Every image once over all processes, in order, as (ViewBatch, classes_N) with the views' places.

    views: Crops (the centre alone) and Whole. share.batch: the most images in a batch; fewer where views are large.
    """
    assert not any(isinstance(view, Crops) and view.corners for view in views), views
    return view_loader(dataset.images, views, share, sizes_hw_I2=dataset.objects.sizes_hw_I2)
