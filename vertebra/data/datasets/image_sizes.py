"""Heights and widths of many images from their headers alone, as they are after EXIF rotation.

For annotations that do not say for which size they were made: YOLO's fractions, and images without annotations.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vertebra.data.datasets.faults import Fault
from vertebra.data.loading.decode import open_header, refuse_huge
from vertebra.ground.cores import usable_cores
from vertebra.ground.errors import BadSample, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

TOLERATED = 0.01  # the share of unreadable images above which a set is refused, as in training


def image_sizes(paths: Sequence[Path]) -> tuple[np.ndarray, list[Fault]]:
    """sizes_hw_I2 int64, (0, 0) where a file gives none, and a fault for each of these; by many threads."""
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(32, 4 * usable_cores())) as pool:
        warnings.simplefilter("ignore")  # of odd EXIF, which matters only where it turns an image
        found = list(pool.map(_size, paths))
    sizes_hw_I2 = np.array([size for size, _ in found], np.int64).reshape(-1, 2)
    reasons = [(path, reason) for path, (_, reason) in zip(paths, found) if reason]
    fatal = len(reasons) > TOLERATED * len(paths)
    hint = "replace it, or remove it from the data set" if fatal else "it is left out"
    kind = "images whose size cannot be read were left out"
    return sizes_hw_I2, [Fault(path, reason, hint, fatal, kind) for path, reason in reasons]


def lies_on_its_side(image: Image) -> bool:
    """True where EXIF's orientation is one of those that exchange height and width."""
    return image.getexif().get(0x0112) in (5, 6, 7, 8)


def _size(path: Path) -> tuple[tuple[int, int], str]:
    try:
        with open_header(path) as image:
            width, height = image.size
            turned = lies_on_its_side(image)
        refuse_huge((height, width), path)
    except FileNotFoundError:
        return (0, 0), "no such image"
    except BadSample as error:
        return (0, 0), error.reason
    except DataError:  # the bound itself is wrong
        raise
    except Exception as error:  # of a damaged file Pillow raises anything
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            return (0, 0), "zero bytes long"
        if isinstance(error, OSError) and error.strerror:
            return (0, 0), f"its size cannot be read ({error.strerror})"
        return (0, 0), "is not an image whose size can be read"
    return ((width, height) if turned else (height, width)), ""
