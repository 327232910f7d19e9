"""Writers of small data sets for the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset


@dataclass(frozen=True)
class Record:
    """One image of a detection set and its objects, in pixels: boxes_G4 x0 y0 x1 y1, clipped to the image."""

    image_id: int
    path: Path
    width: int
    height: int
    boxes_G4: np.ndarray
    labels_G: np.ndarray
    crowd_G: np.ndarray
    difficult_G: np.ndarray
    areas_G: np.ndarray
    segmentations: tuple[Any, ...] | None


def records(dataset: DetectionDataset) -> list[Record]:
    """The images, in the order of the file."""
    found = []
    for index, (start, stop) in enumerate(zip(dataset.starts[:-1].tolist(), dataset.starts[1:].tolist())):
        these = slice(start, stop)
        segmentations = None
        if dataset.segmentations is not None:
            segmentations = tuple(json.loads(text) if text else None for text in dataset.segmentations[these])
        height, width = dataset.sizes_hw_I2[index].tolist()
        found.append(
            Record(
                image_id=int(dataset.image_ids_I[index]),
                path=dataset.path(index),
                width=width,
                height=height,
                boxes_G4=dataset.boxes_G4(index),
                labels_G=dataset.labels_K[these],
                crowd_G=dataset.crowd_K[these],
                difficult_G=dataset.difficult_K[these],
                areas_G=dataset.areas_K[these],
                segmentations=segmentations,
            )
        )
    return found


def paths(dataset: ClassificationDataset | DetectionDataset) -> list[Path]:
    """The images' files, in order."""
    return [dataset.path(index) for index in range(len(dataset))]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colourful RGB image, which JPEG hardly changes."""
    small = np.random.default_rng(seed).integers(30, 226, (4, 4, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write_picture(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels_HW3 = picture(height, width, seed)
    cv2.imwrite(str(path), cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2BGR))
    return pixels_HW3


def write_text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def write_turned(path: Path, pixels_HW3: np.ndarray, orientation: int) -> None:
    """A JPEG with these pixels as stored and an EXIF orientation that says how they are shown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels_HW3)).save(path, quality=95, exif=exif)


def write_coco(
    folder: Path,
    sizes_hw: dict[str, tuple[int, int]],
    annotations: list[dict[str, Any]],
    *,
    classes: int = 1,
    first_id: int = 1,
) -> Path:
    """ann.json for images of these sizes, numbered from first_id. Annotations are numbered, and of the first image and
    of class 1 unless they say otherwise. Returns the file's path."""
    images = [
        {"id": image_id, "file_name": name, "width": width, "height": height}
        for image_id, (name, (height, width)) in enumerate(sizes_hw.items(), first_id)
    ]
    value = {
        "images": images,
        "categories": [{"id": label, "name": f"kind {label}"} for label in range(1, classes + 1)],
        "annotations": [
            {"id": number, "image_id": first_id, "category_id": 1, "area": 1.0, "iscrowd": 0, **one}
            for number, one in enumerate(annotations, 1)
        ],
    }
    path = folder / "ann.json"
    path.write_text(json.dumps(value))
    return path


_OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin>
<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>{parts}</object>"""
_PART = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"


def write_xml(path: Path, objects: list[Any], size_hw: tuple[int, int] = (60, 80), *, parts: str = "") -> None:
    """VOC's XML. objects: (name, xmin, ymin, xmax, ymax), and difficult where it is not 0."""
    texts = [
        _OBJECT.format(name=n, xmin=x0, ymin=y0, xmax=x1, ymax=y1, difficult=d[0] if d else 0, parts=parts)
        for n, x0, y0, x1, y1, *d in objects
    ]
    size = f"<size><width>{size_hw[1]}</width><height>{size_hw[0]}</height></size>"
    write_text(path, f"<annotation>{size}{''.join(texts)}</annotation>")


def write_voc(
    devkit: Path,
    images: dict[str, list[tuple[str, int, int, int, int, int]]],
    *,
    year: str = "2007",
    split: str = "trainval",
    sizes_hw: Sequence[tuple[int, int]] = ((60, 80),),
) -> Path:
    """images: objects (name, xmin, ymin, xmax, ymax, difficult) by image. The sizes are used in turn.

    Returns the year's folder."""
    folder = devkit / f"VOC{year}"
    for place in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for seed, (stem, objects) in enumerate(images.items()):
        height, width = sizes_hw[seed % len(sizes_hw)]
        write_picture(folder / "JPEGImages" / f"{stem}.jpg", height, width, seed)
        write_xml(folder / "Annotations" / f"{stem}.xml", objects, (height, width), parts=_PART)
    write_text(folder / "ImageSets" / "Main" / f"{split}.txt", "\n".join(images) + "\n")
    return folder


def write_folders(
    root: Path, counts: dict[str, int], split: str = "train", size_hw: tuple[int, int] = (48, 64)
) -> Path:
    """ImageNet-style folders with `counts` images a class."""
    for place, (name, count) in enumerate(counts.items()):
        (root / split / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_picture(root / split / name / f"{number:03}.jpg", *size_hw, seed=100 * place + number)
    return root
