"""The sample set on disk, in the forms that the real data sets have:

    DIR/objects/{train,val}/<class>/NNNN.jpg                               ImageNet's folders
    DIR/scenes/images/{train,val}/NNNNNN.jpg
    DIR/scenes/annotations/instances_{train,val}.json                      COCO
    DIR/VOCdevkit/VOC2007/{Annotations,ImageSets/Main,JPEGImages}          VOC: the same scenes, trainval and test
    DIR/sample.json                                                        the generator's hash, seed and counts

All is drawn beside DIR and put in its place when it is whole. Every picture has a random generator keyed by
(seed, stream, index), so the number of processes changes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.loading.workers import in_processes
from vertebra.ground.errors import DataError

from .formats import Record, coco_document, encode_jpeg, scene_record, voc_xml
from .scenes import draw_scene, draw_single
from .shapes import CLASS_NAMES
from .spec import LAYOUT_VERSION, SampleSpec, generator_hash
from .statistics import scene_statistics

Progress = Callable[[int, int], None]  # pictures done, pictures in all
VOC_SPLITS = {"train": "trainval", "val": "test"}
FIRST_ID = {"train": 1, "val": 500_001}  # image ids, apart so that both splits share VOC's one folder
CHUNK = 16  # pictures a task
_STREAMS = {("scenes", "train"): 0, ("scenes", "val"): 1, ("objects", "train"): 2, ("objects", "val"): 3}


@dataclass(frozen=True)
class SampleSummary:
    """A drawn sample set. `statistics` are the training scenes' (see `scene_statistics`)."""

    root: Path
    hash: str
    spec: SampleSpec
    statistics: dict[str, float]
    reused: bool
    elapsed_s: float

    def __str__(self) -> str:
        spec = self.spec
        return (
            f"{spec.train_scenes} + {spec.val_scenes} scenes, "
            f"{spec.train_objects} + {spec.val_objects} single objects, seed {spec.seed}, generator {self.hash[:12]}, "
            + ("already there" if self.reused else f"drawn in {self.elapsed_s:.0f} s")
        )


def write_sample_set(
    root: Path | str, spec: SampleSpec | None = None, *, processes: int = 0, progress: Progress | None = None
) -> SampleSummary:
    """Draw the sample set into the directory `root`, or find it there already.

    processes: 0: as many as cores. Raises DataError where `root` holds something else, or cannot be written to.
    """
    root, spec, start = Path(root).absolute(), spec or SampleSpec(), time.monotonic()
    generator = generator_hash(spec)
    found = _find(root, generator)
    if found is not None:
        return SampleSummary(root, generator, spec, found["statistics"], True, time.monotonic() - start)
    try:
        with new_directory(root, "the sample set") as partial:
            _make_folders(partial)
            records = _draw_all(partial, spec, processes, progress)
            description = _write_texts(partial, spec, generator, records)
    except DataError:
        if (by_another := _find(root, generator)) is None:  # no other process was first
            raise
        description = by_another
    return SampleSummary(root, generator, spec, description["statistics"], False, time.monotonic() - start)


def _find(root: Path, generator: str) -> dict[str, Any] | None:
    """The description of the set in `root` if it is the wanted one, None if there is nothing. Raises DataError."""
    if not root.exists():
        return None
    if not root.is_dir():
        raise DataError(root, "is a file", "name a directory for the sample set")
    hint = "remove it, or name another directory"
    try:
        description = json.loads((root / "sample.json").read_text())
        found = description["hash"]
    except FileNotFoundError:
        if any(root.iterdir()):
            raise DataError(root, "holds something else than a sample set", hint) from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(root / "sample.json", "is not a sample set's description", hint) from error
    if found != generator:
        raise DataError(
            root,
            "holds the sample set of another generator, seed or number of pictures "
            f"(hash {str(found)[:12]}, wanted {generator[:12]})",
            hint,
        )
    return description


@contextmanager
def new_directory(root: Path, what: str) -> Iterator[Path]:
    """A directory to fill beside `root`, put in its place when it is whole; an empty directory there gives way.

    Raises DataError where it cannot be written.
    """
    partial = root.with_name(f".{root.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        yield partial
        with suppress(FileNotFoundError):
            root.rmdir()
        partial.rename(root)
    except OSError as error:
        hint = "free space there, or name another directory"
        raise DataError(root, f"{what} cannot be written ({error.strerror})", hint) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_folders(root: Path) -> None:
    devkit = root / "VOCdevkit" / "VOC2007"
    folders = [devkit / "Annotations", devkit / "ImageSets" / "Main", devkit / "JPEGImages"]
    folders += [root / "scenes" / "annotations", *(root / "scenes" / "images" / split for split in VOC_SPLITS)]
    folders += [root / "objects" / split / name for split in VOC_SPLITS for name in CLASS_NAMES]
    for folder in folders:
        folder.mkdir(parents=True)


@dataclass(frozen=True)
class _Task:
    """A run of pictures of one kind and split, drawn by one process."""

    root: Path
    seed: int
    kind: str
    split: str
    start: int
    stop: int

    def __call__(self) -> list[Record]:
        draw = _write_scene if self.kind == "scenes" else _write_single
        stream = _STREAMS[self.kind, self.split]
        generators = ((i, np.random.default_rng([self.seed, stream, i])) for i in range(self.start, self.stop))
        return [draw(self.root, self.split, i, rng) for i, rng in generators]


def _write_scene(root: Path, split: str, index: int, rng: np.random.Generator) -> Record:
    scene = draw_scene(rng)
    record = scene_record(scene, FIRST_ID[split] + index)
    name, devkit = record["image"]["file_name"], root / "VOCdevkit" / "VOC2007"
    path = root / "scenes" / "images" / split / name
    path.write_bytes(encode_jpeg(scene.pixels))
    try:
        os.link(path, devkit / "JPEGImages" / name)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, devkit / "JPEGImages" / name)
    (devkit / "Annotations" / name).with_suffix(".xml").write_text(voc_xml(record))
    return record


def _write_single(root: Path, split: str, index: int, rng: np.random.Generator) -> Record:
    number, label = divmod(index, len(CLASS_NAMES))
    path = root / "objects" / split / CLASS_NAMES[label] / f"{number:04d}.jpg"
    path.write_bytes(encode_jpeg(draw_single(rng, label)))
    return {}


def _draw_all(root: Path, spec: SampleSpec, processes: int, progress: Progress | None) -> dict[str, list[Record]]:
    """Draw and write all pictures; return the scenes' records by split, in order."""
    tasks: list[_Task] = []
    for kind, split in _STREAMS:
        count = getattr(spec, f"{split}_{kind}")
        for first in range(0, count, CHUNK):
            tasks.append(_Task(root, spec.seed, kind, split, first, min(first + CHUNK, count)))
    records: dict[str, list[Record]] = {split: [] for split in VOC_SPLITS}
    done, total = 0, sum(task.stop - task.start for task in tasks)
    for task, found in zip(tasks, in_processes(_Task.__call__, tasks, processes)):
        if task.kind == "scenes":
            records[task.split] += found
        done += task.stop - task.start
        if progress is not None:
            progress(done, total)
    return records


def _write_texts(root: Path, spec: SampleSpec, generator: str, records: dict[str, list[Record]]) -> dict[str, Any]:
    """Annotation files, image sets and, last, sample.json, whose content is returned."""
    statistics = {}
    for split, of_split in records.items():
        document = coco_document(of_split)
        (root / "scenes" / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
        stems = [f"{record['image']['id']:06d}\n" for record in of_split]
        image_set = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / f"{VOC_SPLITS[split]}.txt"
        image_set.write_text("".join(stems))
        statistics[split] = scene_statistics(document)
    counts = {name: count for name, count in asdict(spec).items() if name != "seed"}
    description = {
        "version": LAYOUT_VERSION,
        "hash": generator,
        "seed": spec.seed,
        "counts": counts,
        "class_names": CLASS_NAMES,
        "statistics": statistics["train"],
    }
    (root / "sample.json").write_text(json.dumps(description, indent=1) + "\n")
    return description
