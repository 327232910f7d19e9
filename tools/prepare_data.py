"""Prepare a data set, or check one.

sample draws the embedded sample set (seconds, no download): python tools/prepare_data.py sample --data DIR

sample-loc draws images with boxes for train_loc.py: python tools/prepare_data.py sample-loc --data DIR

voc07, voc12, coco, cifar10 unpack the owner's archives found in DIR, and check them.

shard writes a set of classes as tar shards: python tools/prepare_data.py shard --data DIR --output SHARDS

check lists all faults of any data set in one pass: python tools/prepare_data.py check --data DIR
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from common import run_tool


@dataclass(frozen=True)
class Archives:
    """The owner's files of one data set, and the sources that lie in them."""

    home: str
    files: tuple[str, ...]
    sources: tuple[str, ...]
    into: str = "."


ARCHIVES = {
    "voc07": Archives(
        home="the PASCAL VOC 2007 page (host.robots.ox.ac.uk/pascal/VOC/voc2007)",
        files=("VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"),
        sources=("voc2007/trainval", "voc2007/test"),
    ),
    "voc12": Archives(
        home="the PASCAL VOC 2012 page (host.robots.ox.ac.uk/pascal/VOC/voc2012)",
        files=("VOCtrainval_11-May-2012.tar",),
        sources=("voc2012/trainval",),
    ),
    "coco": Archives(
        home="the COCO page (cocodataset.org, Download)",
        files=("train2017.zip", "val2017.zip", "annotations_trainval2017.zip"),
        sources=("coco/train2017", "coco/val2017"),
    ),
    "cifar10": Archives(
        home="the CIFAR page (cs.toronto.edu/~kriz/cifar.html)",
        files=("cifar-10-python.tar.gz", "cifar10_jpg.tar.xz"),
        sources=("train", "test"),
    ),
}

Data = Annotated[Path, tyro.conf.arg(help="Directory of the data set.")]


def sample(
    data: Data,
    seed: Annotated[int, tyro.conf.arg(help="Seed of everything that is drawn.")] = 0,
    scenes: Annotated[tuple[int, int], tyro.conf.arg(help="Scenes for training, for test.")] = (0, 0),
    objects: Annotated[tuple[int, int], tyro.conf.arg(help="Single objects for training, for test.")] = (
        0,
        0,
    ),
) -> int:
    """Draw the embedded sample set: scenes with boxes and masks, single objects for pre-training."""
    from dataclasses import replace

    from tqdm import tqdm

    from data.sample import SampleSpec, write_sample_set

    spec = SampleSpec(seed=seed)
    if any(scenes):
        spec = replace(spec, train_scenes=scenes[0], val_scenes=scenes[1])
    if any(objects):
        spec = replace(spec, train_objects=objects[0], val_objects=objects[1])
    bar = tqdm(desc="drawing", unit="image", dynamic_ncols=True, disable=None)

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    summary = write_sample_set(data, spec, progress=show)
    bar.close()
    print(f"The sample set is in {data}: {summary}")
    return 0


def sample_loc(
    data: Data,
    seed: Annotated[int, tyro.conf.arg(help="Seed of everything that is drawn.")] = 0,
    images: Annotated[tuple[int, int], tyro.conf.arg(help="Images for training, for test.")] = (2000, 500),
    layout: Annotated[
        Literal["folders", "ilsvrc"],
        tyro.conf.arg(help="folders: {train,val}/<class>/ with an XML beside each image; ilsvrc: the challenge's."),
    ] = "folders",
) -> int:
    """Draw the sample set's images for localisation: one class an image, its objects in boxes."""
    from tqdm import tqdm

    from data.sample.locations import write_locations

    with tqdm(desc="drawing", unit="image", total=sum(images), dynamic_ncols=True, disable=None) as bar:
        write_locations(
            data, seed=seed, counts=images, layout=layout, progress=lambda done, _: bar.update(done - bar.n)
        )
    print(f"{images[0]} + {images[1]} images with boxes are in {data}")
    return 0


def _official(name: str, data: Path) -> int:
    archives = ARCHIVES[name]
    from tqdm import tqdm

    found = [data / file for file in archives.files if (data / file).is_file()]
    for file in tqdm(found, desc="unpacking", disable=not found, unit="archive"):
        _unpack(file, data)
    faults = 0
    for source in archives.sources:
        faults += _check(
            data, source, f" Get {' and '.join(archives.files)} from {archives.home}, put them into {data}"
        )
    return 1 if faults else 0


def _unpack(file: Path, into: Path) -> None:
    """Unpack once: a mark beside the archive says that it was done whole."""
    import tarfile
    import zipfile

    done = file.with_name(file.name + ".unpacked")
    if done.exists():
        return
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            archive.extractall(into)
    else:
        # Python's own guard as well, where this release has it.
        guard: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        with tarfile.open(file) as archive:
            for member in archive:
                place = (into / member.name).resolve()
                if not place.is_relative_to(into.resolve()) or not (member.isfile() or member.isdir()):
                    raise ValueError(f"{file} holds {member.name}, which leads out of {into}; fetch the archive again")
                archive.extract(member, into, **guard)
    done.touch()


def voc07(data: Data) -> int:
    """PASCAL VOC 2007: trainval and test."""
    return _official("voc07", data)


def voc12(data: Data) -> int:
    """PASCAL VOC 2012: trainval."""
    return _official("voc12", data)


def coco(data: Data) -> int:
    """COCO 2017: train and val."""
    return _official("coco", data)


def cifar10(data: Data) -> int:
    """CIFAR-10: the python batches, or a copy as image folders."""
    return _official("cifar10", data)


def check(
    data: Data,
    source: Annotated[
        str | None,
        tyro.conf.arg(
            help="voc2007/trainval, coco/val2017, sample/train, json:FILE, train, val, test of class folders, "
            "loc/train and loc/val of images with boxes; default: all that are found, without the latter."
        ),
    ] = None,
) -> int:
    """Read everything once and list all faults: unreadable images, bad boxes, unknown ids, duplicates."""
    from data.catalog import find_sources

    sources = find_sources(data) if source is None else (source,)
    return 1 if sum([_check(data, one) for one in sources]) else 0


def shard(
    data: Data,
    output: Annotated[
        Path | None, tyro.conf.arg(help="Where shards and index go; for --index-only default: DATA.")
    ] = None,
    split: Annotated[str | None, tyro.conf.arg(help="train, val or test; default: all that are found.")] = None,
    size_mb: Annotated[float, tyro.conf.arg(help="Size of a shard, MB.")] = 256,
    index_only: Annotated[
        bool, tyro.conf.arg(help="DATA is a folder or URL of shards by others, which get an index.")
    ] = False,
    shards: Annotated[
        tuple[str, ...], tyro.conf.arg(help="For --index-only, names or patterns; default SPLIT-*.tar and the like.")
    ] = (),
) -> int:
    """Write a set of classes as tar shards (KEY.jpg, KEY.cls) with an index; training takes OUTPUT as --data."""
    from tqdm import tqdm

    from configs.command_line import RecipeError
    from data import open_classification
    from data.catalog import find_sources
    from data.shard_files import index_shards, write_shards
    from data.shards import as_url, is_url

    output = output or (data if index_only and not is_url(data) else None)
    if output is None or (index_only and split is None):
        missing = "--output is missing" if output is None else "--index-only needs --split: train, val or test"
        raise RecipeError(missing)
    if shards and not index_only:
        raise RecipeError("--shards says which tar files --index-only takes: add it, or leave --shards out")
    splits = (split,) if split else tuple(name for name in find_sources(data) if name in ("train", "val", "test"))
    if not splits:
        raise RecipeError(f"{data}: no train, val or test in it; shards are made of images with one class each")
    for one in splits:

        def progress(work: Any, one: str = one) -> Any:
            return tqdm(work, desc=one, unit="shard" if index_only else "image", dynamic_ncols=True, disable=None)

        if index_only:
            index = index_shards(as_url(data), output, one, shards=shards, progress=progress)
        else:
            index = write_shards(open_classification(data, one), output, one, size_mb=size_mb, progress=progress)
        dataset = open_classification(output, one)
        print(f"{index}: {len(dataset)} images of {len(dataset.class_names)} classes")
    return 0


def _check(data: Path, source: str, mend: str = "") -> int:
    from data.check import check_classification, check_detection, check_localisation

    of_boxes = source.startswith("loc/")
    is_detection = ("/" in source or ":" in source) and not of_boxes
    try:
        if of_boxes:
            faults = check_localisation(data, source.removeprefix("loc/"))
        else:
            faults = (check_detection if is_detection else check_classification)(data, source)
    except (ValueError, OSError) as error:
        print(f"{source}: {error}.{mend}" if mend else f"{source}: {error}")
        return 1
    for fault in faults:
        print(f"{source}: {fault}")
    fatal = sum(fault.fatal for fault in faults)
    mended = f", {len(faults) - fatal} more that the reader mends by itself" if len(faults) > fatal else ""
    print(f"{source}: {fatal or 'no'} faults{mended}")
    if is_detection and not fatal:
        print(_contents(data, source))
    return fatal


def _contents(data: Path, source: str) -> str:
    """Images, and objects by class: what a training on it can be expected to learn."""
    import numpy as np

    from data import open_detection

    dataset = open_detection(data, source, segmentations=False)
    counts = np.bincount(dataset.labels_K, minlength=len(dataset.class_names) + 1)[1:]
    by_class = ", ".join(f"{name} {count}" for name, count in zip(dataset.class_names, counts))
    return f"  {len(dataset)} images, {counts.sum()} objects: {by_class}"


def main() -> int:
    functions = (sample, sample_loc, voc07, voc12, coco, cifar10, shard, check)
    commands = {f.__name__.replace("_", "-"): f for f in functions}
    return tyro.extras.subcommand_cli_from_dict(commands, description=__doc__)


if __name__ == "__main__":
    run_tool(main)
