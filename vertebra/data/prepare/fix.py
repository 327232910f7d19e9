"""A checked set written anew without what is wrong: in its own form, elsewhere, with a list of what was left out.

    coco/SPLIT, sample/SPLIT, json:FILE       OUT/annotations/instances_SPLIT.json, OUT/SPLIT/<image>
    voc2007/SPLIT, vocxml:DIR, imagenet_det   OUT/{Annotations,JPEGImages,ImageSets/Main/SPLIT.txt,classes.txt}
    yolo:...                                  OUT/data.yaml, OUT/{images,labels}/SPLIT
    train, val, test; loc/train               OUT/SPLIT/<class>/<image>, and an XML beside it

Pictures are hard links where the file system has them, else copies.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from vertebra.data.datasets.catalog import parse_detection
from vertebra.data.datasets.faults import are_empty
from vertebra.data.datasets.localisation import LocalisationDataset
from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset
from vertebra.data.datasets.xml_objects import Written, xml_text
from vertebra.data.prepare.check import LOCALISATION, Checked, is_detection
from vertebra.data.prepare.conversion import Conversion, Progress, convert, place
from vertebra.data.prepare.conversion_forms import write_new
from vertebra.data.prepare.shard_files import write_shards
from vertebra.ground.errors import DataError


def write_fixed(
    checked: Checked, root: Path, output: Path, split: str, *, progress: Progress = iter
) -> Conversion | None:
    """Write what can be used of a source into `output`; None: nothing can. split: its name there. Raises DataError."""
    if checked.pictures is None or checked.looks is None or not checked.looks.fine_I.any():
        return None
    fine_I = np.flatnonzero(checked.looks.fine_I)
    changes = [f"left out: {fault}" for fault in checked.looks.faults]
    if is_detection(checked.source):
        return _objects(checked.source, fine_I, changes, root, output, split, progress)
    if isinstance(checked.dataset, LocalisationDataset):
        located = checked.dataset.subset(fine_I)
        _place_all(located.images, output, progress)
        _write_boxes(located, output)
        return Conversion(f"{LOCALISATION}{split}", output, tuple(changes))
    assert isinstance(checked.dataset, ClassificationDataset)
    images = checked.dataset.subset(fine_I)
    if images.shards is not None or images.pixels_IHW3 is not None:
        write_shards(images, output, split, progress=progress)
    else:
        _place_all(images, output, progress)
    return Conversion(split, output, tuple(changes))


def _objects(
    source: str, fine_I: np.ndarray, changes: list[str], root: Path, output: Path, split: str, progress: Progress
) -> Conversion:
    parsed = parse_detection(root, source, extras=True)
    assert parsed.dataset is not None, "it was checked"
    dataset = _with_own_ids(parsed.dataset.subset(fine_I), changes)
    if (empty_K := are_empty(dataset.bbox_xywh_K4)).any():  # nothing is learnt from them
        changes.append(f"left out: boxes of zero size ({empty_K.sum()})")
        dataset = dataset.with_objects(~empty_K)
    dataset = _clipped(dataset, changes)
    changes += [f"{'left out' if fault.fatal else 'changed'}: {fault}" for fault in parsed.faults]
    form = "yolo" if source.startswith("yolo:") else "coco" if source.startswith(("coco", "json:", "sample")) else "voc"
    polygons = form == "yolo" and dataset.segmentations is not None
    how = _how(dataset.path(0), output)
    done = convert(dataset, form, output, split, images=how, polygons=polygons, progress=progress)
    return replace(done, sentences=(*changes, *done.sentences))


def _with_own_ids(dataset: DetectionDataset, changes: list[str]) -> DetectionDataset:
    """Without images that share an id: nobody knows whose the objects are."""
    _, inverse_I, counts = np.unique(dataset.image_ids_I, return_inverse=True, return_counts=True)
    own_I = counts[inverse_I] == 1
    changes += [f"left out: {dataset.path(i)}: another image has its id" for i in np.flatnonzero(~own_I).tolist()]
    return dataset.subset(np.flatnonzero(own_I))


def _clipped(dataset: DetectionDataset, changes: list[str]) -> DetectionDataset:
    """With boxes cut to their images; areas that were their box's remain so."""
    whole_K2 = dataset.sizes_hw_I2[dataset.owners_K, ::-1].astype(np.float64)
    xywh_K4 = dataset.bbox_xywh_K4
    start_K2, end_K2 = xywh_K4[:, :2], xywh_K4[:, :2] + xywh_K4[:, 2:]
    low_K2, high_K2 = start_K2.clip(0), np.minimum(end_K2, whole_K2)
    beyond_K = (low_K2 != start_K2).any(axis=1) | (high_K2 != end_K2).any(axis=1)
    if not beyond_K.any():
        return dataset
    changes.append(f"changed: boxes clipped to their images ({beyond_K.sum()})")
    clipped_K4 = np.where(beyond_K[:, None], np.concatenate([low_K2, high_K2 - low_K2], axis=1), xywh_K4)
    of_box_K = np.isclose(dataset.areas_K, xywh_K4[:, 2:].prod(axis=1)) & beyond_K
    areas_K = np.where(of_box_K, clipped_K4[:, 2:].prod(axis=1), dataset.areas_K)
    return replace(dataset, bbox_xywh_K4=clipped_K4, areas_K=areas_K)


def _place_all(images: ClassificationDataset, output: Path, progress: Progress) -> None:
    """Each picture in its class's folder, under its own name."""
    how = _how(images.path(0), output)
    for index in progress(range(len(images))):
        place(images.path(index), output / _placed(images, index), how)
    for name in images.class_names:  # labels are folders' places in the alphabet
        (output / images.split / name).mkdir(exist_ok=True)


def _placed(images: ClassificationDataset, index: int) -> str:
    name = PurePosixPath(images.file_names[index]).name
    return f"{images.split}/{images.class_names[images.labels_I[index]]}/{name}"


def _write_boxes(located: LocalisationDataset, output: Path) -> None:
    """An XML beside each picture, with the boxes of its class."""
    objects = located.objects
    for index in range(len(located)):
        these = range(int(objects.starts[index]), int(objects.starts[index + 1]))
        name = located.class_names[located.images.labels_I[index]]
        height, width = objects.sizes_hw_I2[index].tolist()
        written: list[Written] = [(name, objects.bbox_xywh_K4[k].tolist(), False, {}) for k in these]
        picture = output / _placed(located.images, index)
        write_new(picture.with_suffix(".xml"), xml_text(picture.name, (height, width), written, {}))


def _how(picture: Path, output: Path) -> str:
    """What `place` is to do with pictures: "link" where that can be done, else "copy"."""
    output.mkdir(parents=True, exist_ok=True)
    trial = output / f".link.{os.getpid()}"
    try:
        os.link(picture.resolve(), trial)
    except OSError:
        return "copy"
    trial.unlink()
    return "link"


def refuse_in_place(output: Path, root: Path) -> None:
    """Raise DataError where `output` has something in it, or is the data set's own directory."""
    if output.resolve() == root.resolve():
        raise DataError(output, "is the data set itself", "give --fix a new directory")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise DataError(output, "is there already", "give --fix a new directory")
