"""Loaders of batches: torch's DataLoader around a plan of requests and a reader that answers them.

Legend: N images of a batch, H W canvas, G truths an image. A request goes to a worker, which decodes straight
into one array a batch; pixels stay uint8, in the memory order of channels_last, until they are on the device.

Host memory is bounded: annotations are flat arrays shared by all workers, each worker prepares at most two
batches ahead, and a cache of decoded images keeps to its megabytes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vertebra.data.datasets.classification import ClassificationReader
from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset
from vertebra.data.datasets.repeats import repeat_factors
from vertebra.data.loading.batches import Batch
from vertebra.data.loading.cache import FORK
from vertebra.data.loading.detection import DetectionReader, TruthPolicy
from vertebra.data.loading.sampling import Request, TrainPlan, TrainRequests, evenly, sequential_requests
from vertebra.data.transforms.augment import Augmentation
from vertebra.data.transforms.canvases import choose_canvases, default_canvases
from vertebra.data.transforms.detection_views import DetectionAugmentation, ViewDraw
from vertebra.data.transforms.growth import Growth
from vertebra.data.transforms.mixing import Mixing
from vertebra.data.transforms.transforms import ClassificationTransform
from vertebra.ground.errors import DataError

PREFETCH_BATCHES = 2  # a worker
DEFAULT_CACHE_MB = 2048


class Loader:
    """An iterable of Batch with a length; iterating anew begins anew. Errors in workers come as they were."""

    def __init__(self, reader: Callable[[Request], Batch], requests: Sequence[Request], workers: int) -> None:
        self.reader, self.requests = reader, requests
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
    import cv2

    cv2.setNumThreads(0)  # one worker, one core
    # Both may be sent to the whole group (a terminal's Ctrl-C, a cluster's SIGTERM): they are for the main process,
    # which saves its state and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def classification_loader(
    dataset: ClassificationDataset,
    *,
    train: bool,
    global_batch: int,
    rank: int = 0,
    world_size: int = 1,
    size: int,
    resize: int | None = None,
    augment: str = "none",
    min_scale: float = 0.08,
    flip: float = 0.0,
    then: Sequence[Augmentation] = (),
    repeats: int = 1,
    start_size: int | None = None,
    grow_until: float = 1.0,
    mixing: Mixing | None = None,
    seed: int = 0,
    workers: int = 0,
    start_iteration: int = 0,
    iterations: int | None = None,
    limit: int | None = None,
    cache_mb: int | None = None,
    replace_bad: bool = False,
) -> Loader:
    """Batches whose inputs are (pixels_N3HW uint8 RGB, labels_N int64), and with `mixing` mixing_5 (see Mixing).

    train: iterations start_iteration <= t < `iterations` (None: one epoch), augmented, each process its equal
    share of every global batch. Otherwise: every image once over all processes, never augmented; batches of
    `global_batch` images are dealt to the processes whole.
    size: of the square the model sees, in pixels. resize: the shorter side before the crop (None: size).
    augment, then: see ClassificationTransform. flip: a chance. limit: only that many images, evenly spaced.
    repeats: see TrainPlan. start_size, grow_until: in training the size grows as Growth says, `iterations` being the
    whole training. These, `then` and `mixing` are for training only.
    cache_mb: memory for decoded images, MB, taken only where all of them fit. None: in training 2048 over all
    processes, at test none; 0: none. replace_bad: where it is not training either, others take the place of images that
    cannot be used. Raises DataError.
    """
    transform = ClassificationTransform(
        size=size,
        shorter=resize or size,
        augment=augment if train else "none",
        min_scale=min_scale,
        flip=flip if train else 0.0,
        then=then if train else (),
    )
    chosen = evenly(len(dataset), limit)
    if cache_mb is None:
        cache_mb = DEFAULT_CACHE_MB // world_size if train else 0
    groups = np.zeros(len(chosen), np.int64)
    requests, plan = plan_requests(
        groups, dataset.root, train, global_batch, rank, world_size, seed, start_iteration, iterations, repeats
    )
    if replace_bad and plan is None:
        plan, requests = substitutes(groups, requests, global_batch, seed)
    reader = ClassificationReader(
        dataset,
        chosen,
        transform,
        seed=seed,
        plan=plan,
        cache_mb=cache_mb,
        growth=Growth(start_size, size, grow_until, start_iteration + len(requests)) if train and start_size else None,
        mixing=mixing if train else None,
    )
    return Loader(reader, requests, workers)


def detection_loader(
    dataset: DetectionDataset,
    *,
    train: bool,
    global_batch: int,
    rank: int = 0,
    world_size: int = 1,
    shorter_sides: Sequence[int],
    longer_side: int,
    canvases: Sequence[tuple[int, int]] = (),
    flip: float = 0.0,
    augmentation: DetectionAugmentation | None = None,
    crowd: str = "ignore",
    difficult: str = "train",
    keep_empty: bool = True,
    repeat_threshold: float = 0.0,
    masks: bool = False,
    seed: int = 0,
    workers: int = 0,
    start_iteration: int = 0,
    iterations: int | None = None,
    limit: int | None = None,
) -> Loader:
    """Batches whose inputs are (ImageBatch, Targets).

    train: iterations start_iteration <= t < `iterations` (None: one epoch); each process has its equal share
    of every global batch, which has one canvas. Otherwise: every image once over all processes, at the last of
    `shorter_sides`, never mirrored nor augmented; batches of `global_batch` images are dealt to the processes whole,
    each on the smallest canvas that holds its images' ones.
    shorter_sides: one is drawn an image; longer_side bounds the other. canvases: (height, width), of which
    each image takes the smallest on which it is largest; none: transforms.canvases.default_canvases. flip: a chance.
    augmentation: what else training does to an image. crowd, difficult: see TruthPolicy. keep_empty: in training, keep
    images without a normal truth. repeat_threshold: in training, images of rarer classes come more often (see
    repeat_factors); 0: all come equally often. masks: with instance masks. limit: only that many images, evenly spaced.
    Raises DataError.
    """
    sides = tuple(shorter_sides) if train else tuple(shorter_sides)[-1:]
    if train:
        views = ViewDraw(sides, longer_side, flip, augmentation or DetectionAugmentation())
    else:
        views = ViewDraw(sides, longer_side, 0.0, DetectionAugmentation())
    canvases = tuple(canvases) or default_canvases(max(sides), longer_side)
    policy = TruthPolicy(crowd, difficult)
    chosen = evenly(len(dataset), limit)
    if train and not keep_empty:
        chosen = chosen[_has_truth(dataset, policy)[chosen]]
    factors = None
    if train and repeat_threshold > 0:
        factors = repeat_factors(dataset, chosen, policy.normal(dataset.crowd_K, dataset.difficult_K), repeat_threshold)
    groups = choose_canvases(dataset.sizes_hw_I2[chosen], max(sides), longer_side, canvases)
    requests, plan = plan_requests(
        groups,
        dataset.source,
        train,
        global_batch,
        rank,
        world_size,
        seed,
        start_iteration,
        iterations,
        factors=factors,
    )
    if not train:  # by number of the batch
        each_I2 = np.asarray(canvases)[groups]
        batches = [each_I2[first : first + global_batch] for first in range(0, len(groups), global_batch)]
        canvases = tuple((int(batch[:, 0].max()), int(batch[:, 1].max())) for batch in batches)
    reader = DetectionReader(
        dataset,
        chosen,
        canvases=canvases,
        views=views,
        policy=policy,
        masks=masks,
        seed=seed,
        plan=plan,
    )
    return Loader(reader, requests, workers)


def _has_truth(dataset: DetectionDataset, policy: TruthPolicy) -> np.ndarray:
    """Of each image, whether it has a truth that is neither dropped nor ignored."""
    normal_K = policy.normal(dataset.crowd_K, dataset.difficult_K)
    before = np.concatenate([[0], np.cumsum(normal_K)])
    return before[dataset.starts[1:]] > before[dataset.starts[:-1]]


def plan_requests(
    groups: np.ndarray,
    where: object,
    train: bool,
    global_batch: int,
    rank: int,
    world_size: int,
    seed: int,
    start: int,
    stop: int | None,
    repeats: int = 1,
    factors: np.ndarray | None = None,
) -> tuple[Sequence[Request], TrainPlan | None]:
    """What one process is asked for, and in training the plan behind it. Raises DataError; `where` is its data set."""
    if not len(groups):
        raise DataError(f"{where}: no images to load; check the data set and the limit")
    if not train:
        requests = sequential_requests(len(groups), batch=global_batch, rank=rank, world_size=world_size)
        return requests, None
    if global_batch % world_size:
        raise DataError(
            f"a global batch of {global_batch} images does not divide among {world_size} processes; make it a multiple"
        )
    plan = TrainPlan(groups, global_batch, seed, repeats, factors)
    if stop is None:
        stop = start + -(-len(groups) // global_batch)
    return TrainRequests(plan, rank=rank, world_size=world_size, start=start, stop=stop), plan


def substitutes(
    groups: np.ndarray, requests: Sequence[Request], global_batch: int, seed: int
) -> tuple[TrainPlan, Sequence[Request]]:
    """What `try_samples` draws other images from, and the requests so that it finds them there."""
    return TrainPlan(np.zeros_like(groups), global_batch, seed), [replace(request, group=0) for request in requests]
