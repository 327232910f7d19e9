"""The sample set's images for localisation: one class an image, its objects in boxes, others in the way.

    DIR/{train,val}/<class>/{NNNN.jpg,NNNN.xml}             folders of classes, each XML beside its image
or
    DIR/ILSVRC/Data/CLS-LOC/{train/<class>/<class>_NNNN,val/ILSVRC2012_val_NNNNNNNN}.JPEG
    DIR/ILSVRC/Annotations/CLS-LOC/... .xml                 the challenge's layout: val lies in no class's folder
    DIR/ILSVRC/ImageSets/CLS-LOC/{train_loc,val}.txt

An image's class is that of its largest object; the rest of that class are smaller, and up to two objects of other
classes, smaller still, bear no box. Every picture has a random generator keyed by (seed, stream, index).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vertebra.ground.errors import DataError

from .formats import Record, encode_jpeg, scene_record, voc_xml
from .paint import develop, paint_background
from .scenes import SCENE_SIZES_HW, Scene, _annotate, _Canvas, _light, _place
from .shapes import CLASS_NAMES, draw_stamp
from .write import new_directory

LAYOUTS = ("folders", "ilsvrc")
_STREAMS = {"train": 4, "val": 5}  # beside those of the scenes and single objects
LOCATED_PX = (36.0, 118.0)  # square root of the main object's area
MORE_CHANCES = (0.75, 0.18, 0.07)  # chances of none, one and two more of the class
OTHERS_CHANCES = (0.4, 0.35, 0.25)  # chances of none, one and two of other classes


def draw_located(rng: np.random.Generator, label: int) -> Scene:
    """One picture for localisation: its class is that of its largest object; `objects` are those of the class alone."""
    while True:
        scene = _try_located(rng, label)
        if scene is not None:
            return scene


def _try_located(rng: np.random.Generator, label: int) -> Scene | None:
    """None where the class's own object found no place, or lies under others for the greater part."""
    height, width = SCENE_SIZES_HW[rng.integers(len(SCENE_SIZES_HW))]
    canvas = _Canvas(paint_background(rng, height, width), _light(rng))
    main_px = float(rng.uniform(*LOCATED_PX))
    more, others = int(rng.choice(3, p=MORE_CHANCES)), int(rng.choice(3, p=OTHERS_CHANCES))
    labels = [other for other in range(len(CLASS_NAMES)) if other != label]
    other_labels = rng.choice(labels, others, replace=False).tolist()
    wanted = [(label, main_px), *((label, main_px * rng.uniform(0.6, 0.95)) for _ in range(more))]
    wanted += [(other, max(14.0, main_px * rng.uniform(0.3, 0.6))) for other in other_labels]
    for name, size_px in wanted:
        placed = _place(rng, canvas, draw_stamp(rng, name, size_px), overlap=False, first=0)
        if not placed and not canvas.placed:
            return None
    objects = [_annotate(canvas, number) for number in range(len(canvas.placed))]
    own = tuple(one for one in objects if one.label == label)
    return Scene(develop(rng, canvas.image), own)


def _place_of(root: Path, layout: str, split: str, index: int) -> tuple[Path, Path, str]:
    """Return the paths of one picture and its annotation, and its line in the list of its split."""
    number, label = divmod(index, len(CLASS_NAMES))
    name = CLASS_NAMES[label]
    if layout == "folders":
        picture = root / split / name / f"{number:04d}.jpg"
        return picture, picture.with_suffix(".xml"), ""
    stem = f"{name}/{name}_{number}" if split == "train" else f"ILSVRC2012_val_{index + 1:08d}"
    inside = Path("CLS-LOC") / split
    data, annotations = root / "ILSVRC" / "Data" / inside, root / "ILSVRC" / "Annotations" / inside
    return data / f"{stem}.JPEG", annotations / f"{stem}.xml", f"{stem} {index + 1}\n"


def write_locations(
    root: Path | str,
    *,
    seed: int = 0,
    counts: tuple[int, int] = (2000, 500),
    layout: str = "folders",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw `counts` pictures (train, val) into the new directory `root`, the classes in turn.

    All is drawn beside it and put in its place when it is whole. Raises DataError where `root` holds something, or
    cannot be written to.
    """
    root = Path(root).absolute()
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r}", "is not known", f"choose {' or '.join(LAYOUTS)}")
    if min(counts) < len(CLASS_NAMES):
        raise DataError("--images", f"{min(counts)} are too few", f"give {len(CLASS_NAMES)} at least, one a class")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(root, "is there already", "remove it, or name another directory")
    with new_directory(root, "the set of images with boxes") as partial:
        for split, count in zip(_STREAMS, counts):
            lines = []
            for index in range(count):
                rng = np.random.default_rng([seed, _STREAMS[split], index])
                picture, annotation, line = _place_of(partial, layout, split, index)
                _write(picture, annotation, rng, index)
                lines.append(line)
                if progress is not None:
                    progress(index + 1 + (counts[0] if split == "val" else 0), sum(counts))
            if layout == "ilsvrc":
                lists = partial / "ILSVRC" / "ImageSets" / "CLS-LOC"
                lists.mkdir(parents=True, exist_ok=True)
                (lists / f"{'train_loc' if split == 'train' else split}.txt").write_text("".join(lines))


def _write(picture: Path, annotation: Path, rng: np.random.Generator, index: int) -> None:
    scene = draw_located(rng, index % len(CLASS_NAMES))
    record: Record = scene_record(scene, index + 1)
    record["image"]["file_name"] = picture.name
    for path in (picture, annotation):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(encode_jpeg(scene.pixels))
    annotation.write_text(voc_xml(record))
