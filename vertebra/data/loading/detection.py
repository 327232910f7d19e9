"""Loaders of detection batches: images on one canvas, and their truths in step with them.

Legend: I images of the data set, K its truths, N images of a batch, G truths an image (padded in the batch), H W an
image's resized height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from detectors.structures import ImageBatch, Masks, Targets, padded_count
from vertebra.data.datasets.masks import decode_masks
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.loading.decode import decode_bytes, read_bytes, shrink_factor
from vertebra.data.loading.loaders import Batch, Loader
from vertebra.data.loading.repeats import repeat_factors
from vertebra.data.loading.sampling import (
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
from vertebra.data.transforms.canvases import FixedView, Size, choose_canvases, default_canvases
from vertebra.data.transforms.detection_views import DrawnView, ViewDraw, boxes_of_masks, cut_truths, detection_view
from vertebra.data.transforms.geometry import Box
from vertebra.data.transforms.pixels import photometric


@dataclass(frozen=True)
class TruthPolicy:
    """What becomes of special truths. crowd: "drop" or "ignore"; difficult: "train", "drop" or "ignore".

    Dropped truths are gone from the targets; ignored ones are there and flagged; others are normal.
    """

    crowd: str = "ignore"
    difficult: str = "train"

    def __post_init__(self) -> None:
        assert self.crowd in ("drop", "ignore") and self.difficult in ("train", "drop", "ignore"), self

    def keep(self, crowd_G: np.ndarray, difficult_G: np.ndarray) -> np.ndarray:
        dropped_G = np.zeros(len(crowd_G), bool)
        if self.crowd == "drop":
            dropped_G |= crowd_G
        if self.difficult == "drop":
            dropped_G |= difficult_G
        return ~dropped_G

    def ignore(self, crowd_G: np.ndarray, difficult_G: np.ndarray) -> np.ndarray:
        return crowd_G | difficult_G if self.difficult == "ignore" else crowd_G.copy()

    def normal(self, crowd_G: np.ndarray, difficult_G: np.ndarray) -> np.ndarray:
        """Those that are there to be found."""
        return self.keep(crowd_G, difficult_G) & ~self.ignore(crowd_G, difficult_G)


@dataclass
class DetectionSample:
    """One image of a batch, its truths in pixels of the view; truths_G: their places among all of the data set."""

    index: int
    seed: int
    pixels_HW3: np.ndarray
    boxes_G4: np.ndarray
    truths_G: np.ndarray
    ignore_G: np.ndarray
    masks_GHW: np.ndarray | None = None


@dataclass
class _Truths:
    """boxes_G4 in pixels of the decoded image, or of the part of it that is seen; the others follow it."""

    boxes_G4: np.ndarray
    kept_G: np.ndarray
    masks_GHW: np.ndarray | None

    def take(self, chosen_G: np.ndarray) -> _Truths:
        masks_GHW = None if self.masks_GHW is None else self.masks_GHW[chosen_G]
        return _Truths(self.boxes_G4[chosen_G], self.kept_G[chosen_G], masks_GHW)


class DetectionReader:
    """chosen_I: the indices of the data set that are used; requests count along it. canvases: by a request's
    group. plan: None at test, where nothing is drawn and iteration 0 keys what a detector may draw."""

    def __init__(
        self,
        dataset: DetectionDataset,
        chosen_I: np.ndarray,
        *,
        canvases: Sequence[Size],
        views: ViewDraw,
        policy: TruthPolicy,
        masks: bool,
        seed: int,
        plan: TrainPlan | None,
    ) -> None:
        self.dataset, self.chosen_I, self.canvases, self.views = dataset, chosen_I, canvases, views
        self.policy, self.masks, self.seed, self.plan = policy, masks, seed, plan

    def __call__(self, request: Request) -> Batch:
        canvas_hw = self.canvases[request.group]
        repetitions = request.repetitions or (0,) * len(request.indices)
        samples: list[DetectionSample] = []
        skipped: list[str] = []
        for wanted, repetition in zip(request.indices, repetitions):

            def read(place: int, repetition: int = repetition) -> DetectionSample:
                return self._sample(int(self.chosen_I[place]), request.iteration, repetition, canvas_hw)

            samples.append(try_samples(read, wanted, request, self.plan, skipped))
        images = image_batch([sample.pixels_HW3 for sample in samples], canvas_hw)
        targets = padded_targets(self.dataset, samples, masks=self.masks)
        return Batch((images, targets), targets.image_ids, tuple(skipped), request.iteration)

    def _sample(self, index: int, iteration: int, repetition: int, canvas_hw: Size) -> DetectionSample:
        dataset = self.dataset
        size_hw: Size = tuple(dataset.sizes_hw_I2[index].tolist())
        key = draw_seed(self.seed, iteration if self.plan else 0, int(dataset.image_ids_I[index]), repetition)
        rng = np.random.default_rng(key)
        places_G = np.arange(dataset.starts[index], dataset.starts[index + 1])
        boxes_G4, (crowd_G, difficult_G) = dataset.boxes_G4(index), self._flags(places_G)
        view = self.views(size_hw, canvas_hw, boxes_G4[self.policy.normal(crowd_G, difficult_G)], rng)
        part = view.part
        path = dataset.path(index)
        shrink = shrink_factor((part.height, part.width), view.size_hw)
        image_HW3 = decode_bytes(read_bytes(path), path, size_hw=size_hw, shrink=shrink)

        decoded_hw = image_HW3.shape[:2]
        keep_G = self.policy.keep(crowd_G, difficult_G)
        scale_hw = (decoded_hw[0] / size_hw[0], decoded_hw[1] / size_hw[1])
        boxes_G4 = boxes_G4[keep_G]
        boxes_G4 *= np.array([scale_hw[1], scale_hw[0]] * 2, np.float32)  # 1, unless decoded shrunken
        kept_G = places_G[keep_G]
        if (part.height, part.width) == size_hw:
            truths = _Truths(boxes_G4, kept_G, self._masks(index, kept_G, boxes_G4, decoded_hw, None))
        else:
            part = part.shrunk(shrink).within(decoded_hw)
            image_HW3 = part.cut(image_HW3)
            truths = self._cut(index, kept_G, boxes_G4, decoded_hw, part, view.size_hw)
        pixels_HW3, boxes_G4, masks_GHW = self._seen(image_HW3, truths, view, rng)
        ignore_G = self.policy.ignore(*self._flags(truths.kept_G))
        return DetectionSample(index, key, pixels_HW3, boxes_G4, truths.kept_G, ignore_G, masks_GHW)

    def _flags(self, places_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.dataset.crowd_K[places_G], self.dataset.difficult_K[places_G]

    def _seen(
        self, image_HW3: np.ndarray, truths: _Truths, view: DrawnView, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Pixels, boxes and masks of the view; colours are changed where there are fewer pixels."""
        strength = self.views.augmentation.photometric
        grows = view.size_hw[0] * view.size_hw[1] > image_HW3.shape[0] * image_HW3.shape[1]
        if strength and grows:
            image_HW3 = photometric(image_HW3, strength, rng)
        pixels_HW3, boxes_G4, masks_GHW = detection_view(
            image_HW3, truths.boxes_G4, truths.masks_GHW, size_hw=view.size_hw, flip=view.flip
        )
        if strength and not grows:
            pixels_HW3 = photometric(pixels_HW3, strength, rng)
        return pixels_HW3, boxes_G4, masks_GHW

    def _cut(
        self, index: int, kept_G: np.ndarray, boxes_G4: np.ndarray, decoded_hw: Size, part: Box, size_hw: Size
    ) -> _Truths:
        """What is left of the truths in that part, which becomes `size_hw`; see cut_truths for those that are dropped.

        With masks, the box of a truth that lost something is the box of what is left of its mask, which is tighter than
        what is left of its box (detectron2 does so too); where nothing of the mask is left, nothing is.
        """
        by_centre_G = self.policy.normal(*self._flags(kept_G)) & (self.views.augmentation.crop == "iou")
        all_G4, stays_G, cut_G = cut_truths(boxes_G4, part, size_hw, by_centre_G)
        kept_G, whole_G4, cut_G = kept_G[stays_G], boxes_G4[stays_G], cut_G[stays_G]
        truths = _Truths(all_G4[stays_G], kept_G, self._masks(index, kept_G, whole_G4, decoded_hw, part))
        if truths.masks_GHW is None or not cut_G.any():
            return truths
        truths.boxes_G4[cut_G] = boxes_of_masks(truths.masks_GHW[cut_G])
        return truths.take((truths.boxes_G4[:, 2:] > truths.boxes_G4[:, :2]).all(axis=1) | ~cut_G)

    def _masks(
        self, index: int, kept_G: np.ndarray, boxes_G4: np.ndarray, decoded_hw: Size, part: Box | None
    ) -> np.ndarray | None:
        return decode_masks(self.dataset, index, kept_G, boxes_G4, decoded_hw, part) if self.masks else None


def padded_targets(dataset: DetectionDataset, samples: Sequence[DetectionSample], *, masks: bool = False) -> Targets:
    """The truths of a batch's images."""
    count = len(samples)
    padded = padded_count(max(len(sample.truths_G) for sample in samples))
    boxes_NG4 = np.zeros((count, padded, 4), np.float32)
    labels_NG = np.zeros((count, padded), np.int64)
    valid_NG, crowd_NG, difficult_NG, ignore_NG = (np.zeros((count, padded), bool) for _ in range(4))
    for n, sample in enumerate(samples):
        g, truths_G = len(sample.truths_G), sample.truths_G
        boxes_NG4[n, :g] = sample.boxes_G4
        labels_NG[n, :g] = dataset.labels_K[truths_G]
        valid_NG[n, :g] = True
        crowd_NG[n, :g] = dataset.crowd_K[truths_G]
        difficult_NG[n, :g] = dataset.difficult_K[truths_G]
        ignore_NG[n, :g] = sample.ignore_G
    indices = [sample.index for sample in samples]
    return Targets(
        boxes_NG4=torch.from_numpy(boxes_NG4),
        labels_NG=torch.from_numpy(labels_NG),
        valid_NG=torch.from_numpy(valid_NG),
        crowd_NG=torch.from_numpy(crowd_NG),
        difficult_NG=torch.from_numpy(difficult_NG),
        ignore_NG=torch.from_numpy(ignore_NG),
        draw_seeds_N=torch.tensor([sample.seed for sample in samples], dtype=torch.int64),
        image_ids=tuple(dataset.image_ids_I[indices].tolist()),
        original_sizes_hw=tuple(map(tuple, dataset.sizes_hw_I2[indices].tolist())),
        masks=_flat_masks(samples) if masks else None,
    )


def image_batch(pixels: Sequence[np.ndarray], canvas_hw: Size) -> ImageBatch:
    """Resized images, each uint8 RGB HW3, at the top left of one canvas."""
    pixels_NHW3 = np.zeros((len(pixels), *canvas_hw, 3), np.uint8)
    for n, pixels_HW3 in enumerate(pixels):
        height, width = pixels_HW3.shape[:2]
        pixels_NHW3[n, :height, :width] = pixels_HW3
    sizes_hw = tuple((pixels_HW3.shape[0], pixels_HW3.shape[1]) for pixels_HW3 in pixels)
    sizes_hw_N2 = torch.tensor(sizes_hw, dtype=torch.int64).reshape(-1, 2)
    return ImageBatch(torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2), sizes_hw_N2, sizes_hw)


def _flat_masks(samples: Sequence[DetectionSample]) -> Masks:
    """All masks of the batch in one row; see detectors.structures.Masks."""
    all_masks = [sample.masks_GHW for sample in samples if sample.masks_GHW is not None]
    lengths = [mask_HW.size for masks_GHW in all_masks for mask_HW in masks_GHW]
    counts = [len(sample.truths_G) for sample in samples]
    truths = [np.arange(count) for count in counts]
    return Masks(
        bits_M=torch.from_numpy(np.concatenate([masks.reshape(-1) for masks in all_masks])),
        image_index_K=torch.from_numpy(np.repeat(np.arange(len(samples)), counts)),
        truth_index_K=torch.from_numpy(np.concatenate(truths).astype(np.int64)),
        offsets=tuple(np.concatenate([[0], np.cumsum(lengths)]).astype(int).tolist()),
    )


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
) -> Loader:
    """Batches whose inputs are (ImageBatch, Targets); every global batch has one canvas.

    canvases: (height, width), of which each image takes the smallest on which it is largest; none: default_canvases.
    keep_empty: keep images without a normal truth. repeat_threshold: images of rarer classes come more often (see
    repeat_factors); 0: all come equally often. masks: with instance masks. Raises DataError.
    """
    chosen_I = evenly(len(dataset), share.limit)
    normal_K = policy.normal(dataset.crowd_K, dataset.difficult_K)
    if not keep_empty:
        normal_before = np.concatenate([[0], np.cumsum(normal_K)])[dataset.starts]
        chosen_I = chosen_I[(np.diff(normal_before) > 0)[chosen_I]]
    need_images(chosen_I, dataset.source)
    factors_I = repeat_factors(dataset, chosen_I, normal_K, repeat_threshold) if repeat_threshold > 0 else None
    shorter, longer = max(views.shorter_sides), views.longer_side
    canvases = tuple(canvases) or default_canvases(shorter, longer)
    groups_I = choose_canvases(dataset.sizes_hw_I2[chosen_I], shorter, longer, canvases)
    plan = TrainPlan(groups_I, share.batch, share.seed, factors_I=factors_I)
    reader = DetectionReader(
        dataset, chosen_I, canvases=canvases, views=views, policy=policy, masks=masks, seed=share.seed, plan=plan
    )
    return Loader(reader, TrainRequests(plan, share), share.workers)


def detection_test_loader(
    dataset: DetectionDataset,
    view: FixedView,
    share: Share,
    *,
    policy: TruthPolicy | None = None,
    masks: bool = False,
) -> Loader:
    """Every image once over all processes, as (ImageBatch, Targets), on the smallest canvas that holds its batch.

    Raises DataError.
    """
    chosen_I = choose_images(len(dataset), share, dataset.source)
    sizes_hw_I2 = dataset.sizes_hw_I2[chosen_I]
    canvases = [view.canvas(sizes_hw_I2[first : first + share.batch]) for first in range(0, len(chosen_I), share.batch)]
    requests = [replace(one, group=one.iteration) for one in sequential_requests(len(chosen_I), share)]
    reader = DetectionReader(
        dataset,
        chosen_I,
        canvases=canvases,
        views=ViewDraw((view.shorter,), view.longer),
        policy=policy or TruthPolicy(),
        masks=masks,
        seed=share.seed,
        plan=None,
    )
    return Loader(reader, requests, share.workers)
