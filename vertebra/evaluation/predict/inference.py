"""Running a network over a loader: every image once over all processes, results in the data set's order.

Works with torch.distributed as it was started elsewhere, and without it. The result does not depend on how many
processes there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from backbones.norms import evaluating
from vertebra.ground.errors import UserError

Autocast = Callable[[], AbstractContextManager[Any]]
Value = TypeVar("Value")
Found = TypeVar("Found")


def _as_it_is(image_id: int, found: Any) -> Any:
    return found


def predict_all(
    model: nn.Module,
    loader: Iterable[Any],
    predict: Callable[[Any], Mapping[int, Found]],
    *,
    keep: Callable[[int, Found], Value] = _as_it_is,
    everywhere: bool = True,
    image_order: Sequence[int] | None = None,
    times_s: list[float] | None = None,
) -> list[tuple[int, Value]]:
    """`predict(batch)`, which gives a value by image id, over all batches: (image id, value), each image once.

    model: what runs in `predict`; it is in evaluation mode meanwhile. keep: makes what stays of an image's value, on
    the process that has it; its time does not count. everywhere: every process gets the result; otherwise rank 0 does,
    and the others nothing. image_order: the data set's image ids, in order (default: by ascending id). times_s: gets
    each batch's host-side seconds per image; its median is the time per image. Raises UserError where an image of the
    order is missing in the end, and on every process what goes wrong on one.
    """
    mine: dict[int, Value] = {}
    fault: Exception | None = None
    try:
        with evaluating(model):
            for batch in loader:
                started = time.perf_counter()
                found = predict(batch)
                if times_s is not None:
                    times_s.append((time.perf_counter() - started) / len(batch.image_ids))
                mine.update((image_id, keep(image_id, one)) for image_id, one in found.items())
    except Exception as error:
        fault = error
    merged = gather_by_image(mine, fault, everywhere=everywhere)
    return [] if merged is None else in_order(merged, image_order)


def check_finite(finite_N: NDArray[np.bool_], image_ids: Sequence[int]) -> None:
    """Raises UserError naming the first image whose output is not finite."""
    if not finite_N.all():
        first = image_ids[int(np.argmin(finite_N))]
        raise UserError(
            f"the model's output for image id {first} is not finite; its weights "
            "have most likely diverged: evaluate an earlier checkpoint or train with a lower learning rate"
        )


def rank_and_size() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather_by_image(mine: Mapping[int, Value], fault: Exception | None, *, everywhere: bool) -> dict[int, Value] | None:
    """Return all processes' values by image id; where several have an image, the lowest rank's.

    fault: what went wrong here, or None. It is raised again here, and as an UserError on all other
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
            raise UserError(f"process {other} failed in the evaluation: {sentence}")
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
    """Return (image id, value) in the data set's order, or by ascending id without one.

    Raises UserError where an image of the order is missing: a loss would otherwise look like a bad
    detector.
    """
    if order is None:
        return sorted(by_image.items(), key=lambda item: item[0])
    missing = [image_id for image_id in order if image_id not in by_image]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(order)} images were never evaluated (first: image id {missing[0]}); "
            "give the loader the whole set, each image on one process"
        )
    return [(image_id, by_image[image_id]) for image_id in order]
