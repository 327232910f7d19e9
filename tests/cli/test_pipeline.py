"""A training with a pipeline of albumentations: its run directory has it, and goes on without the file."""

from __future__ import annotations

import json
import os
import sys

import pytest
import yaml

from tests.cli.conftest import TINY_BACKBONE, run
from vertebra.engine.weights import load_weights

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
STEPS = "- Affine: {rotate: [-9, 9], p: 1.0}\n- ToGray: {p: 0.5}\n"


def test_a_detector_stopped_and_resumed_without_the_file_ends_as_one_that_was_not(detector_flags, tmp_path):
    pytest.importorskip("albumentations")
    mine = tmp_path / "mine.yaml"
    mine.write_text(STEPS)
    flags = (*detector_flags("r18"), "--solver.iterations", 4, "--input.albumentations", mine)
    for name in ("whole", "cut"):
        run("train_det", *flags, "--output", tmp_path / name)
    config = yaml.safe_load((tmp_path / "cut" / "config.yaml").read_text())
    assert json.loads(config["input"]["albumentations"]) == yaml.safe_load(STEPS)
    provenance = json.loads((tmp_path / "cut" / "provenance.json").read_text())
    assert provenance["protocol"]["input.albumentations"] == config["input"]["albumentations"]
    assert "albumentations" in provenance["versions"]

    mine.unlink()
    for made in ("model.safetensors", "provenance.json"):
        (tmp_path / "cut" / made).unlink()
    max((tmp_path / "cut" / "checkpoints").glob("*0004.pt")).unlink()
    run("train_det", "--config", tmp_path / "cut" / "config.yaml", "--resume")
    ends = [load_weights(tmp_path / name / "model.safetensors")[0] for name in ("whole", "cut")]
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])
    done = run("train_det", *detector_flags("r18"), "--solver.iterations", 4, "--output", tmp_path / "cut", "--resume",
               expect=1)  # fmt: skip
    assert "differs in input.albumentations" in done.err


def test_a_pipeline_that_cannot_be_made_is_said_before_there_is_a_directory(detector_flags, sample, tmp_path):
    pytest.importorskip("albumentations")
    wrong = ("--input.albumentations", '[{"HorizontlFlip": {}}]', "--output", tmp_path / "run")
    classes = (*TINY_BACKBONE, "--backbone", "r18", "--data", sample / "objects", "--solver.iterations", 1)
    for tool, flags in (("train_det", detector_flags("r18")), ("train_backbone", classes)):
        done = run(tool, *flags, *wrong, expect=2)
        assert "input.albumentations: albumentations has no HorizontlFlip; did you mean HorizontalFlip?" in done.err
    assert not (tmp_path / "run").exists()


def test_without_the_package_the_command_says_how_to_get_it(detector_flags, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    wrong = ("--input.albumentations", '[{"Blur": {}}]', "--output", tmp_path / "run")
    done = run("train_det", *detector_flags("r18"), *wrong, expect=2)
    assert "needs albumentations" in done.err and "pip install 'albumentations>=1.4.24,<3'" in done.err
