"""Sets of semantic maps: what a PNG's values mean, where sets lie, and what is wrong with them in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.writers import write_picture, write_text
from vertebra.data.datasets.maps import Coding, palette, read_map
from vertebra.data.datasets.semantic import open_semantic, parse_semantic
from vertebra.data.datasets.semantic_classes import CITYSCAPES, COCO_STUFF
from vertebra.ground.errors import BadSample, DataError
from vertebra.ground.labels import IGNORED

FOUR = Coding.of({0: 0, 1: 1, 2: 2, 3: 3})
INDICES = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [3, 3, 255, 255]], np.uint8)


def write_map(path: Path, labels_HW: np.ndarray, mode: str = "L", **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels_HW)
    if mode == "P":
        image.putpalette(palette().tobytes())
    image.save(path, **how)
    return path


def grey_png(values_HW: np.ndarray, bits: int) -> bytes:
    """A grey PNG of fewer than 8 bits a value, which Pillow does not write, by the standard's own words."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values_HW.shape
    rows = b""
    for row in values_HW.tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("mode", ["L", "P"])
def test_grey_and_palette_pngs_give_their_indices(tmp_path: Path, mode: str) -> None:
    path = write_map(tmp_path / "a.png", INDICES, mode)
    assert np.array_equal(read_map(path, FOUR), INDICES)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pngs_of_few_bits_give_their_indices(tmp_path: Path, bits: int) -> None:
    values_HW = INDICES[:2] % 2**bits
    (tmp_path / "grey.png").write_bytes(grey_png(values_HW, bits))
    assert np.array_equal(read_map(tmp_path / "grey.png", FOUR), values_HW)
    path = write_map(tmp_path / "palette.png", values_HW, "P", bits=bits)
    assert path.read_bytes()[24] == bits
    assert np.array_equal(read_map(path, FOUR), values_HW)


def test_transparency_beside_grey_says_nothing(tmp_path: Path) -> None:
    path = write_map(tmp_path / "a.png", np.stack([INDICES, INDICES // 2 + 9], axis=2))
    assert np.array_equal(read_map(path, FOUR), INDICES)


def test_colours_are_labels_where_the_set_says_which(tmp_path: Path) -> None:
    colours = {(0, 0, 0): 0, (255, 0, 9): 1, (1, 2, 3): 2, (224, 224, 192): IGNORED}
    coding = Coding(FOUR.table, tuple(colours.items()))
    labels_HW = np.array([[0, 1, 2], [2, 1, IGNORED]], np.uint8)
    colour_of = {label: colour for colour, label in colours.items()}
    pixels_HW3 = np.array([[colour_of[int(label)] for label in row] for row in labels_HW], np.uint8)
    assert np.array_equal(read_map(write_map(tmp_path / "a.png", pixels_HW3), coding), labels_HW)
    opaque_HW4 = np.dstack([pixels_HW3, np.full((2, 3), 255, np.uint8)])
    assert np.array_equal(read_map(write_map(tmp_path / "b.png", opaque_HW4), coding), labels_HW)
    pixels_HW3[1, 1] = 7, 8, 9
    with pytest.raises(BadSample, match=r"c\.png: has colour 7 8 9, in 1 of its pixels"):
        read_map(write_map(tmp_path / "c.png", pixels_HW3), coding)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.full((2, 2), 4, np.uint8), "has index 4, in 4 of its pixels, which is none of the set's classes"),
        (np.zeros((2, 2), np.uint16), "has 16 bits a value"),
        (np.zeros((2, 2, 3), np.uint8), "its pixels are colours, not indices of classes"),
        (b"\xff\xd8\xff\xe0 a JPEG", "is not a PNG"),
        (b"", "zero bytes long"),
        (grey_png(INDICES % 2, 1)[:45], "does not decode"),
    ],
    ids=["unknown", "16 bits", "colours", "JPEG", "empty", "cut off"],
)
def test_a_wrong_map_is_named_with_what_is_wrong(tmp_path: Path, content: np.ndarray | bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content) if isinstance(content, bytes) else write_map(path, content)
    with pytest.raises(BadSample, match=rf"a\.png: {message}"):
        read_map(path, FOUR)


def test_the_palette_is_vocs() -> None:
    # the devkit's first colours, and its border's
    assert palette()[[0, 1, 2, 3, 8, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def write_voc_maps(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    for number, name in enumerate(("2007_01", "2007_02", "2008_03", "2008_04")):
        write_picture(base / "JPEGImages" / f"{name}.jpg", 6, 8, number)
        write_map(base / "SegmentationClassAug" / f"{name}.png", np.full((6, 8), number, np.uint8))
        write_map(base / "SegmentationClass" / f"{name}.png", np.full((6, 8), 20 - number, np.uint8), "P")
    write_text(base / "ImageSets" / "Segmentation" / "train.txt", "2007_01\n2008_03\n")
    write_text(base / "ImageSets" / "Segmentation" / "val.txt", "2007_02\n")
    return base


@pytest.mark.parametrize(
    ("source", "images", "values"),
    [
        ("voc2012/train", ["2007_01", "2008_03"], [20, 18]),
        ("voc2012/val", ["2007_02"], [19]),
        ("voc2012aug/train", ["2007_01", "2008_03", "2008_04"], [0, 2, 3]),
        ("voc2012aug/val", ["2007_02"], [1]),
    ],
)
def test_voc(tmp_path: Path, source: str, images: list[str], values: list[int]) -> None:
    write_voc_maps(tmp_path)
    dataset = open_semantic(tmp_path, source)
    assert [dataset.path(index).stem for index in range(len(dataset))] == images
    assert [dataset.labels(index).max() for index in range(len(dataset))] == values
    assert (dataset.class_names[0], dataset.class_names[20], len(dataset.class_names)) == (
        *("background", "tvmonitor"),
        21,
    )
    assert dataset.labelled and not dataset.absent() and not dataset.notes


def test_maps_that_are_not_there_are_missed_at_once(tmp_path: Path) -> None:
    base = write_voc_maps(tmp_path)
    (base / "SegmentationClass").rename(base / "x")
    assert "its maps are those of SegmentationClassAug" in open_semantic(tmp_path, "voc2012/val").notes[0]
    (base / "SegmentationClassAug").rename(base / "y")
    for source, folder in (("voc2012/val", "SegmentationClass"), ("voc2012aug/train", "SegmentationClassAug")):
        with pytest.raises(DataError, match=f"no {folder} in it"):
            open_semantic(tmp_path, source)


def test_vocs_test_set_has_no_truth(tmp_path: Path) -> None:
    base = write_voc_maps(tmp_path)
    write_picture(base / "JPEGImages" / "2008_09.jpg", 6, 8)
    write_text(base / "ImageSets" / "Segmentation" / "test.txt", "2008_09\n")
    assert not open_semantic(tmp_path, "voc2012/test").labelled


def test_ade20k_counts_its_classes_from_1(tmp_path: Path) -> None:
    base = tmp_path / "ADEChallengeData2016"
    write_picture(base / "images" / "training" / "a.jpg", 2, 3)
    write_map(base / "annotations" / "training" / "a.png", np.array([[0, 1, 2], [150, 150, 0]], np.uint8))
    rows = [f"{number}\t0.1\t2\t3\tname{number}, other" for number in range(1, 151)]
    write_text(base / "objectInfo150.txt", "\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
    dataset = open_semantic(tmp_path, "ade20k/training")
    assert dataset.labels(0).tolist() == [[255, 0, 1], [149, 149, 255]]
    assert (dataset.class_names[0], dataset.class_names[149]) == ("name1", "name150")
    (base / "objectInfo150.txt").unlink()
    with pytest.raises(DataError, match=r"objectInfo150\.txt"):
        open_semantic(base, "ade20k/training")


def test_cityscapes_has_the_ids_of_training(tmp_path: Path) -> None:
    stem = "ulm_000000_000019"
    write_picture(tmp_path / "leftImg8bit" / "val" / "ulm" / f"{stem}_leftImg8bit.png", 2, 17)
    ids_HW = np.arange(34, dtype=np.uint8).reshape(2, 17)
    write_map(tmp_path / "gtFine" / "val" / "ulm" / f"{stem}_gtFine_labelIds.png", ids_HW)
    write_map(tmp_path / "gtFine" / "val" / "ulm" / f"{stem}_gtFine_instanceIds.png", ids_HW)
    dataset = open_semantic(tmp_path, "cityscapes/val")
    labels_HW = dataset.labels(0)
    assert [int(ids_HW[labels_HW == label][0]) for label in range(19)] == list(CITYSCAPES)
    assert (labels_HW == 255).sum() == 34 - 19
    assert dataset.class_names[13] == "car" and dataset.palette[13].tolist() == [0, 0, 142]


def test_coco_stuff_has_its_171_classes(tmp_path: Path) -> None:
    base = tmp_path / "coco"
    write_picture(base / "train2017" / "000000000009.jpg", 1, 4)
    write_map(base / "stuffthingmaps" / "train2017" / "000000000009.png", np.array([[0, 12, 181, 255]], np.uint8))
    dataset = open_semantic(tmp_path, "coco_stuff/train2017")
    assert dataset.image_ids_I.tolist() == [9] and len(set(dataset.class_names)) == 171 and len(COCO_STUFF) == 182
    person, stop_sign, wood, ignored = dataset.labels(0)[0].tolist()
    assert [dataset.class_names[label] for label in (person, stop_sign, wood)] == ["person", "stop sign", "wood"]
    assert ignored == IGNORED
    write_map(dataset.map_path(0), np.array([[11, 0, 0, 0]], np.uint8))  # street sign, which no map has
    with pytest.raises(BadSample, match="index 11"):
        dataset.labels(0)


def write_own(root: Path, *, nested: bool = False, classes: str = "road\nlake\n") -> Path:
    for number, stem in enumerate(("a", "b", "c")):
        images, masks = (f"train/{kind}" if nested else f"{kind}/train" for kind in ("images", "masks"))
        write_picture(root / images / f"{stem}.jpg", 6, 8, number)
        labels_HW = np.zeros((6, 8), np.uint8)
        labels_HW[:number] = 1
        write_map(root / masks / f"{stem}.png", labels_HW)
    write_text(root / "classes.txt", classes)
    return root


@pytest.mark.parametrize("nested", [False, True])
def test_folders_of_ones_own(tmp_path: Path, nested: bool) -> None:
    write_own(tmp_path / "own", nested=nested)
    for root, source in ((tmp_path, "maps:own/train"), (tmp_path / "own", f"maps:{tmp_path}/own/train")):
        dataset = open_semantic(root, source)
        assert dataset.class_names == ("road", "lake")
        assert [int((dataset.labels(index) == 1).sum()) for index in range(3)] == [0, 8, 16]


def test_the_colours_of_ones_own_masks(tmp_path: Path) -> None:
    write_own(tmp_path, classes="deep lake 0 0 255\nroad 128 0 0\nignored 1 1 1\n")
    pixels_HW3 = np.array([[[0, 0, 255], [128, 0, 0], [1, 1, 1]]], np.uint8)
    write_map(tmp_path / "masks" / "train" / "a.png", pixels_HW3)
    dataset = open_semantic(tmp_path, f"maps:{tmp_path}/train")
    assert dataset.class_names == ("deep lake", "road") and dataset.labels(0).tolist() == [[0, 1, 255]]
    assert dataset.palette[1].tolist() == [128, 0, 0]


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda root: (root / "masks/train/b.png").unlink(), r"images/train/b\.jpg: has no map; expected .*b\.png"),
        (lambda root: (root / "classes.txt").unlink(), r"has no classes\.txt"),
        (lambda root: write_text(root / "classes.txt", "a\na\n"), r"classes\.txt: .* name or a colour twice"),
        (lambda root: write_text(root / "classes.txt", "a 1 2 3\nb\n"), r"classes\.txt: gives only some classes a"),
        (lambda root: write_text(root / "classes.txt", "\n".join(map(str, range(255)))), "names 255 classes"),
        (lambda root: [(root / f"images/train/{stem}.jpg").unlink() for stem in "abc"], "no images"),
        (lambda root: (root / "images").rename(root / "pictures"), "no images of that split; expected"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(tmp_path: Path, break_, message: str) -> None:
    break_(write_own(tmp_path))
    with pytest.raises(DataError, match=message):
        open_semantic(tmp_path, f"maps:{tmp_path}/train")


def test_a_map_without_an_image_is_left_out_and_noted(tmp_path: Path) -> None:
    (write_own(tmp_path) / "images" / "train" / "c.jpg").unlink()
    dataset = open_semantic(tmp_path, f"maps:{tmp_path}/train")
    assert len(dataset) == 2 and "c.png: has no image" in dataset.notes[0]


def test_a_listed_image_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    (write_voc_maps(tmp_path) / "JPEGImages" / "2008_03.jpg").unlink()
    parsed = parse_semantic(tmp_path, "voc2012/train")
    assert parsed.dataset is not None and len(parsed.dataset) == 1
    assert [fault.reason for fault in parsed.faults] == ["its image 2008_03 is not there"]


def test_parts_and_prints_follow_the_content(tmp_path: Path) -> None:
    source = f"maps:{write_own(tmp_path)}/train"
    dataset = open_semantic(tmp_path, source)
    part = dataset.subset([2, 0])
    assert [part.path(index).stem for index in range(2)] == ["c", "a"] and part.labels(0).sum() == 16
    assert part.image_ids_I.tolist() == dataset.image_ids_I[[2, 0]].tolist()
    whole = dataset.fingerprint()
    assert part.fingerprint() != whole == open_semantic(tmp_path, source).fingerprint()
    write_map(dataset.map_path(1), np.random.default_rng(0).integers(0, 2, (6, 8), np.uint8))
    assert dataset.fingerprint() != whole
    dataset.path(0).write_bytes(b"")
    dataset.map_path(1).unlink()
    assert dataset.absent() == ["images/train/a.jpg", "masks/train/b.png"]


def test_instances_are_painted_upon_the_background(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", 4, 6)
    square = {"segmentation": {"size": [4, 6], "counts": [0, 8, 16]}, "bbox": [0, 0, 2, 4], "category_id": 7}
    other = {"segmentation": {"size": [4, 6], "counts": [4, 8, 12]}, "bbox": [1, 0, 2, 4], "category_id": 9}
    again = {"segmentation": {"size": [4, 6], "counts": [16, 8]}, "bbox": [4, 0, 2, 4], "category_id": 9, "iscrowd": 1}
    value = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [{"id": n, "image_id": 1, "area": 8, **one} for n, one in enumerate((square, other, again), 1)],
    }
    path = tmp_path / "ann.json"
    path.write_text(json.dumps(value))
    dataset = open_semantic(tmp_path, f"json:{path}")
    assert dataset.class_names == ("background", "cat", "dog")
    assert dataset.labels(0).tolist() == [[1, 255, 2, 0, 2, 2]] * 4
    del value["annotations"][0]["segmentation"]
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"1 of its objects have no mask, such as one of .*a\.jpg"):
        open_semantic(tmp_path, f"json:{path}")


@pytest.mark.parametrize("source", ["voc2012", "ade20k", "maps:", "x/train", ""])
def test_an_unknown_source_is_answered_with_those_that_are_known(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError, match=r"write voc2012/train, .*maps:DIR/SPLIT"):
        open_semantic(tmp_path, source)


def test_real_voc(shared_data: Path) -> None:
    counts = {source: len(open_semantic(shared_data, f"voc2012{source}")) for source in ("/train", "/val", "aug/train")}
    assert counts == {"/train": 108, "/val": 128, "aug/train": 729}
    dataset = open_semantic(shared_data, "voc2012/val")
    index = [dataset.path(index).stem for index in range(len(dataset))].index("2007_000033")
    assert np.unique(dataset.labels(index)).tolist() == [0, 1, 255]  # an aeroplane, by VOC's own image sets
