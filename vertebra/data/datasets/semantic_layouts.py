"""Where sets of semantic maps lie, and what the values in their maps mean.

    voc2012/SPLIT           VOC2012/{ImageSets/Segmentation/SPLIT.txt,JPEGImages,SegmentationClass}
    voc2012aug/train        all of SegmentationClassAug (Hariharan et al. 2011) that VOC's val.txt does not list
    ade20k/training         ADEChallengeData2016/{images,annotations}/training, its classes in objectInfo150.txt
    cityscapes/train        {leftImg8bit,gtFine}/train/CITY, of the labelIds the nineteen classes of training
    coco_stuff/train2017    {train2017 or images/train2017,stuffthingmaps/train2017}
    coco_panoptic/train2017 these images, annotations/panoptic_train2017.json and the PNGs of the folder beside it
    maps:DIR/SPLIT          anybody's DIR/{images,masks}/SPLIT or DIR/SPLIT/{images,masks}; maps:DIR: {images,masks}

Of the latter, classes.txt in DIR has a class a line, of index 0, 1, ...; where masks are of colours, `name r g b`, and
`ignored r g b` for what is no class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vertebra.data.datasets import voc
from vertebra.data.datasets.catalog import given_path
from vertebra.data.datasets.folders import files_below, read_lines, stem_of
from vertebra.data.datasets.maps import MOST_CLASSES, Coding, Colour, palette
from vertebra.data.datasets.panoptic import Segments, read_panoptic
from vertebra.data.datasets.semantic_classes import CITYSCAPES, CITYSCAPES_IDS, COCO_STUFF
from vertebra.ground.errors import DataError
from vertebra.ground.labels import IGNORED

MAPS = "maps:"
KNOWN = (
    "voc2012/train, voc2012aug/train, ade20k/training, cityscapes/train, coco_stuff/train2017, "
    "coco_panoptic/train2017, maps:DIR/SPLIT, or of instances' masks sample/train, coco/train2017, json:FILE; several "
    "are joined by +"
)
_COLOURED = re.compile(r"(.+?)\s+([0-9]{1,3})\s+([0-9]{1,3})\s+([0-9]{1,3})")
VOC_CLASSES = ("background", *voc.CLASS_NAMES)


@dataclass(frozen=True)
class Layout:
    """images, maps: folders in `base`. listed: names of images, without their endings; None: all in the folder.

    image_end, map_end: what follows an image's name in that of its files, before the extension. public: the maps of the
    split are published; otherwise it may be without. segments: of each image, instead of one coding of all.
    """

    base: Path
    images: str
    maps: str
    class_names: tuple[str, ...]
    coding: Coding
    listed: Sequence[str] | None = None
    image_end: str = ""
    map_end: str = ""
    public: bool = True
    palette: np.ndarray = field(default_factory=palette)
    notes: tuple[str, ...] = ()
    segments: Segments | None = None


def indices(count: int) -> Coding:
    """Return the coding of maps whose values are the classes' places."""
    return Coding.of({label: label for label in range(count)})


def _place(root: Path, name: str, inside: str, archives: str) -> Path:
    """Return the folder of that name, or `root` itself, that has `inside`. Raises DataError."""
    for place in (root / name, root):
        if (place / inside).is_dir():
            return place
    raise DataError(root, f"no {inside} in it nor in its {name}", f"unpack {archives} there")


def _voc(root: Path, source: str, year: str, augmented: str, split: str) -> Layout:
    base = voc.find_devkit(root, year) / f"VOC{year}"
    lists = base / "ImageSets" / "Segmentation"
    folder = "SegmentationClassAug" if augmented else "SegmentationClass"
    notes: tuple[str, ...] = ()
    if not augmented and not (base / folder).is_dir() and (base / f"{folder}Aug").is_dir():
        folder += "Aug"
        notes = (f"{source}: there is no SegmentationClass in {base}; its maps are those of {folder}",)
    public = augmented != "" or not split.startswith("test")
    if public and not (base / folder).is_dir():
        raise DataError(base, f"no {folder} in it", "unpack the archive of those maps there")
    if augmented and split == "train":
        tested = {*_listed(lists / "val.txt")}
        listed = [stem for stem in map(stem_of, files_below(base / folder)) if stem not in tested]
    else:
        listed = _listed(lists / f"{split}.txt")
    coding = indices(len(VOC_CLASSES))
    return Layout(base, "JPEGImages", folder, VOC_CLASSES, coding, listed, public=public, notes=notes)


def _listed(path: Path) -> list[str]:
    if not path.is_file():
        there = ", ".join(sorted(one.stem for one in path.parent.glob("*.txt")))
        raise DataError(path, "no such image set", f"it has {there}" if there else "unpack VOC's archive there")
    return list(dict.fromkeys(line.split()[0] for line in read_lines(path)))


def _ade20k(root: Path, source: str, split: str) -> Layout:
    base = _place(root, "ADEChallengeData2016", f"images/{split}", "ADEChallengeData2016.zip")
    rows = [line.split("\t") for line in read_lines(base / "objectInfo150.txt", errors="replace")]
    names = tuple(row[-1].split(",")[0].strip() for row in rows if row[0].strip().isdecimal())
    if len(names) != 150:
        raise DataError(base / "objectInfo150.txt", f"names {len(names)} classes, not 150", "restore it")
    coding = Coding.of({0: IGNORED, **{label + 1: label for label in range(150)}})
    return Layout(base, f"images/{split}", f"annotations/{split}", names, coding, public=split != "testing")


def _cityscapes(root: Path, source: str, split: str) -> Layout:
    base = _place(root, "cityscapes", f"leftImg8bit/{split}", "leftImg8bit_trainvaltest.zip and gtFine's")
    trained = {number: label for label, number in enumerate(CITYSCAPES)}
    return Layout(
        base,
        f"leftImg8bit/{split}",
        f"gtFine/{split}",
        tuple(name for name, _ in CITYSCAPES.values()),
        Coding.of({**dict.fromkeys(CITYSCAPES_IDS, IGNORED), **trained}),
        image_end="_leftImg8bit",
        map_end="_gtFine_labelIds",
        public=split != "test",
        palette=palette({trained[number]: colour for number, (_, colour) in CITYSCAPES.items()}),
    )


def _coco_images(base: Path, split: str) -> str:
    return f"images/{split}" if (base / "images" / split).is_dir() else split


def _coco_stuff(root: Path, source: str, split: str) -> Layout:
    base = _place(root, "coco", f"stuffthingmaps/{split}", "stuffthingmaps_trainval2017.zip as stuffthingmaps")
    values = [value for value, name in enumerate(COCO_STUFF) if name != "-"]
    coding = Coding.of({value: label for label, value in enumerate(values)})
    return Layout(
        base, _coco_images(base, split), f"stuffthingmaps/{split}", tuple(COCO_STUFF[value] for value in values), coding
    )


def _coco_panoptic(root: Path, source: str, split: str) -> Layout:
    file = f"annotations/panoptic_{split}.json"
    base = next((place for place in (root / "coco", root) if (place / file).is_file()), None)
    if base is None:
        hint = "unpack panoptic_annotations_trainval2017.zip there"
        raise DataError(root, f"no {file} in it nor in its coco", hint)
    places = (f"annotations/panoptic_{split}", f"panoptic_{split}")
    maps = next((one for one in places if (base / one).is_dir()), None)
    if maps is None:
        raise DataError(base / places[0], "no such folder of maps", f"unpack annotations/panoptic_{split}.zip there")
    names, segments = read_panoptic(base / file)
    return Layout(base, _coco_images(base, split), maps, names, Coding.of({}), segments.stems, segments=segments)


def _own(root: Path, source: str) -> Layout:
    given = given_path(root, source)
    beside = (given.parent, f"images/{given.name}", f"masks/{given.name}")
    for base, images, maps in (beside, (given, "images", "masks")):
        if (base / images).is_dir():
            homes = (base, base.parent)
            file = next((home / name for home in homes for name in voc.CLASS_FILES if (home / name).is_file()), None)
            if file is None:
                raise DataError(base, "has no classes.txt", "write a class a line into it, of index 0, 1, ...")
            names, coding, drawn = read_coding(file)
            return Layout(base, images, maps, names, coding, palette=drawn)
    hint = f"expected {given.parent}/{{images,masks}}/{given.name} or {given}/{{images,masks}}"
    raise DataError(given, "no images of that split", hint)


def read_coding(path: Path) -> tuple[tuple[str, ...], Coding, np.ndarray]:
    """Return the classes in a file of names, what values and colours mean by it, and a palette. Raises DataError."""
    names, colours = _read_classes(path)
    label_of = {**{name: label for label, name in enumerate(names)}, "ignored": IGNORED}
    labels = {colour: label_of[name] for name, colour in colours.items()}
    coding = replace(indices(len(names)), colours=tuple(labels.items()))
    return names, coding, palette({label: colour for colour, label in labels.items()})


def _read_classes(path: Path) -> tuple[tuple[str, ...], dict[str, Colour]]:
    """Return the classes of a file of names, and the colours that it gives them (and "ignored"). Raises DataError."""
    names: list[str] = []
    colours: dict[str, Colour] = {}
    for line in read_lines(path, errors="replace"):
        name = line
        if (match := _COLOURED.fullmatch(line)) and max(colour := tuple(map(int, match.groups()[1:]))) <= 255:
            name, colours[match[1]] = match[1], colour
        names.append(name)
    classes = tuple(name for name in names if name != "ignored")
    if not classes or len({*names}) < len(names) or len({*colours.values()}) < len(colours):
        raise DataError(path, "names no class, or has a name or a colour twice", "write a class a line")
    if colours and {*classes} - {*colours}:
        raise DataError(path, "gives only some classes a colour", "write `name r g b` for each, or only names")
    if len(classes) > MOST_CLASSES:
        raise DataError(path, f"names {len(classes)} classes", f"maps of 8 bits have room for {MOST_CLASSES}")
    return classes, colours


_READERS: tuple[tuple[re.Pattern[str], Callable[..., Layout]], ...] = (
    (re.compile(r"voc(\d{4})(aug)?/(\w+)", re.IGNORECASE), _voc),
    (re.compile(r"ade20k/(\w+)", re.IGNORECASE), _ade20k),
    (re.compile(r"cityscapes/(\w+)", re.IGNORECASE), _cityscapes),
    (re.compile(r"coco_stuff/(\w+)", re.IGNORECASE), _coco_stuff),
    (re.compile(r"coco_panoptic/(\w+)", re.IGNORECASE), _coco_panoptic),
    (re.compile(rf"{MAPS}.+"), _own),
)


def find_layout(root: Path, source: str) -> Layout | None:
    """Return where the source's files are; None: it is not of maps. Raises DataError where they are not there."""
    for pattern, read in _READERS:
        if match := pattern.fullmatch(source):
            return read(root, source, *(group or "" for group in match.groups()))
    return None


def is_of_maps_alone(source: str) -> bool:
    """Tell the sources that can be nothing but semantic maps: not voc2012/train, which is objects as well."""
    parts = [part for part in source.split("+") if not voc.SOURCE.fullmatch(part)]
    return any(pattern.fullmatch(part) for part in parts for pattern, _ in _READERS)
