"""Streams of images for training: epoch after epoch, each in an order of its own; rare classes more often if wanted.

Legend: I images, G members of a group of them, B places in a stream.
"""

from __future__ import annotations

import functools

import numpy as np

from vertebra.data.datasets.records import DetectionDataset


class Stream:
    """A group's images, all once an epoch, in an order that is keyed by (seed, epoch, group). It has no end."""

    def __init__(self, members_G: np.ndarray, seed: int, group: int) -> None:
        self.members_G, self.seed, self.group = members_G, seed, group
        self._order = functools.lru_cache(maxsize=4)(self._draw)

    def before(self, epoch: int) -> int:
        """Return the length of the stream before that epoch."""
        return epoch * len(self.members_G)

    def images(self, places_B: np.ndarray) -> np.ndarray:
        """The images at these places of the stream."""
        epochs_B = self._epochs(places_B)
        images_B = np.empty(len(places_B), self.members_G.dtype)
        for epoch in np.unique(epochs_B).tolist():
            its_B = epochs_B == epoch
            images_B[its_B] = self._order(epoch)[places_B[its_B] - self.before(epoch)]
        return images_B

    def _epochs(self, places_B: np.ndarray) -> np.ndarray:
        return places_B // len(self.members_G)

    def _draw(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch, self.group]).permutation(self.members_G)


class RepeatingStream(Stream):
    """Each image comes `factor` times an epoch on the average, its whole part every time, one more by chance.

    factors_G: at least 1. Epochs are of different lengths, so a far one is reached by counting those before it; that
    takes a draw an image and an epoch, once.
    """

    def __init__(self, members_G: np.ndarray, seed: int, group: int, factors_G: np.ndarray) -> None:
        super().__init__(members_G, seed, group)
        self.factors_G = factors_G
        self._before = [0]

    def before(self, epoch: int) -> int:
        while len(self._before) <= epoch:
            counted = len(self._before) - 1
            self._before.append(self._before[-1] + int(self._counts(counted)[0].sum()))
        return self._before[epoch]

    def _epochs(self, places_B: np.ndarray) -> np.ndarray:
        while self._before[-1] <= places_B.max():
            self.before(len(self._before))
        return np.searchsorted(self._before, places_B, side="right") - 1

    def _draw(self, epoch: int) -> np.ndarray:
        counts_G, rng = self._counts(epoch)
        return rng.permutation(np.repeat(self.members_G, counts_G))

    def _counts(self, epoch: int) -> tuple[np.ndarray, np.random.Generator]:
        rng = np.random.default_rng([self.seed, epoch, self.group])
        whole_G = np.floor(self.factors_G)
        return (whole_G + (rng.random(len(whole_G)) < self.factors_G - whole_G)).astype(np.int64), rng


def repeat_factors(
    dataset: DetectionDataset, chosen_I: np.ndarray, normal_K: np.ndarray, threshold: float
) -> np.ndarray:
    """Return the repeat factor of each chosen image (Gupta et al. 2019, LVIS): float64, at least 1.

    A class in a share f of the images asks for max(1, sqrt(threshold / f)); an image follows the rarest of its classes,
    and comes once where it has none. normal_K: the objects that count.
    """
    places_I = np.full(len(dataset), -1)
    places_I[chosen_I] = np.arange(len(chosen_I))
    owners_K = places_I[dataset.owners_K]
    counted_K = normal_K & (owners_K >= 0)
    owners_P, labels_P = np.unique(np.stack([owners_K, dataset.labels_K])[:, counted_K], axis=1)  # P: image and class
    shares_C = np.bincount(labels_P, minlength=len(dataset.class_names) + 1) / max(1, len(chosen_I))
    wanted_C = np.maximum(1, np.sqrt(threshold / np.maximum(shares_C, 1e-300)))
    factors_I = np.ones(len(chosen_I))
    np.maximum.at(factors_I, owners_P, wanted_C[labels_P])
    return factors_I


def occurrences(images_B: np.ndarray) -> np.ndarray:
    """Return for each image how many times it came before: 0 for the first."""
    order_B = np.argsort(images_B, kind="stable")
    _, first, counts = np.unique(images_B[order_B], return_index=True, return_counts=True)
    before_B = np.empty(len(images_B), np.int64)
    before_B[order_B] = np.arange(len(images_B)) - np.repeat(first, counts)
    return before_B
