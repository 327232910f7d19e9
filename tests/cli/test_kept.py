"""What is on disk: the last few checkpoints and the best, and predictions whatever becomes of their figures."""

from __future__ import annotations

import json

from tests.cli.conftest import run
from vertebra.build import detector_run
from vertebra.engine.checkpoint import load_checkpoint
from vertebra.engine.weights import load_weights
from vertebra.ground.errors import UserError


def test_the_best_detector_is_kept_beside_the_last_few_checkpoints(detector_flags, tmp_path, monkeypatch):
    """Its AP falls after the first evaluation."""
    figures = iter((30.0, 20.0, 10.0))
    monkeypatch.setattr(detector_run, "evaluate_detector", lambda *_, **__: {"AP": next(figures)})
    flags = (*detector_flags("r18"), "--solver.iterations", 6, "--eval-period", 2, "--checkpoint-period", 1)
    run("train_det", *flags, "--keep-checkpoints", 3, "--output", tmp_path / "run")
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {"0000004.pt", "0000005.pt", "0000006.pt", "best.pt"}
    best, facts = load_weights(tmp_path / "run" / "model_best.safetensors")
    assert (facts["iterations"], facts["figures"], facts["chosen_by"]) == (2, {"AP": 30.0}, "AP")
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    assert state["iteration"] == 2
    assert (best["rpn.head.objectness.weight"] == state["model"]["rpn.head.objectness.weight"]).all()


def test_no_best_is_kept_where_it_is_not_wanted(detector_flags, tmp_path, monkeypatch):
    monkeypatch.setattr(detector_run, "evaluate_detector", lambda *_, **__: {"AP": 1.0})
    flags = (*detector_flags("r18"), "--solver.iterations", 2, "--eval-period", 1, "--keep-checkpoints", 1)
    run("train_det", *flags, "--no-keep-best", "--output", tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["0000002.pt"]
    assert not (tmp_path / "run" / "model_best.safetensors").exists()


def test_predictions_are_on_disk_before_figures_are_made(detectors, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise UserError("v.json: object 7 has no area")

    monkeypatch.setattr(detector_run, "summarise", refuse)
    assert "object 7 has no area" in run("eval_det", detectors["r18"], "--output", tmp_path, expect=1).err
    assert {row["image_id"] for row in json.loads((tmp_path / "predictions.json").read_text())}
    assert not (tmp_path / "evaluation.json").exists()
