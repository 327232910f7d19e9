"""From each form into each other and back: the same images and objects, and a word on all that stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.writers import records, write_coco, write_picture, write_voc
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.yolo import polygon_area
from vertebra.data.prepare.check import check
from vertebra.data.prepare.conversion import Conversion, convert
from vertebra.data.prepare.conversion_yolo import join
from vertebra.ground.errors import DataError

Write = Callable[..., Path]


def to(
    form: str, dataset: DetectionDataset, output: Path, split: str = "val", **how: Any
) -> tuple[DetectionDataset, str]:
    """The set in another form, opened again with all that it carries, and the sentences on what was lost."""
    done: Conversion = convert(dataset, form, output, split, **{"images": "copy", **how})
    assert not check(done.data, done.source).fatal
    return open_detection(done.data, done.source, extras=True), " ".join(done.sentences)


def stems(dataset: DetectionDataset) -> list[str]:
    return [Path(name).stem for name in dataset.file_names]


def same_objects(one: DetectionDataset, other: DetectionDataset, *, by_stem: bool = False, atol: float = 0.0) -> None:
    """Images by id (or stem), sizes, boxes and labels, whatever order images come in."""
    keys = [stems(d) if by_stem else d.image_ids_I.tolist() for d in (one, other)]
    assert sorted(keys[0]) == sorted(keys[1]) and one.class_names == other.class_names
    place = {key: index for index, key in enumerate(keys[1])}
    for index, key in enumerate(keys[0]):
        a, b = (slice(*d.starts[i : i + 2].tolist()) for d, i in ((one, index), (other, place[key])))
        assert one.sizes_hw_I2[index].tolist() == other.sizes_hw_I2[place[key]].tolist()
        np.testing.assert_allclose(one.bbox_xywh_K4[a], other.bbox_xywh_K4[b], rtol=0, atol=atol)
        assert one.labels_K[a].tolist() == other.labels_K[b].tolist()


@pytest.fixture
def mixed(coco_set: Write, tmp_path: Path) -> DetectionDataset:
    """COCO JSON with polygons, a crowd, a difficult object, an image without objects and fields of its own."""

    def change(value: dict[str, Any]) -> None:
        value["info"] = {"description": "mine"}
        value["images"][0]["license"] = 4
        value["annotations"][0] |= {"difficult": 1, "truncated": 1, "keypoints": [1, 2, 2]}
        value["annotations"][2]["segmentation"] = [[1, 2, 4, 2, 4, 6], [1, 4, 1, 6, 3, 6]]
        value["images"].append({"id": 900, "file_name": "c/d e.png", "width": 30, "height": 20})

    write_picture(tmp_path / "images" / "c" / "d e.png", 20, 30)
    path = coco_set(change)
    return open_detection(path.parent, "json:ann.json", extras=True)


def test_coco_to_coco_loses_nothing(mixed: DetectionDataset, tmp_path: Path):
    again, sentences = to("coco", mixed, tmp_path / "out")
    assert sentences == "" and again.coco_truth() == mixed.coco_truth() and again.fingerprint() == mixed.fingerprint()
    assert (tmp_path / "out" / "val" / "c" / "d e.png").is_file()


def test_coco_to_voc_and_back_keeps_boxes_and_flags_and_says_what_it_loses(mixed: DetectionDataset, tmp_path: Path):
    voc, sentences = to("voc", mixed, tmp_path / "voc")
    same_objects(mixed, voc, by_stem=True)
    assert voc.difficult_K.tolist() == [True, True, False], "the crowd is difficult"
    for part in ("1 crowd region (written as difficult)", "3 masks", "field 'keypoints' of objects",
                 "2 category ids", "3 image ids", "1 area unlike the box's", "field 'license' of images",
                 "Of the file itself stayed behind: info", "VOC's own tools read whole pixels"):  # fmt: skip
        assert part in sentences, part
    assert "truncated" not in sentences and [json.loads(one) for one in voc.object_extras][1] == {"truncated": 1}
    back, sentences = to("coco", voc, tmp_path / "coco")
    same_objects(mixed, back, by_stem=True)
    assert sentences == "" and list(back.file_names) == ["a.jpg", "b.jpg", "c/d e.png"]
    assert back.coco_truth()["annotations"][1]["truncated"] == 1


def test_coco_to_yolo_and_back_gives_the_same_boxes(mixed: DetectionDataset, tmp_path: Path):
    yolo, sentences = to("yolo", mixed, tmp_path / "yolo")
    same_objects(mixed, yolo, by_stem=True)
    for part in ("1 crowd flag (such regions become ordinary objects", "1 difficult flag", "masks (--polygons",
                 "field 'truncated' of objects", "3 annotation ids"[2:]):  # fmt: skip
        assert part in sentences, part
    assert (tmp_path / "yolo" / "labels" / "val" / "c" / "d e.txt").read_text() == "", "an image without objects"
    back, _ = to("voc", yolo, tmp_path / "voc")
    same_objects(mixed, back, by_stem=True)


def test_outlines_keep_polygons_and_join_those_of_one_object(mixed: DetectionDataset, tmp_path: Path):
    yolo, sentences = to("yolo", mixed, tmp_path / "yolo", polygons=True)
    by_stem = {Path(record.path).stem: record for record in records(yolo)}
    assert by_stem["b"].segmentations[0] == [[10.5, 20.25, 40.625, 20.25, 40.625, 60.25]]
    assert by_stem["a"].segmentations[0] == [[0, 0, 8, 0, 8, 9, 0, 9]]
    assert by_stem["b"].areas_G[1] == pytest.approx(6 + 2), "of both parts"
    for part in ("1 run-length mask (the box", "1 mask of several polygons as such"):
        assert part in sentences
    same_objects(mixed, yolo, by_stem=True, atol=1e-6)


def test_polygons_of_one_object_joined_cover_the_same_pixels(shared_data: Path):
    """pycocotools' masks, and its areas, of all objects of several polygons."""
    from pycocotools import mask as rle

    dataset = open_detection(shared_data, "coco/val2017")
    several = 0
    for record in records(dataset):
        for value in record.segmentations or ():
            if isinstance(value, list) and len(value) > 1 and all(len(one) >= 6 for one in value):
                sizes = (record.height, record.width)
                parts = rle.decode(rle.merge(rle.frPyObjects(value, *sizes)))
                whole = rle.decode(rle.frPyObjects([join(value)], *sizes)[0])
                several += 1
                assert (parts != whole).sum() <= 0.02 * parts.sum() + 8  # rounding along the joining lines
    assert several > 50


def test_crowd_regions_can_be_left_out_and_are_counted(mixed: DetectionDataset, tmp_path: Path):
    for form in ("coco", "voc", "yolo"):
        less, sentences = to(form, mixed, tmp_path / form, crowd="drop")
        assert len(less.labels_K) == 2 and "1 crowd region (left out, as --crowd drop says)" in sentences


def test_voc_to_coco_and_back_loses_nothing_at_all(tmp_path: Path):
    folder = write_voc(tmp_path / "VOCdevkit", {"000005": [("dog", 48, 20, 70, 31, 1)], "000006": []}, split="test")
    dataset = open_detection(tmp_path, "voc2007/test", extras=True)
    coco, sentences = to("coco", dataset, tmp_path / "coco")
    assert sentences == "" and list(coco.file_names) == ["000005.jpg", "000006.jpg"]
    assert coco.image_ids_I.tolist() == [5, 6] and coco.difficult_K.tolist() == [True]
    back, sentences = to("voc", coco, tmp_path / "VOCdevkit" / "VOC2012", "test")
    assert sentences == ""
    again = open_detection(tmp_path, "voc2012/test", extras=True)  # it is a devkit's year as well
    assert again.coco_truth()["annotations"] == dataset.coco_truth()["annotations"] == back.coco_truth()["annotations"]
    assert (folder.parent / "VOC2012" / "JPEGImages" / "000005.jpg").is_file()


@pytest.mark.parametrize("source", ["voc2007/test", "coco/val2017"])
def test_real_sets_go_through_all_forms_unchanged(shared_data: Path, tmp_path: Path, source: str):
    whole = open_detection(shared_data, source, extras=True)
    first = dataset = whole.subset(range(0, len(whole), 4))
    for number, form in enumerate(("yolo", "coco", "voc", "coco")):
        dataset, _ = to(form, dataset, tmp_path / str(number))
        same_objects(first, dataset)


def test_large_images_keep_their_boxes_to_a_thousandth_of_a_pixel(tmp_path: Path):
    from PIL import Image

    side = (62_000, 3_000)  # more pixels than Pillow opens
    Image.new("1", side).save(tmp_path / "big.png")
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, side, (200, 2))
    sizes = rng.uniform(0.01, 1, (200, 2)) * (side - corners)
    boxes = np.concatenate([corners, sizes], axis=1)
    write_coco(tmp_path, {"big.png": side[::-1]}, [{"bbox": box} for box in boxes.tolist()])
    dataset = open_detection(tmp_path, "json:ann.json", extras=True)
    for form in ("yolo", "voc"):
        done = convert(dataset, form, tmp_path / form, "val", images="link")
        again = open_detection(done.data, done.source)
        assert np.abs(again.bbox_xywh_K4 - boxes).max() < 1e-5


def test_splits_share_one_output_and_one_list_of_classes(tmp_path: Path):
    write_voc(tmp_path, {"1": [("dog", 1, 1, 9, 9, 0)]}, split="train")
    write_voc(tmp_path, {"2": [("cat", 1, 1, 9, 9, 0)]}, split="val")
    for split in ("train", "val", "val"):  # the second time nothing is left to do
        dataset = open_detection(tmp_path, f"voc2007/{split}", extras=True)
        for form in ("coco", "voc", "yolo"):
            again, _ = to(form, dataset, tmp_path / "out" / form, split, images="link")
            same_objects(dataset, again)
    assert open_detection(tmp_path / "out" / "yolo", "yolo:train").labels_K.tolist() == [12]
    place = tmp_path / "out" / "yolo" / "images" / "train" / "1.jpg"
    assert place.samefile(tmp_path / "VOC2007" / "JPEGImages" / "1.jpg"), "a hard link"


def test_images_may_stay_where_they_are(mixed: DetectionDataset, tmp_path: Path):
    done = convert(mixed, "coco", tmp_path / "out", "val", images="none")
    assert done.source == f"json:{tmp_path}/out/annotations/instances_val.json" and done.data == mixed.root
    assert open_detection(done.data, done.source, extras=True).coco_truth() == mixed.coco_truth()
    done = convert(mixed, "yolo", tmp_path / "yolo", "val", images="none")
    assert f"The images are to be put into {tmp_path}/yolo/images/val, under the same names." in done.sentences
    (tmp_path / "yolo" / "images").mkdir()
    (tmp_path / "images").rename(tmp_path / "yolo" / "images" / "val")
    same_objects(mixed, open_detection(done.data, done.source), by_stem=True)


def test_a_union_of_sets_with_files_of_one_name_keeps_them_apart(tmp_path: Path):
    for folder in ("p", "q"):
        write_picture(tmp_path / folder / "x.jpg", 60, 80)
        (tmp_path / folder / "x.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\nall: [p, q]\n")
    dataset = open_detection(tmp_path, "yolo:all", extras=True)
    again, _ = to("coco", dataset, tmp_path / "out")
    assert list(again.file_names) == ["p/x.jpg", "q/x.jpg"]


def test_files_in_the_way_are_named_and_left_alone(mixed: DetectionDataset, tmp_path: Path):
    for form in ("yolo", "voc", "coco"):
        to(form, mixed, tmp_path / form)
    (tmp_path / "yolo" / "data.yaml").write_text("train: images/train\nnames: [cow]\n")
    (tmp_path / "voc" / "Annotations" / "a.xml").write_text("<mine/>")
    write_picture(tmp_path / "coco" / "val" / "a.jpg", 60, 80, seed=9)
    for form, sentence in (
        ("yolo", r"data\.yaml: describes a set of other classes; give another"),
        ("voc", r"a\.xml: is there already with other content; remove it"),
        ("coco", r"a\.jpg: is there already and is another image"),
    ):
        with pytest.raises(DataError, match=sentence):
            convert(mixed, form, tmp_path / form, "val")
    (tmp_path / "yolo" / "data.yaml").write_text("names: 5\n")
    with pytest.raises(DataError, match="has no `names`"):
        convert(mixed, "yolo", tmp_path / "yolo", "val")
    assert (tmp_path / "voc" / "Annotations" / "a.xml").read_text() == "<mine/>"


def name_class(value: dict[str, Any]) -> None:
    value["categories"][0]["name"] = "cat\nfish"


def name_image(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["images"][0].update(file_name=name)


@pytest.mark.parametrize(
    ("change", "form", "split", "sentence"),
    [
        (name_image("b.png"), "voc", "val", "b.png and b.jpg would have one annotation file"),
        (name_image("../c.jpg"), "coco", "val", r"the image '\.\./c\.jpg' would lie outside"),
        (name_image("gone.jpg"), "coco", "val", r"gone\.jpg: no such image; .*--images none"),
        (name_class, "yolo", "val", r"class 'cat\\nfish' has a line break"),
        (lambda value: None, "coco", "a/b", "--split 'a/b': is not a plain name"),
    ],
)
def test_sets_that_cannot_be_written_are_refused(
    coco_set: Write, tmp_path: Path, change: Any, form: str, split: str, sentence: str
):
    for name in ("images/b.png", "c.jpg", "images/gone.jpg"):
        write_picture(tmp_path / name, 60, 80)
    dataset = open_detection(coco_set(change).parent, "json:ann.json", extras=True)
    (tmp_path / "images" / "gone.jpg").unlink()
    with pytest.raises(DataError, match=sentence):
        convert(dataset, form, tmp_path / "out", split)


def test_a_joined_outline_has_the_sum_of_the_areas():
    square, away = [0, 0, 2, 0, 2, 2, 0, 2], [10, 10, 10, 13, 13, 13, 13, 10]  # the other way round
    assert polygon_area(join([square, away])) == 4 + 9
    assert join([square]) == square


def test_what_lies_beyond_the_edge_is_clipped_and_what_has_no_size_stays_behind(coco_set: Write, tmp_path: Path):
    def change(value: dict[str, Any]) -> None:
        value["annotations"][0] |= {"bbox": [-6, 20, 70, 70], "segmentation": [[-6, 20, 64, 20, 64, 90]]}
        value["annotations"][2]["bbox"] = [1, 2, 0, 4]

    path = coco_set(change)
    dataset = open_detection(path.parent, "json:ann.json", extras=True)
    for form, how in (("voc", {}), ("yolo", {}), ("yolo", {"polygons": True})):
        again, sentences = to(form, dataset, tmp_path / f"{form}{len(how)}", **how)
        assert sorted(again.bbox_xywh_K4.tolist()) == [[0, 0, 8, 9], [0, 20, 60, 60]]
        assert "1 part of boxes beyond the image's edge (clipped)" in sentences
        assert "1 object of zero size" in sentences
    again, sentences = to("coco", dataset, tmp_path / "coco")
    assert again.bbox_xywh_K4.tolist() == dataset.bbox_xywh_K4.tolist() and sentences == ""
