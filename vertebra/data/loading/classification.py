"""Loaders of classification batches: read, decoded and transformed into one array a batch.

Legend: I images of the data set, N images of a batch, H W height and width.
"""

from __future__ import annotations

import mmap
import multiprocessing
from contextlib import suppress
from dataclasses import InitVar, dataclass, field

import numpy as np
import torch

from detectors.structures import Size
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.data.loading.decode import decode_bytes, shrink_factor, stored_size
from vertebra.data.loading.loaders import Batch, Loader, empty_pixels
from vertebra.data.loading.sampling import (
    Request,
    Share,
    TrainPlan,
    TrainRequests,
    choose_images,
    draw_seed,
    one_group,
    sequential_requests,
    try_samples,
)
from vertebra.data.loading.workers import FORK
from vertebra.data.transforms.classification_views import ClassificationTransform, Growth, Mixing
from vertebra.ground.errors import BadSample

# Pixels, as decoded (about 836 x 627): of an image with more, what the drawn crop needs is decoded, and nothing kept.
LARGE = 1 << 19
DEFAULT_CACHE_MB = 2048
PROBES = 16  # images whose headers are read to estimate the memory of all


class PixelCache:
    """Decoded images by index, shared by all workers; written once, never evicted, kept up to a stated bound.

    The memory is an anonymous shared mapping that forked workers inherit: no page is used before it is
    written, and the small /dev/shm of containers is not touched.
    """

    def __init__(self, count: int, capacity_mb: int) -> None:
        self._capacity = capacity_mb << 20
        self._arena = np.frombuffer(mmap.mmap(-1, max(self._capacity, 1)), np.uint8)
        self._places = np.frombuffer(mmap.mmap(-1, max(count, 1) * 24), np.int64).reshape(-1, 3)  # start + 1, h, w
        self._used = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self._lock = multiprocessing.get_context(FORK).Lock()

    def get(self, index: int) -> np.ndarray | None:
        """The image, HW3, as a view: copy it before changing it."""
        start, height, width = self._places[index].tolist()
        if not start:
            return None
        return self._arena[start - 1 : start - 1 + height * width * 3].reshape(height, width, 3)

    def put(self, index: int, pixels_HW3: np.ndarray) -> None:
        with self._lock:
            start = int(self._used[0])
            if self._places[index, 0] or start + pixels_HW3.size > self._capacity:
                return
            self._used[0] += pixels_HW3.size
        self._arena[start : start + pixels_HW3.size] = pixels_HW3.reshape(-1)
        self._places[index, 1:] = pixels_HW3.shape[:2]
        self._places[index, 0] = start + 1  # last: from here on readers see the image


@dataclass(kw_only=True, eq=False)
class ClassificationReader:
    """Answers requests.

    chosen_I: the indices of the data set that are used; requests count along it. plan: where others are drawn from in
    the place of images that cannot be used; None: these are an error. growth: the size by iteration, in the place of
    the transform's. mixing: adds mixing_5 to the inputs.
    """

    dataset: ClassificationDataset
    chosen_I: np.ndarray
    transform: ClassificationTransform
    seed: int
    plan: TrainPlan | None
    growth: Growth | None = None
    mixing: Mixing | None = None
    cache_mb: InitVar[int] = 0
    cache: PixelCache | None = field(init=False, default=None)

    def __post_init__(self, cache_mb: int) -> None:
        images = len(self.chosen_I)
        wanted = self.dataset.pixels_IHW3 is None and cache_mb > 0
        # all or nothing: a cache of a tenth of the images costs its memory and saves a tenth
        if wanted and 1.1 * images * self._mean_image_bytes() <= cache_mb << 20:
            self.cache = PixelCache(images, cache_mb)

    def __call__(self, request: Request) -> Batch:
        transform = self.transform.at_size(self.growth.side(request.iteration)) if self.growth else self.transform
        size = transform.size
        repetitions = request.repetitions or (0,) * len(request.indices)
        pixels_NHW3 = empty_pixels(len(request.indices), size, size)
        views_NHW3 = pixels_NHW3.numpy()
        places = dict.fromkeys(request.indices)
        not_kept = [place for place in places if self.cache is None or self.cache.get(place) is None]
        self.dataset.fetch(self.chosen_I[not_kept].tolist())
        used: list[int] = []
        skipped: list[str] = []
        for slot, (wanted, repetition) in enumerate(zip(request.indices, repetitions)):

            def sample(place: int, slot: int = slot, repetition: int = repetition) -> int:
                index = int(self.chosen_I[place])
                rng = np.random.default_rng(draw_seed(self.seed, request.iteration, index, repetition))
                views_NHW3[slot] = self._view(transform, place, index, rng)
                return index

            used.append(try_samples(sample, wanted, request, self.plan, skipped))
        pixels_N3HW = pixels_NHW3.permute(0, 3, 1, 2)
        labels_N = torch.from_numpy(self.dataset.labels_I[used])
        inputs: tuple[torch.Tensor, ...] = (pixels_N3HW, labels_N)
        if self.mixing:
            inputs = (*inputs, self.mixing.draw(self.seed, request.iteration, height=size, width=size))
        return Batch(inputs, tuple(used), tuple(skipped), request.iteration)

    def batch_bytes(self, images: int) -> int:
        return images * 3 * max(self.transform.size, self.growth.size if self.growth else 0) ** 2

    def _view(self, transform: ClassificationTransform, place: int, index: int, rng: np.random.Generator) -> np.ndarray:
        if self.dataset.pixels_IHW3 is not None:
            return transform(self.dataset.pixels_IHW3[index], rng)
        if self.cache is not None and (kept := self.cache.get(place)) is not None:
            return transform(kept, rng)
        content, name = self.dataset.read(index), self.dataset.name(index)
        size_hw = stored_size(content)
        if size_hw is not None and self._is_large(size_hw):
            return part_of_large(content, name, size_hw, transform, rng)
        image_HW3 = decode_bytes(content, name, shrink=self._shrink(size_hw))
        if self.cache is not None:
            self.cache.put(place, image_HW3)
        return transform(image_HW3, rng)

    def _shrink(self, size_hw: Size | None) -> int:
        """Return the divisor of the size at which an image is decoded; the same with a cache and without."""
        if size_hw is None:
            return 1
        wanted = self.transform.wanted_shorter
        return shrink_factor((min(size_hw), min(size_hw)), (wanted, wanted))

    def _is_large(self, size_hw: Size) -> bool:
        view = self.transform
        return view.draws_part and view.pipeline is None and _pixels(size_hw, self._shrink(size_hw)) > LARGE

    def _mean_image_bytes(self) -> float:
        """Estimate from a few headers, where images too large for the cache count 0 bytes.

        Infinite, so that there is no cache, where a header gives no size or no image would be kept.
        """
        every = max(1, len(self.chosen_I) // PROBES)
        sizes = []
        for size_hw in header_sizes(self.dataset, self.chosen_I[::every][:PROBES]):
            if size_hw is None:
                return float("inf")
            sizes.append(0.0 if self._is_large(size_hw) else 3 * _pixels(size_hw, self._shrink(size_hw)))
        return float(np.mean(sizes)) if any(sizes) else float("inf")


def header_sizes(dataset: ClassificationDataset, indices: np.ndarray) -> list[Size | None]:
    """Return the stored sizes of those images that can be read; None where only decoding shows it."""
    sizes = []
    for index in indices.tolist():
        with suppress(BadSample):  # the loader will name it
            sizes.append(stored_size(dataset.read(index)))
    return sizes


def _pixels(size_hw: Size, shrink: int) -> float:
    return size_hw[0] * size_hw[1] / shrink**2


def part_of_large(
    content: bytes, name: str, size_hw: Size, transform: ClassificationTransform, rng: np.random.Generator
) -> np.ndarray:
    """Return the view of an image of that stored size, decoding no more detail than the drawn crop can show."""
    for height, width in (size_hw, size_hw[::-1]):
        box = transform.draw(height, width, rng)
        shrink = shrink_factor((box.height, box.width), (transform.size, transform.size))
        image_HW3 = decode_bytes(content, name, shrink=shrink)
        if abs(image_HW3.shape[0] * shrink - height) < shrink:
            break
        # else the decoder has turned the image by its EXIF orientation
    return transform(image_HW3, rng, box.shrunk(shrink))


def classification_train_loader(
    dataset: ClassificationDataset,
    transform: ClassificationTransform,
    share: Share,
    *,
    repeats: int = 1,
    growth: Growth | None = None,
    mixing: Mixing | None = None,
    cache_mb: int = DEFAULT_CACHE_MB,
) -> Loader:
    """Batches whose inputs are (pixels_N3HW uint8 RGB, labels_N int64), and with `mixing` mixing_5 (see Mixing).

    repeats: see TrainPlan. growth: the size by iteration, in the place of the transform's. cache_mb: memory for decoded
    images, MB over all processes, used only where all of them fit. Raises DataError.
    """
    chosen_I = choose_images(len(dataset), share, dataset.root)
    plan = one_group(len(chosen_I), share, repeats)
    reader = ClassificationReader(
        dataset=dataset,
        chosen_I=chosen_I,
        transform=transform,
        seed=share.seed,
        plan=plan,
        cache_mb=cache_mb // share.world_size,
        growth=growth,
        mixing=mixing,
    )
    return Loader(reader, TrainRequests(plan, share), share.workers)


def classification_test_loader(
    dataset: ClassificationDataset, transform: ClassificationTransform, share: Share, *, replace_bad: bool = False
) -> Loader:
    """Every image once over all processes, as (pixels_N3HW uint8 RGB, labels_N int64).

    replace_bad: others take the place of images that cannot be used, which are an error otherwise. Raises DataError.
    """
    chosen_I = choose_images(len(dataset), share, dataset.root)
    substitutes = one_group(len(chosen_I), share) if replace_bad else None
    reader = ClassificationReader(
        dataset=dataset, chosen_I=chosen_I, transform=transform, seed=share.seed, plan=substitutes
    )
    return Loader(reader, sequential_requests(len(chosen_I), share), share.workers)
