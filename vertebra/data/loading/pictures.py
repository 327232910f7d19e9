"""Pictures and videos, read and resized as a network's test images are.

Legend: N pictures of a batch, H W a picture's height and width. A picture here has no annotations; its size is what
decoding gives, EXIF orientation applied. One that cannot be read is left out of its batch and named in `skipped`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch

from vertebra.data.loading.decode import decode_bytes, read_bytes, shrink_factor
from vertebra.data.loading.loaders import Batch, Loader
from vertebra.data.loading.sampling import Request, Share, sequential_requests
from vertebra.data.loading.targets import image_batch
from vertebra.data.transforms.canvases import FixedView, Size, TightView
from vertebra.data.transforms.geometry import resize
from vertebra.ground.errors import BadSample

View = FixedView | TightView
USUAL_RATE = 25.0  # frames a second of a video without that figure


@dataclass(frozen=True)
class PictureBatch(Batch):
    """`inputs` is (ImageBatch,). sizes_hw: the pictures' own. originals: they themselves, uint8 RGB HW3, if wanted."""

    sizes_hw: tuple[Size, ...] = ()
    originals: tuple[torch.Tensor, ...] = ()

    def shared(self) -> PictureBatch:
        for picture_HW3 in self.originals:
            picture_HW3.share_memory_()
        return cast(PictureBatch, super().shared())


@dataclass(frozen=True)
class Video:
    """A video by its header. frames: 0 where that has no number."""

    path: Path
    size_hw: Size
    frames: int
    frames_per_s: float


@dataclass(frozen=True)
class PictureReader:
    """Answers requests for batches of image files; image ids are 1, 2, ... in the files' order."""

    paths: Sequence[Path]
    view: View
    originals: bool

    def __call__(self, request: Request) -> PictureBatch:
        read: list[tuple[int, bytes, np.ndarray]] = []
        skipped: list[str] = []
        for place in request.indices:
            try:
                content = read_bytes(self.paths[place])
                read.append((place, content, decode_bytes(content, self.paths[place])))
            except BadSample as error:
                skipped.append(f"{error.where}: {error.reason}")
        sizes_hw: list[Size] = [(picture_HW3.shape[0], picture_HW3.shape[1]) for _, _, picture_HW3 in read]
        canvas_hw = self.view.canvas(sizes_hw)
        small = [self._resized(self.paths[place], content, picture, canvas_hw) for place, content, picture in read]
        return PictureBatch(
            inputs=(image_batch(small, canvas_hw),),
            image_ids=tuple(place + 1 for place, *_ in read),
            skipped=tuple(skipped),
            iteration=request.iteration,
            sizes_hw=tuple(sizes_hw),
            originals=tuple(torch.from_numpy(picture_HW3) for _, _, picture_HW3 in read) if self.originals else (),
        )

    def batch_bytes(self, images: int) -> int:
        """Without the originals, whose sizes nobody knows before they are read."""
        return images * 3 * self.view.most_px

    def _resized(self, path: Path, content: bytes, picture_HW3: np.ndarray, canvas_hw: Size) -> np.ndarray:
        size_hw: Size = (picture_HW3.shape[0], picture_HW3.shape[1])
        wanted_hw = self.view.size(size_hw, canvas_hw)
        shrink = shrink_factor(size_hw, wanted_hw)  # as a test set's reader does, or the pixels would differ a little
        if shrink > 1:
            picture_HW3 = decode_bytes(content, path, size_hw=size_hw, shrink=shrink)
        return resize(picture_HW3, *wanted_hw)


def picture_loader(
    paths: Sequence[Path], view: View, *, batch_size: int, workers: int = 0, originals: bool = True
) -> Loader:
    """Every image once, in order, as PictureBatch; ids from 1 on. originals: with the pictures in full size."""
    requests = sequential_requests(len(paths), Share(batch=batch_size))
    return Loader(PictureReader(paths, view, originals), requests, workers)


def open_video(path: Path) -> Video:
    """Raises BadSample where OpenCV reads no frame of it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its messages would come before the sentence of BadSample
    if not path.stat().st_size:
        raise BadSample(path, "zero bytes long")
    capture = cv2.VideoCapture(str(path))
    try:
        readable, frame_HW3 = capture.read() if capture.isOpened() else (False, None)
        if not readable or frame_HW3 is None:
            raise BadSample(path, "is not a video that OpenCV can decode", "convert it, e.g. to H.264 in .mp4")
        frames, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    return Video(
        path,
        (frame_HW3.shape[0], frame_HW3.shape[1]),
        max(0, int(frames)) if np.isfinite(frames) else 0,
        float(rate) if np.isfinite(rate) and 0 < rate <= 1000 else USUAL_RATE,
    )


def video_batches(video: Video, view: View, *, batch_size: int, first_id: int) -> Iterator[PictureBatch]:
    """The video's frames, in order, with the originals; ids from first_id on."""
    canvas_hw = view.canvas([video.size_hw])
    small_hw = view.size(video.size_hw, canvas_hw)
    capture = cv2.VideoCapture(str(video.path))
    try:
        while True:
            frames: list[np.ndarray] = []
            while len(frames) < batch_size:
                readable, frame_HW3 = capture.read()
                if not readable:
                    break
                frames.append(cv2.cvtColor(frame_HW3, cv2.COLOR_BGR2RGB))
            if not frames:
                return
            yield PictureBatch(
                inputs=(image_batch([resize(frame_HW3, *small_hw) for frame_HW3 in frames], canvas_hw),),
                image_ids=tuple(range(first_id, first_id + len(frames))),
                sizes_hw=(video.size_hw,) * len(frames),
                originals=tuple(map(torch.from_numpy, frames)),
            )
            first_id += len(frames)
    finally:
        capture.release()
