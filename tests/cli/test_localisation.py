"""Localisation as a user types it: from drawn images to figures, resumed, scored again, and with faults."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import TINY_BACKBONE, run, run_process, run_until
from vertebra.engine.weights import load_weights, save_weights

TINY = (
    *("--config", "localisation/sample.yaml", "--width", "0.25", "--workers", "0", "--device", "cpu"),
    *("--input.size", "64", "--input.resize", "64", "--solver.iterations", "6", "--solver.batch-size", "4"),
    *("--log-period", "1", "--checkpoint-period", "2", "--precision", "fp32"),
)


@pytest.fixture(scope="module")
def located(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("located") / "set"
    run("prepare_data", "sample-loc", "--data", root, "--images", 20, 10, "--layout", "ilsvrc")
    return root


@pytest.fixture(scope="module")
def flags(located: Path, weights: dict[str, Path]) -> tuple[object, ...]:
    return (*TINY, "--data", located, "--weights", weights["r18"], "--classifier", weights["r18"])


@pytest.fixture(scope="module")
def finished(flags: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("localizer") / "run"
    printed = run("train_loc", *flags, "--output", output).out
    assert "true class given" in printed and "whole image" in printed and "top-5" in printed
    return output


def losses_of(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_directory_holds_boxes_figures_and_weights(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "oracle.json", "predictions.json", "truth.json", "provenance.json"} <= names
    figures = json.loads((finished / "evaluation.json").read_text())
    assert figures["images"] == 10 and set(figures["predicted"]) == {"top-1", "top-5"}
    assert figures["predicted"]["top-5"]["error"] >= figures["predicted"]["top-5"]["class_error"]
    assert len(json.loads((finished / "oracle.json").read_text())) == 10
    rows = json.loads((finished / "predictions.json").read_text())
    assert len(rows) == 50 and all(row["bbox"][0] >= 0 and row["bbox"][0] + row["bbox"][2] <= 256 for row in rows)
    state, facts = load_weights(finished / "model.safetensors")
    assert state["head.cls.weight"].shape[0] == 10 * 12 and state["head.reg.weight"].shape[0] == 10 * 48
    assert "backbone.layer1.0.conv1.weight" in state and not any("layer4" in name for name in state)
    assert facts["protocol"]["test_fingerprint"] and "classifier" not in facts["protocol"]
    assert facts["classifier"]["view"] == "1crop"


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(finished: Path, flags, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    again = (*flags, "--output", output, "--resume")

    def has_saved() -> bool:
        return len(losses_of(output)) >= 3 if (output / "metrics.jsonl").exists() else False

    assert run_until("train_loc", *again, when=has_saved, send=signal.SIGKILL).code == -signal.SIGKILL
    run("train_loc", *again)
    assert losses_of(output) == losses_of(finished)
    one, other = (load_weights(place / "model.safetensors")[0] for place in (output, finished))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_scoring_again_gives_the_same_and_other_views_need_a_place_of_their_own(finished: Path, tmp_path: Path) -> None:
    before = json.loads((finished / "evaluation.json").read_text())
    run("eval_loc", finished, "--workers", 0, "--output", tmp_path / "same", "--ilsvrc", tmp_path / "guesses.txt")
    after = json.loads((tmp_path / "same" / "evaluation.json").read_text())
    assert {**after, "time_per_image_s": 0} == {**before, "time_per_image_s": 0}
    lines = [line.split() for line in (tmp_path / "guesses.txt").read_text().splitlines()]
    assert [len(line) for line in lines] == [25] * 10
    assert "test.view" in run("eval_loc", finished, "--view", "dense", expect=2).err
    dense = ("--view", "dense", "--scales", 64, 96, "--candidates", 5, "--workers", 0, "--output", tmp_path / "dense")
    printed = run_process("eval_loc", finished, *dense, "--gpus", 2, "--device", "cpu").out
    assert "dense, shorter side 64 96 px" in printed


def test_faults_are_said_in_a_sentence(located: Path, flags, weights, tmp_path: Path) -> None:
    output = ("--output", tmp_path / "run")
    assert "--weights is missing" in run("train_loc", *TINY, "--data", located, *output, expect=2).err
    state, facts = load_weights(weights["r18"])
    facts["class_names"][0] = "zebra"
    save_weights(tmp_path / "other.safetensors", state, facts)
    done = run("train_loc", *flags, *output, "--classifier", tmp_path / "other.safetensors", expect=1)
    assert "other.safetensors" in done.err and "zebra" in done.err
    assert not (tmp_path / "run").exists(), "it would be in the way of the right command"


@pytest.mark.slow
def test_two_processes_equal_one_at_the_same_global_batch(flags, tmp_path: Path) -> None:
    frozen = (*flags, "--model.norms", "frozen", "--solver.iterations", 3)
    run("train_loc", *frozen, "--output", tmp_path / "one")
    run_process("train_loc", *frozen, "--output", tmp_path / "two", "--gpus", 2)
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), rel=1e-4)
    one, two = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two"))
    assert one["images"] == two["images"] == 10


@pytest.mark.slow
def test_a_classifier_can_be_trained_on_the_plain_layout(tmp_path: Path) -> None:
    run("prepare_data", "sample-loc", "--data", tmp_path / "set", "--images", 10, 10)
    tiny = (*TINY_BACKBONE, "--solver.iterations", 1, "--solver.batch-size", 4, "--workers", 0)
    run("train_backbone", *tiny, "--backbone", "r18", "--data", tmp_path / "set", "--output", tmp_path / "run")
    _, facts = load_weights(tmp_path / "run" / "model.safetensors")
    assert facts["training_data"]["images"] == 10 and len(facts["class_names"]) == 10
    weights = ("--weights", tmp_path / "run" / "model.safetensors")
    assert "train_loc.py do" in run("eval_loc", *weights, "--output", tmp_path / "out", expect=1).err


def test_what_takes_detectors_refuses_a_localizer(finished: Path, located: Path) -> None:
    for words in (
        ("export", "--format", "torch-export"),
        ("predict", f"{located}/**/*"),
        ("eval_det", "--output", "o"),
    ):
        error = run(*words, "--weights", finished / "model.safetensors", expect=1).err
        assert "holds a localizer, which eval_loc.py alone takes" in error
