"""tools/export.py as it is typed, on the old runs: files in the place of networks, and what is said of mistakes."""

from __future__ import annotations

import json
import shutil
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import run
from vertebra.build import parity

OLD = Path(__file__).resolve().parents[1] / "old_runs"
ALONE = "is an exported file, which eval_backbone.py, eval_det.py and eval_seg.py alone take"
QUICK = ("--format", "torch-export", "--rounds", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the runs were made in, their set drawn again, with both kinds of networks exported."""
    place = tmp_path_factory.mktemp("old")
    shutil.copytree(OLD, place / "runs")
    run("prepare_data", "sample", "--data", place / "runs" / "data", "--scenes", 6, 3, "--objects", 12, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)  # the runs' own paths are relative
        run("export", "runs/det_0", *QUICK)
        run("export", "runs/backbone", *QUICK, "--batch", "dynamic", "--output", "net.pt2")
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def read(path: Path | str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_an_exported_detector_is_evaluated_in_the_place_of_its_run() -> None:
    facts, trained = read("runs/det_0/model.pt2.json"), read("runs/det_0/provenance.json")
    assert facts["check"]["images"] == 3, "its own test set"
    assert facts["protocol_hash"] == trained["protocol_hash"] and facts["class_names"] == trained["class_names"]
    run("eval_det", "--weights", "runs/det_0/model.pt2", "--output", "again", "--workers", 0)
    run("eval_det", "runs/det_0", "--output", "network", "--workers", 0, "--precision", "fp32", "--device", "cpu")
    found, wanted = (read(f"{name}/predictions.json") for name in ("again", "network"))
    # On another canvas than the run's batches, so that what lies beyond a picture is not the same everywhere.
    assert len(found) == len(wanted) > 0
    evaluation, of_network = read("again/evaluation.json"), read("network/evaluation.json")
    assert evaluation["coco"]["AP"] == pytest.approx(of_network["coco"]["AP"], abs=1)
    assert evaluation["tested"]["detectors"] == ["runs/det_0/model.pt2"] and evaluation["cost"]["images_per_s"] > 0


def test_an_exported_classifier_is_evaluated_beside_its_network() -> None:
    files = ("runs/backbone/model.safetensors", "net.pt2")
    flags = ("--precision", "fp32", "--workers", 0, "--device", "cpu", "--json", "figures.json")
    run("eval_backbone", "--weights", *files, "--data", "runs/data/objects", *flags)
    network, exported = read("figures.json")
    assert exported["weights"] == "net.pt2"
    for name in ("top1", "top5", "images", "backbone", "sides", "size"):
        assert exported[name] == network[name], name


@pytest.mark.parametrize(
    ("tool", "words", "code", "sentence"),
    [
        ("export", "runs/det_0 --format onxx", 2, "there is no format onxx; did you mean onnx?"),
        ("export", "runs/det_0 --format tensorrt", 2, "the formats are onnx, openvino, torch-export, torchscript"),
        ("export", "--format onnx", 2, "name either a run directory, or --weights FILE"),
        ("export", "runs/det_0 --format onnx --output a.pt2", 2, "--output a.pt2 is to end in .onnx"),
        ("export", "runs/det_0 --format onnx --size 16 640", 2, "--size is below 32 px"),
        ("export", "runs/backbone --format torch-export --size 64 96", 2, "a classifier takes square crops"),
        ("export", "runs/backbone --format torch-export --score 0.5", 2, "--score is of a detector"),
        ("export", "runs/det_0 --format onnx --batch 0", 2, "--batch 0: give the number of images at a time"),
        ("export", "runs/det_0 --format torchscript --batch dynamic", 2, "torchscript takes a fixed number of images"),
        ("export", "--weights net.pt2 --format onnx", 2, "net.pt2 is an exported file already"),
        ("predict", "runs/data/objects/val/disc --weights runs/det_0/model.pt2", 1, ALONE),
        ("train_det", "--dataset sample --data runs/data --weights net.pt2 --output o", 1, ALONE),
        ("import_weights", "net.pt2 --as r18 --output o.safetensors", 1, ALONE),
        ("export", "runs/none --format onnx", 1, "runs/none is not a directory"),
        ("export", "--weights runs/none.safetensors --format onnx", 1, "runs/none.safetensors do not exist"),
        (
            "eval_det",
            "--weights net.pt2 --output o",
            1,
            "net.pt2: holds a classifier, not a detector",
        ),
        ("eval_det", "--weights bare.pt2 --output o", 1, "bare.pt2.json: missing"),
        (
            "eval_det",
            "--weights runs/det_0/model.pt2 --output o --score 0.5 --flip",
            2,
            "--score --flip cannot be changed",
        ),
        ("eval_backbone", "--weights net.pt2 --data runs/data/objects --size 64", 2, "net.pt2 takes images of"),
        ("eval_backbone", "--weights net.pt2 --data runs/data/objects --views dense", 2, "net.pt2 takes one size"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tool: str, words: str, code: int, sentence: str) -> None:
    Path("bare.pt2").touch()
    assert sentence in " ".join(run(tool, *words.split(), expect=code).err.split())


def test_without_the_test_set_others_are_asked_for() -> None:
    Path("runs/data").rename("elsewhere")
    try:
        error = run("export", "runs/det_0", *QUICK, "--output", "b.pt2", expect=1).err
    finally:
        Path("elsewhere").rename("runs/data")
    assert "name others with --images" in error and not Path("b.pt2").exists()


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    there = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name.startswith("onnx") else there(name))
    monkeypatch.setattr("vertebra.build.export_formats.find_spec", util.find_spec)
    error = run("export", "runs/det_0", "--format", "onnx", expect=1).err
    assert "pip install onnx onnxscript onnxruntime" in error


def test_a_difference_is_a_failure_that_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parity.TOLERANCES, "score", -1.0)
    done = run("export", "runs/backbone", *QUICK, "--output", "c.pt2", "--checks", 2, expect=1)
    assert done.err.count("score differs by") == 2 and "0000.jpg: score" in done.err
    assert read("c.pt2.json")["check"]["largest_differences"]["score"] < 1e-4
