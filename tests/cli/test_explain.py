"""tools/explain.py as a user types it."""

from __future__ import annotations

import json

import pytest
from pycocotools import mask as rle

from tests.cli import conftest
from tests.evaluation.cases import guess, random_case, thing, truth_of


def explain(*flags, expect=0):
    done = conftest.run("explain", *flags, expect=expect)
    return done.out if expect == 0 else done.err


def run_directory(path, truth, predictions):
    path.mkdir()
    (path / "truth.json").write_text(json.dumps(truth))
    (path / "predictions.json").write_text(json.dumps(predictions))
    return path


@pytest.fixture
def run(tmp_path):
    return run_directory(tmp_path / "one", *random_case(1, images=10))


def test_help_lists_all_flags():
    printed = explain("--help")
    for flag in ("--truth", "--predictions", "--against", "--proposals", "--score", "--per-class", "--json"):
        assert flag in printed


def test_one_run_is_explained_and_written(run, tmp_path):
    printed = explain(run, "--per-class", "--json", tmp_path / "why.json")
    for part in ("localisation", "missed", "by size", "other objects", "ECE", "another class"):
        assert part in printed
    (one,) = json.loads((tmp_path / "why.json").read_text())["detectors"]
    assert one["images"] == 10 and one["predictions"].endswith("predictions.json")
    assert set(one["errors"]["lost"]) >= {"classification", "localisation", "both", "duplicate", "background"}
    assert f"{one['errors']['ap']:.2f}" in printed


def test_of_two_runs_the_second_less_the_first_is_shown(tmp_path):
    truth = truth_of([thing([0, 0, 10, 10]), thing([50, 50, 10, 10])])
    half = run_directory(tmp_path / "half", truth, [guess([0, 0, 10, 10], 0.9)])
    whole = run_directory(tmp_path / "whole", truth, [guess([0, 0, 10, 10], 0.9), guess([50, 50, 10, 10], 0.8)])
    printed = explain(half, whole, "--per-class")
    rows = [line.split() for line in printed.splitlines()]
    assert ["objects", "missed", "1", "0", "-1"] in [row[:5] for row in rows]
    assert ["detections)", "50.50", "100.00", "+49.50"] in [row[-5:-1] for row in rows]  # one image: no interval, no p
    files = ("--truth", half / "truth.json", "--predictions", whole / "predictions.json")
    named = explain(*files, "--against", half / "predictions.json", "--per-class", "--json", tmp_path / "why.json")
    assert named.splitlines()[2:-2] == printed.splitlines()[2:]
    change = json.loads((tmp_path / "why.json").read_text())["difference"]
    assert change["errors"]["counts"]["missed"] == -1 and change["errors"]["ap"] == pytest.approx(49.50, abs=0.01)
    assert change["size"]["coco"][0] == {
        "slice": "small",
        "truths": 2,
        **{name: pytest.approx(gain, abs=0.01) for name, gain in (("ap", 49.50), ("ap50", 49.50), ("recall50", 50))},
    }
    assert change["calibration"]["bins"][0]["precision"] is None


def test_differences_of_two_runs_have_intervals_unless_none_are_asked_for(tmp_path):
    truth = truth_of([thing([0, 0, 10, 10], image=image) for image in range(1, 41)], images=40)
    found = [guess([0, 0, 10, 10], 0.9, image=image) for image in range(1, 41)]
    half, whole = (run_directory(tmp_path / name, truth, found[:n]) for name, n in (("half", 20), ("whole", 40)))
    printed = explain(half, whole, "--resamples", 50, "--json", tmp_path / "why.json")
    assert "50 resamples" in printed
    intervals = json.loads((tmp_path / "why.json").read_text())["intervals"]
    missed = intervals["errors"]["missed"]
    assert intervals["resamples"] == 50 and missed["low"] < missed["estimate"] == pytest.approx(-100 * 50 / 101)
    (row,) = [line for line in printed.splitlines() if line.startswith("missed (an object not found)")]
    assert f"{missed['estimate']:.2f} ({missed['low']:.2f} to {missed['high']:.2f})  < 0.001" in row
    # Found in 20 of 40 images: the share's standard deviation is sqrt(1/160).
    assert missed["standard_error"] == pytest.approx(100 / 160**0.5, rel=0.35) and missed["covers"] == "images"
    assert "resamples" not in explain(half, whole, "--resamples", 0, "--json", tmp_path / "why.json")
    assert "intervals" not in json.loads((tmp_path / "why.json").read_text())
    assert "resamples" not in explain(half)
    assert "resamples: give 2 or more, or 0" in explain(half, whole, "--resamples", 1, expect=2)


def test_proposals_and_masks(tmp_path):
    (square,) = rle.frPyObjects([[5, 5, 15, 5, 15, 15, 5, 15]], 20, 20)
    segmentation = {"size": [20, 20], "counts": square["counts"].decode()}
    truth = truth_of([thing([5, 5, 10, 10], segmentation=[[5, 5, 15, 5, 15, 15, 5, 15]])])
    truth["images"][0].update(width=20, height=20)
    run = run_directory(tmp_path / "run", truth, [{**guess([0, 0, 3, 3], 0.9), "segmentation": segmentation}])
    (tmp_path / "rpn.json").write_text(json.dumps([{"image_id": 1, "bbox": [5, 5, 10, 10], "score": 0.5}]))
    printed = explain(run, "--masks", "--proposals", tmp_path / "rpn.json")
    assert "AR@100" in printed and ap_of(printed) == "100.00"
    assert ap_of(explain(run)) == "0.00"


def ap_of(printed):
    (row,) = [line for line in printed.splitlines() if line.startswith("AP (over classes")]
    return row.split()[-1]


def test_nothing_found_and_nothing_to_find_are_explained_in_json_without_nan(tmp_path):
    for name, truth, predictions in (
        ("blind", truth_of([thing([0, 0, 9, 9])]), []),
        ("empty", truth_of([]), [guess([0, 0, 9, 9], 0.5)]),
        ("void", truth_of([], images=0), []),
    ):
        run = run_directory(tmp_path / name, truth, predictions)
        explain(run, run, "--proposals", *[run / "predictions.json"] * 2, "--json", tmp_path / "why.json")
        assert "NaN" not in (tmp_path / "why.json").read_text()


def test_what_a_user_gets_wrong_ends_in_a_sentence(run, tmp_path):
    assert "name a run directory" in explain(expect=2)
    assert "one run or two" in explain(run, run, run, expect=2)
    assert "either run directories" in explain(run, "--truth", run / "truth.json", expect=2)
    assert "one file for each detector" in explain(run, run, "--proposals", run / "predictions.json", expect=2)
    assert "is not a directory" in explain(tmp_path / "absent", expect=1)
    assert "no predictions.json" in explain(unfinished(tmp_path, run), expect=1)
    assert "background <= iou" in explain(run, "--iou", "0.05", expect=1)
    other = run_directory(tmp_path / "other", *random_case(2, images=10))
    assert "differ in their images" in explain(run, other, expect=1)


def test_a_directory_that_holds_no_run_is_not_sent_to_be_evaluated(tmp_path):
    printed = explain(tmp_path, expect=1)
    assert printed.rstrip().endswith("has no truth.json and no predictions.json; name a run directory of train_det.py")
    (tmp_path / "config.yaml").touch()
    assert f"run: python tools/eval_det.py {tmp_path}" in explain(tmp_path, expect=1)


def test_the_place_of_the_explanation_is_made_before_the_work(run, tmp_path):
    explain(run, "--json", tmp_path / "new" / "why.json")
    assert (tmp_path / "new" / "why.json").is_file()
    assert "is a directory: name a file" in explain(run, "--json", tmp_path, expect=2)


def unfinished(tmp_path, run):
    path = tmp_path / "unfinished"
    path.mkdir()
    (path / "truth.json").write_text((run / "truth.json").read_text())
    return path
