"""Bad input of every kind, by the commands that meet it: one sentence that names the place and the fix, no traceback.

A row: what was done to good input, and what the sentence must hold, in order: where, what, how to mend it. The rows
that a reader has beyond these stand beside the reader's own tests (tests/data, tests/evaluation).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import run
from tests.data.writers import write_coco, write_folders, write_picture, write_text, write_voc
from vertebra.data.datasets.catalog import open_classification, open_detection
from vertebra.data.prepare.shard_files import write_shards

Json = dict[str, Any]
# A YAML of a few lines that is 9^8 texts when written out; Python keeps it small unless somebody prints it.
LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'ha'] * 9)}]\n" for n in range(9))


def told(text: str, parts: tuple[str, ...]) -> None:
    """Fail unless one sentence holds all parts, in this order: the place, what is wrong there, how to mend it."""
    assert all(parts), f"a part asks for nothing: {parts}"
    for line in text.splitlines():
        at = 0
        for part in parts:
            at = line.find(part, at)
            if at < 0:
                break
            at += len(part)
        else:
            return
    raise AssertionError(f"no sentence with {parts} in:\n{text[:3000]}")


def checked(root: Path, source: str, parts: tuple[str, ...], *, expect: int = 1) -> None:
    done = run("prepare_data", "check", "--data", root, "--source", source, "--processes", 1, expect=expect)
    told(done.out + done.err, parts)


def put(key: str, place: int = 0, /, **fields: Any) -> Callable[[Json], None]:
    return lambda value: value[key][place].update(fields)


def drop(key: str, field: str) -> Callable[[Json], Any]:
    return lambda value: value[key][0].pop(field)


def bbox(*numbers: Any) -> Callable[[Json], None]:
    return put("annotations", bbox=list(numbers))


def again(key: str, **fields: Any) -> Callable[[Json], None]:
    return lambda value: value[key].append({**value[key][0], **fields})


FIRST, BARE = "annotation 0 (counted from 0, image_id 1): ", "annotation 0 (counted from 0): "
IMAGE = "image 0 (counted from 0, a.jpg): "
COCO = {
    "not a number": (bbox(1, 2, float("nan"), 4), FIRST + "bbox [1, 2, nan, 4] is not four finite", "give x, y"),
    "infinite": (bbox(1, 2, float("inf"), 4), FIRST + "bbox [1, 2, inf, 4] is not four finite", "give x, y"),
    "three numbers": (bbox(1, 2, 3), FIRST + "bbox [1, 2, 3] is not four finite", "give x, y"),
    "null in a box": (bbox(1, 2, None, 4), FIRST + "bbox [1, 2, None, 4] is not four finite", "give x, y"),
    "no box": (drop("annotations", "bbox"), FIRST + "has no bbox", "give x, y, width, height"),
    "negative size": (bbox(1, 2, -3, 4), "annotation 1 of image 1 has a box of negative size", "boxes are x, y, width"),
    "outside": (bbox(90, 2, 30, 4), "a box wholly outside the image (x y w h 90, 2, 30, 4 in 80 x 60)", "correct or"),
    "far away": (bbox(1e300, 2, 30, 4), "a box wholly outside the image", "correct or remove it"),
    "unknown image": (put("annotations", image_id=99), "image_id 99 is not in `images`", "add it, or remove"),
    "no image": (drop("annotations", "image_id"), BARE + "has no image_id", "number them anew"),
    "list as image": (put("annotations", image_id=[1]), BARE + "image_id [1] is not a whole", "number them anew"),
    "unknown category": (put("annotations", category_id=9), "category_id 9 is not in `categories`", "add it, or"),
    "no category": (drop("annotations", "category_id"), FIRST + "has no category_id", "number them"),
    "a text": (
        lambda value: value["annotations"].append("cat"),
        "annotation 2 (counted from 0): is a string, not an object", "remove it",
    ),
    "null": (lambda value: value["annotations"].append(None), "2 (counted from 0): is null, not an", "remove it"),
    "image id twice": (
        again("images", file_name="b.jpg"), IMAGE + "another image has the id 1 too (2 of 2 images are so)",
        "give each its own",
    ),
    "no height": (drop("images", "height"), IMAGE + "has no height", "correct it"),
    "width 0": (put("images", width=0), "a.jpg): width 0 is not a whole number of pixels", "correct it"),
    "no file name": (drop("images", "file_name"), "image 0 (counted from 0): has no file_name", "correct it"),
    "null as image id": (put("images", id=None), IMAGE + "has no id", "number them anew"),
    "image is a text": (
        lambda value: value["images"].append("a.jpg"), "image 1 (counted from 0): is a string, not an", "remove it",
    ),
    "category id twice": (
        again("categories", name="b"),
        "category 0 (counted from 0): another category has the id 1 too (2 of 2 categories are so)", "give each",
    ),
    "category name twice": (again("categories", id=9), "category name 'kind 1' occurs 2 times", "make it unique"),
    "category without name": (drop("categories", "name"), "category 0 (counted from 0): has no name", "correct it"),
    "no categories": (lambda value: value.update(categories=[]), "`categories` is empty", "list the classes there"),
    "no images": (
        lambda value: value.update(images=[], annotations=[]), "lists no images",
        "there is nothing to train or test on",
    ),
    "no list of images": (lambda value: value.pop("images"), "has no list `images`", "COCO annotations need"),
    "images is a number": (lambda value: value.update(images=7), "has no list `images`", "COCO annotations need"),
    "no annotations": (lambda value: value.pop("annotations"), "has no list `annotations`", "call the file image"),
    "first image gone": (
        put("images", file_name="gone.jpg"), "its first image gone.jpg is in none of",
        "put the images into one of them",
    ),
    "RLE too short": (
        put("annotations", segmentation={"size": [60, 80], "counts": [5, 5]}),
        FIRST + "RLE counts that cover 10 pixels", "encode the mask again",
    ),
    "RLE of another size": (
        put("annotations", segmentation={"size": [6, 8], "counts": [48]}),
        "a mask of height x width [6, 8] in an image of [60, 80]", "write masks in the size of",
    ),
    "RLE of letters": (
        put("annotations", segmentation={"size": [60, 80], "counts": "#!"}),
        "RLE counts that cannot be decoded", "encode the mask again",
    ),
    "polygon of nan": (
        put("annotations", segmentation=[[float("nan"), 2, 31, 2, 31, 42]]),
        FIRST + "its polygons are not lists of", "correct them",
    ),
    "polygon to the moon": (
        put("annotations", segmentation=[[1e9, 2, 31, 2, 31, 42]]), FIRST + "its polygons are not", "correct them",
    ),
    "polygon of endless length": (
        put("annotations", segmentation=[[1e6, 2, 31, 2] * 9]), FIRST + "its polygons are not lists of", "correct them",
    ),
    "polygon of texts": (
        put("annotations", segmentation=[["a", "b"]]), FIRST + "its polygons are not lists of", "correct them",
    ),
    "polygon of two corners": (
        put("annotations", segmentation=[[1, 2, 3, 4]]), FIRST + "none of its polygons has 3 corners", "correct",
    ),
    **{
        f"{key} {value}": (put("annotations", **{key: value}), f"{FIRST}{key} {value!r} {wanted}",
        "it, or leave it out")
        for key, values, wanted in (
            ("area", (-1.0, float("nan"), float("inf"), [99], "big"), "is not a number of square pixels"),
            ("iscrowd", (2, [0], "maybe"), "is neither 0 nor 1"),
            ("difficult", (2, [0], "maybe"), "is neither 0 nor 1"),
        )
        for value in values
    },
    "image id of 65 bits": (
        put("images", id=2**63), IMAGE + "id 9223372036854775808 is not a whole number of 64 bits", "number them anew",
    ),
    "image id of letters": (put("images", id="x"), IMAGE + "id 'x' is not a whole number", "number them anew"),
    "category id of 65 bits": (
        put("categories", id=-(2**64)),
        "category 0 (counted from 0): id -18446744073709551616 is not a whole", "number them anew",
    ),
    "width of 33 bits": (put("images", width=2**32), IMAGE + "width 4294967296 is not a whole", "correct it"),
    "width of half a pixel": (put("images", width=60.5), IMAGE + "width 60.5 is not a whole number", "correct it"),
    "backslashes": (put("images", file_name="c\\a.jpg"), "its first image c\\a.jpg has backslashes", "write / in"),
}  # fmt: skip


def changed_coco(place: Path, *changes: Callable[[Any], object]) -> Path:
    """Write a picture with two objects in `ann.json`, changed; return that file."""
    write_picture(place / "a.jpg", 60, 80)
    path = write_coco(place, {"a.jpg": (60, 80)}, [{"bbox": [1, 2, 30, 40]}, {"bbox": [5, 6, 7, 8]}])
    value = json.loads(path.read_text())
    for change in changes:
        change(value)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(("change", "reason", "hint"), COCO.values(), ids=COCO)
def test_coco_json(tmp_path: Path, change, reason, hint):
    changed_coco(tmp_path, change)
    checked(tmp_path, "json:ann.json", ("ann.json", reason, hint))


CONTENTS = {
    "cut off": (b'{"images": [', "does not parse as JSON", "it may be cut off, fetch it again"),
    "empty": (b"", "does not parse as JSON", "it may be cut off, fetch it again"),
    "zeros": (bytes(64), "does not parse as JSON", "it may be cut off, fetch it again"),
    "no UTF-8": (b'{"images": "\xff"}', "does not parse as JSON", "it may be cut off, fetch it again"),
    "deep": (b"[" * 100_000, "does not parse as JSON", "it may be cut off, fetch it again"),
    "endless number": (b'{"images": ' + b"9" * 5000 + b"}", "does not parse as JSON", "it may be cut off"),
    "a list": (b"[]", "holds a JSON list, not COCO annotations", "a list of results is not truth"),
    "a number": (b"7", "holds a JSON int, not COCO annotations", "give the file with `images`"),
    "absent": (None, "no such annotation file", "check the path"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason", "hint"), CONTENTS.values(), ids=CONTENTS)
def test_files_that_are_no_coco_json(tmp_path: Path, content, reason, hint):
    if content is not None:
        (tmp_path / "ann.json").write_bytes(content)
    checked(tmp_path, "json:ann.json", ("ann.json: ", reason, hint))


def every(**fields: Any) -> Callable[[Json], None]:
    return lambda value: [one.update(fields) for one in value["annotations"]] and None


ODD = {  # of the whole set: what is said, and stops nothing
    "only crowds": (every(iscrowd=1), "every object (2) is a crowd region or difficult", "there is nothing to score"),
    "only difficult": (every(difficult=1), "every object (2) is a crowd region or difficult", "nothing to score"),
    "fractions": (every(bbox=[0.1, 0.2, 0.3, 0.4]), "every box (2) lies between 0 and 1", "boxes are in pixels"),
    "areas of 1": (
        every(bbox=[0, 0, 40, 40], area=1),
        "2 of 2 objects with an area not near the box's, such as 1 in a box of 1600 square", "correct them, or leave",
    ),
    "areas of another scale": (
        every(area=1e6), "2 of 2 objects with an area not near the box's, such as 1e+06 in a box of", "correct them",
    ),
    "more objects than COCO looks at": (
        lambda value: value.update(annotations=[{**value["annotations"][0], "id": n} for n in range(1, 151)]),
        "an image has 150 objects of one class", "COCO's figures look at its first 100 detections",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason", "hint"), ODD.values(), ids=ODD)
def test_what_is_odd_is_said_by_the_check_a_training_and_the_scorer(tmp_path: Path, change, reason, hint):
    path = changed_coco(tmp_path, every(area=None), change)
    (tmp_path / "found.json").write_text("[]")
    checked(tmp_path, "json:ann.json", ("json:ann.json: ", reason, hint), expect=0)
    (note,) = open_detection(tmp_path, "json:ann.json").notes
    told(note, ("json:ann.json: ", reason, hint))
    told(
        run("score", "--truth", path, "--predictions", tmp_path / "found.json", "--metric", "coco").out, (reason, hint)
    )


def xml(root: Path) -> Path:
    return write_voc(root, {"1": [("dog", 1, 1, 9, 9, 0)], "2": [("cat", 1, 1, 9, 9, 0)]}) / "Annotations" / "1.xml"


def edited(old: str, new: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


def image_list(content: bytes | None) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        listing = path.parents[1] / "ImageSets" / "Main" / "trainval.txt"
        listing.unlink() if content is None else listing.write_bytes(content)

    return write


VOC = {
    "cut off": (lambda path: path.write_text("<annotation><size>"), "1.xml: ", "does not parse as VOC XML", "correct"),
    "empty": (lambda path: path.write_bytes(b""), "1.xml: ", "does not parse as VOC XML", "correct or restore it"),
    "binary": (lambda path: path.write_bytes(bytes(range(256))), "1.xml: ", "does not parse as VOC XML", "correct"),
    "no size": (edited("<width>80</width>", ""), "1.xml: ", "(size/width is missing)", "correct or restore it"),
    "size 0": (edited("<width>80", "<width>0"), "1.xml: ", "its size is 0 x 60", "correct or restore it"),
    "endless size": (edited("<width>80", "<width>inf"), "1.xml: ", "its size is inf x 60", "correct or restore it"),
    "size that is none": (edited("<width>80", "<width>nan"), "1.xml: ", "its size is nan x 60", "correct or restore"),
    "size of a word": (edited("<width>80", "<width>wide"), "1.xml: ", "size/width is 'wide', not a number", "correct"),
    "huge size": (
        edited("<width>80", "<width>99999999999"), "1.xml: ", "its size is 1e+11 x 60", "correct or restore it",
    ),
    "no name": (
        edited("<name>dog</name>", ""), "1.xml: ", "object '' lacks a name or a bndbox", "correct or restore it",
    ),
    "unknown name": (
        edited("dog", "dgo"), "1.xml: ", "has an object 'dgo', which is not one of the 20", "correct the name, or read",
    ),
    "no corner": (edited("<xmin>1</xmin>", ""), "1.xml: ", "(bndbox/xmin is missing)", "correct or restore it"),
    "corner of a word": (edited("<xmin>1<", "<xmin>left<"), "1.xml: ", "xmin is 'left', not a number", "correct"),
    "not a number": (
        edited("<xmin>1<", "<xmin>nan<"), "1.xml: ", "object 'dog' has a box that is not four", "correct or remove",
    ),
    "turned around": (edited("<xmax>9<", "<xmax>-7<"), "1.xml: ", "a box of negative size", "correct it"),
    "outside": (
        edited("<xmin>1</xmin>\n<ymin>1</ymin><xmax>9<", "<xmin>500</xmin><ymin>1</ymin><xmax>509<"),
        "1.xml: ", "object 'dog' has a box wholly outside", "correct or remove",
    ),
    "no XML": (lambda path: path.unlink(), "1.xml: ", "no such annotation, but", "restore it or unlist it"),
    "no picture": (
        lambda path: (path.parents[1] / "JPEGImages" / "1.jpg").unlink(), "1.jpg: ", "no such image", "restore it"),
    "half a picture": (
        lambda path: os.truncate(path.parents[1] / "JPEGImages" / "1.jpg", 300), "1.jpg: ", "truncated", "replace it"),
    "difficult or not": (
        edited("<difficult>0<", "<difficult>maybe<"), "1.xml: ", "difficult 'maybe' is neither 0 nor 1", "correct"),
    "unknown encoding": (
        lambda path: path.write_text('<?xml version="1.0" encoding="klingon"?>' + path.read_text()),
        "1.xml: ", "its encoding 'klingon' is not known", "correct or restore it"),
    "bytes of another encoding": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"dog", b"\xd6\xd0", 1)),
        "1.xml: ", "'utf-8' codec can't decode byte 0xd6", "correct or restore it"),
    "picture of another size": (
        lambda path: write_picture(path.parents[1] / "JPEGImages" / "1.jpg", 30, 40),
        "1.jpg: ", "is 40 x 30 pixels, its annotation says 80 x 60", "correct the annotation"),
    "picture is text": (
        lambda path: (path.parents[1] / "JPEGImages" / "1.jpg").write_text("<html>404"),
        "1.jpg: ", "is not an image that OpenCV can decode", "replace it"),
    "no list": (image_list(None), "trainval.txt: ", "no such image set", "put them there"),
    "empty list": (image_list(b"\n\n"), "trainval.txt: ", "lists no images", "nothing to train or test on"),
    "list of others": (image_list(b"7\n"), "7.xml: ", "no such annotation", "restore it or unlist it"),
    "binary list": (image_list(b"\x00\x01\xff\n"), "trainval.txt: ", "is not text", "restore it"),
    "list leads out": (image_list(b"../../../../etc/passwd\n"), "passwd", "no such annotation", "restore it"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "where", "reason", "hint"), VOC.values(), ids=VOC)
def test_voc_xml_lists_and_pictures(tmp_path: Path, change, where, reason, hint):
    change(xml(tmp_path))
    checked(tmp_path, "voc2007/trainval", (where, reason, hint))


LINES = {
    "unknown class": ("2 .5 .5 .1 .1", "line 2 has class 2, but the classes are 0 to 1", "or the names in data.yaml"),
    "negative class": (
        "-1 .5 .5 .1 .1", "line 2 has class -1, but the classes are 0 to 1", "or the names in data.yaml",
    ),
    "class of a fraction": ("0.5 .5 .5 .1 .1", "line 2 has class 0.5", "correct the line"),
    "four numbers": ("0 .5 .5 .1", "line 2 has 4 numbers; a box has 5", "correct the line"),
    "six numbers": ("0 .5 .5 .1 .1 .9", "line 2 has 6 numbers", "correct the line"),
    "a name": ("cat .5 .5 .1 .1", "line 2 has 'cat .5 .5 .1 .1', which is not numbers alone", "correct the line"),
    "not finite": ("0 nan .5 .1 .1", "line 2 has a number that is not finite", "correct the line"),
    "infinite class": ("inf .5 .5 .1 .1", "line 2 has a number that is not finite", "correct the line"),
    "pixels": ("0 40 15 16 6", "line 2 has 40; numbers are fractions", "correct the line"),
    "negative size": ("0 .5 .5 -.1 .1", "line 2 has a box of negative size", "correct the line"),
    "outside": ("0 1.2 1.2 .1 .1", "object 2 has a box wholly outside the image", "correct or remove it"),
    "no text": ("\udcff", "is not text", "restore it"),
}  # fmt: skip


def yolo(root: Path, line: str = "", description: str = "train: images\nnames: [cat, dog]\n") -> None:
    write_picture(root / "images" / "a.jpg", 60, 80)
    (root / "labels").mkdir()
    label = f"0 .5 .5 .2 .2\n{line}\n".encode("utf-8", "surrogateescape")
    (root / "labels" / "a.txt").write_bytes(label)
    write_text(root / "data.yaml", description)


@pytest.mark.parametrize(("line", "reason", "hint"), LINES.values(), ids=LINES)
def test_yolo_lines(tmp_path: Path, line, reason, hint):
    yolo(tmp_path, line)
    checked(tmp_path, "yolo:data.yaml/train", ("a.txt: ", reason, hint))


DESCRIPTIONS = {
    "no YAML": ("train: [images\n", "is not YAML (while parsing", "correct it"),
    "a list": ("- cat\n", "is no YOLO data set's description", "it needs `train`, `val` and `names`"),
    "no names": ("train: images\n", "has no `names`", "list the classes there"),
    "a class twice": ("train: images\nnames: [cat, cat]\n", "its `names` have 'cat' twice", "a name of its own"),
    "numbers with a gap": ("train: images\nnames: {1: cat, 2: dog}\n", "not numbered 0 to 1", "number all classes"),
    "another count": ("train: images\nnc: 3\nnames: [cat]\n", "says nc: 3, but names 1 class", "correct one of them"),
    "no folder": ("train: nowhere\nnames: [cat]\n", "there is no ", "correct the entry, or put the images there"),
    "no split": ("val: images\nnames: [cat]\n", "has no split 'train'", "it has val"),
    "a tag that runs code": ("names: !!python/object/apply:os.system [ls]\n", "is not YAML (could not", "correct it"),
    "aliases of aliases": (f"{LAUGHS}names: [*a8]\ntrain: images\n", "its `names` are not texts", "a name of its own"),
    "deep": ("[" * 5000, "is not YAML (it is nested too deeply)", "correct it"),
}  # fmt: skip


@pytest.mark.parametrize(("description", "reason", "hint"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_yolo_descriptions(tmp_path: Path, description, reason, hint):
    yolo(tmp_path, description=description)
    checked(tmp_path, "yolo:data.yaml/train", ("data.yaml: ", reason, hint))


def as_shards(root: Path) -> Path:
    """Two shards of the root's classes in the place of its folders; return the index."""
    write_shards(open_classification(root, "train"), root / "shards", "train", size_mb=0.01)
    shutil.rmtree(root / "train")
    for path in sorted((root / "shards").iterdir()):
        path.rename(root / path.name)
    return root / "train.index.jsonl"


def cifar(content: object) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / "cifar-10-batches-py").mkdir()
        (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(
            content if isinstance(content, bytes) else pickle.dumps(content)
        )

    return write


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("this line must never be printed",)


CLASSES = {
    "no folder": (lambda root: shutil.rmtree(root / "train"), ": no folder 'train'", "train/<class>/<image>, or CIFAR"),
    "no classes": (
        lambda root: shutil.rmtree(root / "train" / "ant"), "train: holds no class folders", "sort the images into",
    ),
    "loose pictures": (
        lambda root: (root / "train" / "ant").rename(root / "aside") and
        write_picture(root / "train" / "a.jpg", 9, 9), "train: holds images that lie in no class folder",
        "sort the images into",
    ),
    "empty classes": (
        lambda root: [path.unlink() for path in root.glob("train/ant/*")], "train: no images in its 1 class folder",
        "put some there",
    ),
    "tar files": (
        lambda root: [shutil.rmtree(root / "train" / "ant"), write_text(root / "train" / "n1.tar", "")],
        "train: holds tar files and no class folders", "unpack each into a folder"),
    "an archive": (
        lambda root: [shutil.rmtree(root / "train"), write_text(root / "all.tar.gz", "")], "all.tar.gz: an archive",
        "unpack it first",
    ),
    "empty picture": (lambda root: os.truncate(root / "train/ant/001.jpg", 0), "001.jpg: zero bytes", "replace it"),
    "half a picture": (lambda root: os.truncate(root / "train/ant/001.jpg", 200), "001.jpg: truncated", "replace it"),
    "not a picture": (
        lambda root: (root / "train/ant/001.jpg").write_text("x"), "001.jpg: is not an image", "replace it"),
    "a broken link": (
        lambda root: (root / "train/ant/009.jpg").symlink_to("gone"), "009.jpg: no such image", "restore it"),
    "shards cut off": (
        lambda root: os.truncate(as_shards(root).parent / "train-000000.tar", 900),
        "train-000000.tar: has 900 bytes where", "fetch that shard again"),
    "a shard gone": (
        lambda root: (as_shards(root).parent / "train-000000.tar").unlink(),
        "train-000000.tar: no such shard", "fetch that shard again"),
    "index cut off": (
        lambda root: os.truncate(as_shards(root), 30), "train.index.jsonl: not a whole index of shards",
        "write it anew",
    ),
    "index of nulls": (
        lambda root: as_shards(root).write_text("null\nnull\n"), "train.index.jsonl: not a whole index of shards",
        "write it anew",
    ),
    "CIFAR cut off": (
        cifar(pickle.dumps({})[:-3]), "data_batch_1: does not read as a CIFAR-10 batch", "download it again",
    ),
    "CIFAR that runs code": (
        cifar(Harmful()), "data_batch_1: does not read as a CIFAR-10 batch (it wants builtins.print", "download",
    ),
    "CIFAR of lists": (cifar([1, 2]), "data_batch_1: holds a list, not a CIFAR-10 batch", "download it again"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason", "hint"), CLASSES.values(), ids=CLASSES)
def test_images_with_a_class_each(tmp_path: Path, change, reason, hint, capfd):
    change(write_folders(tmp_path, {"ant": 3}, size_hw=(90, 90)))
    checked(tmp_path, "train", (reason, hint))
    assert "never be printed" not in capfd.readouterr().out


def tar_of(member: tarfile.TarInfo, content: bytes = b"") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w") as archive:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    return write


def special(name: str, kind: bytes, target: str = "") -> Callable[[Path], None]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return tar_of(member)


def sparse(path: Path) -> None:
    """A tar whose one file claims 8 EB."""
    member = tarfile.TarInfo("large")
    member.size = (1 << 63) - 1
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def zip_of(name: str, size: int = 0, mode: int = 0) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, b"/etc/passwd")
        if size:  # what its directory claims
            content, claimed = path.read_bytes(), (0xFFFFFFFE).to_bytes(4, "little")
            at = content.index(b"PK\x01\x02") + 24
            path.write_bytes(content[:at] + claimed + content[at + 4 :])

    return write


LEADS_OUT, ROOM, DAMAGED = "which leads out of", "are to come and 1.1 GB are free", "is damaged or cut off"
HINTS = {LEADS_OUT: "fetch the archive again", ROOM: "make room", DAMAGED: "remove it and fetch it again"}
ARCHIVES = {
    "tar: ..": (tar_of(tarfile.TarInfo("../escaped.txt")), "voc07", "holds ../escaped.txt, " + LEADS_OUT),
    "tar: absolute": (tar_of(tarfile.TarInfo("/tmp/escaped.txt")), "voc07", "holds /tmp/escaped.txt, " + LEADS_OUT),
    "tar: a link": (special("link", tarfile.SYMTYPE, "/etc"), "voc07", "holds link, " + LEADS_OUT),
    "tar: a hard link": (special("link", tarfile.LNKTYPE, "/etc/passwd"), "voc07", "holds link, " + LEADS_OUT),
    "tar: a device": (special("null", tarfile.CHRTYPE), "voc07", "holds null, " + LEADS_OUT),
    "tar: a pipe": (special("pipe", tarfile.FIFOTYPE), "voc07", "holds pipe, " + LEADS_OUT),
    "tar: larger than the disk": (sparse, "voc07", "9223372036.9 GB " + ROOM),
    "tar: no tar": (lambda path: path.write_bytes(b"<html>404"), "voc07", DAMAGED),
    "zip: ..": (zip_of("../escaped.txt"), "coco", "holds ../escaped.txt, " + LEADS_OUT),
    "zip: absolute": (zip_of("/tmp/escaped.txt"), "coco", "holds /tmp/escaped.txt, " + LEADS_OUT),
    "zip: a link": (zip_of("link", mode=0o120777), "coco", "holds link, " + LEADS_OUT),
    "zip: larger than the disk": (zip_of("large", size=1), "coco", "4.3 GB " + ROOM),
    "zip: no zip": (lambda path: path.write_bytes(b"<html>404"), "coco", DAMAGED),
}  # fmt: skip


@pytest.mark.parametrize(("write", "command", "reason"), ARCHIVES.values(), ids=ARCHIVES)
def test_archives_write_nothing_outside_of_their_folder(tmp_path: Path, monkeypatch, write, command, reason):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 30))
    name = "VOCtest_06-Nov-2007.tar" if command == "voc07" else "train2017.zip"
    data = tmp_path / "data"
    data.mkdir()
    write(data / name)
    hint = next(hint for end, hint in HINTS.items() if reason.endswith(end))
    told(run("prepare_data", command, "--data", data, expect=1).err, (f"{name}: ", reason, hint))
    assert {path.name for path in tmp_path.rglob("*")} == {"data", name}
    assert not Path("/tmp/escaped.txt").exists()


FOUND = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
PREDICTIONS = {
    "cut off": (b'[{"image_id": 1', "does not parse as JSON", "it may be cut short: write it again"),
    "deep": (b"[" * 100_000, "is nested too deeply", "give a file of predictions"),
    "no UTF-8": (b"\xff", "is not a text file", "give a JSON file"),
    "a file of truth": (b'{"images": []}', "is a single object", "COCO results are a list of objects with"),
    "a text in the list": (b'["cat"]', "prediction 0 (counted from 0): is a string, not an object", "remove it"),
    "off by one": ([{**FOUND, "category_id": 0}], "category_id 0 is not in the truth", "(off by one)"),
    "unknown image": ([{**FOUND, "image_id": 9}], "image_id 9 is not in the truth", "score each file against its"),
    "no image": (
        [{key: FOUND[key] for key in ("category_id", "bbox", "score")}],
        "prediction 0 (counted from 0): has no image_id", "number them anew, in all files alike",
    ),
    "score of nan": (
        [{**FOUND, "score": float("nan")}], "score nan is not a finite number", "--drop-invalid leaves such out",
    ),
    "no score": (
        [{key: FOUND[key] for key in ("image_id", "category_id", "bbox")}], "has no score",
        "was the truth given in place",
    ),
    "negative box": ([{**FOUND, "bbox": [1, 2, -3, 4]}], "has a negative width or height", "not two corners"),
    "infinite box": ([{**FOUND, "bbox": [1, 2, float("inf"), 4]}], "inf, 4] is not four finite", "give x, y"),
    "box of three": ([{**FOUND, "bbox": [1, 2, 3]}], "bbox [1, 2, 3] is not four finite", "give x, y, width, height"),
    "absent": (None, "does not exist", "give the path of a JSON file"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason", "hint"), PREDICTIONS.values(), ids=PREDICTIONS)
def test_predictions(tmp_path: Path, content, reason, hint):
    truth = write_coco(tmp_path, {"a.jpg": (60, 80)}, [{"bbox": [1, 2, 3, 4]}])
    if content is not None:
        written = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / "found.json").write_bytes(written)
    flags = ("--truth", truth, "--predictions", tmp_path / "found.json", "--metric", "coco")
    printed = run("score", *flags, expect=1).err
    told(printed, ("error: ", "found.json: ", reason, hint))
    assert len(printed.splitlines()) == 1


RECIPES = {
    "no YAML": ("backbone: [", "mine.yaml: is not YAML (while parsing", "correct it"),
    "a tag that runs code": (
        "backbone: !!python/object/apply:os.system [ls]\n", "mine.yaml: is not YAML (could not", "correct it",
    ),
    "a tag of no value": ("seed: !!timestamp no\n", "mine.yaml: is not YAML (", "correct it"),
    "deep": ("[" * 5000, "mine.yaml: is not YAML (it is nested too deeply)", "correct it"),
    "no UTF-8": (b"seed: \xff\n", "mine.yaml: is not YAML ('utf-8' codec", "correct it"),
    "a list": ("- seed\n", "mine.yaml: holds a list", "write `field: value` lines"),
    "unknown field": ("sead: 1\n", "mine.yaml: there is no field sead", "did you mean seed?"),
    "field of another part": ("lr: 1\n", "mine.yaml: there is no field lr", "did you mean solver.lr?"),
    "aliases of aliases": (
        f"{LAUGHS}seed: *a8\n", "mine.yaml: seed: Input should be a valid integer", "there is no field a0",
    ),
    "a word for a number": (
        "solver: {lr: fast}\n", "mine.yaml: solver.lr: Input should be a valid number", "unable to parse string",
    ),
    "out of bounds": ("solver: {lr: -1}\n", "mine.yaml: solver.lr: Input should be greater than 0", "not -1"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason", "hint"), RECIPES.values(), ids=RECIPES)
def test_recipes(tmp_path: Path, content, reason, hint):
    (tmp_path / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run("train_det", "--config", tmp_path / "mine.yaml", "--weights", "none", expect=2)
    told(done.err[:20_000], (reason, hint))


RECIPE, UNREAD = "it is the run's recipe: restore it or run again", "config.yaml: it is not valid YAML ("
LINES_ALONE, RESUME = "config.yaml: it does not hold `field: value` lines", "run its command again with --resume"
RUNS = {
    "no YAML": ("config.yaml", "backbone: [", UNREAD + "while parsing", RECIPE),
    "a tag that runs code": (
        "config.yaml", "seed: !!python/object/apply:os.system [ls]\n", UNREAD + "could not", RECIPE,
    ),
    "deep": ("config.yaml", "[" * 5000, UNREAD + "it is nested too deeply", RECIPE),
    "no UTF-8": ("config.yaml", b"\xff\xfe\x00", "config.yaml: it cannot be read ('utf-8' codec", RECIPE),
    "a list": ("config.yaml", "- seed\n", LINES_ALONE, RECIPE),
    "empty": ("config.yaml", "", "predictions.json: it is missing", "score the run with: python tools/eval_det.py"),
    "unfinished": ("provenance.json", "{}", "run: the run is not finished", RESUME),
    "provenance cut off": ("provenance.json", "{", "provenance.json: it is not valid JSON", RESUME),
}  # fmt: skip


@pytest.mark.parametrize(("file", "content", "reason", "hint"), RUNS.values(), ids=RUNS)
def test_run_directories(tmp_path: Path, file, content, reason, hint):
    write_text(tmp_path / "run" / "provenance.json", '{"finished": true}')
    write_text(tmp_path / "run" / "config.yaml", "seed: 0\n")
    (tmp_path / "run" / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    told(run("compare", tmp_path / "run", "--output", tmp_path / "out", expect=1).err, (reason, hint))


CODE = "other.pth holds more than tensors and plain values, and reading it could run code"
ALONE = "Save its state_dict alone"
AGAIN = "fetch it again, or use another"
WEIGHTS = {
    "pickle that runs code": (Harmful(), CODE, ALONE),
    "pickle of a module": (torch.nn.Linear(1, 1), CODE, ALONE),
    "cut off": (b"PK\x03\x04", "other.pth is truncated or damaged (", AGAIN),
    "no torch file": (b"<html>404", "other.pth is damaged or not a torch file", AGAIN),
    "bytes that torch stumbles over": (b"NaN\x00\x03\x04\x00\x08\x01" + bytes(6), "other.pth is truncated or", AGAIN),
    "empty": (b"", "other.pth is truncated or damaged (EOFError)", AGAIN),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason", "hint"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(sample: Path, tmp_path: Path, content, reason, hint, capfd):
    path = tmp_path / "other.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    flags = ("--dataset", "sample", "--data", sample, "--device", "cpu", "--output", tmp_path / "run")
    done = run("train_det", "--backbone", "r18", "--weights", path, *flags, expect=1)
    told(done.err, (reason, hint))
    assert "never be printed" not in capfd.readouterr().out
