"""Prepare a data set, or check one.

sample draws the embedded sample set (seconds, no download): python tools/prepare_data.py sample --data DIR

sample-loc draws images with boxes for train_loc.py: python tools/prepare_data.py sample-loc --data DIR

voc07, voc12, coco, coco2014, cifar10, imagenet_det unpack the owner's archives found in DIR, and check them:
python tools/prepare_data.py voc07 --data DIR --download

convert turns COCO JSON, VOC XML and YOLO text into each other:
python tools/prepare_data.py convert --data DIR --source coco/val2017 --to yolo --output OUT

shard writes a set of classes as tar shards: python tools/prepare_data.py shard --data DIR --output SHARDS

check lists all faults of any data set in one pass, and what else is worth knowing before a training; --fix writes it
anew without them: python tools/prepare_data.py check --data DIR --fix CLEAN
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from vertebra.cli.check_data import check, check_one, split_name
from vertebra.cli.common import bar, counting
from vertebra.ground.errors import RecipeError
from vertebra.ground.formats import counted, did_you_mean
from vertebra.recipes.command_line import program

Data = Annotated[Path, tyro.conf.arg(help="Directory of the data set.")]
Download = Annotated[
    bool, tyro.conf.arg(help="Fetch the archives that are not there, resuming those that broke off, and check them.")
]
Mirror = Annotated[str, tyro.conf.arg(help="Base URL to download from in the place of the owner's: URL/ARCHIVE.")]


def sample(
    data: Data,
    seed: Annotated[int, tyro.conf.arg(help="Seed of everything that is drawn.")] = 0,
    scenes: Annotated[tuple[int, int], tyro.conf.arg(help="Scenes for training, for test.")] = (0, 0),
    objects: Annotated[tuple[int, int], tyro.conf.arg(help="Single objects for training, for test.")] = (0, 0),
) -> int:
    """Draw the embedded sample set: scenes with boxes and masks, single objects for pre-training."""
    from dataclasses import replace

    from vertebra.data.sample import SampleSpec, write_sample_set

    spec = SampleSpec(seed=seed)
    if any(scenes):
        spec = replace(spec, train_scenes=scenes[0], val_scenes=scenes[1])
    if any(objects):
        spec = replace(spec, train_objects=objects[0], val_objects=objects[1])
    with counting("drawing") as show:
        summary = write_sample_set(data, spec, progress=show)
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
    from vertebra.data.sample.locations import write_locations

    with counting("drawing") as show:
        write_locations(data, seed=seed, counts=images, layout=layout, progress=show)
    print(f"{images[0]} + {images[1]} images with boxes are in {data}")
    return 0


OFFICIAL = {
    "voc07": "PASCAL VOC 2007: trainval and test.",
    "voc12": "PASCAL VOC 2012: trainval; test images too where VOC2012test.tar of its server lies in DIR.",
    "coco": "COCO 2017: train and val.",
    "coco2014": "COCO 2014: train and val, the 2015 papers'.",
    "imagenet_det": "ImageNet DET, 200 classes: train and val; its owner asks for an account.",
    "cifar10": "CIFAR-10: the python batches, or a copy as image folders.",
}


def _official(name: str) -> Callable[..., int]:
    """Return the command that fetches, unpacks and checks a set of its owner's archives."""

    def prepare(data: Data, download: Download = False, mirror: Mirror = "") -> int:
        from vertebra.data.prepare.archives import ARCHIVES, fetch, unpack_all

        if mirror and not download:
            raise RecipeError("--mirror is where to download from: add --download, or leave --mirror out")
        if download:
            for sentence in fetch(name, data, mirror=mirror, progress=_byte_bar):
                print(sentence)
        sources = unpack_all(name, data, progress=lambda files: bar("unpacking", "archive")(files) if files else files)
        faults = sum(check_one(data, source)[0].fatal for source in sources)
        archives = ARCHIVES[name]
        if faults and not any((data / file).is_file() for file in archives.names):
            how = "" if archives.account else ", or add --download"
            print(f"Get {' and '.join(archives.names)} from {archives.home} and put them into {data}{how}.")
        return 1 if faults else 0

    prepare.__name__, prepare.__doc__ = name, OFFICIAL[name]
    return prepare


def _byte_bar(name: str) -> Any:
    """Return the progress bar of one file's bytes."""
    shown: Any = None

    def show(done: int, total: int | None) -> None:
        nonlocal shown
        if shown is None or done < shown.n:  # what was there at the start, or at a start anew, was not fetched now
            shown = bar(name, "B")(initial=done, total=total, unit_scale=True)
        shown.update(done - shown.n)
        if done == total:
            shown.close()

    return show


def convert(
    data: Data,
    source: Annotated[
        str,
        tyro.conf.arg(help="What to convert: coco/val2017, voc2007/test, json:FILE, yolo:data.yaml/val, vocxml:DIR."),
    ],
    to: Annotated[Literal["coco", "voc", "yolo"], tyro.conf.arg(help="The form to write: JSON, XML or text.")],
    output: Annotated[Path, tyro.conf.arg(help="Directory to write into; several splits may share it.")],
    split: Annotated[str | None, tyro.conf.arg(help="Name of the split there [the source's own].")] = None,
    images: Annotated[
        Literal["link", "copy", "none"], tyro.conf.arg(help="Images: hard links, copies, or left where they are.")
    ] = "link",
    polygons: Annotated[bool, tyro.conf.arg(help="YOLO: outlines instead of boxes, for segmentation.")] = False,
    crowd: Annotated[Literal["keep", "drop"], tyro.conf.arg(help="drop: leave crowd regions out.")] = "keep",
) -> int:
    """Write a detection set anew as COCO JSON, VOC XML or YOLO text; lists what the new form cannot carry."""
    from vertebra.data.datasets.catalog import open_detection
    from vertebra.data.prepare.conversion import convert as convert_set

    if polygons and to != "yolo":
        raise RecipeError(f"--polygons is for --to yolo; {to} has masks where it can")
    dataset = open_detection(data, source, extras=True)
    for note in dataset.notes:
        print(note)
    options: dict[str, Any] = {"images": images, "polygons": polygons, "crowd": crowd, "progress": bar("converting")}
    done = convert_set(dataset, to, output, split or split_name(source), **options)
    for sentence in done.sentences:
        print(sentence)
    held = f"{counted(len(dataset), 'image')}, {counted(len(dataset.labels_K), 'object')}"
    print(f"{held}: open it as {done.source} with --data {done.data}")
    return 0


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
    from vertebra.data.datasets.catalog import find_sources, open_classification
    from vertebra.data.datasets.shards import as_url, is_url
    from vertebra.data.prepare.shard_files import index_shards, write_shards

    output = output or (data if index_only and not is_url(data) else None)
    if output is None or (index_only and split is None):
        missing = "--output is missing" if output is None else "--index-only needs --split: train, val or test"
        raise RecipeError(missing)
    if shards and not index_only:
        raise RecipeError("--shards are the tar files that --index-only takes: add it, or leave --shards out")
    splits = (split,) if split else tuple(name for name in find_sources(data) if name in ("train", "val", "test"))
    if not splits:
        raise RecipeError(f"{data}: no train, val or test in it; shards are made of images with one class each")
    for one in splits:
        if index_only:
            index = index_shards(as_url(data), output, one, shards=shards, progress=bar(one, "shard"))
        else:
            index = write_shards(open_classification(data, one), output, one, size_mb=size_mb, progress=bar(one))
        dataset = open_classification(output, one)
        print(f"{index}: {counted(len(dataset), 'image')} of {counted(len(dataset.class_names), 'class')}")
    return 0


COMMANDS = {"sample": sample, "sample-loc": sample_loc, **{name: _official(name) for name in OFFICIAL}}
COMMANDS |= {"convert": convert, "shard": shard, "check": check}
_Command: Any = Union[tuple(Annotated[f, tyro.conf.subcommand(name)] for name, f in COMMANDS.items())]  # noqa: UP007


def Settings(command: Annotated[_Command, tyro.conf.arg(name="")]) -> int:
    """Run one of the commands above: `tyro` calls it as it reads its flags."""
    return int(command)


def main(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        hint = did_you_mean(arguments[0].replace("_", "-"), COMMANDS, "the commands are")
        raise RecipeError(f"there is no prepare-data {arguments[0]}", hint=hint)
    return tyro.cli(
        Settings, prog=program(), description=__doc__, args=arguments, config=(tyro.conf.OmitSubcommandPrefixes,)
    )
