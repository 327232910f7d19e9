"""A fixed number of boxes an image to learn from, drawn by keys.

Draws are a hash of (key of the image, which draw, index of the box), computed on the device: they are the
same on every device, whatever else is in the batch and however many processes share it.

Legend: N images, A boxes an image, S samples an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.boxes import take
from detectors.matching import Matches

_LOW_32 = 0xFFFFFFFF
_INDEX_BITS = 24
_GOLDEN = 0x9E3779B9  # 2³² / golden ratio: keeps both keys apart where a seed's upper half is 0


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers (held in int64) that leaves no visible pattern.

    Constants: Wellons, hash-prospector. Both multipliers are below 2³¹, so that no product overflows int64.
    """
    x = (x ^ (x >> 16)) * 0x21F0AAAD & _LOW_32
    x = (x ^ (x >> 15)) * 0x735A2D97 & _LOW_32
    return x ^ (x >> 15)


def keyed_draws(seeds_N: Tensor, stream: int, count: int) -> Tensor:
    """`count` distinct random numbers a key, N x count int64, 0 <= draw < 2⁵⁶; `stream` keeps draws of one
    key apart.

    The upper 32 bits are random, the lower 24 hold the index, so that no two are equal and an order by them
    never depends on how ties are broken.
    """
    index_A = torch.arange(count, device=seeds_N.device)
    low_N1 = _mix((seeds_N & _LOW_32) ^ stream).unsqueeze(1)
    high_N1 = _mix((((seeds_N >> 32) & _LOW_32).unsqueeze(1) ^ low_N1) + _GOLDEN & _LOW_32)
    # Keyed before and after a round: with one key alone two images' draws would be rearrangements of each
    # other.
    random_NA = _mix(_mix(index_A ^ low_N1) ^ high_N1)
    return (random_NA << _INDEX_BITS) | index_A


@dataclass(frozen=True)
class Samples:
    """index_NS: int64, the drawn boxes; positive_NS, valid_NS: bool. Slots that nothing could fill are not
    valid, are at the end, and point at some box all the same."""

    index_NS: Tensor
    positive_NS: Tensor
    valid_NS: Tensor


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws `count` boxes an image, of which at most `positive_fraction` are positive.

    Missing positives are made up by negatives, missing negatives by nothing.
    """

    count: int
    positive_fraction: float
    stream: int

    def __call__(self, matches: Matches, seeds_N: Tensor) -> Samples:
        boxes = matches.positive_NA.shape[1]
        slots = min(self.count, boxes)
        most_positive = min(int(self.count * self.positive_fraction), slots)
        draw_NA = keyed_draws(seeds_N, self.stream, boxes)
        # Boxes that cannot be drawn come last, in their own order.
        last_NA = -1 - torch.arange(boxes, device=seeds_N.device)

        positive = torch.where(matches.positive_NA, draw_NA, last_NA).topk(most_positive)
        negative = torch.where(matches.negative_NA, draw_NA, last_NA).topk(slots)
        positives_N1 = (positive.values >= 0).sum(dim=1, keepdim=True)
        negatives_N1 = (negative.values >= 0).sum(dim=1, keepdim=True)

        slot_S = torch.arange(slots, device=seeds_N.device)
        positive_NS = slot_S < positives_N1
        from_both_NS = torch.where(positive_NS, slot_S, most_positive + slot_S - positives_N1)
        index_NS = take(torch.cat([positive.indices, negative.indices], dim=1), from_both_NS)
        return Samples(index_NS, positive_NS, slot_S < positives_N1 + negatives_N1)
