"""Runs made by commit 1532715, before the packages moved: their weights, directories and checkpoints still serve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import run

OLD = Path(__file__).resolve().parents[1] / "old_runs"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the runs were made in, with the sample set drawn again."""
    place = tmp_path_factory.mktemp("old")
    shutil.copytree(OLD, place / "runs")
    run("prepare_data", "sample", "--data", place / "runs" / "data", "--scenes", 6, 3, "--objects", 12, 6)
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)  # the runs' own paths are relative


def read(path: Path | str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_a_classifiers_weights_are_evaluated_with_their_figures() -> None:
    run("eval_backbone", "--weights", "runs/backbone/model.safetensors", "--data", "runs/data/objects",
        "--workers", 0, "--device", "cpu", "--json", "figures.json")  # fmt: skip
    (figures,), recorded = read("figures.json"), read(OLD / "backbone" / "evaluation.json")
    assert {name: figures[name] for name in ("top1", "top5", "images")} == {
        name: recorded[name] for name in ("top1", "top5", "images")
    }


def test_a_detectors_run_directory_is_evaluated_with_its_figures() -> None:
    run("eval_det", "runs/det_0", "--workers", 0, "--device", "cpu", "--output", "again")
    figures, recorded = read("again/evaluation.json"), read(OLD / "det_0" / "evaluation.json")
    assert figures["coco"] == pytest.approx(recorded["coco"], rel=1e-4)
    assert figures["voc"]["mAP"] == pytest.approx(recorded["voc"]["mAP"], rel=1e-4)
    for name in ("parameters", "flops", "classifier"):
        assert figures["cost"][name] == recorded["cost"][name]


def test_a_training_goes_on_from_its_checkpoint_to_the_same_end() -> None:
    resumed = Path("runs/resumed")
    shutil.copytree(OLD / "det_0", resumed)
    for name in ("model.safetensors", "provenance.json", "evaluation.json", "predictions.json", "truth.json"):
        (resumed / name).unlink()
    lines = (OLD / "det_0" / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (resumed / "metrics.jsonl").write_text("".join(lines[:6]), encoding="utf-8")
    recorded = read(OLD / "det_0" / "provenance.json")
    _, _, *flags = recorded["command"].split()
    flags[flags.index("--output") + 1] = str(resumed)
    run("train_det", *flags, "--resume")
    made = [json.loads(line) for line in (resumed / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(made) == len(lines) == 9
    for line, old in zip(made, map(json.loads, lines)):
        assert line.keys() == old.keys()
        same = [name for name in old if name.startswith("loss") or name in ("iteration", "lr", "AP", "AP50", "VOC")]
        assert [line[name] for name in same] == pytest.approx([old[name] for name in same], rel=1e-4)
    facts = read(resumed / "provenance.json")
    assert facts["finished"] and facts["protocol_hash"] == recorded["protocol_hash"] and facts.keys() == recorded.keys()


def test_the_report_on_two_runs_has_its_figures() -> None:
    run("compare", "runs/det_0", "runs/det_1", "--report", "report")
    report, recorded = read("report/report.json"), read(OLD / "report.json")
    assert report["data"] == recorded["data"] and report["figures"] == recorded["figures"]
    assert report["protocol"]["hash"] == recorded["protocol"]["hash"]
    for side, old in zip(report["sides"], recorded["sides"], strict=True):
        assert side["label"] == old["label"] and side["seeds"] == old["seeds"]
        assert side["cost"].keys() == old["cost"].keys()
        for kind in ("figures", "cost"):
            for name, value in old[kind].items():
                assert side[kind][name] == (pytest.approx(value, rel=1e-6) if isinstance(value, dict) else value), name
    for one, old in zip(report["per_size"], recorded["per_size"], strict=True):
        assert one["name"] == old["name"] and one["AP"][0] == pytest.approx(old["AP"][0], rel=1e-6)
