"""Batches, and torch's DataLoader around requests and the reader that answers them.

A request goes to a worker, which decodes straight into one array a batch; pixels stay uint8, in the memory order of
channels_last, until they are on the device.

Host memory is bounded: annotations are flat arrays shared by all workers, each worker prepares at most two
batches ahead, and a cache of decoded images keeps to its megabytes.
"""

from __future__ import annotations

import atexit
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from detectors.structures import TensorStructure
from vertebra.data.loading.sampling import Request
from vertebra.data.loading.workers import FORK, PREFETCH_BATCHES, Crew, require_room
from vertebra.ground.errors import UserError


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

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The batch with all tensors of its inputs changed."""
        inputs = (one._map(change) if isinstance(one, TensorStructure) else change(one) for one in self.inputs)
        return replace(self, inputs=tuple(inputs))

    def to(self, device: torch.device | str) -> Batch:
        """The inputs on `device`; copies from pinned memory do not wait."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self.map(torch.Tensor.pin_memory)

    def shared(self) -> Batch:
        """The batch in memory that other processes see."""
        return self.map(lambda tensor: tensor.share_memory_() if tensor.numel() else tensor)


def empty_pixels(images: int, height: int, width: int) -> torch.Tensor:
    """Memory for pixels uint8 NHW3: in a loader process shared from the start, so that the batch need not be copied."""
    pixels_NHW3 = torch.empty(0, dtype=torch.uint8)
    if images and get_worker_info() is not None:
        pixels_NHW3.set_(torch.UntypedStorage._new_shared(images * height * width * 3))
    return pixels_NHW3.resize_(images, height, width, 3)


class Loader:
    """An iterable of Batch with a length; iterating anew begins anew. What goes wrong in a worker comes as UserError.

    reader: may have `batch_bytes(images)`, the memory of a batch.
    """

    def __init__(self, reader: Callable[[Request], Batch], requests: Sequence[Request], workers: int) -> None:
        self.reader, self.requests, self.workers = reader, requests, workers
        self._crew = Crew(workers)
        self._loader: DataLoader[Any] = DataLoader(
            _Answers(reader, self._crew),
            sampler=requests,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=workers,
            pin_memory=torch.cuda.is_initialized(),  # a GPU that is there may be another's
            prefetch_factor=PREFETCH_BATCHES if workers else None,
            worker_init_fn=self._crew.start if workers else None,
            multiprocessing_context=FORK if workers else None,
            generator=torch.Generator(),  # else torch draws from the global one at every start
        )

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Batch]:
        if not self.workers or not len(self.requests):
            yield from self._loader
            return
        self.require_room()
        with self._at_work() as answers:
            while True:
                try:
                    answer = next(answers)
                except StopIteration:
                    return
                except (RuntimeError, OSError, EOFError) as error:  # within five seconds of a worker's end
                    raise self._crew.ended(answers._workers) or error from None
                if isinstance(answer, _Failure):
                    raise answer.error from RuntimeError(answer.traceback)
                yield answer

    def require_room(self, *beside: Any) -> None:
        """Make sure that its batches and those of the loaders beside it find room in shared memory. Raises UserError.

        beside: that are at work at the same time, as an evaluation's while those of training wait.
        """
        loaders = [one for one in (self, *beside) if isinstance(one, Loader) and one.workers]
        require_room(sum(one.workers for one in loaders), sum(one._bytes_on_the_way() for one in loaders))

    def _bytes_on_the_way(self) -> int:
        """At a time, the one in use among them; 0 where the reader does not tell."""
        if not len(self.requests):
            return 0
        of_batch = getattr(self.reader, "batch_bytes", lambda images: 0)(len(self.requests[0].indices))
        return int(PREFETCH_BATCHES * self.workers + 1) * int(of_batch)

    @contextmanager
    def _at_work(self) -> Iterator[Any]:
        """Start the workers, and end them whatever happens: they heed no SIGTERM, so that Python would wait for them.

        Torch would raise, wherever the main thread is, when one dies: that is left to `next`.
        """
        before = signal.getsignal(signal.SIGCHLD)
        answers: Any = iter(self._loader)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)

        def kill() -> None:
            for process in answers._workers:
                if process.is_alive():
                    process.kill()

        atexit.register(kill)
        try:
            yield answers
        finally:
            answers._shutdown_workers()
            kill()
            atexit.unregister(kill)


class _Failure(NamedTuple):
    error: UserError
    traceback: str


class _Answers(Dataset[Any]):
    def __init__(self, reader: Callable[[Request], Batch], crew: Crew) -> None:
        self._reader, self._crew = reader, crew

    def __getitem__(self, request: Request) -> Batch | _Failure:  # type: ignore[override]
        worker = get_worker_info()
        if worker is None:
            return self._reader(request)
        try:
            return self._reader(request).shared()  # here, not in the queue's thread, whose errors nobody hears of
        except Exception as error:
            return _Failure(self._crew.failure(error, worker.id), traceback.format_exc())
