"""tools/score.py as a user types it."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import run
from vertebra.evaluation.statistics.resampling import compare, draw_counts, resample_coco
from vertebra.ground.parse import as_json

TRUTH = {
    "images": [{"id": 1, "width": 100, "height": 100}, {"id": 2, "width": 100, "height": 100}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "difficult": 1},
    ],
}
FOUND = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}]


def score(*flags, expect=0):
    done = run("score", *flags, expect=expect)
    return done.out if expect == 0 else done.err


@pytest.fixture
def files(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "found.json").write_text(json.dumps(FOUND))
    return ["--truth", tmp_path / "truth.json", "--predictions", tmp_path / "found.json"]


def test_help_lists_all_flags():
    printed = run("score", "--help").out
    for flag in ("--truth", "--predictions", "--metric", "--iou", "--pixels", "--difficult", "--per-class", "--json"):
        assert flag in printed


def rows(printed):
    """The words of each line by its first."""
    return {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.strip()}


def test_coco_figures_are_printed_and_written(files, tmp_path):
    printed = score(*files, "--metric", "coco", "--per-class", "--json", tmp_path / "out.json")
    assert rows(printed)["AP"][0] == "100.00" and rows(printed)["APl"][0] == "-"
    assert rows(printed)["cat"] == ["100.00", "100.00", "100.00", "-", "-", "1"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["figures"]["AP50"] == pytest.approx(100) and written["figures"]["APl"] is None
    assert written["per_class"]["cat"]["AP"] == pytest.approx(100)


def test_voc_figures_state_their_conventions(files, tmp_path):
    printed = score(*files, "--metric", "voc07", "--json", tmp_path / "out.json")
    assert "11-point, IoU >= 0.5, pixels exact, difficult objects ignored, 2 images" in printed
    assert "mAP  100.00  mean over 1 class with truths" in printed
    assert json.loads((tmp_path / "out.json").read_text())["mAP"] == pytest.approx(100)
    counted = score(*files, "--metric", "voc10", "--difficult", "count", "--pixels", "inclusive", "--iou", "0.7")
    assert "area under the curve, IoU >= 0.7, pixels inclusive, difficult objects counted" in counted
    assert "mAP  50.00" in counted


def test_one_image_with_an_object_has_no_interval(files):
    text = score(*files, "--metric", "voc10", "--resamples", "50", "--against", files[3])
    assert "no interval of mAP: it takes two images with an object" in text
    assert text.rstrip().endswith(f"mAP less that of {files[3]}: +0.00")


def test_empty_predictions_score_0(files, tmp_path):
    (tmp_path / "found.json").write_text("[]")
    assert rows(score(*files, "--metric", "coco"))["AP"][0] == "0.00"
    assert rows(score(*files, "--metric", "voc07"))["mAP"][0] == "0.00"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--metric", "voc12"], "voc12"),
        (["--metric", "coco", "--iou", "0.7"], "--iou and --pixels belong to the VOC metrics, not to coco"),
        (["--metric", "voc07", "--iou", "70"], "iou: Input should be less than or equal to 1"),
        (["--metric", "coco", "--resamples", "-1"], "resamples: give 2 or more, or 0 for no interval, not -1"),
        (["--metric", "coco", "--resamples", "1"], "resamples: give 2 or more, or 0 for no interval, not 1"),
        (["--metric", "coco", "--voc-competition", "comp3"], "--voc-competition is for --voc-files"),
        (["--metric", "coco-segm", "--voc-files", "out"], "--voc-files takes boxes, not coco-segm"),
        ([], "--metric"),
    ],
)
def test_a_wrong_command_line_ends_in_exit_2(files, flags, sentence):
    assert sentence in score(*files, *flags, expect=2)


def test_the_place_of_the_figures_is_made_before_the_work(files, tmp_path):
    score(*files, "--metric", "coco", "--json", tmp_path / "new" / "place" / "out.json")
    assert (tmp_path / "new" / "place" / "out.json").is_file()
    (tmp_path / "found.json").unlink()
    assert f"--json {tmp_path} is a directory: name a file" in score(
        *files, "--metric", "coco", "--json", tmp_path, expect=2
    )


def test_without_an_object_the_figures_are_written_in_valid_json(files, tmp_path):
    def strictly(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    (tmp_path / "truth.json").write_text(json.dumps({**TRUTH, "annotations": []}))
    flags = (*files, "--metric", "voc10", "--resamples", 20, "--against", files[3], "--json", tmp_path / "out.json")
    assert "There is nothing to score against" in score(*flags)
    assert "interval" not in json.loads((tmp_path / "out.json").read_text(), parse_constant=strictly)
    aside = [{**entry, "difficult": 1} for entry in TRUTH["annotations"]]
    (tmp_path / "truth.json").write_text(json.dumps({**TRUTH, "annotations": aside}))
    score(*flags)
    written = json.loads((tmp_path / "out.json").read_text(), parse_constant=strictly)
    assert written["interval"]["estimate"] is None and written["against"]["low"] is None


def test_classes_restrict_the_figures(files):
    printed = score(*files, "--metric", "voc07", "--classes", "cat", "--per-class")
    assert "cat" in printed and "dog" not in printed
    assert "cow" in score(*files, "--metric", "voc07", "--classes", "cow", expect=1)


@pytest.fixture
def many(tmp_path):
    """Ten images with an object each, all found; nothing.json finds none and half.json every second one."""
    boxes = [{"image_id": image, "category_id": 1, "bbox": [0, 0, 10, 10]} for image in range(10)]
    truth = {**TRUTH, "images": [{"id": image} for image in range(10)], "annotations": boxes}
    found = [{**box, "score": 0.9} for box in boxes]
    for name, value in (("truth", truth), ("found", found), ("nothing", []), ("half", found[::2])):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    return tmp_path


def test_a_difference_to_other_predictions_comes_with_the_reports_interval(many):
    flags = ("--truth", many / "truth.json", "--predictions", many / "found.json", "--metric", "coco")
    text = score(*flags, "--resamples", 200, "--against", many / "half.json", "--json", many / "out.json")
    assert "95 % interval of AP50 over 200 resamples of the images: 100.00 to 100.00" in text
    counts_SI = draw_counts(10, 200, seed=0)
    sides = [
        [resample_coco(many / "truth.json", many / name, counts_SI)["AP50"]] for name in ("half.json", "found.json")
    ]
    expected = compare(*sides)
    assert f"{expected.estimate:+.2f}, 95 % interval" in text and f"{expected.low:+.2f} to {expected.high:+.2f}" in text
    assert json.loads((many / "out.json").read_text())["against"].items() >= as_json(expected).items()
    assert text.rstrip().splitlines()[-2].endswith("(image sampling only)")


def test_a_difference_needs_resamples_and_may_be_none(many):
    flags = ("--truth", many / "truth.json", "--predictions", many / "nothing.json", "--metric", "voc10")
    same = score(*flags, "--resamples", 50, "--against", many / "nothing.json")
    assert same.rstrip().endswith("+0.00 to +0.00 (image sampling only; not distinguishable)")
    assert "--resamples" in score(*flags, "--against", many / "found.json", expect=2)


def test_predictions_that_are_none_are_left_out_where_that_is_asked_for(files, tmp_path):
    (tmp_path / "found.json").write_text(json.dumps([*FOUND, {**FOUND[0], "bbox": [5, 5, 3, -1]}]))
    refused = score(*files, "--metric", "coco", expect=1)
    assert "prediction 1 (counted from 0, image_id 1): bbox [5, 5, 3, -1] has a negative" in refused
    assert "score.py --drop-invalid leaves such out" in refused
    printed = score(*files, "--metric", "coco", "--drop-invalid")
    assert "left out, as asked for: prediction 1" in printed and rows(printed)["AP"][0] == "100.00"


def test_objects_that_pycocotools_counts_otherwise_are_said_beside_the_figures(files):
    said = "Note: difficult objects (1) are neither to be found nor punished, also in COCO's figures: pycocotools"
    assert said in score(*files, "--metric", "coco")
    assert "Note: " not in score(*files, "--metric", "coco", "--difficult", "count")
