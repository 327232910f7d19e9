"""What a user reads when a file is wrong: the file, what was found, and the mend."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.cases import guess, thing, truth_of
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.files import (
    EvaluationError,
    class_names,
    read_predictions,
    read_truth,
)
from vertebra.evaluation.why.explain import explain, require_same_truth

TRUTH = truth_of([thing([0, 0, 10, 10]), thing([0, 0, 5, 5], image=2, category=2)], images=2, classes=("cat", "dog"))


def said(function, *arguments, **options):
    with pytest.raises(EvaluationError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 400
    return sentence


def changed(place, **values):
    """TRUTH with one annotation changed; a value of None takes the field away."""
    annotations = [dict(entry) for entry in TRUTH["annotations"]]
    annotations[place] = {key: value for key, value in {**annotations[place], **values}.items() if value is not None}
    return {**TRUTH, "annotations": annotations}


@pytest.mark.parametrize("read", [read_truth, lambda path: read_predictions(path, TRUTH)])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'[{"image_id": 1, "categ', "does not parse as JSON (line 1, column 18"),
        (b"", "does not parse as JSON (line 1, column 1"),
        (b"\xff\xd8\xff\xe0", "is not a text file"),
        (None, "does not exist; give the path of a JSON file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, read, content, sentence):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    assert said(read, path).startswith(f"{path} {sentence}")


def test_a_directory_is_no_file(tmp_path):
    assert said(read_truth, tmp_path) == f"{tmp_path} is a directory; give the path of a JSON file"


def test_exchanged_files_are_suspected(tmp_path):
    assert "were truth and predictions exchanged?" in said(read_truth, [])
    assert "were truth and predictions exchanged?" in said(read_predictions, TRUTH, TRUTH)
    assert "was the truth given in place of the predictions?" in said(read_predictions, TRUTH["annotations"], TRUTH)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_truth_without_a_part_is_named(key):
    assert f"no list '{key}'" in said(read_truth, {k: v for k, v in TRUTH.items() if k != key})


@pytest.mark.parametrize(
    ("truth", "sentence"),
    [
        ({**TRUTH, "images": [*TRUTH["images"], {"id": 1}]}, "two entries have the image id 1; give each its own"),
        ({**TRUTH, "categories": [{"id": 1}, {"id": 1}]}, "two entries have the category id 1"),
        ({**TRUTH, "images": [{"id": "a"}]}, "image 0 (counted from 0) has id 'a'; ids are whole numbers"),
        (changed(1, image_id=7), "annotation 1 (counted from 0) has image_id 7, which the truth does not list (1 of 2"),
        (changed(1, category_id=9), "has category_id 9, which the truth does not list"),
        (changed(0, category_id=None), "annotation 0 (counted from 0) has no category_id"),
        (changed(0, bbox=None), "has bbox None; four numbers x, y, width, height"),
        (changed(0, bbox=[1, 2, 3]), "has bbox [1, 2, 3]; four numbers"),
        (changed(0, bbox=[5, 5, -1, 3]), "negative width or height: [5, 5, -1, 3]"),
        (changed(0, bbox=[5, 5, float("nan"), 3]), "a bbox that is not finite"),
        (changed(0, difficult="0"), "has difficult '0'; write 0 or 1 (a text such as '0' would count as a yes)"),
        (changed(1, iscrowd="0"), "annotation 1 (counted from 0, image_id 2) has iscrowd '0'; write 0 or 1"),
        (changed(0, iscrowd=2), "has iscrowd 2; write 0 or 1"),
        (changed(0, area="100"), "has area '100'; write it as a number of square pixels, or leave it out"),
        (changed(0, area=-1), "has area -1;"),
        (changed(0, area=float("nan")), "has area nan;"),
        (changed(0, bbox=[0, 0, 10**400, 1]), "a bbox that is not finite: [0, 0, 1000"),
        ({**TRUTH, "images": [{"id": 1, "width": "100"}]}, "image 0 (counted from 0) has width '100'; write it as"),
        ({**TRUTH, "images": [{"id": 1, "height": -3}]}, "image 0 (counted from 0) has height -3;"),
        ({**TRUTH, "annotations": ["x"]}, "annotation 0 (counted from 0) is a string, not an object"),
    ],
)
def test_faults_of_the_truth_are_told(truth, sentence):
    assert sentence in said(read_truth, truth)


@pytest.mark.parametrize("values", [{"area": None}, {"difficult": None, "iscrowd": None}, {"iscrowd": True}])
def test_what_says_nothing_is_as_what_is_not_there(values):
    """Null as missing, and as true as 1: AP is that of the truth without the field."""
    found = [guess([0, 0, 10, 9], 0.9), guess([0, 0, 5, 5], 0.8, image=2, category=2)]
    told = {**TRUTH, "annotations": [{**TRUTH["annotations"][0], **values}, TRUTH["annotations"][1]]}
    left = {key: value for key, value in told["annotations"][0].items() if key not in values}
    plain = {
        **TRUTH,
        "annotations": [left | ({"iscrowd": 1} if True in values.values() else {}), told["annotations"][1]],
    }
    for one in (coco_figures(told, found).figures, by_size_figures(told, found)):
        assert one
    assert str(coco_figures(told, found)) == str(coco_figures(plain, found))
    assert by_size_figures(told, found) == by_size_figures(plain, found)
    require_same_truth(told, plain, ("told", "plain"))


def by_size_figures(truth, found):
    return explain(truth, found)["size"]["coco"]


BOX = [0, 0, 10, 10]


@pytest.mark.parametrize(
    ("prediction", "sentence"),
    [
        (
            guess(BOX, 0.5, image=7),
            "prediction 1 (counted from 0) has image_id 7, which the truth does not list (1 of 2",
        ),
        (guess(BOX, 0.5, image="1"), "has image_id '1'; write it as a whole number"),
        (guess(BOX, float("nan")), "prediction 1 (counted from 0, image_id 1) has score nan"),
        (guess(BOX, "0.5"), "has score '0.5'"),
        (guess(BOX, 10**400), "prediction 1 (counted from 0, image_id 1) has score 1000"),
        ({"image_id": 1, "category_id": 1, "bbox": BOX}, "has no score; each prediction needs a finite number"),
        (guess([5, 5, -1, 3], 0.5), "negative width or height: [5, 5, -1, 3]; a bbox is x, y, width, height"),
        (guess([float("inf"), 5, 1, 3], 0.5), "a bbox that is not finite"),
        ({"image_id": 1, "category_id": 1, "score": 0.5}, "has bbox None; four numbers"),
    ],
)
def test_faults_of_predictions_are_told_with_the_file(tmp_path, prediction, sentence):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([guess(BOX, 0.5), prediction]))
    told = said(read_predictions, path, TRUTH)
    assert told.startswith(f"{path}: ") and sentence in told


@pytest.mark.parametrize(
    ("ids", "hint"),
    [
        ((0, 1), "all of them fit after adding 1, so the ids look counted from 0 (off by one)"),
        ((2, 3), "all of them fit after adding -1, so the ids look counted one too high (off by one)"),
        ((1, 40), "use the ids of the truth's categories"),
    ],
)
def test_category_ids_off_by_one_are_suspected(ids, hint):
    told = said(read_predictions, [guess(BOX, 0.5, category=id_) for id_ in ids], TRUTH)
    assert told.endswith(hint)


def test_category_ids_that_are_places_in_a_list_are_suspected():
    sparse = {**TRUTH, "categories": [{"id": 18, "name": "cat"}, {"id": 44, "name": "dog"}], "annotations": []}
    assert "places in the list of classes" in said(read_predictions, [guess(BOX, 0.5, category=1)], sparse)


def test_masks_are_asked_for_in_the_images_own_size():
    wrong = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": {"size": [50, 40], "counts": "x"}}
    assert "height x width [50, 40], but the truth's image is [100, 100]" in said(
        read_predictions, [wrong], TRUTH, needs="segmentation"
    )


def test_a_mark_of_the_encoding_is_no_fault(tmp_path):
    (tmp_path / "found.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([guess(BOX, 0.5)]).encode())
    assert read_predictions(tmp_path / "found.json", TRUTH) == [guess(BOX, 0.5)]


def test_a_number_of_thousands_of_digits_is_named(tmp_path):
    (tmp_path / "found.json").write_text("[1" + "0" * 5000 + "]")
    assert "found.json holds what Python does not read" in said(read_predictions, tmp_path / "found.json", TRUTH)


def test_an_empty_list_and_a_zero_size_box_are_fine(tmp_path):
    assert read_predictions([], TRUTH) == []
    assert len(read_predictions([guess([5, 5, 0, 0], 0.1)], TRUTH)) == 1


def test_class_names_are_told_apart():
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}, {"id": 5}]
    assert class_names({"categories": categories}) == {1: "cat (1)", 2: "cat (2)", 5: "5"}
