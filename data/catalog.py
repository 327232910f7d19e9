"""From what a user names to a data set: the only place that knows how data directories are laid out."""

from __future__ import annotations

import re
from pathlib import Path

from data.annotations import unite
from data.cifar import find_batches, read_batches
from data.coco import read_coco
from data.errors import DataError
from data.imagenet import FOLDER_PARTS, find_split, loose_images, read_folders, read_loose
from data.records import ClassificationDataset, DetectionDataset
from data.shard_files import find_shards
from data.shards import INDEX_SUFFIX, as_url, find_index, is_url, read_shards
from data.voc import read_voc

VOC_SOURCE = re.compile(r"voc(\d{4})/(\w+)", re.IGNORECASE)
JSON_SOURCE = re.compile(r"(coco|sample)/([\w-]+)", re.IGNORECASE)
HOMES = {"coco": "coco", "sample": "scenes"}  # where in the data directory a set usually lies
VOC_PLACES = ("", "VOCdevkit/", "*/VOCdevkit/")
SAMPLE_OBJECTS = "objects"  # the sample set's single-object images, beside its scenes


def open_classification(root: Path | str, split: str) -> ClassificationDataset:
    """Images with a label each: ImageNet-style folders, CIFAR-10 (python batches or folders), the sample set, shards.

    split: "train", "val" or "test" (of the latter two the one that is there); CIFAR-10 also has "train45k"
    and "val5k", which of folders are nine tenths and a tenth of each class. Raises DataError.
    """
    if (index := find_index(root, split)) is not None:
        return read_shards(index, split)
    root = Path(root)
    check_root(root)
    if find_batches(root) is not None:
        return read_batches(root, split)
    if find_split(root, "train") is None and find_split(root / SAMPLE_OBJECTS, "train") is not None:
        root = root / SAMPLE_OBJECTS
    whole = FOLDER_PARTS.get(split, (split,))[0]
    if find_split(root, whole) is None:
        if shards := find_shards(str(root), whole):
            command = f"python tools/prepare_data.py shard --index-only --data {root} --split {whole}"
            raise DataError(f"{shards[0]}: a shard, but there is no index of the {len(shards)}; run {command}")
        archives = sorted(p.name for p in root.iterdir() if ".tar" in p.suffixes or p.suffix in (".tgz", ".zip"))
        if archives:
            raise DataError(f"{root / archives[0]}: an archive; unpack it first (tar xf {archives[0]})")
        raise DataError(
            f"{root}: no folder {split!r}; expected {root}/{split}/<class>/<image>, or CIFAR-10's python batches"
        )
    return read_folders(root, split)


def open_unlabelled(root: Path | str, split: str) -> ClassificationDataset:
    """Images without labels, in the order of their names: those in `root` itself, else in its folder `split`.

    Raises DataError.
    """
    root = Path(root)
    check_root(root)
    inside = find_split(root, split)
    return read_loose(root if loose_images(root) or inside is None else inside, split)


def open_detection(root: Path | str, source: str, *, segmentations: bool = True) -> DetectionDataset:
    """Images with boxes.

    source: "voc2007/trainval", "coco/train2017", "sample/train", "json:ANNOTATIONS.json" (a path, from the
    current directory or `root`), or several joined by "+", of the same classes. segmentations: False leaves
    out polygons and RLE, most of a large set's memory. Raises DataError.
    """
    root = Path(root)
    check_root(root)
    parts = source.split("+")
    years = [VOC_SOURCE.fullmatch(part) for part in parts]
    if all(years):
        return read_voc(root, [(match[1], match[2]) for match in years if match], source)
    return unite([_open_one(root, part, segmentations) for part in parts], source)


def _open_one(root: Path, source: str, segmentations: bool) -> DetectionDataset:
    if match := VOC_SOURCE.fullmatch(source):
        return read_voc(root, [(match[1], match[2])], source)
    annotations, base, images = find_json(root, source)
    return read_coco(annotations, base, images, source, segmentations=segmentations)


def find_json(root: Path, source: str) -> tuple[Path, Path, Path | None]:
    """Annotation file, a folder to look for images in, and the folder of images if it stands where it should."""
    if source.startswith("json:"):
        given = Path(source.removeprefix("json:"))
        annotations = given if given.is_file() or given.is_absolute() else root / given
        return annotations, root, None
    if not (match := JSON_SOURCE.fullmatch(source)):
        raise DataError(
            f"source {source!r} is not known; write voc2007/trainval, coco/train2017, sample/train or json:FILE"
        )
    kind, split = match[1].lower(), match[2]
    for base in (root / HOMES[kind], root):
        annotations = base / "annotations" / f"instances_{split}.json"
        if annotations.is_file():
            folders = [base / "images" / split, base / split]
            return annotations, base, next((folder for folder in folders if folder.is_dir()), None)
    command = f"python tools/prepare_data.py {kind} --data {root}"
    raise DataError(f"{root}: no annotations/instances_{split}.json in it nor in {HOMES[kind]}/; run {command}")


def find_sources(root: Path | str) -> tuple[str, ...]:
    """The sources and splits that lie in a data directory, as open_detection and open_classification take them.

    Raises DataError where there is none.
    """
    if is_url(root):
        raise DataError(f"{as_url(root)}: name the split of it to take, such as train")
    root = Path(root)
    check_root(root)
    folders = [folder for place in VOC_PLACES for folder in root.glob(f"{place}VOC[0-9][0-9][0-9][0-9]")]
    lists = [path for folder in folders for path in (folder / "ImageSets" / "Main").glob("*.txt")]
    found = [f"voc{path.parts[-4][3:]}/{path.stem}" for path in lists if "_" not in path.stem]
    for kind, base in (("sample", root / HOMES["sample"]), ("coco", root / HOMES["coco"]), ("coco", root)):
        found += [f"{kind}/{path.stem[10:]}" for path in (base / "annotations").glob("instances_*.json")]
    found += [path.name.removesuffix(INDEX_SUFFIX) for path in root.glob(f"*{INDEX_SUFFIX}")]
    if find_batches(root) is not None:
        found += ["train", "test"]
    for place in (root, root / SAMPLE_OBJECTS):
        found += [split for split in ("train", "val", "test") if (place / split).is_dir()]
    if not found:
        raise DataError(f"{root}: no data set that is known; name one with --source, such as json:ANNOTATIONS.json")
    return tuple(sorted(set(found)))


def check_root(root: Path) -> None:
    if not root.exists():
        raise DataError(f"{root}: no such directory; give the data's place with --data")
    if not root.is_dir():
        raise DataError(f"{root}: a file, not a directory; unpack it and give the directory with --data")
