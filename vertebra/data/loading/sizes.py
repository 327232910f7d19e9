"""The same test images at several sizes, each exactly as a loader of that size alone would give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from vertebra.data.loading.loaders import Batch, Loader
from vertebra.data.loading.sampling import Request


class SeveralSizes:
    """Answers requests as the first reader does, with the others' images beside its own (`ImageBatch.other_scales`).

    Each reader decodes for itself: which part of a JPEG's detail is decoded at all depends on the size that is wanted.
    """

    def __init__(self, readers: Sequence[Callable[[Request], Batch]]) -> None:
        self.readers = tuple(readers)

    def __call__(self, request: Request) -> Batch:
        batch, *others = (reader(request) for reader in self.readers)
        images, targets = batch.inputs
        other_scales = tuple(other.inputs[0] for other in others)
        return replace(batch, inputs=(replace(images, other_scales=other_scales), targets))


def at_several_sizes(loaders: Sequence[Loader], *, workers: int) -> Loader:
    """One loader of several that give the same test images, each at a size of its own; the first one's truths."""
    first = loaders[0]
    if any(loader.requests != first.requests for loader in loaders):
        raise ValueError("Loaders of different images cannot be put together.")
    return Loader(SeveralSizes([loader.reader for loader in loaders]), first.requests, workers)
