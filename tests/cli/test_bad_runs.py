"""What goes wrong in a training, or would at its end, ends in a sentence that says what to do."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from detectors.faster_rcnn import FasterRCNN
from tests.cli.conftest import TINY_BACKBONE, run
from vertebra.engine.device import memory_in_words
from vertebra.ground.errors import UserError


def raising(error):
    def forward(*_, **__):
        raise error

    return forward


CPU_WORDS = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
GPU_WORDS = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15.77 GiB"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(GPU_WORDS), RuntimeError(CPU_WORDS), MemoryError("Unable to allocate 9 GiB")]
)
def test_a_step_without_memory_names_the_flags_that_save_some(detector_flags, tmp_path, monkeypatch, error):
    monkeypatch.setattr(FasterRCNN, "forward", raising(error))
    flags = (*detector_flags("r18"), "--output", tmp_path / "run", "--test.batch-size", 4)
    err = run("train_det", *flags, expect=1).err
    assert str(error)[:40] in err and "the most in use so far: " in err
    assert "--solver.accumulate 2" in err and "--test.batch-size 2" in err and "--checkpoint-activations" not in err


def test_a_classifier_can_compute_its_activations_again(sample, tmp_path, monkeypatch):
    monkeypatch.setattr("backbones.classifier.Classifier.forward", raising(torch.OutOfMemoryError(GPU_WORDS)))
    flags = (*TINY_BACKBONE, "--workers", 0, "--data", sample / "objects", "--solver.accumulate", 2)
    assert "--solver.accumulate 4" in (err := run("train_backbone", *flags, "--output", tmp_path, expect=1).err)
    assert "--checkpoint-activations" in err


@pytest.mark.parametrize(("tool", "loaders"), [("train_det", 2), ("train_backbone", 1)])
def test_room_for_batches_is_asked_before_the_first_step_for_the_evaluation_too(
    detector_flags, sample, tmp_path, monkeypatch, tool, loaders
):
    """A classifier that is not evaluated in training needs no second loader then."""

    def refuse(processes, needed):
        raise UserError("/dev/shm", f"no room for {processes} loader processes", "") if needed else AssertionError

    monkeypatch.setattr("vertebra.data.loading.loaders.require_room", refuse)
    flags = detector_flags("r18") if tool == "train_det" else (*TINY_BACKBONE, "--data", sample / "objects")
    done = run(tool, *flags, "--workers", 1, "--output", tmp_path / "run", expect=1)
    assert f"no room for {loaders} loader processes" in done.err and "iter: 1/" not in done.out + done.err


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="shapes differ"), memory_in_words(torch.device("cpu"), "less"):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("spoil", ["missing", "empty"])
def test_a_bad_test_picture_is_said_before_the_training(detector_flags, sample, tmp_path, spoil):
    data = tmp_path / "set"
    shutil.copytree(sample, data)
    truth = json.loads((data / "scenes" / "annotations" / "instances_val.json").read_text())
    names = [image["file_name"] for image in truth["images"]]
    picture = data / "scenes" / "images" / "val" / names[2]
    picture.unlink()
    if spoil == "empty":
        picture.touch()
    err = run("train_det", *detector_flags("r18"), "--data", data, "--output", tmp_path / "run", expect=1).err
    assert "pictures are missing or empty in" in err and f": 1 of 9 ({names[2]}); restore them, or take" in err
    assert not (tmp_path / "run").exists()
