"""The pixels that the page carries: where an image lies, and its thumbnail as a data URI."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from vertebra.ground.cores import usable_cores

# Longer side in pixels and JPEG quality, tried in turn until all thumbnails fit into the page.
THUMBNAILS = ((800, 82), (640, 80), (512, 76), (400, 74), (320, 68), (224, 60), (160, 50))
THUMBNAIL_BYTES = 9_000_000  # of JPEG; a third more as base64: the page stays near 12 MB
REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))
TRIED = 24  # images that the size of all is estimated from

Size = tuple[int, int]


def find_image(roots: Sequence[Path], file_name: str) -> Path | None:
    """Return the image's path below the first of the `roots` that has it; None where none does."""
    return next((root / file_name for root in roots if (root / file_name).is_file()), None)


def thumbnails(paths: Sequence[Path | None], sizes_wh: Sequence[Size | None]) -> list[str | None]:
    """Return a data URI of each image as a small JPEG, None where it cannot be read; together they fit into the page.

    sizes_wh: from the truth, None where it has none. Images are read one at a time in each of a few threads, and
    only their JPEG is kept.
    """
    wanted = list(zip(paths, sizes_wh))
    tried = [wanted[place * len(wanted) // TRIED] for place in range(TRIED)] if len(wanted) > TRIED else wanted
    with _single_threaded_cv2(), ThreadPoolExecutor(min(8, usable_cores())) as pool:
        for form in THUMBNAILS:
            small = partial(_small_jpeg, form=form)
            if form != THUMBNAILS[-1] and _bytes(pool.map(small, tried)) * len(wanted) > THUMBNAIL_BYTES * len(tried):
                continue
            encoded = list(pool.map(small, wanted))
            if _bytes(encoded) <= THUMBNAIL_BYTES:
                break
    return [f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else None for data in encoded]


@contextmanager
def _single_threaded_cv2() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _bytes(encoded: Any) -> int:
    return sum(len(data) for data in encoded if data)


def _small_jpeg(image: tuple[Path | None, Size | None], form: tuple[int, int]) -> bytes | None:
    path, size_wh = image
    longer_side, quality = form
    pixels = None if path is None else load(path, size_wh, longer_side)
    if pixels is None:
        return None
    scale = min(1.0, longer_side / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes() if done else None


def load(path: Path, size_wh: Size | None, longer_side: int) -> Any:
    """Return BGR pixels, turned so as to agree with the truth's width and height; or None.

    JPEGs much larger than `longer_side` are decoded at a half, a quarter or an eighth of their size, which is quicker.
    """
    times = 0 if size_wh is None else max(size_wh) // longer_side
    reduced = next((way for least, way in REDUCED if times >= least), cv2.IMREAD_COLOR)
    read: Callable[[int], Any] = lambda flags: cv2.imread(str(path), flags)  # noqa: E731
    try:
        pixels = read(reduced)
        if pixels is not None and size_wh is not None and _is_turned(pixels.shape[1::-1], size_wh):
            pixels = read(reduced | cv2.IMREAD_IGNORE_ORIENTATION)  # the truth does not follow EXIF's turn
    except cv2.error:  # such as more pixels than OpenCV reads
        return None
    return pixels


def _is_turned(found_wh: Size, truth_wh: Size) -> bool:
    """Return True if one is in landscape and the other in portrait format."""
    return (found_wh[0] - found_wh[1]) * (truth_wh[0] - truth_wh[1]) < 0
