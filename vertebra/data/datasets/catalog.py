"""From what a user names to a data set: the only place that knows how data directories are laid out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from vertebra.data.datasets.annotations import unite
from vertebra.data.datasets.cifar import find_batches, read_batches
from vertebra.data.datasets.coco import UNLABELLED, image_folder, read_coco
from vertebra.data.datasets.imagenet import FOLDER_PARTS, find_split, loose_images, read_folders, read_loose
from vertebra.data.datasets.imagenet_det import find_ilsvrc, read_imagenet_det
from vertebra.data.datasets.records import ClassificationDataset, DetectionDataset
from vertebra.data.datasets.shards import INDEX_SUFFIX, as_url, find_index, is_url, read_shards
from vertebra.data.datasets.voc import read_voc
from vertebra.data.datasets.xml_folders import PREFIX as XML_PREFIX
from vertebra.data.datasets.xml_folders import read_xml_folder
from vertebra.data.datasets.yolo import read_yolo
from vertebra.data.datasets.yolo_layout import PREFIX as YOLO_PREFIX
from vertebra.data.datasets.yolo_layout import find_yaml, splits_of
from vertebra.data.prepare.shard_files import find_shards
from vertebra.ground.errors import DataError

JSON_PREFIX = "json:"
VOC_SOURCE = re.compile(r"voc(\d{4})/(\w+)", re.IGNORECASE)
JSON_SOURCE = re.compile(r"(coco|sample)/([\w-]+)", re.IGNORECASE)
DET_SOURCE = re.compile(r"imagenet_det/([\w-]+)", re.IGNORECASE)
KNOWN = (
    "voc2007/trainval, coco/train2017, sample/train, imagenet_det/val, "
    "json:FILE, yolo:data.yaml/SPLIT or vocxml:DIR/SPLIT"
)
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
            raise DataError(shards[0], f"a shard, but there is no index of the {len(shards)}", f"run {command}")
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
    "yolo:data.yaml/train", "yolo:DIR/train", "vocxml:DIR" (paths, from the current directory or `root`), or several
    joined by "+", of the same classes. segmentations: False leaves out polygons and RLE, most of a large set's
    memory. extras: True keeps what the files say beyond what is used. A test set whose truth is not published, such
    as "voc2012/test" or "coco/test-dev2017", is images without truth (`labelled` is False). Raises DataError.
    """
    root = Path(root)
    check_root(root)
    parts = source.split("+")
    years = [VOC_SOURCE.fullmatch(part) for part in parts]
    if all(years):
        dataset = read_voc(root, [(match[1], match[2]) for match in years if match], source, extras=extras)
    else:
        dataset = unite([_open_one(root, part, segmentations, extras) for part in parts], source)
    if not dataset.labelled:
        note = (
            f"{source}: its annotations are not here; {len(dataset)} images to predict on, and nothing to score against"
        )
        dataset = replace(dataset, notes=(note, *dataset.notes))
    return dataset


def _open_one(root: Path, source: str, segmentations: bool, extras: bool) -> DetectionDataset:
    if match := VOC_SOURCE.fullmatch(source):
        return read_voc(root, [(match[1], match[2])], source, extras=extras)
    if match := DET_SOURCE.fullmatch(source):
        return read_imagenet_det(root, match[1].lower(), source, extras=extras)
    if source.startswith(XML_PREFIX):
        return read_xml_folder(given_path(root, source), source, extras=extras)
    if source.startswith(YOLO_PREFIX):
        return read_yolo(given_path(root, source), source, segmentations=segmentations, extras=extras)
    annotations, base, images = find_json(root, source)
    return read_coco(annotations, base, images, source, segmentations=segmentations, extras=extras)


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


def find_json(root: Path, source: str) -> tuple[Path, Path, Path | None]:
    """Annotation file, a folder to look for images in, and the folder of images if it stands where it should."""
    if source.startswith(JSON_PREFIX):
        given = Path(source.removeprefix(JSON_PREFIX))
        annotations = given if given.is_file() or given.is_absolute() else root / given
        return annotations, root, None
    if not (match := JSON_SOURCE.fullmatch(source)):
        raise DataError(f"source {source!r}", "is not known", f"write {KNOWN}")
    kind, split = match[1].lower(), match[2]
    bases, inner = (root / HOMES[kind], root), image_folder(split)
    for base, name in ((base, name) for name in (f"instances_{split}", f"{UNLABELLED}{split}") for base in bases):
        annotations = base / "annotations" / f"{name}.json"
        if annotations.is_file():
            folders = [base / "images" / inner, base / inner]
            return annotations, base, next((folder for folder in folders if folder.is_dir()), None)
    hint = f"run python tools/prepare_data.py {'coco2014' if '2014' in split else kind} --data {root}"
    if kind == "coco" and split.startswith("test"):
        hint = f"unpack {inner}.zip and {UNLABELLED}{inner}.zip of the COCO page there"
    there = sorted({path.stem[10:] for base in bases for path in (base / "annotations").glob("instances_*.json")})
    known = f" (there is {', '.join(there)})" if there else ""
    raise DataError(root, f"no annotations/instances_{split}.json in it nor in {HOMES[kind]}/{known}", hint)


def find_sources(root: Path | str) -> tuple[str, ...]:
    """The sources and splits that lie in a data directory, as open_detection and open_classification take them.

    Raises DataError where there is none.
    """
    if is_url(root):
        raise DataError(as_url(root), "nobody can list what lies there", "name the split to take, such as train")
    root = Path(root)
    check_root(root)
    folders = [folder for place in VOC_PLACES for folder in root.glob(f"{place}VOC[0-9][0-9][0-9][0-9]")]
    lists = [path for folder in folders for path in (folder / "ImageSets" / "Main").glob("*.txt")]
    found = [f"voc{path.parts[-4][3:]}/{path.stem}" for path in lists if "_" not in path.stem]
    for kind, base in (("sample", root / HOMES["sample"]), ("coco", root / HOMES["coco"]), ("coco", root)):
        found += [f"{kind}/{path.stem[10:]}" for path in (base / "annotations").glob("instances_*.json")]
        if kind == "coco":
            bare = (base / "annotations").glob(f"{UNLABELLED}*.json")
            found += [f"{kind}/{path.stem.removeprefix(UNLABELLED)}" for path in bare]
    if (ilsvrc := find_ilsvrc(root)) is not None:
        found += [f"imagenet_det/{path.name}" for path in (ilsvrc / "Data" / "DET").iterdir() if path.is_dir()]
    if (description := find_yaml(root)) is not None:
        found += [f"{YOLO_PREFIX}{description.name}/{split}" for split in splits_of(description)]
    if any(root.glob("*.xml")) or any(root.glob("Annotations/*.xml")):
        found.append(f"{XML_PREFIX}{root.resolve()}")
    found += [f"{XML_PREFIX}{split}" for split in ("train", "val", "valid", "test") if any(root.glob(f"{split}/*.xml"))]
    found += [path.name.removesuffix(INDEX_SUFFIX) for path in root.glob(f"*{INDEX_SUFFIX}")]
    if find_batches(root) is not None:
        found += ["train", "test"]
    for place in (root, root / SAMPLE_OBJECTS):
        splits = [split for split in ("train", "val", "test") if (place / split).is_dir()]
        taken = {one for one in splits if {f"coco/{one}", f"{XML_PREFIX}{one}"} & set(found)}
        found += [one for one in splits if one not in taken and not (place / one / "labels").is_dir()]
    if not found:
        raise DataError(root, "no data set that is known", "name one with --source, such as json:ANNOTATIONS.json")
    return tuple(sorted(set(found)))


def check_root(root: Path) -> None:
    if not root.exists():
        raise DataError(root, "no such directory", "give the data's place with --data")
    if not root.is_dir():
        raise DataError(root, "a file, not a directory", "unpack it and give the directory with --data")
