"""YOLO text: lines by hand, layouts as they are found, and what is refused in which words."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.writers import picture, records, write_picture, write_text, write_turned
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.datasets.yolo import in_pixels, parse_line, polygon_area
from vertebra.data.prepare.check import check
from vertebra.ground.errors import DataError

Write = Callable[..., Path]
BOX = "1 0.5 0.25 0.2 0.1\n"  # of 80 x 60 px: centre 40, 15; 16 x 6 px
GOOD = "train: images/train\nnames: [cat, dog]\n"
LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(8))
OUTLINE = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"  # corners 8 6, 40 6, 40 30


@pytest.fixture
def yolo_set(tmp_path: Path) -> Write:
    """Writes data.yaml, images/train and labels/train: label text by image, None for no label file."""

    def write(labels: dict[str, str | None], description: str = GOOD) -> Path:
        for seed, (stem, text) in enumerate(labels.items()):
            write_picture(tmp_path / "images" / "train" / f"{stem}.jpg", 60, 80, seed)
            if text is not None:
                write_text(tmp_path / "labels" / "train" / f"{stem}.txt", text)
        if description:
            (tmp_path / "data.yaml").write_text(description)
        return tmp_path

    return write


def write_labelled(folder: Path, name: str) -> None:
    """A picture in images and its box in labels."""
    write_picture(folder / "images" / name, 60, 80)
    write_text((folder / "labels" / name).with_suffix(".txt"), BOX)


def test_fractions_become_pixels_and_outlines_have_their_bounds_as_box(yolo_set: Write):
    dataset = open_detection(yolo_set({"000007": BOX + "\n" + OUTLINE, "b": ""}), "yolo:data.yaml/train")
    assert dataset.class_names == ("cat", "dog") and dataset.category_ids == (1, 2) and dataset.labelled
    assert dataset.bbox_xywh_K4.tolist() == [[32, 12, 16, 6], [8, 6, 32, 24]]
    assert dataset.labels_K.tolist() == [2, 1] and dataset.areas_K.tolist() == [96, 32 * 24 / 2]
    first, empty = records(dataset)
    assert first.segmentations == (None, [[8, 6, 40, 6, 40, 30]]) and first.image_id == 7
    assert len(empty.labels_G) == 0 and first.path.is_file()
    assert list(dataset.file_names) == ["images/train/000007.jpg", "images/train/b.jpg"]
    (note,) = dataset.notes
    assert "object 1 is a box, others are outlines; outline it to learn masks" in note
    assert open_detection(dataset.root, "yolo:data.yaml/train", segmentations=False).segmentations is None


def test_the_same_set_is_found_by_every_name_a_user_would_give(yolo_set: Write, monkeypatch: pytest.MonkeyPatch):
    root = yolo_set({"a": BOX, "b": OUTLINE})
    names = ["yolo:data.yaml/train", "yolo:train", f"yolo:{root}/train", f"yolo:{root}/data.yaml/train"]
    prints = {open_detection(root, name).fingerprint() for name in names}
    monkeypatch.chdir(root.parent)
    prints.add(open_detection(root, f"yolo:{root.name}/train").fingerprint())
    (root / "data.yaml").rename(root / "pets.yml")
    prints.add(open_detection(root, "yolo:train").fingerprint())
    (root / "pets.yml").unlink()
    (root / "classes.txt").write_text("cat\ndog\n")
    prints.add(open_detection(root, "yolo:train").fingerprint())
    assert len(prints) == 1


def test_splits_may_be_folders_lists_or_several_and_exporters_two_dots_are_forgiven(tmp_path: Path):
    for split in ("train", "valid"):
        write_labelled(tmp_path / split, f"{split}.jpg")
    (tmp_path / "some.txt").write_text("./valid/images/valid.jpg\n")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: {0: cat, 1: dog}\n"
        "both: [train/images, valid/images]\nlisted: some.txt\n"
    )

    def names(split: str) -> list[str]:
        return list(open_detection(tmp_path, f"yolo:{split}").file_names)

    assert names("train") == ["train/images/train.jpg"]
    assert names("val") == names("valid") == names("listed") == ["valid/images/valid.jpg"]
    assert names("both") == ["train/images/train.jpg", "valid/images/valid.jpg"]
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")  # then the folders themselves
    assert names("train") == ["train/images/train.jpg"]
    union = open_detection(tmp_path, "yolo:train+yolo:valid")
    assert len(union) == 2 and union.path(1).is_file()


def test_images_and_labels_of_one_set_need_no_split(tmp_path: Path):
    write_labelled(tmp_path / "set", "a.png")
    (tmp_path / "set" / "labels" / "classes.txt").write_text("cat\ndog\n")
    assert open_detection(tmp_path, "yolo:set").bbox_xywh_K4.tolist() == [[32, 12, 16, 6]]


def test_fractions_are_of_the_image_as_it_is_seen(yolo_set: Write):
    root = yolo_set({"a": "0 0.5 0.5 1 0.5\n"})
    path = root / "images" / "train" / "a.jpg"
    write_turned(path, picture(60, 80), 6)  # 80 x 60 stored, 60 x 80 seen
    assert cv2.imread(str(path)).shape[:2] == (80, 60)
    dataset = open_detection(root, "yolo:train")
    assert dataset.sizes_hw_I2.tolist() == [[80, 60]] and dataset.bbox_xywh_K4.tolist() == [[0, 20, 60, 40]]
    assert check(root, "yolo:train").faults == []


def test_images_without_a_label_file_are_negatives_and_said_once(yolo_set: Write):
    dataset = open_detection(yolo_set({"a": BOX, "b": None, "c": None}), "yolo:train")
    assert len(dataset) == 3 and len(dataset.labels_K) == 1
    (note,) = dataset.notes
    assert "2 images without a label file were taken as without objects, such as: has no label file b.txt" in note


def test_labels_may_lie_beside_their_images_in_a_folder_called_images(tmp_path: Path):
    root = tmp_path / "images" / "pets"
    for folder in ("images", "more", "a/images/b"):
        write_picture(root / folder / "x.jpg", 60, 80)
        write_text(root / folder / "x.txt", BOX)
    write_labelled(root / "apart", "x.jpg")
    (root / "data.yaml").write_text("train: [images, more, a/images/b, apart/images]\nnames: [cat, dog]\n")
    dataset = open_detection(root, "yolo:train")
    assert dataset.labels_K.tolist() == [2] * 4 and dataset.notes == () and len(set(dataset.image_ids_I.tolist())) == 4


def test_of_images_that_would_share_a_label_file_the_photograph_is_taken(yolo_set: Write):
    root = yolo_set({"a": BOX})
    write_picture(root / "images" / "train" / "a.png", 60, 80)
    (root / "list.txt").write_text("images/train/a.png\n")
    (root / "data.yaml").write_text(f"{GOOD}listed: list.txt\n")
    dataset = open_detection(root, "yolo:train")
    assert list(dataset.file_names) == ["images/train/a.jpg"]
    assert "a.jpg: lies beside a.png; the others are left out" in dataset.notes[0]
    assert list(open_detection(root, "yolo:listed").file_names) == ["images/train/a.png"], "as the list says"


@pytest.mark.parametrize("stems", [("1_10", "11_0"), ("1", "001")])
@pytest.mark.parametrize("place", ["images", "."])
def test_images_whose_numbers_are_the_same_are_two_images(tmp_path: Path, stems: tuple[str, str], place: str):
    for stem in stems:
        write_picture(tmp_path / place / f"{stem}.jpg", 60, 80)
        write_text(tmp_path / place / f"{stem}.txt", BOX)
    (tmp_path / "data.yaml").write_text(f"train: {place}\nnames: [cat, dog]\n")
    assert len(set(open_detection(tmp_path, "yolo:train").image_ids_I.tolist())) == 2
    assert check(tmp_path, "yolo:train").faults == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_an_encoding_are_no_part_of_a_name(yolo_set: Write, encoding: str):
    root = yolo_set({"a": BOX}, "")
    (root / "classes.txt").write_text("cat\ndog\n", encoding=encoding)
    assert open_detection(root, "yolo:train").class_names == ("cat", "dog")
    (root / "list.txt").write_text("images/train/a.jpg\n", encoding=encoding)
    (root / "data.yaml").write_text("train: list.txt\nnames: [cat, dog]\n", encoding=encoding)
    assert list(open_detection(root, "yolo:train").file_names) == ["images/train/a.jpg"]


@pytest.mark.parametrize("hidden", ["._a.jpg", ".ipynb_checkpoints/a.jpg", "@eaDir/a.jpg", "thumbnails/a.jpg"])
def test_hidden_files_are_no_part_of_a_set(yolo_set: Write, hidden: str):
    root = yolo_set({"a": BOX})
    write_text(root / "images" / "train" / hidden, "Mac OS X")
    assert len(open_detection(root, "yolo:train")) == 1 and check(root, "yolo:train").faults == []


def test_a_test_split_without_any_labels_is_images_without_truth(yolo_set: Write):
    root = yolo_set({"a": None}, "test: images/train\ntrain: images/train\nnames: [cat]\n")
    dataset = open_detection(root, "yolo:test")
    assert not dataset.labelled and len(dataset) == 1 and "nothing to score against" in dataset.notes[0]
    with pytest.raises(DataError, match=r"a\.txt: no such label file, nor one of any other image; put the labels"):
        open_detection(root, "yolo:train")


def test_key_points_behind_a_box_are_passed_over(yolo_set: Write):
    root = yolo_set({"a": BOX[:-1] + " .1 .1 2 .2 .2 2\n"}, f"{GOOD}kpt_shape: [2, 3]\n")
    dataset = open_detection(root, "yolo:train")
    assert dataset.bbox_xywh_K4.tolist() == [[32, 12, 16, 6]] and dataset.segmentations is None


@pytest.mark.parametrize(
    ("description", "source", "sentence"),
    [
        ("names: !!timestamp no\n", "data.yaml/train", r"is not YAML \("),
        (f"{LAUGHS}names: [cat]\ntrain: [*a8]\n", "data.yaml/train", "has a list in the place of a folder of images"),
        (f"{LAUGHS}names: [cat]\nnc: *a8\ntrain: images/train\n", "data.yaml/train", "says nc: a list, but names 1"),
        (f"train: {'x' * 5000}\nnames: [cat]\n", "data.yaml/train", "there is no "),
        ("train: list.txt\nnames: [cat]\n", "data.yaml/train", "there is no "),
        (GOOD, "val", r"data\.yaml has train; no images in .*images/val"),
        (GOOD, "data.yaml", r"data\.yaml: names no split; write yolo:.*/train"),
        (GOOD, "{root}", r"no images in the folder itself; name a split, such as yolo:.*/train"),
        (GOOD, "mine.yaml/train", r"mine\.yaml: no such file; check the path"),
        (GOOD, "", "names no place; write yolo:DIR"),
    ],
)  # fmt: skip
def test_descriptions_and_sources_that_are_wrong_are_named(
    yolo_set: Write, description: str, source: str, sentence: str
):
    root = yolo_set({"a": BOX}, description)
    with pytest.raises(DataError, match=sentence):
        open_detection(root, "yolo:" + source.format(root=root))


def test_an_image_that_cannot_be_read_is_a_fault_where_it_is_one_of_few(yolo_set: Write):
    root = yolo_set({"a": BOX, "b": BOX})
    (root / "images" / "train" / "b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.jpg: zero bytes long; replace it"):
        open_detection(root, "yolo:train")
    (root / "images" / "train" / "b.jpg").write_bytes(b"no image at all")
    (fault,) = check(root, "yolo:train").faults
    assert "is not an image whose size can be read" in fault.reason


def test_one_unreadable_image_of_many_is_left_out_and_said(tmp_path: Path):
    for number in range(101):
        write_picture(tmp_path / "images" / f"{number}.png", 6, 8)
    (tmp_path / "images" / "7.png").write_bytes(b"")
    write_text(tmp_path / "labels" / "8.txt", "0 .5 .5 1 1\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    dataset = open_detection(tmp_path, f"yolo:{tmp_path}")
    assert len(dataset) == 100 and "images/7.png" not in dataset.file_names
    assert any("7.png: zero bytes long; it is left out" in note for note in dataset.notes)


fractions = st.floats(0, 1, allow_nan=False)


@given(st.text(max_size=60))
def test_any_text_is_an_object_or_a_sentence(text: str):
    try:
        line = parse_line(text, 3)
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith("has ")
    else:
        assert 0 <= line.label < 3 and all(map(math.isfinite, line.numbers))


@given(st.lists(fractions, min_size=3, max_size=12), st.integers(1, 5000), st.integers(1, 5000))
def test_an_outlines_box_is_the_smallest_that_holds_it_and_its_area_a_sum_of_triangles(
    xs: list[float], height: int, width: int
):
    ys = xs[1:] + xs[:1]
    text = " ".join(["2", *(f"{value:.9f}" for pair in zip(xs, ys) for value in pair)])
    (x, y, w, h), polygon = in_pixels(parse_line(text, 3), (height, width))
    assert polygon is not None
    corners_P2 = np.reshape(polygon, (-1, 2))
    np.testing.assert_allclose([x, y], corners_P2.min(axis=0), atol=1e-6)
    np.testing.assert_allclose([x + w, y + h], corners_P2.max(axis=0), atol=2e-6)
    first = corners_P2[0]
    triangles = [
        (a[0] - first[0]) * (b[1] - first[1]) - (a[1] - first[1]) * (b[0] - first[0])
        for a, b in pairwise(corners_P2[1:])
    ]
    assert polygon_area(polygon) == pytest.approx(abs(sum(triangles)) / 2, abs=1e-3)
