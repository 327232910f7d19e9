"""Drawings as files: names that never clash, encoded pictures, videos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from vertebra.evaluation.metrics.files import EvaluationError

logger = logging.getLogger(__name__)

JPEG_SUFFIXES = (".jpg", ".jpeg")
JPEG_QUALITY = 92
CODECS = (("mp4v", ".mp4"), ("MJPG", ".avi"))  # best first; OpenCV brings the second with it
VIDEO_SUFFIXES = tuple(suffix for _, suffix in CODECS)


def drawing_names(images: Sequence[Path], videos: Sequence[Path]) -> list[str]:
    """A file name for the drawing of each image, then of each video: its own, numbered where it is taken.

    JPEGs stay JPEGs and other images become PNGs; of a video's name the suffix is that of CODECS' first.
    """
    taken: set[str] = set()
    names = []
    for path in images:
        suffix = path.suffix if path.suffix.lower() in JPEG_SUFFIXES else ".png"
        names.append(_free_stem(path.stem, (suffix,), taken) + suffix)
    for path in videos:
        names.append(_free_stem(path.stem, VIDEO_SUFFIXES, taken) + VIDEO_SUFFIXES[0])
    return names


def _free_stem(stem: str, suffixes: Sequence[str], taken: set[str]) -> str:
    """The stem, or stem_2, stem_3, ..., with which no file of these suffixes is taken, in capitals or not."""
    chosen, number = stem, 1
    while any((chosen + suffix).lower() in taken for suffix in suffixes):
        number += 1
        chosen = f"{stem}_{number}"
    taken.update((chosen + suffix).lower() for suffix in suffixes)
    return chosen


def encode_picture(pixels_HW3: np.ndarray, suffix: str) -> bytes:
    """RGB uint8 as a file's content."""
    import cv2

    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix.lower() in JPEG_SUFFIXES else []
    done, content = cv2.imencode(suffix, cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2BGR), settings)
    if not done:
        raise EvaluationError(
            f"OpenCV cannot write {suffix} files on this machine; install opencv-python-headless anew"
        )
    return content.tobytes()


class VideoFile:
    """A video that is written frame by frame; it bears its name once it is whole. Use it in a `with`.

    path: with CODECS' first suffix; where its codec is missing the next one's takes its place, so read `path` again.
    Raises EvaluationError where OpenCV has none of them.
    """

    def __init__(self, path: Path, size_hw: tuple[int, int], frames_per_s: float) -> None:
        import cv2

        for codec, suffix in CODECS:
            self.path = path.with_suffix(suffix)
            self._unfinished = path.with_name(f".{path.stem}.unfinished{suffix}")
            code = cv2.VideoWriter.fourcc(*codec)
            self._writer = cv2.VideoWriter(str(self._unfinished), code, frames_per_s, size_hw[::-1])
            if self._writer.isOpened():
                if (codec, suffix) != CODECS[0]:
                    logger.warning("OpenCV has no %s codec here: %s is written instead", CODECS[0][0], self.path)
                return
            self._unfinished.unlink(missing_ok=True)
        codecs = " or ".join(codec for codec, _ in CODECS)
        raise EvaluationError(
            f"{path}: OpenCV has no codec to write a video with ({codecs}) on this machine, or the folder is not to be "
            "written to; install opencv-python-headless, or use --json-only"
        )

    def add(self, pixels_HW3: np.ndarray) -> None:
        """One more frame, RGB uint8 of the video's size."""
        import cv2

        self._writer.write(cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Interrupted, it keeps the frames that it has: what is there can be played."""
        self._writer.release()
        if self._unfinished.exists():
            self._unfinished.replace(self.path)
