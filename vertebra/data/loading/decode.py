"""From a file to RGB uint8 pixels, whatever camera or tool wrote it; files cut off, undecodable or huge are named.

OpenCV turns CMYK, grey, palette, 16-bit and transparent images into 8-bit colour, and applies EXIF
orientation. But it does not notice that half a JPEG is missing: it paints the rest grey without an
error. So the JPEG's own markers are read here, which also gives its size without decoding.

A few kilobytes can unpack to gigabytes, so the size in the header is bounded: by the environment's variable
VERTEBRA_MAX_PIXELS, for worker processes too; where it is not set, by 2^28, which is 0.8 GB in RGB.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import cv2
import numpy as np

from vertebra.data.loading.workers import at_file
from vertebra.ground.errors import BadSample, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
BOUND = "VERTEBRA_MAX_PIXELS"
DEFAULT_BOUND = 1 << 28
_WEBP_MOST = 0x3FFF**2  # its format's own bound
_NEARLY_BLACK = 16  # of 255: what 4095 becomes where 65535 was meant
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_REPLACE = "replace it, or remove it from the data set"


@dataclass(frozen=True)
class _Header:
    """height, width: stored pixels, before EXIF rotation; None where only decoding shows it."""

    size_hw: tuple[int, int] | None
    complete: bool


def read_bytes(path: Path | str) -> bytes:
    """The file's content. Raises BadSample if it is missing, unreadable or empty."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise BadSample(path, "no such image", "restore it, or remove it from the data set") from error
    except OSError as error:
        raise BadSample(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error
    if not content:
        raise BadSample(path, "zero bytes long", _REPLACE)
    return content


def decode_image(path: Path | str, *, size_hw: tuple[int, int] | None = None, shrink: int = 1) -> np.ndarray:
    """RGB uint8 HW3.

    size_hw: the size that annotations refer to. EXIF orientation is applied; where only the image without it
        has that size, the annotations were made on stored pixels and it is left out. Neither: BadSample.
    shrink: 1, 2, 4 or 8: the image comes at that fraction of its size, each pixel the mean of those it stands for; of
        a JPEG no more is decoded, in a fraction of the time.
    """
    return decode_bytes(read_bytes(path), path, size_hw=size_hw, shrink=shrink)


def decode_bytes(
    content: bytes, path: Path | str, *, size_hw: tuple[int, int] | None = None, shrink: int = 1
) -> np.ndarray:
    """decode_image of a file that has been read; `path` is for messages."""
    at_file(path)
    header = _header(content)
    if not header.complete:
        raise BadSample(path, "truncated: its end is missing", _REPLACE)
    refuse_huge(header.size_hw or _size_by_pillow(content), path)
    # Of other formats OpenCV decodes all and keeps every n-th pixel: no faster, and full of aliasing.
    by_decoder = shrink if content.startswith(JPEG) else 1
    flags = {1: cv2.IMREAD_COLOR_RGB, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
             8: cv2.IMREAD_REDUCED_COLOR_8}[by_decoder]  # fmt: skip
    pixels = _decode(content, flags, path)
    if size_hw is not None and not _agree(pixels.shape[:2], size_hw, by_decoder):
        as_stored = _decode(content, flags | cv2.IMREAD_IGNORE_ORIENTATION, path)
        if not _agree(as_stored.shape[:2], size_hw, by_decoder):
            (height, width), (true_height, true_width) = size_hw, (by_decoder * side for side in pixels.shape[:2])
            raise BadSample(
                path,
                f"is {true_width} x {true_height} pixels, its annotation says {width} x {height}",
                "correct the annotation, whose boxes may be wrong as well",
            )
        pixels = as_stored
    is_dark = not content.startswith(JPEG) and 0 < pixels.max() <= _NEARLY_BLACK
    if is_dark and _decode(content, cv2.IMREAD_UNCHANGED, path).dtype == np.uint16:
        raise BadSample(
            path,
            "has 16-bit values up to 4095, as of a 12-bit camera, which makes a nearly black picture",
            "stretch them over all 16 bits, or write it with 8",
        )
    if by_decoder > 1:  # these flags have no RGB form
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if shrink > 1:
        height, width = (-(-side // shrink) for side in pixels.shape[:2])
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return pixels


def stored_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG or PNG from its header, before EXIF rotation; None for anything else."""
    return _header(content).size_hw


def refuse_huge(size_hw: tuple[int, int] | None, path: Path | str) -> None:
    """Raise BadSample for an image of more pixels than are decoded. None: its size is not known."""
    if size_hw is not None and size_hw[0] * size_hw[1] > (bound := _bound()):
        reason = f"is {size_hw[1]} x {size_hw[0]} pixels, more than the {bound} of {BOUND}"
        raise BadSample(path, reason, f"remove it, or set {BOUND} in the environment if it is no mistake")


def _bound() -> int:
    text = os.environ.get(BOUND) or str(DEFAULT_BOUND)
    if not text.isdecimal():
        raise DataError(BOUND, f"is {text!r}", "give the most pixels that an image may have, such as 268435456")
    return int(text)


def open_header(file: Path | BinaryIO) -> Image:
    """The image by Pillow, which decodes nothing yet. Pillow's own bound, which no setting here raises, is lifted."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image.open(file)


def shrink_factor(size_hw: tuple[float, float], wanted_hw: tuple[float, float]) -> int:
    """The strongest of 1, 2, 4, 8 that leaves `size_hw` at least as large as what is wanted of it."""
    spare = min(size_hw[0] / max(wanted_hw[0], 1), size_hw[1] / max(wanted_hw[1], 1))
    return next((factor for factor in (8, 4, 2) if spare >= factor), 1)


def _size_by_pillow(content: bytes) -> tuple[int, int] | None:
    """Height and width; None where Pillow does not know the format."""
    if content[8:12] == b"WEBP" and _bound() >= _WEBP_MOST:
        return None  # never too large, and Pillow takes long for it
    try:
        with open_header(io.BytesIO(content)) as image:
            return image.height, image.width
    except Exception:  # of a damaged file Pillow raises anything; OpenCV then says whether it can be decoded
        return None


def _decode(content: bytes, flags: int, path: Path | str) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise BadSample(path, f"does not decode ({error.err})", _REPLACE) from error
    if pixels is None:
        raise BadSample(path, "is not an image that OpenCV can decode", _REPLACE)
    return pixels


def _agree(found_hw: tuple[int, ...], wanted_hw: tuple[int, int], shrink: int) -> bool:
    """True for equal sizes; a shrunken one may have been rounded either way."""
    slack = 0 if shrink == 1 else 1
    return all(abs(found - wanted / shrink) <= slack for found, wanted in zip(found_hw, wanted_hw))


def _header(content: bytes) -> _Header:
    if content.startswith(JPEG):
        return _jpeg_header(content)
    if content.startswith(PNG):
        size_hw = None
        if len(content) >= 24:
            size_hw = (int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big"))
        return _Header(size_hw, b"IEND" in content[33:])
    return _Header(None, complete=True)  # other formats: OpenCV notices by itself


def _jpeg_header(content: bytes) -> _Header:
    """Walks the segments up to the first scan, so that a thumbnail's own markers are stepped over."""
    size_hw, at = None, 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:  # garbage between segments, which libjpeg skips too
            at += 1
            continue
        marker = content[at + 1]
        if marker == 0xFF or marker in _BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in _SIZE_MARKERS and at + 9 <= len(content):
            size_hw = (
                int.from_bytes(content[at + 5 : at + 7], "big"),
                int.from_bytes(content[at + 7 : at + 9], "big"),
            )
        at += 2 + length
        if marker == 0xDA:  # start of scan: within it, FF D9 is the end of the image and nothing else
            return _Header(size_hw, content.rfind(b"\xff\xd9", at) >= 0)  # from the end, where it should be
    return _Header(size_hw, complete=False)
