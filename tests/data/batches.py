"""What every loader owes: the same batches for any number of workers and processes, and wherever it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from vertebra.data.loading.loaders import Batch

Make = Callable[..., Iterable[Batch]]  # takes the fields of a Share


def tensors(value: Any) -> list[Tensor]:
    """All tensors in tuples and dataclasses, in their order."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    return [one for part in value for one in tensors(part)] if isinstance(value, list | tuple) else []


def extent(bits_HW: Tensor) -> Tensor:
    """The smallest box x0 y0 x1 y1 of what is not zero."""
    ys, xs = bits_HW.nonzero(as_tuple=True)
    return torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def assert_same(ones: Iterable[Batch], others: Iterable[Batch]) -> None:
    for one, other in zip(ones, others, strict=True):
        assert (one.image_ids, one.iteration) == (other.image_ids, other.iteration)
        for left, right in zip(tensors(one.inputs), tensors(other.inputs), strict=True):
            assert left.dtype == right.dtype and torch.equal(left, right)


def assert_forks_and_resumes(make: Make, *, start: int, stop: int) -> list[Batch]:
    """With two worker processes, and from `start` on, come the batches that come from the beginning; returns these."""
    whole = list(make(stop=stop))
    assert [batch.iteration for batch in whole] == list(range(stop))
    assert_same(whole, make(stop=stop, workers=2))
    assert_same(whole[start:], make(start=start, stop=stop))
    return whole


def assert_processes_share(
    make: Make, *, of_images: Callable[[Batch], Sequence[Tensor]] = lambda batch: tensors(batch.inputs), **share: Any
) -> None:
    """Two processes together have the batches of one. of_images: the tensors whose first dimension is images."""
    alone = {batch.iteration: batch for batch in make(**share)}
    parts: dict[int, list[Batch]] = {}
    for rank in range(2):
        for batch in make(rank=rank, world_size=2, **share):
            parts.setdefault(batch.iteration, []).append(batch)
    assert parts.keys() == alone.keys()
    for iteration, batches in parts.items():
        assert sum((batch.image_ids for batch in batches), ()) == alone[iteration].image_ids
        for *halves, whole in zip(*map(of_images, batches), of_images(alone[iteration]), strict=True):
            assert torch.equal(torch.cat(halves), whole)
