"""Decoded images kept in memory, shared by all workers of one loader, up to a stated bound."""

from __future__ import annotations

import mmap
import multiprocessing
import sys

import numpy as np

FORK = "fork" if sys.platform.startswith("linux") else None  # how workers are started; None: the default


class PixelCache:
    """Images by index, written once, never evicted; what does not fit is simply not kept.

    The memory is an anonymous shared mapping that forked workers inherit: no page is used before it is
    written, and the small /dev/shm of containers is not touched.
    """

    def __init__(self, count: int, capacity_mb: int) -> None:
        self._capacity = capacity_mb << 20
        self._arena = np.frombuffer(mmap.mmap(-1, max(self._capacity, 1)), np.uint8)
        self._places = np.frombuffer(mmap.mmap(-1, max(count, 1) * 24), np.int64).reshape(-1, 3)  # start + 1, h, w
        self._used = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self._lock = multiprocessing.get_context(FORK).Lock()

    @property
    def used_mb(self) -> float:
        return float(self._used[0]) / (1 << 20)

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


def needed_mb(image_bytes: float, count: int) -> float:
    """Megabytes that `count` images of that mean size take, with a tenth to spare."""
    return count * image_bytes * 1.1 / (1 << 20)
