"""Localisation as ILSVRC scores it: a guess is a class and one box, right where both are.

A guess is right when its class is the image's and its box overlaps ANY box of that class in the image by an IoU of 0.5
or more (the challenge's development kit counts an overlap below 0.5 as wrong). An image counts as wrong when none of
its first k guesses is right. The kit's corners count pixels from 1 and belong to the box, so a side is xmax - xmin + 1;
here such a box is x0 = xmin - 1, y0 = ymin - 1, x1 = xmax, y1 = ymax, and the overlap is the same number.

Legend: I images, Q guesses an image (best first), K truths of all images, ordered by image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vertebra.evaluation.metrics.topk import wilson_interval
from vertebra.evaluation.predict.inference import Autocast, check_finite, predict_all
from vertebra.ground.boxes import corners_to_sizes, iou
from vertebra.ground.errors import UserError

RIGHT_IOU = 0.5


@dataclass(frozen=True)
class LocationTruth:
    """The class of each image, 0..C-1, its size, and its boxes boxes_K4[starts[i]:starts[i + 1]] (x0 y0 x1 y1).

    Raises UserError where an image has no box.
    """

    labels_I: NDArray[np.int64]
    sizes_hw_I2: NDArray[np.int64]
    starts: NDArray[np.int64]
    boxes_K4: NDArray[np.float32]

    def __post_init__(self) -> None:
        bare_I = np.diff(self.starts) < 1
        if bare_I.any():
            raise UserError(
                f"image {int(np.argmax(bare_I))} (counted from 0) has no box, so its object cannot be localised; leave "
                "such images out"
            )

    def __len__(self) -> int:
        return len(self.labels_I)


@dataclass(frozen=True)
class Guesses:
    """Classes and boxes, best first: classes_IQ (0..C-1), boxes_IQ4 (x0 y0 x1 y1 on disk), scores_IQ of the boxes."""

    classes_IQ: NDArray[np.int64]
    boxes_IQ4: NDArray[np.float32]
    scores_IQ: NDArray[np.float32]


@dataclass(frozen=True)
class LocationError:
    """The error over `images` images, per cent; intervals are Wilson's at 95 %.

    Wrong are images whose class is not among the first `guesses` (class_wrong) and those with the class but not the
    box (box_wrong); class_error counts the former alone.
    """

    guesses: int
    images: int
    error: float
    error_interval: tuple[float, float]
    class_error: float
    class_error_interval: tuple[float, float]
    class_wrong: int
    box_wrong: int


def predict_boxes(
    model: nn.Module,
    loader: Iterable[Any],
    classes_IQ: NDArray[np.int64],
    *,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    **options: Any,
) -> Guesses:
    """`model.locate(views, classes_NQ)` over a loader of (views, labels_N) whose image ids are places 0..I-1.

    All processes get the result. autocast: makes the context the model runs in. options: times_s of `predict_all`.
    Raises UserError for boxes that are not finite, and for images that never came.
    """
    localizer: Any = getattr(model, "module", model)  # DDP wraps forward only

    def predict(batch: Any) -> dict[int, NDArray[np.float32]]:
        views, _ = batch.to(device).inputs
        classes_NQ = torch.from_numpy(classes_IQ[list(batch.image_ids)]).to(device)
        with autocast():
            boxes_NQ4, scores_NQ = localizer.locate(views, classes_NQ)
        rows_NQ5 = torch.cat([boxes_NQ4.float(), scores_NQ.float()[..., None]], dim=2).cpu().numpy()
        check_finite(np.isfinite(rows_NQ5).all(axis=(1, 2)), batch.image_ids)
        return dict(zip(batch.image_ids, rows_NQ5))

    found = predict_all(model, loader, predict, image_order=range(len(classes_IQ)), **options)
    rows_IQ5 = np.stack([rows for _, rows in found])
    return Guesses(classes_IQ, rows_IQ5[..., :4], rows_IQ5[..., 4])


def overlaps(boxes_IQ4: NDArray[np.float32], truth: LocationTruth) -> NDArray[np.float64]:
    """The IoU of each box with the truth of its image that it overlaps most, IQ, 0..1."""
    owners_K = np.repeat(np.arange(len(truth)), np.diff(truth.starts))
    guess_KQ4 = corners_to_sizes(boxes_IQ4[owners_K].astype(np.float64))
    truth_K14 = corners_to_sizes(truth.boxes_K4[:, None].astype(np.float64))
    return np.maximum.reduceat(iou(guess_KQ4, truth_K14), truth.starts[:-1], axis=0)


def location_error(guesses: Guesses, truth: LocationTruth, count: int) -> LocationError:
    """The error of the first `count` guesses of each image. Raises UserError where there is no image."""
    images = len(truth)
    if not images:
        raise UserError("there are no images to localise in; is the split empty?")
    of_class_IQ, right_IQ = _judged(guesses, truth, count)
    has_class_I = of_class_IQ.any(axis=1)
    class_wrong, wrong = int((~has_class_I).sum()), int((~right_IQ.any(axis=1)).sum())
    return LocationError(
        guesses=count,
        images=images,
        error=100 * wrong / images,
        error_interval=wilson_interval(wrong, images),
        class_error=100 * class_wrong / images,
        class_error_interval=wilson_interval(class_wrong, images),
        class_wrong=class_wrong,
        box_wrong=wrong - class_wrong,
    )


def _judged(guesses: Guesses, truth: LocationTruth, count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return of_class_IQ and right_IQ of the first `count` guesses: those of the image's class, and with its box."""
    of_class_IQ = guesses.classes_IQ[:, :count] == truth.labels_I[:, None]
    return of_class_IQ, of_class_IQ & (overlaps(guesses.boxes_IQ4[:, :count], truth) >= RIGHT_IOU)


def with_true_class(boxes_I4: NDArray[np.float32], truth: LocationTruth) -> Guesses:
    """One guess an image: its own class, given by an oracle, and a box."""
    return Guesses(truth.labels_I[:, None], boxes_I4[:, None], np.ones((len(truth), 1), np.float32))


def placed_boxes(truth: LocationTruth, share_hw: tuple[float, float]) -> NDArray[np.float32]:
    """In the middle of each image a box of that share of its height and width."""
    half_I2 = truth.sizes_hw_I2[:, ::-1] / 2
    reach_I2 = half_I2 * np.array(share_hw[::-1])
    return np.concatenate([half_I2 - reach_I2, half_I2 + reach_I2], axis=1).astype(np.float32)


def mean_share(truth: LocationTruth) -> tuple[float, float]:
    """The mean height and width of the truths, as shares of their images'."""
    sides_K2 = (truth.boxes_K4[:, 2:] - truth.boxes_K4[:, :2])[:, ::-1]
    height, width = (sides_K2 / np.repeat(truth.sizes_hw_I2, np.diff(truth.starts), axis=0)).mean(axis=0)
    return float(height), float(width)


def errors_by_class(guesses: Guesses, truth: LocationTruth, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return for each class that occurs its images, and the per cent of them that the first guess gets wrong."""
    right_I = _judged(guesses, truth, 1)[1][:, 0]
    images_C = np.bincount(truth.labels_I, minlength=len(names))
    right_C = np.bincount(truth.labels_I[right_I], minlength=len(names))
    return {
        name: {"images": int(images), "error": 100 * float(images - right) / float(images)}
        for name, images, right in zip(names, images_C, right_C)
        if images
    }
