"""Multi-view and multi-network tests of classifiers: the probabilities of several views of an image, averaged.

Legend: N images of a batch, n those that share a size, V crops of one image, C classes.

1crop      the centre crop.
10crop     the four corners, the centre and their mirror images (Krizhevsky et al. 2012, §4.1).
dense      the network in fully-convolutional form on the whole uncropped image (Simonyan & Zisserman 2014, §3.2).
multiscale dense, at several sizes of the image (He et al. 2015, §3.4).

What is averaged: within one image at one size, the class map is averaged over its places before the softmax, and the
posteriors of an image and its mirror image are averaged (both Simonyan & Zisserman 2014, §3.2). Crops and sizes,
of which the papers say no more than that their scores are averaged, are averaged as posteriors as well, all with the
same weight, and so are the networks of an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vertebra.evaluation.predict.classes import posteriors
from vertebra.evaluation.predict.inference import Autocast


@dataclass(frozen=True)
class NetworkView:
    """Some of a batch's views as one network classifies them.

    network: pixels_n3HW to logits_nC. sources: which of a batch's views it takes. flip: their mirror images too.
    pixels_at_once: the most pixels of one forward, so that large images take no more memory than small ones.
    """

    network: nn.Module
    sources: tuple[int, ...]
    flip: bool = False
    autocast: Autocast = nullcontext
    pixels_at_once: int = 64 * 224 * 224

    def __call__(self, views: Any) -> Tensor:
        """probabilities_NC (float64) of a batch's views: of each source groups, which have rows_n and pixels_nV3HW.

        views: has `groups` by source and, as its length, N.
        """
        groups = [group for source in self.sources for group in views.groups[source]]
        parts = [self._of_group(group.pixels_nV3HW) for group in groups]
        total_NC = parts[0].new_zeros(len(views), parts[0].shape[1])
        for group, part_nC in zip(groups, parts):
            total_NC.index_add_(0, group.rows_n, part_nC)
        return total_NC / len(self.sources)

    def _of_group(self, pixels_nV3HW: Tensor) -> Tensor:
        """probabilities_nC, averaged over the crops and their mirror images."""
        images = len(pixels_nV3HW)
        pixels = pixels_nV3HW.flatten(0, 1)
        if self.flip:
            pixels = torch.cat([pixels, pixels.flip(-1)])
        at_once = max(1, self.pixels_at_once // (pixels.shape[2] * pixels.shape[3]))
        parts = []
        for part in pixels.split(at_once):
            with self.autocast():
                logits_bC = self.network(part)
            parts.append(posteriors(logits_bC))
        return torch.cat(parts).unflatten(0, (-1, images, pixels_nV3HW.shape[1])).mean(dim=(0, 2))


@dataclass(frozen=True)
class Ensemble:
    """The average of earlier results, by their places."""

    members: tuple[int, ...]


def scorer(results: Sequence[NetworkView | Ensemble]) -> Callable[[Any], Iterable[Tensor]]:
    """Return what `predict_scores` calls with a batch's views: it gives the probabilities of all results in turn."""
    needed = {place for result in results if isinstance(result, Ensemble) for place in result.members}

    def score(views: Any) -> Iterator[Tensor]:
        kept: dict[int, Tensor] = {}
        for place, result in enumerate(results):
            if isinstance(result, Ensemble):
                probabilities_NC = torch.stack([kept[member] for member in result.members]).mean(dim=0)
            else:
                probabilities_NC = result(views)
            if place in needed:
                kept[place] = probabilities_NC
            yield probabilities_NC

    return score
