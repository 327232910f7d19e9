"""COCO JSON: what is read, what is fixed, what is refused and in which words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.writers import records, write_text
from vertebra.data.datasets.catalog import find_sources, open_detection
from vertebra.data.loading.detection import detection_train_loader
from vertebra.data.loading.sampling import Share
from vertebra.data.loading.targets import TruthPolicy
from vertebra.data.prepare.check import check
from vertebra.data.transforms.detection_views import ViewDraw
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.files import read_truth
from vertebra.ground import segmentations
from vertebra.ground.errors import DataError
from vertebra.recipes.schema import DETECTION_SETS

Write = Callable[..., Path]


def opened(path: Path):
    return open_detection(path.parent, f"json:{path.name}")


def test_labels_follow_ascending_category_ids_and_map_back(coco_set: Write):
    dataset = opened(coco_set())
    assert dataset.class_names == ("bird", "cat") and dataset.category_ids == (3, 7)
    assert [record.image_id for record in records(dataset)] == [11, 5]
    first, second = records(dataset)
    assert first.labels_G.tolist() == [1] and first.crowd_G.tolist() == [True]
    assert second.labels_G.tolist() == [2, 1]
    np.testing.assert_allclose(second.boxes_G4, [[10.5, 20.25, 40.625, 60.25], [1, 2, 4, 6]])
    assert second.boxes_G4.dtype == np.float32 and second.areas_G.tolist() == [99.5, 12]
    assert (first.width, first.height) == (80, 60) and first.path.is_file()
    assert dataset.notes == ()


def test_the_truth_is_the_files_own_and_reads_back_the_same(coco_set: Write, tmp_path: Path):
    path = coco_set()
    dataset = opened(path)
    truth, written = dataset.coco_truth(), json.loads(path.read_text())
    by_id = {one["id"]: one for one in truth["annotations"]}
    for one in written["annotations"]:
        assert {key: by_id[one["id"]][key] for key in one} == one
    assert [one["file_name"] for one in truth["images"]] == ["a.jpg", "b.jpg"]
    write_text(tmp_path / "again.json", json.dumps(truth))
    again = opened(tmp_path / "again.json")
    assert again.coco_truth() == truth and again.fingerprint() == dataset.fingerprint()


def test_pycocotools_reads_the_truth(coco_set: Write, tmp_path: Path, capsys: Any):
    from pycocotools.coco import COCO

    (tmp_path / "truth.json").write_text(json.dumps(opened(coco_set()).coco_truth()))
    truth = COCO(str(tmp_path / "truth.json"))
    assert truth.annToMask(truth.loadAnns([2])[0]).sum() == 600
    assert truth.annToMask(truth.loadAnns([1])[0]).shape == (80, 60)


def test_the_fingerprint_changes_with_a_box_and_not_with_the_place_or_the_masks(coco_set: Write, tmp_path: Path):
    path = coco_set()
    before = opened(path).fingerprint()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "ann.json").write_bytes(path.read_bytes())
    (tmp_path / "images").rename(moved / "images")
    assert opened(moved / "ann.json").fingerprint() == before
    assert open_detection(moved, "json:ann.json", segmentations=False).fingerprint() == before
    changed = json.loads((moved / "ann.json").read_text())
    changed["annotations"][0]["bbox"][0] += 0.5
    (moved / "ann.json").write_text(json.dumps(changed))
    assert opened(moved / "ann.json").fingerprint() != before


def bbox(*numbers: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["annotations"][0].__setitem__("bbox", list(numbers))


def test_zero_size_boxes_are_scored_never_trained_on_and_said_once(coco_set: Write):
    path = coco_set(bbox(3, 4, 0, 10))
    dataset = opened(path)
    assert [one["bbox"] for one in dataset.coco_truth()["annotations"]][1] == [3, 4, 0, 10]
    assert coco_figures(dataset.coco_truth(), [])["AP"] == coco_figures(path, [])["AP"] == 0
    assert sum(coco_figures(path, []).truths.values()) == 2 == len(dataset.labels_K) - 1, "the third is a crowd"
    loader = detection_train_loader(dataset, ViewDraw((64,), 96), TruthPolicy(), Share(batch=2, stop=1))
    (batch,) = loader
    assert batch.inputs[1].valid_NG.sum() == 2
    (note,) = dataset.notes
    assert "ann.json: annotation 1 of image 5 has a box of zero size" in note
    assert "; no training sees such boxes, evaluations count them" in note


def test_boxes_beyond_the_edge_are_clipped_where_used_and_whole_in_the_truth(coco_set: Write):
    dataset = opened(coco_set(bbox(-5, 20, 100, 40)))
    assert records(dataset)[1].boxes_G4[0].tolist() == [0, 20, 60, 60]
    assert dataset.coco_truth()["annotations"][1]["bbox"] == [-5, 20, 100, 40]
    said = "has a box that reaches beyond the image (x y w h -5, 20, 100, 40 in 60 x 80); training clips such boxes"
    assert said in dataset.notes[0]


def test_missing_optional_fields_get_their_natural_values(coco_set: Write):
    def bare(value: dict[str, Any]) -> None:
        value["annotations"] = [{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]}] * 2

    dataset = opened(coco_set(bare))
    assert dataset.areas_K.tolist() == [12, 12] and dataset.annotation_ids_K.tolist() == [1, 2]
    assert not dataset.crowd_K.any() and dataset.segmentations is None
    assert "numbered anew" in dataset.notes[0]
    assert len(records(dataset)[0].boxes_G4) == 0  # an image without objects stays


def put(key: str, place: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value[key][place].update(fields)


def test_the_first_fault_is_refused_with_the_number_of_the_others(coco_set: Write):
    path = coco_set(lambda value: [one["bbox"].__setitem__(2, -1) for one in value["annotations"]])
    with pytest.raises(DataError, match=r"annotation 1 .*; boxes are .* \(2 more; `python .* check` lists all\)"):
        opened(path)


PLAIN = [
    (put("annotations", 0, iscrowd="0", difficult="no"), put("annotations", 1, iscrowd="True")),
    (put("images", 1, width=60.0, height="80", id="5"), put("annotations", 0, image_id=5.0, category_id="7")),
    (put("annotations", 0, bbox=["10.5", 20.25, 30.125, "40"], area="99.5"), put("categories", 0, id=7.0)),
]


@pytest.mark.parametrize("changes", PLAIN)
def test_numbers_and_flags_written_otherwise_are_read_as_they_are_meant(coco_set: Write, changes: Any):
    expected = opened(coco_set()).coco_truth()
    changed = opened(coco_set(lambda value: [change(value) for change in changes]))
    assert changed.coco_truth() == expected and changed.notes == ()


def test_a_category_may_be_named_by_a_number_and_huge_annotation_ids_are_numbered_anew(coco_set: Write):
    changes = put("categories", 0, name=7), put("annotations", 0, id=2**63), put("annotations", 1, id="2")
    dataset = opened(coco_set(lambda value: [change(value) for change in changes]))
    assert dataset.class_names == ("bird", "7") and dataset.annotation_ids_K.tolist() == [2, 1, 3]
    assert (
        "annotation ids are missing, repeated, not positive or no numbers; they were numbered anew" in dataset.notes[0]
    )


def test_a_fault_is_said_once_and_not_again_by_what_follows_from_it(coco_set: Write):
    def spoil(value: dict[str, Any]) -> None:
        for image in value["images"]:
            image["width"] = 80.5
        for one in value["annotations"]:
            one["area"] = -1

    (fault,) = check(coco_set(spoil).parent, "json:ann.json").faults
    assert "width 80.5 is not a whole number of pixels from 1 to 2147483647 (2 of 2 images are so)" in str(fault)


def test_a_missing_area_is_the_masks_with_masks_or_without(coco_set: Write, monkeypatch):
    def bare(value: dict[str, Any]) -> None:
        for one in value["annotations"]:
            del one["area"]

    path = coco_set(bare)
    judged: list[Any] = []
    faults = segmentations.faults
    monkeypatch.setattr(
        segmentations, "faults", lambda masks, *rest, **more: judged.extend(masks) or faults(masks, *rest, **more)
    )
    dataset = opened(path)
    assert len(judged) == sum("segmentation" in one for one in json.loads(path.read_text())["annotations"]) > 1
    assert sorted(dataset.areas_K.tolist()) == sorted(one["area"] for one in read_truth(path)["annotations"])
    assert dataset.areas_K[0] == 600 and 580 < dataset.areas_K[1] < 640 and dataset.areas_K[2] == 12
    assert open_detection(path.parent, "json:ann.json", segmentations=False).fingerprint() == dataset.fingerprint()


@pytest.mark.parametrize(
    ("place", "source", "sentence"),
    [
        ("nowhere", "coco/train2017", "nowhere: no such directory; give the data's place with --data"),
        ("", "coco/train2017", r"no annotations/instances_train2017.json .* run python tools/prepare_data"),
        ("", "imagenet", r"source 'imagenet': is not known; write voc2007/trainval"),
    ],
)
def test_sources_that_are_no_coco_are_refused(tmp_path: Path, place: str, source: str, sentence: str):
    with pytest.raises(DataError, match=sentence):
        open_detection(tmp_path / place, source)


def test_a_union_keeps_all_images_and_refuses_the_same_image_twice(shared_data: Path):
    parts = [open_detection(shared_data, f"coco/{split}") for split in ("train2017", "val2017")]
    union = open_detection(shared_data, "coco/train2017+coco/val2017")
    assert len(union) == 208 and len(union.labels_K) == 705 + 1177
    for part, offset in zip(parts, (0, 80)):
        for here, there in ((0, offset), (len(part) - 1, offset + len(part) - 1)):
            one, other = records(part)[here], records(union)[there]
            assert one.image_id == other.image_id and one.path.resolve() == other.path.resolve()
            np.testing.assert_array_equal(one.boxes_G4, other.boxes_G4)
            assert one.segmentations == other.segmentations
    assert union.fingerprint() == open_detection(shared_data / "coco", union.source).fingerprint()
    with pytest.raises(DataError, match="80 images in it twice"):
        open_detection(shared_data, "coco/train2017+coco/train2017")


def test_a_subset_has_its_images_and_their_objects_alone(shared_data: Path):
    whole = open_detection(shared_data, "coco/val2017")
    part = whole.subset([5, 2, 90])
    assert [record.image_id for record in records(part)] == whole.image_ids_I[[5, 2, 90]].tolist()
    for one, other in zip(records(part), (records(whole)[5], records(whole)[2], records(whole)[90])):
        np.testing.assert_array_equal(one.boxes_G4, other.boxes_G4)
        assert one.segmentations == other.segmentations and one.path == other.path
    ids = {one["id"] for one in part.coco_truth()["images"]}
    expected = [one["id"] for one in whole.coco_truth()["annotations"] if one["image_id"] in ids]
    assert sorted(one["id"] for one in part.coco_truth()["annotations"]) == sorted(expected)
    assert part.fingerprint() != whole.fingerprint() == whole.subset(range(len(whole))).fingerprint()


def test_the_real_set_gives_back_its_file(shared_data: Path):
    dataset = open_detection(shared_data, "coco/val2017")
    written = json.loads((shared_data / "coco/annotations/instances_val2017.json").read_text())
    truth = dataset.coco_truth()
    assert len(dataset) == 128 and len(dataset.class_names) == 80 and dataset.category_ids[-1] == 90
    expected = {one["id"]: one for one in written["annotations"]}
    assert len(truth["annotations"]) == len(expected)
    for one in truth["annotations"]:
        np.testing.assert_allclose(one["bbox"], expected[one["id"]]["bbox"], rtol=0, atol=0)
        assert one["segmentation"] == expected[one["id"]]["segmentation"]
    assert all(record.path.is_file() for record in records(dataset))


def test_the_owners_lists_of_test_images_are_images_without_truth(coco_set: Write, tmp_path: Path):
    value = json.loads(coco_set().read_text())
    del value["annotations"]
    write_text(tmp_path / "coco" / "annotations" / "image_info_test-dev2017.json", json.dumps(value))
    (tmp_path / "images").rename(tmp_path / "coco" / "test2017")
    dataset = open_detection(tmp_path, "coco/test-dev2017")
    assert not dataset.labelled and dataset.class_names == ("bird", "cat") and dataset.path(0).is_file()
    assert dataset.notes[0].endswith("2 images to predict on, and nothing to score against")
    assert check(tmp_path, "coco/test-dev2017").faults == []
    assert find_sources(tmp_path) == ("coco/test-dev2017",)
    given = open_detection(tmp_path, "json:coco/annotations/image_info_test-dev2017.json")
    assert given.fingerprint() == dataset.fingerprint() and not given.labelled
    (tmp_path / "ann.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"has no list `annotations`; .*without truth: call the file image_info_"):
        open_detection(tmp_path, "json:ann.json")
    with pytest.raises(DataError, match=r"unpack test2015\.zip and image_info_test2015\.zip of the COCO page there"):
        open_detection(tmp_path, "coco/test2015")


def test_the_2014_images_are_found_beside_their_annotations(coco_set: Write, tmp_path: Path):
    path = coco_set()
    (tmp_path / "annotations").mkdir()
    path.rename(tmp_path / "annotations" / "instances_val2014.json")
    (tmp_path / "images").rename(tmp_path / "val2014")
    train, test = DETECTION_SETS["coco2014"]
    assert len(open_detection(tmp_path, test)) == 2
    with pytest.raises(DataError, match=r"\(there is val2014\); run python tools/prepare_data.py coco2014 --data"):
        open_detection(tmp_path, train)
