"""The RPN's proposals as files: from a training, from an evaluation, and what explain.py says of their recall."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.cli.conftest import run


@pytest.fixture(scope="module")
def proposing(detector_flags, tmp_path_factory):
    """A finished run that has written its proposals."""
    output = tmp_path_factory.mktemp("proposing") / "run"
    run("train_det", *detector_flags("r18"), "--output", output, "--write-proposals", "--solver.iterations", 2)
    return output


def test_an_evaluation_writes_the_proposals_that_the_training_wrote(proposing, tmp_path):
    again = tmp_path / "new" / "rpn.json"
    improved = ("--output", tmp_path / "out", "--flip", "--refine", "--multi-scale", 96, 128)
    run("eval_det", proposing, "--proposals", again, *improved)
    assert again.read_bytes() == (proposing / "proposals.json").read_bytes()


def test_their_recall_is_what_pycocotools_says(proposing, tmp_path):
    report = tmp_path / "why.json"
    run("explain", proposing, "--proposals", proposing / "proposals.json", "--difficult", "count", "--json", report)
    (detector,) = json.loads(report.read_text())["detectors"]
    recall = {row["size"]: row for row in detector["proposals"]}

    proposals = json.loads((proposing / "proposals.json").read_text())
    with redirect_stdout(StringIO()):
        truth = COCO()
        truth.dataset = json.loads((proposing / "truth.json").read_text())
        truth.createIndex()
        any_class = truth.getCatIds()[0]  # there must be one, and it is not looked at
        classed = [{**proposal, "category_id": any_class} for proposal in proposals]
        evaluation = COCOeval(truth, truth.loadRes(classed), "bbox")
        evaluation.params.useCats, evaluation.params.maxDets = 0, [100, 300, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    average = 100 * evaluation.eval["recall"][:, 0, 0].mean(axis=0)
    assert [recall["all"][f"AR@{limit}"] for limit in (100, 300, 1000)] == pytest.approx(average.tolist())
    assert average[0] > 0


def test_what_cannot_be_written_is_said_before_the_test(proposing, tmp_path):
    ensemble = ("--ensemble", proposing, "--output", tmp_path / "both")
    done = run("eval_det", proposing, *ensemble, "--proposals", tmp_path / "rpn.json", expect=2)
    assert "leave --ensemble out" in done.err
    assert "is a directory" in run("eval_det", proposing, "--proposals", tmp_path, expect=1).err
    before = (proposing / "predictions.json").read_bytes()
    done = run("eval_det", proposing, "--proposals", proposing / "predictions.json", expect=1)
    assert "of the run's own" in done.err and (proposing / "predictions.json").read_bytes() == before
