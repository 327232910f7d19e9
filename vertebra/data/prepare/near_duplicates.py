"""Pictures of a training set that are in a test set as well, perhaps of another size, quality or brightness.

Two pictures are alike where their hashes differ in few bits and their small grey copies correlate (prepare.looks).
Candidates come from buckets, so that 100,000 x 10,000 pictures take seconds: hashes that differ in up to seven of 64
bits differ in at most one bit of some quarter (Norouzi et al. 2012, multi-index hashing).

Legend: A pictures of the one set, B of the other, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vertebra.data.prepare.looks import Looks

BITS = 7  # of two hashes that may differ; buckets below find no more
LIKENESS = 0.9  # least correlation of the 8 x 8 means; of 2.8 million pairs of ImageNet's and VOC's photographs none
_QUARTERS = 4
_AT_ONCE = 1 << 22  # candidates
_COUNTS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def near_duplicates(train: Looks, test: Looks) -> list[tuple[int, int, float]]:
    """Return (place in test, place in train, correlation) of each test picture's likest, where it is alike."""
    train_A, test_B = np.flatnonzero(train.printed_I), np.flatnonzero(test.printed_I)
    likest_B, likeness_B = np.full(len(test_B), -1), np.zeros(len(test_B))
    for a_P, b_P in _candidates(train.hashes_I[train_A], test.hashes_I[test_B]):
        likeness_P = _correlation(train.means_ID[train_A[a_P]], test.means_ID[test_B[b_P]])
        rising_P = np.argsort(likeness_P, kind="stable")
        better_P = rising_P[likeness_P[rising_P] > np.maximum(likeness_B[b_P[rising_P]], LIKENESS)]
        likest_B[b_P[better_P]] = train_A[a_P[better_P]]  # of several for one picture the last stays
        likeness_B[b_P[better_P]] = likeness_P[better_P]
    return [(int(test_B[b]), int(likest_B[b]), float(likeness_B[b])) for b in np.flatnonzero(likest_B >= 0)]


def _candidates(hashes_A: np.ndarray, hashes_B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places of pairs that differ in up to BITS bits, some of them more than once."""
    changes = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
    for quarter in range(_QUARTERS):
        key_A, key_B = (hashes.view(np.uint16).reshape(-1, _QUARTERS)[:, quarter] for hashes in (hashes_A, hashes_B))
        order_A = np.argsort(key_A, kind="stable")
        start_V = np.searchsorted(key_A[order_A], np.arange((1 << 16) + 1))  # where each value's pictures begin
        for change in changes:
            near_B = (key_B ^ change).astype(np.int64)
            counts_B = start_V[near_B + 1] - start_V[near_B]
            ends_B = np.cumsum(counts_B)
            for first in range(0, int(ends_B[-1]) if len(ends_B) else 0, _AT_ONCE):
                rank_P = np.arange(first, min(first + _AT_ONCE, int(ends_B[-1])))
                b_P = np.searchsorted(ends_B, rank_P, side="right")
                a_P = order_A[start_V[near_B[b_P]] + rank_P - (ends_B[b_P] - counts_B[b_P])]
                alike_P = differing_bits(hashes_A[a_P], hashes_B[b_P]) <= BITS
                yield a_P[alike_P], b_P[alike_P]


def differing_bits(one_P: np.ndarray, other_P: np.ndarray) -> np.ndarray:
    """Return in how many bits hashes differ, P uint64 each."""
    return _COUNTS[(one_P ^ other_P).view(np.uint8).reshape(-1, 8)].sum(axis=1)


def _correlation(one_PD: np.ndarray, other_PD: np.ndarray) -> np.ndarray:
    one_PD, other_PD = (means - means.mean(axis=1, keepdims=True) for means in (one_PD.astype(float), other_PD))
    lengths_P = np.linalg.norm(one_PD, axis=1) * np.linalg.norm(other_PD, axis=1)
    return (one_PD * other_PD).sum(axis=1) / np.maximum(lengths_P, 1e-9)
