"""A network over pictures without annotations: what it finds in each, and the drawings and lists as files.

Legend: H W a picture's height and width on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from backbones.norms import evaluating
from detectors.structures import Size
from vertebra.evaluation.metrics.files import Entry
from vertebra.evaluation.predict.detections import coco_results, detect
from vertebra.evaluation.predict.draw import class_colours, draw
from vertebra.evaluation.predict.inference import Autocast
from vertebra.evaluation.predict.segmentation import PictureMap
from vertebra.ground.errors import UserError

logger = logging.getLogger(__name__)

JPEG_SUFFIXES = (".jpg", ".jpeg")
JPEG_QUALITY = 92
CODECS = (("mp4v", ".mp4"), ("MJPG", ".avi"))  # best first; OpenCV brings the second with it
VIDEO_SUFFIXES = tuple(suffix for _, suffix in CODECS)


@dataclass(frozen=True)
class PictureDetections:
    """One picture and its COCO results, best first. pixels_HW3: RGB uint8, where the batches bring them."""

    image_id: int
    size_hw: Size
    entries: list[Entry]
    pixels_HW3: np.ndarray | None


def detect_pictures(
    model: nn.Module,
    batches: Iterable[Any],
    category_ids: Sequence[int],
    *,
    kept: Collection[int],
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
) -> Iterator[PictureDetections | str]:
    """One item a picture, in order within its batch: its detections, or why it could not be read.

    batches: as loading.pictures makes them. category_ids[label - 1] is the id in files; kept: those that are asked for.
    """
    with evaluating(model):
        for batch in batches:
            yield from batch.skipped
            if not len(batch):
                continue
            (images,) = batch.to(device).inputs
            found = detect(model, images, batch.sizes_hw, batch.image_ids, autocast)
            for n, (image_id, one) in enumerate(found.items()):
                entries = [
                    entry for entry in coco_results([(image_id, one)], category_ids) if entry["category_id"] in kept
                ]
                pixels_HW3 = batch.originals[n].numpy() if batch.originals else None
                yield PictureDetections(image_id, one.size_hw, entries, pixels_HW3)


class Painter:
    """Draws what has at least the score, each class in a colour of its own; `drawn` counts."""

    def __init__(self, names: Mapping[int, str], score: float) -> None:
        self.names, self.score, self.colours, self.drawn = names, score, class_colours(names), 0

    def draw(self, found: PictureDetections) -> np.ndarray:
        """The picture with its detections, RGB uint8, `enlargement` times as large."""
        assert found.pixels_HW3 is not None
        entries = [entry for entry in found.entries if entry["score"] >= self.score]
        self.drawn += len(entries)
        return draw(found.pixels_HW3, entries, self.names, self.colours)

    def summary(self) -> str:
        return f"{self.drawn} drawn (score {self.score:g} or more)"


@dataclass
class PictureResults:
    """What is found in all pictures, of detectors with COCO results; `skipped` says why others were not read."""

    images: list[Entry] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, found: PictureDetections | PictureMap, path: Path, **facts: Any) -> None:
        """facts: further fields of its entry in the list of images."""
        height, width = found.size_hw
        self.images.append(
            {"id": found.image_id, "file_name": path.as_posix(), "width": width, "height": height, **facts}
        )
        if isinstance(found, PictureDetections):
            self.entries.extend(found.entries)

    def index(self, names: Mapping[int, str]) -> dict[str, Any]:
        """COCO JSON without annotations: what the ids of images and categories are."""
        categories = [{"id": category_id, "name": name} for category_id, name in names.items()]
        return {"images": self.images, "categories": categories, "annotations": []}


def drawing_names(images: Sequence[Path], videos: Sequence[Path], *, beside: tuple[str, ...] = ()) -> list[str]:
    """Return a file name for the drawing of each image, then of each video: its own, numbered where that is used.

    JPEGs stay JPEGs and other images become PNGs; of a video's name the suffix is that of CODECS' first. beside:
    suffixes of further files of an image, which no two are to share either.
    """
    used: set[str] = set()
    names = []
    for path in images:
        suffix = path.suffix if path.suffix.lower() in JPEG_SUFFIXES else ".png"
        names.append(_free_stem(path.stem, (suffix, *beside), used) + suffix)
    for path in videos:
        names.append(_free_stem(path.stem, VIDEO_SUFFIXES, used) + VIDEO_SUFFIXES[0])
    return names


def _free_stem(stem: str, suffixes: Sequence[str], used: set[str]) -> str:
    """The stem, or stem_2, stem_3, ..., with which no file of these suffixes exists yet, in capitals or not."""
    chosen, number = stem, 1
    while any((chosen + suffix).lower() in used for suffix in suffixes):
        number += 1
        chosen = f"{stem}_{number}"
    used.update((chosen + suffix).lower() for suffix in suffixes)
    return chosen


def encode_picture(pixels_HW3: np.ndarray, suffix: str) -> bytes:
    """RGB uint8 as a file's content."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix.lower() in JPEG_SUFFIXES else []
    done, content = cv2.imencode(suffix, cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2BGR), settings)
    if not done:
        raise UserError(f"OpenCV cannot write {suffix} files on this machine; install opencv-python-headless anew")
    return content.tobytes()


class VideoFile:
    """A video that is written frame by frame; it bears its name once it is whole. Use it in a `with`.

    path: with CODECS' first suffix; where its codec is missing the next one's takes its place, so read `path` again.
    Raises UserError where OpenCV has none of them.
    """

    def __init__(self, path: Path, size_hw: tuple[int, int], frames_per_s: float) -> None:
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
        raise UserError(
            path,
            f"OpenCV has no codec to write a video with ({codecs}) on this machine, or the folder cannot be written to",
            "install opencv-python-headless, or use --json-only",
        )

    def add(self, pixels_HW3: np.ndarray) -> None:
        """One more frame, RGB uint8 of the video's size."""
        self._writer.write(cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Interrupted, it keeps the frames that it has: what is there can be played."""
        self._writer.release()
        if self._unfinished.exists():
            self._unfinished.replace(self.path)
