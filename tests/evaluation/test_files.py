"""What a user reads when a file is wrong: the file, what was found, and how to fix it."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.cases import guess, thing, truth_of
from vertebra.evaluation.metrics.coco import coco_figures
from vertebra.evaluation.metrics.files import class_names, read_predictions, read_truth
from vertebra.evaluation.why.explain import explain, require_same_truth
from vertebra.ground.errors import UserError

TRUTH = truth_of([thing([0, 0, 10, 10]), thing([0, 0, 5, 5], image=2, category=2)], images=2, classes=("cat", "dog"))


def message(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
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
    assert message(read, path).startswith(f"{path}: {sentence}")


def test_a_directory_is_no_file(tmp_path):
    assert message(read_truth, tmp_path) == f"{tmp_path}: is a directory; give the path of a JSON file"


def test_exchanged_files_are_suspected(tmp_path):
    assert "were truth and predictions exchanged?" in message(read_truth, [])
    assert "were truth and predictions exchanged?" in message(read_predictions, TRUTH, TRUTH)
    assert "was the truth given in place of the predictions?" in message(read_predictions, TRUTH["annotations"], TRUTH)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_truth_without_a_part_is_named(key):
    assert f"no list '{key}'" in message(read_truth, {k: v for k, v in TRUTH.items() if k != key})


@pytest.mark.parametrize(
    ("truth", "sentence"),
    [
        ({**TRUTH, "images": [*TRUTH["images"], {"id": 1}]}, "another image has the id 1 too; give each its own"),
        (
            {**TRUTH, "categories": [{"id": 1}, {"id": 1}]},
            "category 1 (counted from 0): another category has the id 1 too",
        ),
        ({**TRUTH, "images": [{"id": "a"}]}, "image 0 (counted from 0): id 'a' is not a whole number"),
        (changed(1, image_id=7), "annotation 1 (counted from 0, image_id 7): image_id 7 is not in the truth (1 of 2"),
        (changed(1, category_id=9), "category_id 9 is not in the truth"),
        (changed(0, category_id=None), "annotation 0 (counted from 0, image_id 1): has no category_id"),
        (changed(0, bbox=None), "bbox None is not four numbers; give x, y, width, height"),
        (changed(0, bbox=[1, 2, 3]), "bbox [1, 2, 3] is not four numbers"),
        (changed(0, bbox=[5, 5, -1, 3]), "bbox [5, 5, -1, 3] has a negative width or height"),
        (changed(0, bbox=[5, 5, float("nan"), 3]), "is not finite; remove it"),
        (
            changed(0, difficult="0"),
            "difficult '0' is neither 0 nor 1; correct it (a text such as '0' would count as a yes)",
        ),
        (changed(1, iscrowd="0"), "annotation 1 (counted from 0, image_id 2): iscrowd '0' is neither 0 nor 1"),
        (changed(0, iscrowd=2), "iscrowd 2 is neither 0 nor 1"),
        (changed(0, area="100"), "area '100' is not a number of square pixels; correct it, or leave it out"),
        (changed(0, area=-1), "area -1 is not"),
        (changed(0, area=float("nan")), "area nan is not"),
        (changed(0, bbox=[0, 0, 10**400, 1]), "bbox [0, 0, 1000"),
        (
            {**TRUTH, "images": [{"id": 1, "width": "100"}]},
            "image 0 (counted from 0): width '100' is not a number of pixels",
        ),
        ({**TRUTH, "images": [{"id": 1, "height": -3}]}, "image 0 (counted from 0): height -3 is not"),
        ({**TRUTH, "annotations": ["x"]}, "annotation 0 (counted from 0): is a string, not an object"),
    ],
)
def test_faults_of_the_truth_are_told(truth, sentence):
    assert sentence in message(read_truth, truth)


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
            "prediction 1 (counted from 0, image_id 7): image_id 7 is not in the truth (1 of 2",
        ),
        (guess(BOX, 0.5, image="1"), "image_id '1' is not a whole number; write it as in the truth"),
        (guess(BOX, float("nan")), "prediction 1 (counted from 0, image_id 1): score nan is not a finite number"),
        (guess(BOX, "0.5"), "score '0.5' is not"),
        (guess(BOX, 10**400), "prediction 1 (counted from 0, image_id 1): score 1000"),
        ({"image_id": 1, "category_id": 1, "bbox": BOX}, "has no score; each prediction needs one"),
        (guess([5, 5, -1, 3], 0.5), "bbox [5, 5, -1, 3] has a negative width or height; a bbox is x, y, width, height"),
        (guess([float("inf"), 5, 1, 3], 0.5), "is not finite; remove it"),
        ({"image_id": 1, "category_id": 1, "score": 0.5}, "bbox None is not four numbers"),
    ],
)
def test_faults_of_predictions_are_told_with_the_file(tmp_path, prediction, sentence):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([guess(BOX, 0.5), prediction]))
    text = message(read_predictions, path, TRUTH)
    assert text.startswith(f"{path}: ") and sentence in text


@pytest.mark.parametrize(
    ("ids", "hint"),
    [
        ((0, 1), "all of them fit after adding 1, so the ids look counted from 0 (off by one)"),
        ((2, 3), "all of them fit after adding -1, so the ids look counted one too high (off by one)"),
        ((1, 40), "use the ids of the truth's categories"),
    ],
)
def test_category_ids_off_by_one_are_suspected(ids, hint):
    text = message(read_predictions, [guess(BOX, 0.5, category=id_) for id_ in ids], TRUTH)
    assert text.endswith(hint)


def test_category_ids_that_are_places_in_a_list_are_suspected():
    sparse = {**TRUTH, "categories": [{"id": 18, "name": "cat"}, {"id": 44, "name": "dog"}], "annotations": []}
    assert "places in the list of classes" in message(read_predictions, [guess(BOX, 0.5, category=1)], sparse)


def test_masks_are_asked_for_in_the_images_own_size():
    wrong = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": {"size": [50, 40], "counts": "x"}}
    assert "a mask of height x width [50, 40] in an image of [100, 100]" in message(
        read_predictions, [wrong], TRUTH, needs="segmentation"
    )


def test_a_mark_of_the_encoding_is_no_fault(tmp_path):
    (tmp_path / "found.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([guess(BOX, 0.5)]).encode())
    assert read_predictions(tmp_path / "found.json", TRUTH) == [guess(BOX, 0.5)]


def test_a_number_of_thousands_of_digits_is_named(tmp_path):
    (tmp_path / "found.json").write_text("[1" + "0" * 5000 + "]")
    assert "found.json: has a number that Python does not read" in message(
        read_predictions, tmp_path / "found.json", TRUTH
    )


def test_an_empty_list_and_a_zero_size_box_are_fine(tmp_path):
    assert read_predictions([], TRUTH) == []
    assert len(read_predictions([guess([5, 5, 0, 0], 0.1)], TRUTH)) == 1


def test_class_names_are_told_apart():
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}, {"id": 5}]
    assert class_names({"categories": categories}) == {1: "cat (1)", 2: "cat (2)", 5: "5"}
