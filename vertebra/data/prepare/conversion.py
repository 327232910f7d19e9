"""A detection set written anew in another form: COCO JSON, VOC XML or YOLO text.

    coco   OUT/annotations/instances_SPLIT.json, OUT/SPLIT/<image>                            reads as coco/SPLIT
    voc    OUT/{Annotations,JPEGImages}, OUT/ImageSets/Main/SPLIT.txt, OUT/classes.txt        reads as vocxml:OUT/SPLIT
    yolo   OUT/data.yaml, OUT/images/SPLIT/<image>, OUT/labels/SPLIT/<image>.txt              reads as yolo:OUT/SPLIT

Several splits may go into one OUT. What a form cannot carry is counted and reported. What is there
already is left where it is the same, and refused where it differs; the file that lists a split comes last.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vertebra.data.datasets.coco_layout import JSON_PREFIX, JSON_SOURCE
from vertebra.data.datasets.folders import stem_of
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.prepare.conversion_forms import CocoForm, Form, VocForm
from vertebra.data.prepare.conversion_yolo import YoloForm
from vertebra.ground.errors import DataError

FORMS: dict[str, type[Form]] = {"coco": CocoForm, "voc": VocForm, "yolo": YoloForm}
_STRUCTURE = re.compile(r"^(?:.*/)?(?:JPEGImages|[Ii]mages|imgs|Data/DET)/")

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Conversion:
    """source, data: the copy, and the directory that it is opened from. sentences: on what is lost or was changed."""

    source: str
    data: Path
    sentences: tuple[str, ...]


def convert(
    dataset: DetectionDataset,
    form: str,
    output: Path,
    split: str,
    *,
    images: str = "link",
    polygons: bool = False,
    crowd: str = "keep",
    progress: Progress = iter,
) -> Conversion:
    """Write `dataset`, opened with its extras, into `output` as coco, voc or yolo.

    images: "link" (hard links), "copy", or "none": they stay where they are. polygons: YOLO's lines are outlines
    instead of boxes. crowd: "keep", or "drop" leaves crowd regions out. Raises DataError.
    """
    if not dataset.labelled:
        raise DataError(dataset.source, "its annotations are not here", "there is nothing to convert")
    if not re.fullmatch(r"[\w.-]+", split):
        raise DataError(f"--split {split!r}", "is not a plain name", "write one such as train")
    writer = FORMS[form](output, split, polygons=polygons)
    if crowd == "drop":
        writer.lost["crowd region", "(left out, as --crowd drop says)"] = int(dataset.crowd_K.sum())
        dataset = dataset.with_objects(~dataset.crowd_K)
    names = list(dataset.file_names) if form == "coco" and images == "none" else image_names(dataset, split)
    if form != "coco" or images != "none":
        _refuse_clashes(dataset, names, writer)
    try:
        writer.begin(dataset, names)
        for index in progress(range(len(dataset))):
            writer.add(dataset, index, names[index])
            if images != "none":
                place(dataset.path(index), writer.image_path(names[index]), images)
        writer.finish(dataset, names)
    except OSError as error:
        where = error.filename or output
        raise DataError(
            where, f"cannot be written ({error.strerror})", "make room, or give another --output"
        ) from error
    sentences = writer.sentences()
    if images == "none" and form != "coco":
        sentences += (f"The images are to be put into {writer.image_path('')}, under the same names.",)
    if images == "none" and form == "coco":
        return Conversion(f"{JSON_PREFIX}{writer.list_path}", dataset.root, sentences)
    return Conversion(writer.source, output, sentences)


def image_names(dataset: DetectionDataset, split: str) -> list[str]:
    """Each image's name in its new folder: of a JSON as it stands, of others without the folders of their form."""
    names = list(dataset.file_names)
    if all(part.startswith(JSON_PREFIX) or JSON_SOURCE.fullmatch(part) for part in dataset.source.split("+")):
        return names
    if all(map(_STRUCTURE.match, names)):
        inner = [_STRUCTURE.sub("", name) for name in names]
    else:
        common = os.path.commonpath([os.path.dirname(name) for name in names])
        inner = [os.path.relpath(name, common) if common else name for name in names]
    tops = {PurePosixPath(name).parts[0] for name in inner}
    if len(tops) == 1 and all("/" in name for name in inner):  # images/train/..., Data/DET/val/...
        inner = [name.partition("/")[2] for name in inner]
    return inner if len(set(map(stem_of, inner))) == len(inner) else names


def _refuse_clashes(dataset: DetectionDataset, names: list[str], writer: Form) -> None:
    """Raise DataError where two images would have one annotation file, or one would lie outside of the folder."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.name:
            raise DataError(dataset.source, f"the image {name!r} would lie outside of {writer.output}", "rename it")
    if writer.by_stem:
        stem, count = Counter(map(stem_of, names)).most_common(1)[0]
        if count > 1:
            twice = " and ".join([name for name in names if stem_of(name) == stem][:2])
            raise DataError(dataset.source, f"{twice} would have one annotation file", "rename one of them")


def place(image: Path, there: Path, how: str) -> None:
    """Make the picture a hard link ("link") or a copy. Raises DataError, as where another picture is there."""
    if not image.is_file():
        raise DataError(image, "no such image", "restore it, or convert the annotations alone with --images none")
    if there.exists():
        if there.samefile(image) or there.read_bytes() == image.read_bytes():
            return
        raise DataError(there, "is there already and is another image", "give another --output")
    there.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        shutil.copyfile(image, there)
        return
    try:
        os.link(image.resolve(), there)
    except OSError as error:
        raise DataError(there, f"cannot be a hard link ({error.strerror})", "use --images copy") from error
