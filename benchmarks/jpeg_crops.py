"""Milliseconds from a JPEG to a random crop at 224 x 224: decoded by OpenCV, as the loaders do it, and by others.

pip install 'PyTurboJPEG<2' simplejpeg
python benchmarks/jpeg_crops.py --data VOCdevkit/VOC2012/JPEGImages --turbojpeg libturbojpeg.so.0

--data is a folder of JPEG images, or of folders of them. Each way gives the same part of each image (8 to 100 % of the
area, drawn once), in one process with one thread, of which the CPU's seconds are counted. "lossless crop" is the one
way of these packages to decode less than the image: it cuts the file's blocks and decodes what is left. The last row is
OpenCV's way without the resizing, which a faster decoder cannot save. What is not installed is left out. One is worth a
dependency if it is faster by a quarter.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common import RESULTS, alternate, conclude, parse_timing, timing_parser  # first: it makes the rooms importable

import cv2  # isort: skip
import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from vertebra.data.loading.decode import stored_size
from vertebra.data.transforms.geometry import Box, resize, resized_crop

BLOCK = 16  # pixels that a lossless crop must begin at a multiple of
OPENCV, DECODED = "opencv", "opencv, without resizing"
Decode = Callable[[bytes, Box], np.ndarray]


def opencv(content: bytes, box: Box) -> np.ndarray:
    return box.cut(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB))


def torchvision(content: bytes, box: Box) -> np.ndarray:
    pixels_3HW = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return box.cut(pixels_3HW.permute(1, 2, 0).numpy())


def ways(turbojpeg_library: Path | None) -> dict[str, Decode]:
    """Those that are installed, by name."""
    found: dict[str, Decode] = {OPENCV: opencv, "torchvision": torchvision}
    if turbojpeg_library is not None:
        turbojpeg = importlib.import_module("turbojpeg")
        turbo, rgb = turbojpeg.TurboJPEG(str(turbojpeg_library)), turbojpeg.TJPF_RGB

        def lossless_crop(content: bytes, box: Box) -> np.ndarray:
            y, x = box.top % BLOCK, box.left % BLOCK
            part = turbo.crop(content, box.left - x, box.top - y, box.width + x, box.height + y)
            return turbo.decode(part, pixel_format=rgb)[y:, x:]

        found["turbojpeg"] = lambda content, box: box.cut(turbo.decode(content, pixel_format=rgb))
        found["turbojpeg, lossless crop"] = lossless_crop
    if importlib.util.find_spec("simplejpeg"):
        simplejpeg = importlib.import_module("simplejpeg")
        found["simplejpeg"] = lambda content, box: box.cut(simplejpeg.decode_jpeg(content))
    return found


def read_crops(data: Path, images: int) -> list[tuple[bytes, Box]]:
    """Evenly spaced files of the folder, without grey ones, and a crop of each."""
    files = sorted(path for path in [*data.glob("*"), *data.glob("*/*")] if path.suffix.lower() in (".jpg", ".jpeg"))
    rng, crops = np.random.default_rng(0), []
    for file in files[:: max(1, len(files) // images)][:images]:
        content = file.read_bytes()
        size_hw = stored_size(content)
        if size_hw and cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED).ndim == 3:
            crops.append((content, resized_crop(*size_hw, 0.08, rng)))
    return crops


def main() -> None:
    parser = timing_parser(__doc__, rounds=7, timed="passes")
    parser.add_argument("--data", type=Path, required=True, help="folder of JPEG images, or of folders of them")
    parser.add_argument("--images", type=int, default=96, help="of the folder, evenly spaced (default 96)")
    parser.add_argument("--turbojpeg", type=Path, help="the library of PyTurboJPEG (default: without)")
    parser.add_argument("--name", help="of the data in the result's file name (default: of the folder)")
    args: argparse.Namespace = parse_timing(parser)
    crops = read_crops(args.data, args.images)
    if not crops:
        parser.error(f"--data {args.data}: no JPEG images in colour")
    cv2.setNumThreads(0)

    def each(decode: Decode, resizes: bool = True) -> Callable[[], None]:
        def call() -> None:
            for content, box in crops:
                crop_HW3 = decode(content, box)
                if resizes:
                    resize(crop_HW3, 224, 224)

        return call

    calls = {name: each(decode) for name, decode in ways(args.turbojpeg).items()}
    calls[DECODED] = each(opencv, resizes=False)
    seconds = alternate(calls, rounds=args.rounds, clock=time.process_time)
    for name, values in seconds.items():
        print(f"{name:26s} {1000 * sorted(values)[len(values) // 2] / len(crops):.2f} ms an image")
    name = args.name or args.data.resolve().name
    setting = {"data": name, "images": len(crops), "rounds": args.rounds, "threads": 1, "clock": "CPU seconds"}
    for package in ("PyTurboJPEG", "simplejpeg"):
        with suppress(PackageNotFoundError):
            setting[package] = version(package)
    conclude(
        args.output or RESULTS / f"jpeg_crops_{name}.json",
        setting,
        seconds,
        [(0, other) for other in range(1, len(seconds))],
    )


if __name__ == "__main__":
    main()
