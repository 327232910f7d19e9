"""Anybody's maps against the truth: the pixels that agree, image by image, in several processes.

Legend: I images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.prepare.looks import Progress, in_chunks
from vertebra.evaluation.metrics.pixels import PixelCounts, confusion, counts_3C
from vertebra.ground.errors import BadSample, DataError


@dataclass(frozen=True)
class MapScores:
    """counts: of each image. confusion_CC: of all. unanswered: labelled pixels that were given no class (255)."""

    counts: PixelCounts
    confusion_CC: NDArray[np.int64]
    unanswered: int


def score_maps(
    truth: SemanticDataset, answers: SemanticDataset, *, progress: Progress = lambda done, total: None
) -> MapScores:
    """Compare answers with the truth of the same images, in the same order.

    A pixel without an answer is one that its class lacks. Raises DataError for the first map that cannot be used.
    """
    found = in_chunks(partial(_score, truth, answers), truth, progress=progress)
    if faults := [fault for faults, _, _ in found for fault in faults]:
        first, more = faults[0], f" ({len(faults) - 1} more are wrong)" if faults[1:] else ""
        raise DataError(first.path, first.reason, first.hint + more)
    matrix = sum((matrix for _, _, matrix in found), np.zeros((), np.int64))
    return MapScores(
        PixelCounts.of([one for _, counts, _ in found for one in counts]), matrix[:-1, :-1], int(matrix[:-1, -1].sum())
    )


def _score(
    truth: SemanticDataset, answers: SemanticDataset, chunk: Sequence[int]
) -> tuple[list[Fault], list[NDArray[np.int64]], NDArray[np.int64]]:
    """Return the faults of some maps, the counts of each of the others, and their confusion, "no class" last."""
    classes = len(truth.class_names)
    faults: list[Fault] = []
    counts: list[NDArray[np.int64]] = []
    total = np.zeros((classes + 1, classes + 1), np.int64)
    for index in chunk:
        try:
            labels_HW, found_HW = truth.labels(index), answers.labels(index)
        except BadSample as error:
            faults.append(Fault.of(error))
            continue
        if labels_HW.shape != found_HW.shape:
            (height, width), (rows, columns) = found_HW.shape, labels_HW.shape
            reason = f"is {width} x {height} pixels, its truth {columns} x {rows}"
            faults.append(Fault(answers.map_path(index), reason, "write maps at the image's own size"))
            continue
        matrix = confusion(labels_HW, np.minimum(found_HW, classes), classes + 1)
        counts.append(counts_3C(matrix)[:, :classes])
        total += matrix
    return faults, counts, total
