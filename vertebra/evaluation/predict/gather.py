"""Bringing every process's share of the results together, each image once, in the data set's order.

Works with torch.distributed as it was started elsewhere, and without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

from vertebra.evaluation.metrics.files import EvaluationError

Value = TypeVar("Value")


def rank_and_size() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather_by_image(mine: Mapping[int, Value], fault: Exception | None, *, everywhere: bool) -> dict[int, Value] | None:
    """All processes' values by image id, an image that several hold once (the lowest rank's).

    fault: what went wrong here, or None. It is raised again here, and as an EvaluationError on all other
    processes, so that none is left waiting. everywhere: every process gets the result; otherwise rank 0 does,
    and the others None.
    """
    rank, size = rank_and_size()
    faults: list[str | None] = [None] * size
    if size > 1:
        dist.all_gather_object(faults, None if fault is None else f"{type(fault).__name__}: {fault}")
    if fault is not None:
        raise fault
    for other, sentence in enumerate(faults):
        if sentence:
            raise EvaluationError(f"process {other} failed in the evaluation: {sentence}")
    if size == 1:
        return dict(mine)
    shares: list[Any] = [None] * size
    if everywhere:
        dist.all_gather_object(shares, dict(mine))
    else:
        dist.gather_object(dict(mine), shares if rank == 0 else None, dst=0)
        if rank != 0:
            return None
    merged: dict[int, Value] = {}
    for share in reversed(shares):
        merged.update(share)
    return merged


def in_order(by_image: Mapping[int, Value], order: Sequence[int] | None) -> list[tuple[int, Value]]:
    """(image id, value) in the data set's order, or by ascending id where none is given.

    Raises EvaluationError where an image of the order is missing: a loss would otherwise look like a bad
    detector.
    """
    if order is None:
        return sorted(by_image.items(), key=lambda item: item[0])
    missing = [image_id for image_id in order if image_id not in by_image]
    if missing:
        raise EvaluationError(
            f"{len(missing)} of {len(order)} images were never evaluated (first: image id {missing[0]}); "
            "give the loader the whole set, each image on one process"
        )
    return [(image_id, by_image[image_id]) for image_id in order]
