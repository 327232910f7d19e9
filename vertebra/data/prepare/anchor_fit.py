"""Boxes of a data set against a detector's anchors, at the size at which it sees them, and sizes that fit better.

Legend: I images, K boxes, S shapes of anchors, h w height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.transforms.canvases import FixedView

MATCH = 0.5  # IoU
AT_MOST = 10_000  # boxes that are tried, spread over the set
BETTER = 0.02  # share of the boxes that other sizes must gain to be worth a sentence
_AT_ONCE = 4096


@dataclass(frozen=True)
class Anchors:
    """A recipe's anchors and the size at which it tests images.

    sizes: roots of areas, px; one a stride, or all at the one stride. ratios: height over width. offset: of a cell.
    """

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    strides: tuple[int, ...]
    offset: float
    view: FixedView


@dataclass(frozen=True)
class AnchorFit:
    """unmatched: share of the boxes without an anchor of IoU 0.5. better_sizes: with fewer such, if any are found.

    sizes, shorter_side: the recipe's. box_sides_px: 10th, 50th and 90th of 100 of roots of boxes' areas, as the
    detector sees them.
    """

    sizes: tuple[float, ...]
    shorter_side: int
    boxes_tried: int
    box_sides_px: dict[str, float]
    unmatched: float
    better_sizes: tuple[float, ...]
    better_unmatched: float


def fit(dataset: DetectionDataset, anchors: Anchors) -> AnchorFit | None:
    """Return how the set's boxes, but for crowd regions, fit the anchors; None: there are none."""
    boxes_K4, sizes_K2 = _seen(dataset, anchors.view)
    if not len(boxes_K4):
        return None
    roots_K = np.sqrt((boxes_K4[:, 2:] - boxes_K4[:, :2]).prod(axis=1))

    def unmatched(sizes: Sequence[float]) -> float:
        return float(np.mean(best_iou(boxes_K4, sizes_K2, anchors, sizes) < MATCH))

    now, better = unmatched(anchors.sizes), tuple(anchors.sizes)
    better_unmatched = now
    more = 3 if len(anchors.strides) == 1 else 1  # a pyramid has one size a level
    for count in range(len(anchors.sizes), len(anchors.sizes) + more):
        sizes, share = _searched(roots_K, count, unmatched)
        if better_unmatched - share >= BETTER:
            better, better_unmatched = sizes, share
    sides_px = dict(zip(("10%", "50%", "90%"), np.quantile(roots_K, (0.1, 0.5, 0.9)).tolist()))
    gained = better if better_unmatched < now else ()
    return AnchorFit(anchors.sizes, anchors.view.shorter, len(boxes_K4), sides_px, now, gained, better_unmatched)


def best_iou(boxes_K4: np.ndarray, sizes_K2: np.ndarray, anchors: Anchors, sizes: Sequence[float]) -> np.ndarray:
    """Return each box's greatest IoU with an anchor, K. boxes_K4: x0 y0 x1 y1; sizes_K2: its image's h w."""
    best_K = np.zeros(len(boxes_K4))
    strides = anchors.strides if len(anchors.strides) > 1 else anchors.strides * len(sizes)
    for size, stride in zip(sizes, strides, strict=True):
        for ratio in anchors.ratios:
            half_2 = np.array([size / ratio**0.5, size * ratio**0.5]) / 2  # w h
            for first in range(0, len(boxes_K4), _AT_ONCE):
                these = slice(first, first + _AT_ONCE)
                low_K2, high_K2 = boxes_K4[these, :2], boxes_K4[these, 2:]
                # Of one shape the anchor whose centre is nearest overlaps most, among cells that lie in the image.
                cells_K2 = np.ceil(sizes_K2[these, ::-1] / stride)
                cell_K2 = np.round((low_K2 + high_K2) / 2 / stride - anchors.offset).clip(0, cells_K2 - 1)
                centre_K2 = (cell_K2 + anchors.offset) * stride
                shared_K2 = np.minimum(high_K2, centre_K2 + half_2) - np.maximum(low_K2, centre_K2 - half_2)
                shared_K = shared_K2.clip(0).prod(axis=1)
                union_K = (high_K2 - low_K2).prod(axis=1) + (2 * half_2).prod() - shared_K
                best_K[these] = np.maximum(best_K[these], shared_K / union_K)
    return best_K


def _seen(dataset: DetectionDataset, view: FixedView) -> tuple[np.ndarray, np.ndarray]:
    """Return x0 y0 x1 y1 of boxes as the detector sees them, and their images' h w, K 4 and K 2."""
    chosen_K = np.flatnonzero(~dataset.crowd_K)
    chosen_K = chosen_K[:: max(1, -(-len(chosen_K) // AT_MOST))]
    owners_K = dataset.owners_K[chosen_K]
    true_K2 = dataset.sizes_hw_I2[owners_K].astype(float)
    scale_K1 = np.minimum(view.shorter / true_K2.min(axis=1), view.longer / true_K2.max(axis=1))[:, None]
    xywh_K4 = dataset.bbox_xywh_K4[chosen_K]
    corners_K4 = np.concatenate([xywh_K4[:, :2], xywh_K4[:, :2] + xywh_K4[:, 2:]], axis=1)
    corners_K4 = corners_K4.clip(0, true_K2[:, [1, 0, 1, 0]]) * scale_K1
    whole_K = (corners_K4[:, 2:] > corners_K4[:, :2]).all(axis=1)
    return corners_K4[whole_K], (true_K2 * scale_K1)[whole_K]


def _searched(
    roots_K: np.ndarray, count: int, unmatched: Callable[[Sequence[float]], float]
) -> tuple[tuple[int, ...], float]:
    """Return `count` sizes that leave few boxes unmatched, and how many: the best of some, then moved one by one."""
    shares = {sizes: unmatched(sizes) for sizes in set(_candidates(np.log(roots_K), count))}
    best = min(shares, key=lambda sizes: (shares[sizes], sizes))
    for factor in (1.25, 0.8, 1.1, 0.9, 1.05, 0.95):
        for place in range(count):
            moved = tuple(sorted((*best[:place], max(1, round(best[place] * factor)), *best[place + 1 :])))
            if moved not in shares:
                shares[moved] = unmatched(moved)
            best = min(best, moved, key=lambda sizes: (shares[sizes], sizes))
    return best, shares[best]


def _candidates(logs_K: np.ndarray, count: int) -> Iterator[tuple[int, ...]]:
    """Yield lists of `count` sizes: quantiles, even steps in logarithms, and k-means of these."""
    for tail in (0.02, 0.05, 0.1, 0.2) if count > 1 else ():
        yield _whole(np.quantile(logs_K, np.linspace(tail, 1 - tail, count)))
        low, high = np.quantile(logs_K, (tail, 1 - tail)).tolist()
        yield _whole(np.linspace(low, high, count))
    means_C = np.quantile(logs_K, (np.arange(count) + 0.5) / count)
    for _ in range(20):
        nearest_K = np.abs(logs_K[:, None] - means_C).argmin(axis=1)
        sums_C, counts_C = np.bincount(nearest_K, logs_K, count), np.bincount(nearest_K, minlength=count)
        means_C = np.where(counts_C > 0, sums_C / np.maximum(counts_C, 1), means_C)
    yield _whole(means_C)


def _whole(logs_C: np.ndarray) -> tuple[int, ...]:
    return tuple(sorted(max(1, round(float(size))) for size in np.exp(logs_C)))
