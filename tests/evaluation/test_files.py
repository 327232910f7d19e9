"""What a user reads when a file is wrong: the file and the entry, what was found, and how to fix it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from tests.evaluation.cases import guess, thing, truth_of
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.files import class_names, read_predictions, read_truth, restrict
from vertebra.evaluation.why.explain import explain, judge, require_same_truth
from vertebra.ground.errors import UserError
from vertebra.ground.segmentations import faults

BOX, SQUARE = [0, 0, 10, 10], [[10, 10, 50, 10, 50, 50, 10, 50]]
TRUTH = truth_of(
    [thing(BOX, segmentation=SQUARE), thing([0, 0, 5, 5], image=2, category=2, segmentation=SQUARE)],
    images=2,
    classes=("cat", "dog"),
)
MASK = {"size": [100, 100], "counts": [5000, 5000]}


def error_of(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 400
    return caught.value


def assert_says(error, where, sentence):
    assert error.where == where and sentence in str(error).removeprefix(f"{where}: "), str(error)


def changed(place, **values):
    """TRUTH with one annotation changed; a value of None takes the field away."""
    annotations = [dict(entry) for entry in TRUTH["annotations"]]
    annotations[place] = {key: value for key, value in {**annotations[place], **values}.items() if value is not None}
    return {**TRUTH, "annotations": annotations}


def images(*entries):
    return {**TRUTH, "images": list(entries)}


def without(key):
    return {name: value for name, value in TRUTH.items() if name != key}


UNREADABLE = [  # content of the file, None for no file; what the message says
    (b'[{"image_id": 1, "categ', "does not parse as JSON (line 1, column 18"),
    (b"", "does not parse as JSON (line 1, column 1"),
    (b"\xff\xd8\xff\xe0", "is not a text file"),
    (b"[1" + b"0" * 5000 + b"]", "cannot be read (Exceeds the limit"),
    (None, "does not exist; give the path of a JSON file"),
]


@pytest.mark.parametrize("read", [read_truth, lambda path: read_predictions(path, TRUTH)])
@pytest.mark.parametrize(("content", "sentence"), UNREADABLE)
def test_a_file_that_cannot_be_read_is_named(tmp_path, read, content, sentence):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    assert_says(error_of(read, path), str(path), sentence)


def test_a_directory_is_no_file(tmp_path):
    assert str(error_of(read_truth, tmp_path)) == f"{tmp_path}: is a directory; give the path of a JSON file"


def test_exchanged_files_are_suspected():
    for error in (error_of(read_truth, []), error_of(read_predictions, TRUTH, TRUTH)):
        assert "were truth and predictions exchanged?" in error.hint
    error = error_of(read_predictions, TRUTH["annotations"], TRUTH)
    assert error.where.startswith("the list of predictions: prediction 0 ")
    assert "was the truth given in place of the predictions?" in str(error)


ANNOTATION = "the truth: annotation 0 (counted from 0, image_id 1)"
IMAGE = "the truth: image 0 (counted from 0)"
TRUTH_FAULTS = [  # the truth, where its fault is, what the message says
    (without("images"), "the truth", "no list 'images'"),
    (without("annotations"), "the truth", "no list 'annotations'"),
    (without("categories"), "the truth", "no list 'categories'"),
    (images({"id": 2}, {"id": 1}, {"id": 1}), "the truth: image 1 (counted from 0)",
     "another image has the id 1 too (2 of 3 images are so); give each its own"),
    ({**TRUTH, "categories": [{"id": 1}, {"id": 1}]}, "the truth: category 0 (counted from 0)",
     "another category has the id 1 too"),
    (images({"id": "a"}), IMAGE, "id 'a' is not a whole number"),
    (images({"id": 2**63}), IMAGE, "id 9223372036854775808 is not a whole number of 64 bits; number them anew"),
    (images({"id": 1, "width": 64.5}), IMAGE, "width 64.5 is not a whole number of pixels from 1 to"),
    (images({"id": 1, "width": 2**32}), IMAGE, "width 4294967296 is not a whole number of pixels"),
    (images({"id": 1, "height": -3}), IMAGE, "height -3 is not"),
    ({**TRUTH, "annotations": ["x"]}, "the truth: annotation 0 (counted from 0)",
     "is a string, not an object; remove it"),
    (changed(1, image_id=7), "the truth: annotation 1 (counted from 0, image_id 7)",
     "image_id 7 is not in the truth; list the image"),
    (changed(0, category_id=9), ANNOTATION, "category_id 9 is not in the truth"),
    (changed(0, category_id=None), ANNOTATION, "has no category_id"),
    (changed(0, bbox=None), ANNOTATION, "has no bbox; give x, y, width, height"),
    (changed(0, bbox=[1, 2, 3]), ANNOTATION, "bbox [1, 2, 3] is not four finite numbers"),
    (changed(0, bbox=[5, 5, -1, 3]), ANNOTATION, "bbox [5, 5, -1, 3] has a negative width or height"),
    (changed(0, bbox=[5, 5, float("nan"), 3]), ANNOTATION, "bbox [5, 5, nan, 3] is not four finite numbers"),
    (changed(0, bbox=[0, 0, 10**400, 1]), ANNOTATION, "bbox [0, 0, 1000"),
    (changed(0, difficult="maybe"), ANNOTATION, "difficult 'maybe' is neither 0 nor 1; correct it, or leave it out"),
    (changed(1, iscrowd=[0]), "the truth: annotation 1 (counted from 0, image_id 2)", "iscrowd [0] is neither 0 nor 1"),
    (changed(0, iscrowd=2), ANNOTATION, "iscrowd 2 is neither 0 nor 1"),
    (changed(0, area="big"), ANNOTATION, "area 'big' is not a number of square pixels; correct it, or leave it out"),
    (changed(0, area=-1), ANNOTATION, "area -1 is not"),
    (changed(0, area=float("nan")), ANNOTATION, "area nan is not"),
    (changed(0, area=[100]), ANNOTATION, "area [100] is not"),
]  # fmt: skip


@pytest.mark.parametrize(("truth", "where", "sentence"), TRUTH_FAULTS)
def test_faults_of_the_truth(truth, where, sentence):
    assert_says(error_of(read_truth, truth), where, sentence)


CORNERS, NUMBERS = "none of its polygons has 3 corners", "its polygons are not lists of finite numbers"
TRUTH_MASK_FAULTS = [  # the segmentation of an annotation, what the message says
    (None, "has no segmentation in polygons or RLE; use boxes instead"),
    ("abc", "has no segmentation in polygons or RLE"),
    ([], f"{NUMBERS} x, y, x, y"),
    ([10, 10, 50, 10, 50, 50], NUMBERS),
    ([[10, 10, 50, 10, 50, "50"]], NUMBERS),
    ([[10, 10, 50, 10, 50, float("inf")]], NUMBERS),
    ([[10, 10]], f"{CORNERS}; correct or remove it"),
    ([[10, 10, 50, 10]], CORNERS),
    ({"size": [100, 100], "counts": [5, 10, 5]}, "cover 20 pixels"),
]


@pytest.mark.parametrize(("segmentation", "sentence"), TRUTH_MASK_FAULTS)
def test_masks_of_the_truth_that_would_be_misread(segmentation, sentence):
    truth = truth_of([thing([10, 10, 40, 40], segmentation=segmentation)])
    assert_says(error_of(coco_figures, truth, [], iou_type="segm"), ANNOTATION, sentence)
    assert read_truth(truth) == truth, "boxes can be scored"


def test_masks_need_the_sizes_of_images():
    truth = images({"id": 1}, {"id": 2})
    sentence = "height x width [None, None] of the truth's image 1 are not whole numbers; masks need both"
    assert sentence in str(error_of(read_truth, truth, needs="segmentation"))
    assert read_predictions([], truth, needs="segmentation") == []


def masked(segmentation):
    return {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": segmentation}


def runs(counts, size=(100, 100)):
    return masked({"size": size and list(size), "counts": counts})


COUNTS = "RLE counts that are neither a text nor a list of whole numbers"
PREDICTION_FAULTS = [  # needed for boxes or masks, the prediction, what the message says
    ("bbox", guess(BOX, 0.5, image=7), "image_id 7 is not in the truth; score each file"),
    ("bbox", guess(BOX, 0.5, image="a1"), "image_id 'a1' is not a whole number of 64 bits"),
    ("bbox", guess(BOX, float("nan")), "score nan is not a finite number"),
    ("bbox", guess(BOX, "good"), "score 'good' is not"),
    ("bbox", guess(BOX, 10**400), "score 1000"),
    ("bbox", {"image_id": 1, "category_id": 1, "bbox": BOX}, "has no score; each prediction needs one"),
    ("bbox", guess([5, 5, -1, 3], 0.5),
     "bbox [5, 5, -1, 3] has a negative width or height; a bbox is x, y, width, height"),
    ("bbox", guess([float("inf"), 5, 1, 3], 0.5), "bbox [inf, 5, 1, 3] is not four finite numbers"),
    ("bbox", {"image_id": 1, "category_id": 1, "score": 0.5}, "has no bbox"),
    ("segm", masked(SQUARE), "has no segmentation in RLE (size and counts)"),
    ("segm", runs("abc", None), "has no segmentation in RLE (size and counts)"),
    ("segm", runs(None), COUNTS),
    ("segm", runs([9999.0, 1]), COUNTS),
    ("segm", runs([-1, 10001]), COUNTS),
    ("segm", runs([5, 10, 5]), "cover 20 pixels in an image of [100, 100], 10000 pixels; encode"),
    ("segm", runs([5000, 5000, 50000]), "cover 60000 pixels"),
    ("segm", runs("04"), "cover 4 pixels"),
    ("segm", runs("!"), "RLE counts that cannot be decoded"),
    ("segm", runs("abc"), "RLE counts that cannot be decoded"),
    ("segm", runs("o" * 40 + "1"), "RLE counts that cannot be decoded"),
    ("segm", runs(7), COUNTS),
    ("segm", runs("\\"), "RLE counts that cannot be decoded"),
    ("segm", runs("04", (50, 100)), "a mask of height x width [50, 100] in an image of [100, 100]"),
]  # fmt: skip


@pytest.mark.parametrize(("iou_type", "prediction", "sentence"), PREDICTION_FAULTS)
def test_faults_of_predictions_are_found_with_their_file(tmp_path, iou_type, prediction, sentence):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{**guess(BOX, 0.5), "segmentation": MASK}, prediction]))
    known = f", image_id {prediction['image_id']}" * isinstance(prediction["image_id"], int)
    where = f"{path}: prediction 1 (counted from 0{known})"
    assert_says(error_of(coco_figures, TRUTH, path, iou_type=iou_type), where, sentence)


SPARSE = {**TRUTH, "categories": [{"id": 18, "name": "cat"}, {"id": 44, "name": "dog"}], "annotations": []}
CATEGORY_IDS = [  # the truth, category ids of the predictions, the hint
    (TRUTH, (0, 1), "all of them fit after adding 1, so the ids look counted from 0 (off by one)"),
    (TRUTH, (2, 3), "all of them fit after adding -1, so the ids look counted one too high (off by one)"),
    (TRUTH, (1, 40), "use the ids of the truth's categories"),
    (SPARSE, (1,), "these look like places in the list of classes, which are to be mapped back to the ids"),
]


@pytest.mark.parametrize(("truth", "ids", "hint"), CATEGORY_IDS)
def test_the_likely_mistake_in_category_ids_is_the_hint(truth, ids, hint):
    error = error_of(read_predictions, [guess(BOX, 0.5, category=id_) for id_ in ids], truth)
    assert error.hint.endswith(hint), error.hint


@pytest.mark.parametrize("values", [{"area": None}, {"difficult": None, "iscrowd": None}, {"iscrowd": True}])
def test_what_says_nothing_is_as_what_is_not_there(values):
    """Null as missing, and as true as 1: AP is that of the truth without the field."""
    found = [guess([0, 0, 10, 9], 0.9), guess([0, 0, 5, 5], 0.8, image=2, category=2)]
    first, second = TRUTH["annotations"]
    with_values = {**TRUTH, "annotations": [{**first, **values}, second]}
    rest = {key: value for key, value in first.items() if key not in values}
    plain = {**TRUTH, "annotations": [rest | ({"iscrowd": 1} if True in values.values() else {}), second]}
    assert coco_figures(with_values, found).figures and by_size_figures(with_values, found)
    assert str(coco_figures(with_values, found)) == str(coco_figures(plain, found))
    assert by_size_figures(with_values, found) == by_size_figures(plain, found)
    require_same_truth(with_values, plain, ("with", "without"))


PLAIN = [  # changes of the truth's first annotation, of its first image, of the predictions: read as they are meant
    ({"iscrowd": "0", "difficult": "False"}, {}, {}),
    ({"iscrowd": "no", "difficult": 0.0}, {}, {}),
    ({"area": "100"}, {"width": 100.0, "height": "100"}, {}),
    ({"image_id": "1", "category_id": 1.0}, {"id": "1"}, {"image_id": 1.0, "category_id": "1"}),
    ({"bbox": ["0", "0", "10", 10.0]}, {}, {"score": "0.9", "bbox": ["0", 0, 10, 9]}),
]


@pytest.mark.parametrize(("annotation", "image", "guessed"), PLAIN)
def test_numbers_written_as_texts_are_read_and_the_files_are_not_changed(annotation, image, guessed):
    found = [guess([0, 0, 10, 9], 0.9)]
    (first, second), (one, other) = TRUTH["annotations"], TRUTH["images"]
    truth = {**TRUTH, "images": [{**one, **image}, other], "annotations": [{**first, **annotation}, second]}
    mine = [{**found[0], **guessed}]
    before = copy.deepcopy((truth, mine))
    for iou in ("bbox", "segm") if not guessed else ("bbox",):
        some = [{**entry, "segmentation": MASK} for entry in mine]
        expected = coco_figures(TRUTH, [{**found[0], "segmentation": MASK}], iou_type=iou)
        assert str(coco_figures(truth, some, iou_type=iou)) == str(expected)
    assert (truth, mine) == before


def test_a_missing_area_is_the_masks_and_without_one_the_boxes():
    triangle = [[0, 0, 40, 0, 0, 40]]
    objects = [thing([0, 0, 40, 40], segmentation=triangle), thing([0, 0, 40, 40]), thing([0, 0, 40, 40], area=7)]
    for entry in objects[:2]:
        del entry["area"]
    areas = [entry["area"] for entry in read_truth(truth_of(objects))["annotations"]]
    assert areas == [float(rle.area(rle.frPyObjects(triangle, 100, 100))[0]), 1600, 7]


def test_predictions_without_a_box_are_left_out_and_counted_where_that_is_asked_for():
    said = []
    found = [guess(BOX, 0.5), guess([5, 5, 3, -1], 0.5), guess(BOX, float("nan")), guess([5, 5, -3, 1], 0.4)]
    assert read_predictions(found, TRUTH, dropped=said.append) == found[:1]
    assert [sentence.partition("(counted")[2] for sentence in said] == [
        " from 0, image_id 1): score nan is not a finite number",
        " from 0, image_id 1): bbox [5, 5, 3, -1] has a negative width or height (2 of 4 predictions are so)",
    ]


def by_size_figures(truth, found):
    return explain(judge(truth, found))["size"]["coco"]


def test_a_mark_of_the_encoding_is_no_fault(tmp_path):
    (tmp_path / "found.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([guess(BOX, 0.5)]).encode())
    assert read_predictions(tmp_path / "found.json", TRUTH) == [guess(BOX, 0.5)]


def test_an_empty_list_and_a_zero_size_box_are_fine():
    assert read_predictions([], TRUTH) == []
    assert len(read_predictions([guess([5, 5, 0, 0], 0.1)], TRUTH)) == 1


def test_classes_of_one_name_or_none_are_distinguished():
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}, {"id": 5}]
    assert class_names({"categories": categories}) == {1: "cat (1)", 2: "cat (2)", 5: "5"}


@pytest.mark.parametrize("short", [[], [[5, 5]], [[60, 60, 70, 70]]])
@pytest.mark.parametrize("first", [False, True])
def test_polygons_of_one_or_two_corners_enclose_nothing(short, first):
    """Official files have such among others; where one comes first, pycocotools takes all for boxes, and fails."""
    truth = truth_of([thing([10, 10, 40, 40], segmentation=[*short, *SQUARE] if first else [*SQUARE, *short])])
    mask = rle.merge(rle.frPyObjects([*SQUARE, *short], 100, 100))
    found = masked({**mask, "counts": mask["counts"].decode()})
    assert coco_figures(truth, [found], iou_type="segm")["AP"] == pytest.approx(100)


def test_the_first_fault_of_many_is_found_beyond_the_first_chunk(monkeypatch):
    monkeypatch.setattr("vertebra.ground.segmentations.CHUNK", 3)
    good = {"size": [2, 2], "counts": "04"}
    values = [good] * 7 + [{"size": [2, 2], "counts": "05"}] + [good]
    ((place, reason, _),) = faults(values, [(2, 2)] * 9, polygons=False)
    assert place == 7 and "cover 5 pixels" in reason
    assert not list(faults([good] * 9, [(2, 2)] * 9, polygons=False))


def test_detectron2s_instances_are_read_with_its_classes_counted_from_zero(tmp_path):
    ids = sorted(category["id"] for category in TRUTH["categories"])
    image_id = TRUTH["images"][0]["id"]
    row = {"image_id": image_id, "bbox": [1.0, 2.0, 10.0, 8.0], "score": 0.5}
    torch.save([{"image_id": image_id, "instances": [{**row, "category_id": len(ids) - 1}]}], tmp_path / "a.pth")
    assert list(read_predictions(tmp_path / "a.pth", TRUTH)) == [{**row, "category_id": ids[-1]}]
    torch.save([{"image_id": image_id, "instances": [{**row, "category_id": len(ids)}]}], tmp_path / "b.pth")
    with pytest.raises(UserError, match="has more classes than the truth's"):
        read_predictions(tmp_path / "b.pth", TRUTH)
    (tmp_path / "c.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="is not detectron2's instances_predictions"):
        read_predictions(tmp_path / "c.pth", TRUTH)
    with pytest.raises(UserError, match="does not exist"):
        read_predictions(tmp_path / "d.pth", TRUTH)


def test_columns_are_checked_as_entries_are_against_each_truth_that_they_meet():
    found = [guess([0, 0, 5, 5], 0.9, image=2, category=2), guess(BOX, 0.5)]
    read = read_predictions(found, TRUTH)
    assert list(read) == found and read[-1] == found[1] and read[:1] == found[:1]
    other = read_truth({**TRUTH})
    again = read_predictions(read, other)
    assert again.truth is other and again == read and read_predictions(again, other) is again
    fewer = {**TRUTH, "images": TRUTH["images"][:1], "annotations": TRUTH["annotations"][:1]}
    error = error_of(read_predictions, read, fewer)
    assert_says(error, "the list of predictions: prediction 0 (counted from 0, image_id 2)", "image_id 2 is not in the")
    for name, value in (("score_K", np.nan), ("xywh_K4", -1.0)):
        wrong = replace(read, truth=None, **{name: np.full_like(getattr(read, name), value)})
        error_of(read_predictions, wrong, TRUTH)


def test_one_class_of_predictions_is_what_is_read_of_that_class_alone():
    found = read_predictions([guess([0, 0, 5, 5], 0.9, image=2, category=2), guess(BOX, 0.5)], TRUTH)
    truth, dogs = restrict(found.truth, found, ["dog"])
    assert list(dogs) == [found[0]] and read_predictions(dogs, truth) is dogs and len(truth["annotations"]) == 1
