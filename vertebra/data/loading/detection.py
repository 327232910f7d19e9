"""Loaders of detection batches: images on one canvas, and their truths in step with them.

Legend: I images of the data set, K its truths, N images of a batch, G truths an image (padded in the batch), H W an
image's resized height and width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from vertebra.data.datasets.faults import are_empty
from vertebra.data.datasets.masks import decode_masks
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.loading.decode import decode_image, shrink_factor
from vertebra.data.loading.loaders import Batch, Loader, empty_pixels
from vertebra.data.loading.repeats import repeat_factors
from vertebra.data.loading.sampling import (
    NO_IMAGE,
    Request,
    Share,
    TrainPlan,
    TrainRequests,
    choose_images,
    draw_seed,
    evenly,
    need_images,
    sequential_requests,
    try_samples,
)
from vertebra.data.loading.targets import DetectionSample, TruthPolicy, on_canvases, padded_targets, place_on
from vertebra.data.transforms.canvases import FixedView, Size, choose_canvases, default_canvases, fitting_canvases
from vertebra.data.transforms.detection_views import (
    DrawnView,
    ViewDraw,
    boxes_of_masks,
    cut_truths,
    view_truths,
    write_view,
)
from vertebra.data.transforms.geometry import Box
from vertebra.data.transforms.pipeline import Pipeline
from vertebra.ground.rle import Patch

logger = logging.getLogger(__name__)


@dataclass
class _Truths:
    """boxes_G4: in pixels of the decoded image or of its part in the view. kept_G: places in the data set."""

    boxes_G4: np.ndarray
    kept_G: np.ndarray
    masks_G: list[Patch]


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionReader:
    """Answers requests.

    chosen_I: the indices of the data set that are used; requests count along it. canvases: by the batch's side, or
    None where each image draws its own, and by a request's group.
    plan: None at test, where nothing is drawn and iteration 0 keys what a detector may draw. pipeline: changes the
    image and its truths before the view of them is drawn.
    """

    dataset: DetectionDataset
    chosen_I: np.ndarray
    canvases: Mapping[int | None, Mapping[int, Size]]
    views: ViewDraw
    policy: TruthPolicy
    masks: bool
    seed: int
    plan: TrainPlan | None
    pipeline: Pipeline | None = None

    def __call__(self, request: Request) -> Batch:
        side = self._side(request.iteration)
        canvas_hw = self.canvases[side][request.group]
        repetitions = request.repetitions or (0,) * len(request.indices)
        pixels_NHW3 = empty_pixels(len(request.indices), *canvas_hw)
        samples: list[DetectionSample] = []
        skipped: list[str] = []
        for wanted, repetition, canvas_HW3 in zip(request.indices, repetitions, pixels_NHW3.numpy()):
            read = partial(self._sample, request.iteration, repetition, canvas_HW3, side)
            samples.append(try_samples(read, wanted, request, self.plan, skipped))
        images = on_canvases(pixels_NHW3, [sample.pixels_HW3 for sample in samples])
        targets = padded_targets(self.dataset, samples, masks=self.masks)
        return Batch((images, targets), targets.image_ids, tuple(skipped), request.iteration)

    def _side(self, iteration: int) -> int | None:
        """The side of all images of a global batch; None where each draws its own."""
        if not self.views.per_batch:
            return None
        sides = self.views.shorter_sides
        return sides[draw_seed(self.seed, iteration, NO_IMAGE) % len(sides)]

    def batch_bytes(self, images: int) -> int:
        """At most, of a batch on the largest canvas, with as many masks as images have objects on average."""
        pixels = max(height * width for by_group in self.canvases.values() for height, width in by_group.values())
        mask_bytes = pixels / 8 * len(self.dataset.labels_K) / len(self.dataset) if self.masks else 0
        return int(images * (3 * pixels + mask_bytes))

    def _sample(
        self, iteration: int, repetition: int, canvas_HW3: np.ndarray, side: int | None, place: int
    ) -> DetectionSample:
        """The image at that place of `chosen_I`, its pixels on the canvas."""
        dataset, index = self.dataset, int(self.chosen_I[place])
        canvas_hw: Size = (canvas_HW3.shape[0], canvas_HW3.shape[1])
        key = draw_seed(self.seed, iteration if self.plan else 0, int(dataset.image_ids_I[index]), repetition)
        rng = np.random.default_rng(key)
        draw = partial(self.views, canvas_hw=canvas_hw, rng=rng, side=side)
        image_HW3, truths, view = self._part(index, draw) if self.pipeline is None else self._changed(index, draw, rng)
        out_HW3 = place_on(canvas_HW3, view.size_hw)
        write_view(image_HW3, view, self.views.augmentation.photometric, rng, out_HW3)
        boxes_G4, masks_G = view_truths(truths.boxes_G4, truths.masks_G, image_HW3.shape[:2], view)
        ignore_G = self.policy.ignore(*self._flags(truths.kept_G))
        return DetectionSample(index, key, out_HW3, boxes_G4, truths.kept_G, ignore_G, masks_G)

    def _part(self, index: int, draw: Callable[..., DrawnView]) -> tuple[np.ndarray, _Truths, DrawnView]:
        """Draw the view before the image is decoded, so that no detail is that it does not show."""
        size_hw: Size = tuple(self.dataset.sizes_hw_I2[index].tolist())
        places_G, boxes_G4 = self._objects(index)
        view = draw(size_hw, boxes_G4=boxes_G4[self.policy.normal(*self._flags(places_G))])
        part = view.part
        shrink = shrink_factor((part.height, part.width), view.size_hw)
        image_HW3 = self._decoded(index, shrink)
        decoded_hw = image_HW3.shape[:2]
        scale_hw = (decoded_hw[0] / size_hw[0], decoded_hw[1] / size_hw[1])
        keep_G = self.policy.keep(*self._flags(places_G))
        boxes_G4 = boxes_G4[keep_G]
        boxes_G4 *= np.array([scale_hw[1], scale_hw[0]] * 2, np.float32)  # 1, unless decoded shrunken
        kept_G = places_G[keep_G]
        if (part.height, part.width) == size_hw:
            return image_HW3, _Truths(boxes_G4, kept_G, self._masks(index, kept_G, boxes_G4, decoded_hw)), view
        part = part.shrunk(shrink).within(decoded_hw)
        return part.cut(image_HW3), self._cut(index, kept_G, boxes_G4, decoded_hw, part, view.size_hw), view

    def _changed(
        self, index: int, draw: Callable[..., DrawnView], rng: np.random.Generator
    ) -> tuple[np.ndarray, _Truths, DrawnView]:
        """Draw the view of what the pipeline makes of the whole image."""
        assert self.pipeline is not None
        places_G, boxes_G4 = self._objects(index)
        keep_G = self.policy.keep(*self._flags(places_G))
        places_G, boxes_G4, image_HW3 = places_G[keep_G], boxes_G4[keep_G], self._decoded(index)
        masks_G = self._masks(index, places_G, boxes_G4, image_HW3.shape[:2])
        seen = self.pipeline(image_HW3, rng, boxes_G4, masks_G)
        view = draw(seen.image_HW3.shape[:2], boxes_G4=seen.boxes_G4)
        return seen.image_HW3, _Truths(seen.boxes_G4, places_G[seen.places_G], seen.masks_G), view

    def _decoded(self, index: int, shrink: int = 1) -> np.ndarray:
        size_hw: Size = tuple(self.dataset.sizes_hw_I2[index].tolist())
        return decode_image(self.dataset.path(index), size_hw=size_hw, shrink=shrink)

    def _objects(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Places in the data set and boxes_G4 of the image's objects that have a size."""
        places_G = np.arange(self.dataset.starts[index], self.dataset.starts[index + 1])
        has_size_G = ~are_empty(self.dataset.bbox_xywh_K4[places_G])
        return places_G[has_size_G], self.dataset.boxes_G4(index)[has_size_G]

    def _flags(self, places_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.dataset.crowd_K[places_G], self.dataset.difficult_K[places_G]

    def _cut(
        self, index: int, kept_G: np.ndarray, boxes_G4: np.ndarray, decoded_hw: Size, part: Box, size_hw: Size
    ) -> _Truths:
        """Cut the truths to that part, which becomes `size_hw`; see cut_truths for those that are dropped.

        With masks, a truth that is cut gets the box of the rest of its mask, which is tighter than the rest of its box
        (as in detectron2), and is dropped where no pixel of its mask is left.
        """
        by_centre_G = self.policy.normal(*self._flags(kept_G)) & (self.views.augmentation.crop == "iou")
        all_G4, stays_G, cut_G = cut_truths(boxes_G4, part, size_hw, by_centre_G)
        kept_G, left_G4, cut_G = kept_G[stays_G], all_G4[stays_G], cut_G[stays_G]
        whole = self._masks(index, kept_G, boxes_G4[stays_G], decoded_hw)
        if not whole:
            return _Truths(left_G4, kept_G, whole)
        masks_G = [patch.cut(part.top, part.left, part.height, part.width) for patch in whole]
        left_G4[cut_G] = boxes_of_masks([masks_G[g] for g in np.flatnonzero(cut_G)])
        shown_G = np.flatnonzero((left_G4[:, 2:] > left_G4[:, :2]).all(axis=1) | ~cut_G)
        return _Truths(left_G4[shown_G], kept_G[shown_G], [masks_G[g] for g in shown_G])

    def _masks(self, index: int, kept_G: np.ndarray, boxes_G4: np.ndarray, decoded_hw: Size) -> list[Patch]:
        return decode_masks(self.dataset, index, kept_G, boxes_G4, decoded_hw) if self.masks else []


def detection_train_loader(
    dataset: DetectionDataset,
    views: ViewDraw,
    policy: TruthPolicy,
    share: Share,
    *,
    canvases: Sequence[Size] = (),
    keep_empty: bool = True,
    repeat_threshold: float = 0.0,
    masks: bool = False,
    pipeline: Pipeline | None = None,
) -> Loader:
    """Batches whose inputs are (ImageBatch, Targets); every global batch has one canvas.

    canvases: (height, width), of which each image takes the smallest on which it is largest; none: default_canvases.
    Where a batch has one side they only group the images, and each group's canvas fits its images at that side.
    keep_empty: keep images without a normal truth. repeat_threshold: images of rarer classes come more often (see
    repeat_factors); 0: all come equally often. masks: with instance masks. pipeline: changes images and truths before
    their views are drawn, whose augmentation has no crop and no jitter then. Raises DataError.
    """
    chosen_I = evenly(len(dataset), share.limit)
    normal_K = policy.normal(dataset.crowd_K, dataset.difficult_K) & ~are_empty(dataset.bbox_xywh_K4)
    if not keep_empty:
        normal_before = np.concatenate([[0], np.cumsum(normal_K)])[dataset.starts]
        learnt_I = chosen_I[(np.diff(normal_before) > 0)[chosen_I]]
        if empty := len(chosen_I) - len(learnt_I):
            logger.info(
                "%d of %d training images have no object to learn and are left out; --input.keep-empty keeps them",
                empty,
                len(chosen_I),
            )
        chosen_I = learnt_I
    need_images(chosen_I, dataset.source)
    factors_I = repeat_factors(dataset, chosen_I, normal_K, repeat_threshold) if repeat_threshold > 0 else None
    shorter, longer = max(views.shorter_sides), views.longer_side
    canvases = tuple(canvases) or default_canvases(shorter, longer)
    sizes_hw_I2 = dataset.sizes_hw_I2[chosen_I]
    groups_I = choose_canvases(sizes_hw_I2, shorter, longer, canvases)
    by_side: dict[int | None, dict[int, Size]] = {None: dict(enumerate(canvases))}
    if views.per_batch:
        by_side = {side: fitting_canvases(sizes_hw_I2, groups_I, side, longer) for side in views.shorter_sides}
    plan = TrainPlan(groups_I, share.batch, share.seed, factors_I=factors_I)
    reader = DetectionReader(
        dataset=dataset,
        chosen_I=chosen_I,
        canvases=by_side,
        views=views,
        policy=policy,
        masks=masks,
        seed=share.seed,
        plan=plan,
        pipeline=pipeline,
    )
    return Loader(reader, TrainRequests(plan, share), share.workers)


def detection_test_loader(dataset: DetectionDataset, view: FixedView, share: Share, *, masks: bool = False) -> Loader:
    """Every image once over all processes, as (ImageBatch, Targets), on the smallest canvas with room for its batch.

    Raises DataError.
    """
    chosen_I = choose_images(len(dataset), share, dataset.source)
    sizes_hw_I2 = dataset.sizes_hw_I2[chosen_I]
    canvases = [view.canvas(sizes_hw_I2[first : first + share.batch]) for first in range(0, len(chosen_I), share.batch)]
    requests = [replace(one, group=one.iteration) for one in sequential_requests(len(chosen_I), share)]
    reader = DetectionReader(
        dataset=dataset,
        chosen_I=chosen_I,
        canvases={None: dict(enumerate(canvases))},
        views=ViewDraw((view.shorter,), view.longer),
        policy=TruthPolicy(),
        masks=masks,
        seed=share.seed,
        plan=None,
    )
    return Loader(reader, requests, share.workers)


@dataclass(frozen=True)
class SeveralSizes:
    """Answers requests as the first reader does, with the others' images beside its own (`ImageBatch.other_scales`).

    Each reader decodes for itself: which part of a JPEG's detail is decoded at all depends on the size that is wanted.
    """

    readers: tuple[DetectionReader, ...]

    def batch_bytes(self, images: int) -> int:
        return sum(reader.batch_bytes(images) for reader in self.readers)

    def __call__(self, request: Request) -> Batch:
        batch, *others = (reader(request) for reader in self.readers)
        images, targets = batch.inputs
        other_scales = tuple(other.inputs[0] for other in others)
        return replace(batch, inputs=(replace(images, other_scales=other_scales), targets))


def at_several_sizes(loaders: Sequence[Loader]) -> Loader:
    """One loader of several that give the same test images, each at a size of its own; the first one's truths."""
    first = loaders[0]
    if any(loader.requests != first.requests for loader in loaders):
        raise ValueError("Loaders of different images cannot be put together.")
    readers = tuple(cast(DetectionReader, loader.reader) for loader in loaders)
    return Loader(SeveralSizes(readers), first.requests, first.workers)
