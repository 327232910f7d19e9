"""The check lists all faults of a data set in one pass."""

from pathlib import Path
from typing import Any

from tests.data.writers import write_folders, write_voc
from vertebra.data.prepare.check import check


def sentences(faults) -> str:
    return "\n".join(map(str, faults))


def test_whole_data_sets_have_no_faults(shared_data: Path, tmp_path: Path, coco_set):
    assert check(shared_data, "voc2007/test").faults == []
    assert check(shared_data, "coco/train2017").faults == []
    assert check(coco_set().parent, "json:ann.json").faults == []
    assert check(write_folders(tmp_path / "folders", {"ant": 2}), "train").faults == []


def test_all_faults_of_a_json_and_its_images_come_at_once(coco_set, tmp_path: Path):
    def spoil(value: dict[str, Any]) -> None:
        value["annotations"][0]["bbox"] = [1, 2, -3, 4]
        value["annotations"][1]["segmentation"]["counts"] = [5, 5]
        value["annotations"][2]["bbox"] = [1, 2, 0, 4]
        value["annotations"].append({"id": 9, "image_id": 77, "category_id": 3, "bbox": [1, 1, 2, 2]})
        value["annotations"].append({"id": 10, "image_id": 5, "category_id": 8, "bbox": [1, 1, 2, 2]})
        value["images"].append({"id": 6, "file_name": "gone.jpg", "width": 60, "height": 80})
        value["images"][1]["width"] = 61

    path = coco_set(spoil)
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    faults = check(path.parent, "json:ann.json").faults
    text = sentences(faults)
    for part in (
        "annotation 1 of image 5 has a box of negative size",
        "annotation 1 (counted from 0, image_id 11): RLE counts that cover 10 pixels in an image of [60, 80]",
        "annotation 4 of image 5 has a box of zero size",
        "annotation 3 (counted from 0, image_id 77): image_id 77 is not in `images`",
        "annotation 4 (counted from 0, image_id 5): category_id 8 is not in `categories`",
        "a.jpg: zero bytes long; replace it",
        "b.jpg: is 60 x 80 pixels, its annotation says 61 x 80; correct the annotation",
        "gone.jpg: no such image; restore it",
    ):
        assert part in text
    assert len(faults) == 8 and sum(not fault.fatal for fault in faults) == 1
    assert all(str(path.parent) in str(fault) and "; " in str(fault) for fault in faults)


def test_all_faults_of_a_voc_set_come_at_once(tmp_path: Path):
    good = ("dog", 1, 1, 9, 9, 0)
    objects = {"1": [good], "2": [("dgo", 1, 1, 9, 9, 0)], "3": [("cat", 9, 9, 2, 2, 0)], "4": [good], "5": [good]}
    folder = write_voc(tmp_path, objects)
    (folder / "Annotations" / "1.xml").write_text("<annotation>")
    (folder / "JPEGImages" / "4.jpg").unlink()
    cut = folder / "JPEGImages" / "5.jpg"
    cut.write_bytes(cut.read_bytes()[:-9])
    faults = check(tmp_path, "voc2007/trainval").faults
    names = sorted(fault.path.name for fault in faults)
    assert names == ["1.xml", "2.xml", "3.xml", "4.jpg", "5.jpg"], sentences(faults)


def test_a_json_that_cannot_be_read_is_one_fault_with_its_hint(tmp_path: Path):
    (tmp_path / "ann.json").write_text("{")
    (fault,) = check(tmp_path, "json:ann.json").faults
    assert fault.path == tmp_path / "ann.json" and fault.hint == "it may be cut off, fetch it again"
    (fault,) = check(tmp_path / "nowhere", "coco/train2017").faults
    assert "no such directory" in fault.reason


def test_the_parts_of_a_union_are_checked_each_and_together(coco_set, tmp_path: Path):
    write_voc(tmp_path, {"1": [("dog", 1, 1, 9, 9, 0)]})
    coco_set()
    (fault,) = check(tmp_path, "voc2007/trainval+voc2007/trainval").faults
    assert fault.reason == "1 image in it twice (such as id 1)"
    faults = check(tmp_path, "voc2007/trainval+json:ann.json+json:gone.json").faults
    assert [fault.path.name for fault in faults] == ["gone.json", "trainval+json:ann.json+json:gone.json"]
    assert "no such annotation file" in faults[0].reason and "have different classes" in faults[1].reason


def test_all_faults_of_class_folders_come_at_once(tmp_path: Path):
    write_folders(tmp_path, {"ant": 3, "bee": 0})
    (tmp_path / "train" / "ant" / "000.jpg").write_bytes(b"")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("hello")
    text = sentences(check(tmp_path, "train").faults)
    assert "000.jpg: zero bytes long" in text and "bee: has no image; add some" in text
    assert "notes.txt: does not have an image's name; it is left out" in text
    (fault,) = check(tmp_path, "val").faults
    assert "no folder 'val'" in fault.reason
