"""Loaders of images with a label for every pixel.

Legend: N images of a batch, H W height and width. Labels are uint8, see vertebra.data.datasets.maps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from vertebra.data.datasets.image_sizes import image_sizes
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.loading.decode import decode_image, shrink_factor
from vertebra.data.loading.loaders import Batch, Loader, empty_pixels
from vertebra.data.loading.sampling import (
    Request,
    Share,
    TrainPlan,
    TrainRequests,
    choose_images,
    draw_seed,
    evenly,
    one_group,
    sequential_requests,
    try_samples,
)
from vertebra.data.loading.targets import image_batch, on_canvases, place_on
from vertebra.data.transforms.canvases import FixedView, Size, TightView
from vertebra.data.transforms.detection_views import write_view
from vertebra.data.transforms.geometry import resize
from vertebra.data.transforms.pipeline import Pipeline
from vertebra.data.transforms.segmentation_views import SegmentationDraw, view_of_labels
from vertebra.ground.labels import IGNORED

SIZED = 64  # images whose headers say how large a batch may be


@dataclass(frozen=True, eq=False)
class SegmentationReader:
    """Answers requests with (ImageBatch, labels_NHW): crops of one size, IGNORED beyond an image's end.

    pipeline: changes the whole image and its labels before that.
    """

    dataset: SemanticDataset
    draw: SegmentationDraw
    plan: TrainPlan
    pipeline: Pipeline | None = None

    def __call__(self, request: Request) -> Batch:
        count, canvas_hw = len(request.indices), self.draw.size_hw
        pixels_NHW3 = empty_pixels(count, *canvas_hw)
        labels_NHW = torch.full((count, *canvas_hw), IGNORED, dtype=torch.uint8)
        seen: list[tuple[int, np.ndarray]] = []
        skipped: list[str] = []
        for wanted, canvas_HW3, canvas_HW in zip(request.indices, pixels_NHW3.numpy(), labels_NHW.numpy()):
            read = partial(self._sample, request.iteration, canvas_HW3, canvas_HW)
            seen.append(try_samples(read, wanted, request, self.plan, skipped))
        images = on_canvases(pixels_NHW3, [pixels_HW3 for _, pixels_HW3 in seen])
        ids = tuple(self.dataset.image_ids_I[[index for index, _ in seen]].tolist())
        return Batch((images, labels_NHW), ids, tuple(skipped), request.iteration)

    def batch_bytes(self, images: int) -> int:
        return images * 4 * self.draw.size_hw[0] * self.draw.size_hw[1]

    def _sample(
        self, iteration: int, canvas_HW3: np.ndarray, canvas_HW: np.ndarray, index: int
    ) -> tuple[int, np.ndarray]:
        """Draw an image's view and put it on the canvases; return the image and the pixels of its view."""
        rng = np.random.default_rng(draw_seed(self.plan.seed, iteration, int(self.dataset.image_ids_I[index])))
        labels_HW = self.dataset.labels(index)
        if self.pipeline is None:
            view = self.draw(labels_HW, rng)
            shrink = shrink_factor((view.part.height, view.part.width), view.size_hw)
            image_HW3 = decode_image(self.dataset.path(index), size_hw=labels_HW.shape, shrink=shrink)
        else:
            image_HW3 = decode_image(self.dataset.path(index), size_hw=labels_HW.shape)
            changed = self.pipeline(image_HW3, rng, labels_HW=labels_HW)
            assert changed.labels_HW is not None
            image_HW3, labels_HW, shrink = changed.image_HW3, changed.labels_HW, 1
            view = self.draw(labels_HW, rng)
        decoded_hw = image_HW3.shape[:2]
        view = replace(view, part=view.part.shrunk(shrink).within(decoded_hw))
        out_HW3 = place_on(canvas_HW3, view.size_hw)
        write_view(view.part.cut(image_HW3), view, self.draw.photometric, rng, out_HW3)
        canvas_HW[: view.size_hw[0], : view.size_hw[1]] = view_of_labels(labels_HW, view, decoded_hw)
        return index, out_HW3


def segmentation_train_loader(
    dataset: SemanticDataset, draw: SegmentationDraw, share: Share, pipeline: Pipeline | None = None
) -> Loader:
    """Batches whose inputs are (ImageBatch, labels_NHW uint8), both on canvases of the crop. Raises DataError.

    pipeline: changes images and labels before their views are drawn.
    """
    dataset = dataset.subset(choose_images(len(dataset), share, dataset.source))
    plan = one_group(len(dataset), share)
    reader = SegmentationReader(dataset, draw, plan, pipeline)
    return Loader(reader, TrainRequests(plan, share), share.workers)


@dataclass(frozen=True)
class EvaluationBatch(Batch):
    """Images as they are tested, and their truth as it is on disk.

    labels: of each image HW uint8, of its original size, on the host; None where its truth is not published.
    """

    labels: tuple[torch.Tensor | None, ...] = ()
    original_sizes_hw: tuple[Size, ...] = ()

    def shared(self) -> EvaluationBatch:
        labels = tuple(None if one_HW is None else one_HW.share_memory_() for one_HW in self.labels)
        return replace(self, inputs=super().shared().inputs, labels=labels)


@dataclass(frozen=True, eq=False)
class SegmentationTestReader:
    """Answers requests with (ImageBatch,). image_bytes: of one at most, with labels, as far as headers were read."""

    dataset: SemanticDataset
    view: TightView
    image_bytes: int

    def __call__(self, request: Request) -> Batch:
        read = [self._read(index) for index in request.indices]
        canvas_hw = self.view.canvas([size_hw for _, _, size_hw in read])
        return EvaluationBatch(
            (image_batch([pixels_HW3 for pixels_HW3, _, _ in read], canvas_hw),),
            tuple(self.dataset.image_ids_I[list(request.indices)].tolist()),
            iteration=request.iteration,
            labels=tuple(None if labels_HW is None else torch.from_numpy(labels_HW) for _, labels_HW, _ in read),
            original_sizes_hw=tuple(size_hw for _, _, size_hw in read),
        )

    def batch_bytes(self, images: int) -> int:
        return images * self.image_bytes

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None, Size]:
        """Return the pixels as they are tested, the labels, and the size on disk."""
        labels_HW = self.dataset.labels(index) if self.dataset.labelled else None
        size_hw = None if labels_HW is None else labels_HW.shape
        shrink = 1 if size_hw is None else shrink_factor(size_hw, self.view.size(size_hw))
        image_HW3 = decode_image(self.dataset.path(index), size_hw=size_hw, shrink=shrink)
        size_hw = size_hw or image_HW3.shape[:2]
        return resize(image_HW3, *self.view.size(size_hw)), labels_HW, size_hw


def segmentation_test_loader(
    dataset: SemanticDataset, view: FixedView | None, share: Share, canvas_hw: Size | None = None
) -> Loader:
    """Every image once over all processes, in order, as batches of (ImageBatch,). Raises DataError.

    view: the size at which images are tested; None: their own. canvas_hw: the only canvas; None: one for each batch.
    """
    dataset = dataset.subset(choose_images(len(dataset), share, dataset.source))
    sizes_hw_I2, _ = image_sizes([dataset.path(int(index)) for index in evenly(len(dataset), SIZED)])
    sizes_hw_I2 = sizes_hw_I2[sizes_hw_I2.all(axis=1)]
    tight = TightView(view, canvas_hw)
    height, width = tight.canvas([(height, width) for height, width in sizes_hw_I2.tolist()])
    image_bytes = 3 * height * width + sizes_hw_I2.prod(axis=1).max(initial=0)
    reader = SegmentationTestReader(dataset, tight, int(image_bytes))
    return Loader(reader, sequential_requests(len(dataset), share), share.workers)
