"""Anybody's maps against the truth: the pixels that agree, image by image, in several processes.

Legend: I images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vertebra.data.datasets.faults import Fault
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.prepare.looks import in_chunks
from vertebra.evaluation.metrics.boundaries import boundary_f1
from vertebra.evaluation.metrics.pixels import PixelCounts, confusion, counts_3C
from vertebra.ground.errors import BadSample, DataError


@dataclass(frozen=True)
class MapScores:
    """counts: of each image. confusion_CC: of all. unanswered: labelled pixels that were given no class (255).

    boundary_f1: mean over the images with a labelled pixel; None: it was not asked for.
    """

    counts: PixelCounts
    confusion_CC: NDArray[np.int64]
    unanswered: int
    boundary_f1: float | None


def score_maps(truth: SemanticDataset, answers: SemanticDataset, *, boundaries: bool = False) -> MapScores:
    """Compare answers with the truth of the same images, in the same order; boundaries: by their outlines too.

    A pixel without an answer is one that its class lacks. Raises DataError for the first map that cannot be used.
    """
    found = in_chunks(partial(_score, truth, answers, boundaries), truth)
    if faults := [fault for one in found for fault in one.faults]:
        first, more = faults[0], f" ({len(faults) - 1} more are wrong)" if faults[1:] else ""
        raise DataError(first.path, first.reason, first.hint + more)
    matrix = sum((one.confusion for one in found), np.zeros((), np.int64))
    outlines_I = np.array([score for one in found for score in one.outlines])
    seen_I = outlines_I[~np.isnan(outlines_I)]
    return MapScores(
        PixelCounts.of([counts for one in found for counts in one.counts]),
        matrix[:-1, :-1],
        int(matrix[:-1, -1].sum()),
        (float(seen_I.mean()) if len(seen_I) else math.nan) if boundaries else None,
    )


@dataclass
class _Part:
    """Of some maps: the faults, the counts and the boundary F1 of the others, and their confusion, "no class" last."""

    confusion: NDArray[np.int64]
    faults: list[Fault] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    outlines: list[float] = field(default_factory=list)


def _score(truth: SemanticDataset, answers: SemanticDataset, boundaries: bool, chunk: Sequence[int]) -> _Part:
    classes = len(truth.class_names)
    part = _Part(np.zeros((classes + 1, classes + 1), np.int64))
    for index in chunk:
        try:
            labels_HW, found_HW = truth.labels(index), answers.labels(index)
        except BadSample as error:
            part.faults.append(Fault.of(error))
            continue
        if labels_HW.shape != found_HW.shape:
            (height, width), (rows, columns) = found_HW.shape, labels_HW.shape
            reason = f"is {width} x {height} pixels, its truth {columns} x {rows}"
            part.faults.append(Fault(answers.map_path(index), reason, "write maps at the image's own size"))
            continue
        matrix = confusion(labels_HW, np.minimum(found_HW, classes), classes + 1)
        part.counts.append(counts_3C(matrix)[:, :classes])
        part.confusion += matrix
        if boundaries:
            part.outlines.append(boundary_f1(labels_HW, found_HW))
    return part
