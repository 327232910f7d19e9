"""From what a user names to a data set: the only place that knows how data directories are laid out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vertebra.data.datasets import cifar, coco_layout, imagenet, imagenet_det, shards, voc, yolo_layout
from vertebra.data.datasets.annotations import Parsed, doubted, parse_each, unite
from vertebra.data.datasets.cache import cached
from vertebra.data.datasets.coco import parse_coco
from vertebra.data.datasets.imagenet import FOLDER_PARTS, find_split, loose_images, read_folders, read_loose
from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset
from vertebra.data.datasets.yolo import parse_yolo
from vertebra.ground.errors import DataError
from vertebra.ground.formats import counted

KNOWN = (
    "voc2007/trainval, coco/train2017, sample/train, imagenet_det/val, "
    "json:FILE, yolo:data.yaml/SPLIT or vocxml:DIR/SPLIT (vocxml0: where corners count from 0)"
)
SAMPLE_OBJECTS = "objects"  # the sample set's single-object images, beside its scenes


def open_classification(root: Path | str, split: str) -> ClassificationDataset:
    """Images with a label each: ImageNet-style folders, CIFAR-10 (python batches or folders), the sample set, shards.

    split: "train", "val" or "test" (of the latter two the one that is there); CIFAR-10 also has "train45k"
    and "val5k", which of folders are nine tenths and a tenth of each class. Raises DataError.
    """
    if (index := shards.find_index(root, split)) is not None:
        return shards.read_shards(index, split)
    root = Path(root)
    check_root(root)
    if cifar.find_batches(root) is not None:
        return cifar.read_batches(root, split)
    if find_split(root, "train") is None and find_split(root / SAMPLE_OBJECTS, "train") is not None:
        root = root / SAMPLE_OBJECTS
    whole = FOLDER_PARTS.get(split, (split,))[0]
    if find_split(root, whole) is None:
        if tar_files := shards.find_shards(str(root), whole):
            command = f"python tools/prepare_data.py shard --index-only --data {root} --split {whole}"
            raise DataError(tar_files[0], f"a shard, but there is no index of the {len(tar_files)}", f"run {command}")
        archives = sorted(p.name for p in root.iterdir() if ".tar" in p.suffixes or p.suffix in (".tgz", ".zip"))
        if archives:
            raise DataError(root / archives[0], "an archive", f"unpack it first (tar xf {archives[0]})")
        raise DataError(
            root, f"no folder {split!r}", f"expected {root}/{split}/<class>/<image>, or CIFAR-10's python batches"
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


def open_detection(
    root: Path | str, source: str, *, segmentations: bool = True, extras: bool = False
) -> DetectionDataset:
    """Images with boxes.

    source: "voc2007/trainval", "coco/train2017", "sample/train", "imagenet_det/val", "json:ANNOTATIONS.json",
    "yolo:data.yaml/train", "yolo:DIR/train", "vocxml:DIR", "vocxml0:DIR" (paths, from the current directory or `root`),
    or several joined by "+", of the same classes. segmentations: False leaves out polygons and RLE, most of a large
    set's memory. extras: True keeps what the files say beyond what is used. A test set whose truth is not published,
    such as "voc2012/test" or "coco/test-dev2017", is images without truth (`labelled` is False). Large JSON files are
    parsed once a machine (vertebra.data.datasets.cache). Raises DataError.
    """

    def read() -> DetectionDataset:
        return parse_detection(root, source, segmentations=segmentations, extras=extras).opened()

    check_root(Path(root))
    parts = source.split("+")
    if extras or not all(map(coco_layout.is_json, parts)):
        dataset = read()
    else:
        files = [coco_layout.find_json(Path(root), part)[0] for part in parts]
        dataset = cached(files, (source, root, "" if Path(root).is_absolute() else Path.cwd(), segmentations), read)
    if dataset.labelled:
        return dataset
    images = counted(len(dataset), "image")
    note = f"{source}: its annotations are not here; {images} to predict on, and nothing to score against"
    return replace(dataset, notes=(note, *dataset.notes))


def parse_detection(root: Path | str, source: str, *, segmentations: bool = True, extras: bool = False) -> Parsed:
    """Return the data set that open_detection opens, and all its faults.

    Raises DataError where `root` is no directory.
    """
    root = Path(root)
    check_root(root)
    parts = source.split("+")
    if all(map(voc.SOURCE.fullmatch, parts)):
        return doubted(voc.parse_voc(root, parts, source, extras=extras))
    parsed, faults = parse_each(parts, lambda part: _parse_one(root, part, segmentations, extras))
    return doubted(unite(parsed, source, faults))


def _parse_one(root: Path, source: str, segmentations: bool, extras: bool) -> Parsed:
    if voc.SOURCE.fullmatch(source):
        return voc.parse_voc(root, [source], source, extras=extras)
    if match := imagenet_det.SOURCE.fullmatch(source):
        return imagenet_det.parse_imagenet_det(root, match[1].lower(), source, extras=extras)
    if source.startswith(tuple(voc.ORIGINS)):
        return voc.parse_xml_folder(given_path(root, source), source, extras=extras)
    if source.startswith(yolo_layout.PREFIX):
        return parse_yolo(given_path(root, source), source, segmentations=segmentations, extras=extras)
    if not coco_layout.is_json(source):
        of_path = {".json": f"json:{source}", ".yaml": f"yolo:{source}/SPLIT"}
        hint = f"write {of_path.get(Path(source).suffix.lower(), KNOWN)}"
        raise DataError(f"source {source!r}", "is not known", hint)
    annotations, base, folder = coco_layout.find_json(root, source)
    return parse_coco(annotations, base, folder, source, segmentations=segmentations, extras=extras)


def given_path(root: Path, source: str) -> Path:
    """The path in `yolo:PATH` or `vocxml:PATH`, whose last part may be a split: as it stands, else from `root`."""
    text = source.partition(":")[2]
    if not text.strip("/"):
        raise DataError(f"source {source!r}", "names no place", f"write {source}DIR or {source}DIR/SPLIT")
    given = Path(text)
    if given.is_absolute() or given.exists() or given.parent.is_file():
        return given
    home = given.parent
    if home != Path(".") and home.exists() and not (root / home).exists():
        return given
    return root / given


def find_sources(root: Path | str) -> tuple[str, ...]:
    """The sources and splits that lie in a data directory, as open_detection and open_classification take them.

    Raises DataError where there is none.
    """
    if shards.is_url(root):
        raise DataError(shards.as_url(root), "nobody can list what lies there", "name the split to take, such as train")
    root = Path(root)
    check_root(root)
    readers = (voc, coco_layout, imagenet_det, yolo_layout, shards, cifar)
    found = [source for reader in readers for source in reader.find(root)]
    for place in (root, root / SAMPLE_OBJECTS):  # folders of classes, but for those that are a detection set's
        found += [one for one in imagenet.find(place) if not {f"coco/{one}", f"vocxml:{one}"} & set(found)]
    if not found:
        raise DataError(root, "no data set that is known", "name one with --source, such as json:ANNOTATIONS.json")
    return tuple(sorted(set(found)))


def check_root(root: Path) -> None:
    if not root.exists():
        raise DataError(root, "no such directory", "give the data's place with --data")
    if not root.is_dir():
        raise DataError(root, "a file, not a directory", "unpack it and give the directory with --data")
