"""A whole set of small images on the device, and batches that are cut out of it there.

Workers take longer to pass on a batch of 32x32 images than a GPU to train on it. Here the host only draws numbers, of
many steps at once; the pixels never leave the device. The images of a batch are those of the worker loader.

Legend: I images of the set, B images of a global batch, N of this process's share, M rows of several batches, H W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.loading.classification import PROBES, header_sizes
from vertebra.data.loading.loaders import Batch
from vertebra.data.loading.sampling import (
    Request,
    Share,
    TrainPlan,
    TrainRequests,
    choose_images,
    evenly,
    one_group,
    sequential_requests,
    try_samples,
)
from vertebra.data.transforms.classification_views import Mixing
from vertebra.data.transforms.geometry import centre_crop, padding
from vertebra.ground.cores import usable_cores
from vertebra.ground.errors import BadSample, DataError

RESIDENT = "the images on the device"
SMALL_SIDE = 64  # pixels; what `is_small` calls small
SMALL_MB = 1024  # of device memory
IMAGES_AT_ONCE = 256  # that a thread reads between two calls of progress
ITERATIONS_AT_ONCE = 64  # whose draws are made and sent to the device together
VIEWS = 1  # key of the draws beside those of vertebra.data.loading.sampling
Progress = Callable[[Sequence[int]], Iterable[int]]


@dataclass(frozen=True, eq=False)
class ResidentImages:
    """pixels_IHW3: uint8 RGB with `pad` black pixels on each side; labels_I: int64; both on one device.

    unusable: images that could not be read, by index; black in pixels_IHW3.
    """

    pixels_IHW3: Tensor
    labels_I: Tensor
    pad: int
    unusable: dict[int, BadSample]

    @property
    def size(self) -> int:
        return self.pixels_IHW3.shape[1] - 2 * self.pad

    def cut_out(self, views_M4: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of these sizes, M together: pixels_N3HW in the memory order of channels_last, and labels_N. No wait
        for the device, and few kernels a batch: what a step has to launch is what a small net waits for.

        views_M4: int64 index of the image, top and left in the padded image, mirrored or not (1, 0).
        """
        index_M1, top_M1, left_M1, mirrored_M1 = views_M4.split(1, dim=1)
        height, width = self.pixels_IHW3.shape[1:3]
        side = torch.arange(self.size, device=views_M4.device)
        rows_MH = (index_M1 * height + top_M1 + side) * width
        columns_MW = left_M1 + torch.where(mirrored_M1 > 0, side.flip(0), side)
        parts = (all_M.split(list(sizes)) for all_M in (index_M1[:, 0], rows_MH, columns_MW))
        for index_N, rows_NH, columns_NW in zip(*parts):
            places_NHW = rows_NH[:, :, None] + columns_NW[:, None, :]
            # One index a pixel: four times as fast on a CPU as an index each for image, row and column.
            pixels_P3 = self.pixels_IHW3.view(-1, 3).index_select(0, places_NHW.flatten())
            yield pixels_P3.view(*places_NHW.shape, 3).permute(0, 3, 1, 2), self.labels_I[index_N]


def needed_mb(images: int, size: int) -> float:
    """Return the device memory of that many images, MB."""
    return images * (size + 2 * padding(size)) ** 2 * 3 / 2**20


def is_small(dataset: ClassificationDataset, size: int) -> bool:
    """True where the set fits in SMALL_MB and its images, judged by a few, are of one size up to SMALL_SIDE."""
    if needed_mb(len(dataset), size) > SMALL_MB:
        return False
    if dataset.pixels_IHW3 is not None:
        return max(dataset.pixels_IHW3.shape[1:3]) <= SMALL_SIDE
    sizes = set(header_sizes(dataset, evenly(len(dataset), PROBES)))
    return len(sizes) == 1 and all(size_hw is not None and max(size_hw) <= SMALL_SIDE for size_hw in sizes)


def read_resident(
    dataset: ClassificationDataset,
    *,
    size: int,
    resize: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
) -> ResidentImages:
    """Reads and decodes every image once, in several threads, and puts all of them on `device`.

    size: of the images kept, in pixels; each is brought there by `centre_crop`, its shorter side at `resize` before.
    progress: wraps an iteration, one step for each IMAGES_AT_ONCE images, as tqdm does.
    Raises DataError, before any is read, where there is no memory for them.
    """
    pad = padding(size)
    try:
        host_IHW3 = torch.zeros(len(dataset), size + 2 * pad, size + 2 * pad, 3, dtype=torch.uint8)
        kept_IHW3 = host_IHW3.to(device)
    except RuntimeError as error:
        memory = f"{len(dataset)} images of {size} px take {needed_mb(len(dataset), size):.0f} MB"
        reason = f"{memory}, more than there is on {device}"
        raise DataError(dataset.root, reason, "give --input.resident no") from error
    inner_IHW3 = host_IHW3[:, pad : pad + size, pad : pad + size].numpy()
    unusable: dict[int, BadSample] = {}

    def read_some(first: int) -> None:
        for index in range(first, min(first + IMAGES_AT_ONCE, len(dataset))):
            try:
                inner_IHW3[index] = centre_crop(dataset.decode(index), size, resize or size)
            except BadSample as error:
                unusable[index] = error

    parts = range(0, len(dataset), IMAGES_AT_ONCE)
    with ThreadPoolExecutor(min(8, usable_cores())) as threads:
        for _ in zip(progress(parts), threads.map(read_some, parts)):
            pass
    labels_I = torch.from_numpy(dataset.labels_I)
    return ResidentImages(kept_IHW3.copy_(host_IHW3), labels_I.to(device), pad, unusable)


def draw_views(seed: int, block: int, batch: int, *, pad: int, augment: str, flip: float) -> np.ndarray:
    """Draw top, left and mirrored (1, 0) for the images of ITERATIONS_AT_ONCE global batches: int64, (T, B, 3).

    Tops and lefts are 0 .. 2 pad in the padded image; with augment "none" they are pad, the image as it is.
    """
    rng = np.random.default_rng([seed, block, VIEWS])
    views_TB3 = np.full((ITERATIONS_AT_ONCE, batch, 3), pad, np.int64)
    if augment == "pad":
        views_TB3[..., :2] = rng.integers(0, 2 * pad + 1, (ITERATIONS_AT_ONCE, batch, 2))
    views_TB3[..., 2] = rng.random((ITERATIONS_AT_ONCE, batch)) < flip
    return views_TB3


@dataclass(eq=False)
class ResidentLoader:
    """An iterable of Batch, on the device already, with a length; iterating anew begins anew.

    chosen_I: the images that are used; requests count along it. augment ("none", "pad"), flip (a chance) and mixing
    (which adds mixing_5 to the inputs) are for training requests; the others give each image as it is. substitutes:
    where others are drawn from in the place of images that cannot be used; in training the plan.
    """

    images: ResidentImages
    chosen_I: np.ndarray
    requests: Sequence[Request]
    augment: str = "none"
    flip: float = 0.0
    mixing: Mixing | None = None
    substitutes: TrainPlan | None = None

    def __post_init__(self) -> None:
        self.plan = self.requests.plan if isinstance(self.requests, TrainRequests) else None
        self.substitutes = self.substitutes or self.plan

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Batch]:
        for block, requests in groupby(self.requests, lambda request: request.iteration // ITERATIONS_AT_ONCE):
            yield from self._batches(block, list(requests))

    def _batches(self, block: int, requests: Sequence[Request]) -> Iterator[Batch]:
        """The batches of these requests, whose numbers go to the device in one copy."""
        skipped: list[list[str]] = [[] for _ in requests]
        indices = [self._usable(request, names) for request, names in zip(requests, skipped)]
        views_M4 = self._upload(np.column_stack([np.concatenate(indices), self._views(block, requests)]))
        mixing_T5 = self._mixing_T5(requests)
        batches = self.images.cut_out(views_M4, [len(index_N) for index_N in indices])
        for place, (inputs, request, index_N, names) in enumerate(zip(batches, requests, indices, skipped)):
            mixed = inputs if mixing_T5 is None else (*inputs, mixing_T5[place])
            yield Batch(mixed, tuple(index_N.tolist()), tuple(names), request.iteration)

    def _upload(self, numbers: np.ndarray) -> Tensor:
        """Copy to the images' device without waiting for it."""
        tensor = torch.from_numpy(numbers)
        device = self.images.pixels_IHW3.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    def _views(self, block: int, requests: Sequence[Request]) -> np.ndarray:
        """Top, left and mirrored (1, 0) of each image: int64, (M, 3)."""
        pad = self.images.pad
        if self.plan is None:
            return np.tile([pad, pad, 0], (sum(len(request.indices) for request in requests), 1))
        # Every process draws for all, and takes its share.
        views_TB3 = draw_views(
            self.plan.seed, block, self.plan.global_batch, pad=pad, augment=self.augment, flip=self.flip
        )
        return np.concatenate(
            [
                views_TB3[request.iteration % ITERATIONS_AT_ONCE, request.first :][: len(request.indices)]
                for request in requests
            ]
        )

    def _mixing_T5(self, requests: Sequence[Request]) -> Tensor | None:
        if self.plan is None or not self.mixing:
            return None
        side, seed = self.images.size, self.plan.seed
        draws = [self.mixing.draw(seed, request.iteration, height=side, width=side) for request in requests]
        return self._upload(torch.stack(draws).numpy())

    def _usable(self, request: Request, skipped: list[str]) -> np.ndarray:
        """Indices of the set, with substitutes for images that cannot be used. Raises BadSample without substitutes."""
        unusable = self.images.unusable
        index_N = self.chosen_I[list(request.indices)]
        if not unusable:
            return index_N

        def sample(place: int) -> int:
            index = int(self.chosen_I[place])
            if index in unusable:
                raise unusable[index]
            return index

        return np.asarray(
            [try_samples(sample, wanted, request, self.substitutes, skipped) for wanted in request.indices]
        )


def resident_train_loader(
    images: ResidentImages, share: Share, *, augment: str = "none", flip: float = 0.0, mixing: Mixing | None = None
) -> ResidentLoader:
    """Batches whose inputs are (pixels_N3HW uint8 RGB, labels_N int64), and with `mixing` mixing_5; see the worker
    loader, classification_train_loader. share.workers is not used. Raises DataError."""
    chosen_I = choose_images(len(images.labels_I), share, RESIDENT)
    requests = TrainRequests(one_group(len(chosen_I), share), share)
    return ResidentLoader(images, chosen_I, requests, augment=augment, flip=flip, mixing=mixing)


def resident_test_loader(images: ResidentImages, share: Share, *, replace_bad: bool = False) -> ResidentLoader:
    """Every image once over all processes; replace_bad as in classification_test_loader. Raises DataError."""
    chosen_I = choose_images(len(images.labels_I), share, RESIDENT)
    substitutes = one_group(len(chosen_I), share) if replace_bad else None
    return ResidentLoader(images, chosen_I, sequential_requests(len(chosen_I), share), substitutes=substitutes)
