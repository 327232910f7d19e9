"""Improvements at test, as a user asks for them: eval_det's switches, and the cumulative table in one command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from tests.cli.conftest import run
from vertebra.cli import improvements
from vertebra.engine.distributed import World
from vertebra.engine.weights import save_weights
from vertebra.recipes.schema_detection import DetectionRecipe

SIZES = ("--multi-scale", 64, 96, 128)


@pytest.fixture(scope="module")
def context_run(detector_flags, tmp_path_factory):
    output = tmp_path_factory.mktemp("context") / "run"
    run("train_det", *detector_flags("r18"), "--model.context", "--output", output)
    return output


def test_eval_det_takes_all_improvements_at_once(detectors, tmp_path):
    switches = ("--refine", *SIZES, "--flip", "--ensemble", detectors["plain18"])
    done = run("eval_det", detectors["r18"], *switches, expect=2)
    assert "--output is missing: an ensemble's results" in done.err
    run("eval_det", detectors["r18"], *switches, "--output", tmp_path, "--score", 0.0, "--workers", 0)
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    tested = evaluation["tested"]
    assert tested["detectors"] == [str(detectors["r18"]), str(detectors["plain18"])]
    assert tested["test"]["refine"] and tested["test"]["flip"] and tested["test"]["multi_scale"] == [64, 96, 128]
    alone = json.loads((detectors["r18"] / "evaluation.json").read_text())["cost"]
    assert evaluation["cost"]["flops"] > 6 * alone["flops"] and evaluation["cost"]["parameters"] > alone["parameters"]
    assert json.loads((tmp_path / "predictions.json").read_text())


def test_eval_det_says_what_cannot_be_improved(detectors, tmp_path):
    done = run("eval_det", detectors["r18"], "--refine", "--nms", 0.4, expect=2)
    assert all(name in done.err for name in ("--output", "test.refine,", "test.refine_nms"))
    members = (detectors["plain18"], tmp_path / "none")
    done = run("eval_det", detectors["r18"], "--ensemble", *members, "--output", tmp_path / "a", expect=1)
    assert str(tmp_path / "none") in done.err


@pytest.mark.slow
def test_the_cumulative_table_goes_on_where_it_was_stopped(detectors, context_run, tmp_path):
    output = tmp_path / "table"
    flags = (detectors["r18"], "--context-run", context_run, "--workers", 0, "--output", output)
    run("improvements", *flags, *SIZES)
    first = [json.loads((output / name / "evaluation.json").read_text()) for name in ("0_baseline", "2_context")]
    assert [one["tested"]["detectors"] for one in first] == [[str(detectors["r18"])], [str(context_run)]]
    done = run("improvements", *flags, *SIZES, "--flip", "--ensemble", detectors["plain18"])
    assert done.out.count(", done") == 4 and done.out.count("\n| ") == 7  # the head and six rows
    rows = json.loads((output / "improvements.json").read_text())["rows"]
    assert [row["key"] for row in rows] == ["baseline", "refinement", "context", "multi_scale", "flip", "ensemble"]
    assert rows[5]["tested"]["detectors"] == [str(context_run), str(detectors["plain18"])]
    assert (output / "improvements.md").read_text() in done.out


def test_a_table_that_would_not_mean_what_it_says_is_refused(detectors, context_run, tmp_path):
    output = ("--output", tmp_path / "table")
    done = run("improvements", detectors["r18"], "--context-run", detectors["plain18"], *output, expect=2)
    assert "trained without context" in done.err
    done = run("improvements", detectors["plain18"], "--context-run", context_run, *output, expect=2)
    assert "backbone" in done.err
    assert "improvements of its own" in run("improvements", context_run, *output, expect=2).err
    assert "no config.yaml" in run("improvements", tmp_path, *output, expect=1).err


def finished_run(path: Path, classes: tuple[str, ...] = ("dog",), **values: object) -> Path:
    """What a finished run has of a detector, as far as it is looked at before the first row."""
    recipe = DetectionRecipe.model_validate({"backbone": "r18", "data": path.parent, **values}).model_dump(mode="json")
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(recipe))
    facts = {"detector": "Faster R-CNN", "recipe": recipe, "class_names": classes, "category_ids": range(len(classes))}
    save_weights(path / "model.safetensors", {"x": torch.zeros(1)}, {**facts, "category_ids": [*facts["category_ids"]]})
    return path


def test_a_row_of_other_images_or_another_precision_is_not_done(tmp_path):
    settings = improvements.Settings(run=finished_run(tmp_path / "run"), output=tmp_path / "table", device="cpu")
    world = World()
    (first, *_) = improvements.plan(settings.model_copy(update={"precision": "fp32"}))
    evaluation, eval_det = first.evaluation, improvements.eval_det
    tested = eval_det.tested(evaluation, improvements.changed(first))
    evaluation.output.mkdir(parents=True)
    (evaluation.output / "evaluation.json").write_text(json.dumps({"tested": tested}))
    assert improvements.is_done(first, world)
    for other in ({"data": tmp_path / "elsewhere"}, {"precision": "bf16"}, {"refine": True}):
        assert not improvements.is_done(replace(first, evaluation=evaluation.model_copy(update=other)), world), other
    same = evaluation.model_copy(update={"data": tmp_path / "run" / ".."})
    assert improvements.is_done(replace(first, evaluation=same), world), "the same directory by another name"


def changed(settings: improvements.Settings, **changes: object) -> improvements.Settings:
    return improvements.Settings(**{**dict(settings), **changes})


def test_what_would_stop_a_later_row_is_said_before_the_first(tmp_path):
    base, context = finished_run(tmp_path / "run"), finished_run(tmp_path / "context", model={"context": True})
    settings = improvements.Settings(run=base, output=tmp_path / "table")
    improvements.check(changed(settings, context_run=context, ensemble=(str(context),), multi_scale=(400, 600)))
    other = finished_run(tmp_path / "cats", classes=("cat",))
    (tmp_path / "empty").mkdir()
    for changes, sentence in (
        ({"multi_scale": (200, 400)}, "test.multi_scale needs two sizes or more of at least 16, and among them 600"),
        ({"multi_scale_region": 112}, "--multi-scale-region has no effect without --multi-scale"),
        ({"ensemble": (str(tmp_path / "nowhere"),)}, "nowhere do not exist"),
        ({"ensemble": (str(tmp_path / "empty"),)}, "empty/model.safetensors is missing"),
        ({"ensemble": (str(other),)}, "cats.* knows other classes"),
        ({"ensemble": ("torchvision:retinanet",)}, "torchvision:retinanet is not one of"),
    ):
        with pytest.raises(ValueError, match=sentence):
            improvements.check(changed(settings, **changes))
    (context / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"context/model.safetensors is missing: the run is not finished"):
        improvements.check(changed(settings, context_run=context))
