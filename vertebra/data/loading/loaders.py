"""Batches, and torch's DataLoader around requests and the reader that answers them.

A request goes to a worker, which decodes straight into one array a batch; pixels stay uint8, in the memory order of
channels_last, until they are on the device.

Host memory is bounded: annotations are flat arrays shared by all workers, each worker prepares at most two
batches ahead, and a cache of decoded images keeps to its megabytes.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from vertebra.data.loading.sampling import Request
from vertebra.ground.errors import DataError

PREFETCH_BATCHES = 2  # a worker
FORK = "fork" if sys.platform.startswith("linux") else None  # how workers are started; None: the default


@dataclass(frozen=True)
class Batch:
    """inputs: what `model(*batch.inputs)` takes. image_ids: of the images in it, in order.

    skipped: "path: reason" for each image that could not be used and was replaced by another of those in it.
    iteration: the number of the global batch.
    """

    inputs: tuple[Any, ...]
    image_ids: tuple[int, ...]
    skipped: tuple[str, ...] = ()
    iteration: int = 0

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str) -> Batch:
        """The inputs on `device`; copies from pinned memory do not wait."""
        return replace(
            self,
            inputs=tuple(
                one.to(device, non_blocking=True) if isinstance(one, torch.Tensor) else one.to(device)
                for one in self.inputs
            ),
        )

    def pin_memory(self) -> Batch:
        return replace(self, inputs=tuple(one.pin_memory() for one in self.inputs))


class Loader:
    """An iterable of Batch with a length; iterating anew begins anew. Errors in workers come as they were."""

    def __init__(self, reader: Callable[[Request], Batch], requests: Sequence[Request], workers: int) -> None:
        self.reader, self.requests, self.workers = reader, requests, workers
        self._loader: DataLoader[Any] = DataLoader(
            _Answers(reader),
            sampler=requests,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=PREFETCH_BATCHES if workers else None,
            worker_init_fn=_start_worker if workers else None,
            multiprocessing_context=FORK if workers else None,
            generator=torch.Generator(),  # else torch draws from the global one at every start
        )

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Batch]:
        for answer in self._loader:
            if isinstance(answer, Exception):
                raise answer
            yield answer


class _Answers(Dataset[Any]):
    def __init__(self, reader: Callable[[Request], Batch]) -> None:
        self._reader = reader

    def __getitem__(self, request: Request) -> Batch | DataError:  # type: ignore[override]
        try:
            return self._reader(request)
        except DataError as error:  # raised in a worker, it would come home wrapped in a traceback
            return error


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one worker, one core
    # Both may be sent to the whole group (a terminal's Ctrl-C, a cluster's SIGTERM): they are for the main process,
    # which saves its state and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
