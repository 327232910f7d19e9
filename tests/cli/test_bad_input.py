"""What a user gets to read when something is wrong: one sentence, the right exit code, nothing lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile

import pytest

from tests.cli.conftest import ENVIRONMENT, TOOLS, run
from vertebra.engine.weights import load_weights, save_weights

DETECTOR = ("train_det", ())  # after the fixture's flags
BACKBONE = ("train_backbone", ("--config", "sample/objects.yaml", "--data", "{sample}/objects"))


@pytest.mark.parametrize(
    ("command", "flags", "code", "sentences"),
    [
        (DETECTOR, ("--data", "{tmp}/nowhere"), 1, ["{tmp}/nowhere"]),
        (DETECTOR, ("--weights", "{tmp}/none.safetensors"), 1, ["none.safetensors do not exist; check the path"]),
        (DETECTOR, ("--weights", "none", "--model.freeze-stride", "4"), 2, ["--model.freeze-stride 0"]),
        (DETECTOR, ("--weights", "{plain18}"), 1, ["plain18", "r18"]),
        (BACKBONE, ("--backbone", "resnet50"), 2, ["r50"]),
        (BACKBONE, ("--backbone", "densenet121"), 2, ["torchvision:NAME"]),
        (BACKBONE, ("--input.size", "80"), 2, ["set the latter to 80 or more"]),
        (BACKBONE, ("--backbone", "vgg11", "--input.size", "16"), 1, ["nothing is left"]),
    ],
)
def test_what_cannot_be_trained_is_a_sentence_and_leaves_no_run_in_the_way(
    sample, weights, detector_flags, tmp_path, command, flags, code, sentences
):
    tool, base = command
    places = {"sample": sample, "tmp": tmp_path, "plain18": weights["plain18"]}
    given = [str(flag).format(**places) for flag in (*base, *flags)]
    common = detector_flags("r18") if tool == "train_det" else ()
    done = run(tool, *common, *given, "--output", tmp_path / "run", expect=code)
    assert all(sentence.format(**places) in done.err for sentence in sentences), done.err
    assert not (tmp_path / "run").exists(), "it would be in the way of the right command"


@pytest.mark.parametrize(
    ("fact", "value", "word"),
    [("channel_order", "BGR", "BGR"), ("pixel_mean", [102.9], "not three numbers"), ("stride_in", "1x1", "1x1")],
)
def test_what_would_silently_cost_accuracy_is_refused(detector_flags, weights, tmp_path, fact, value, word):
    state, facts = load_weights(weights["r18"])
    facts["backbone"][fact] = value
    save_weights(tmp_path / "other.safetensors", state, facts)
    flags = (*detector_flags("r18"), "--weights", tmp_path / "other.safetensors", "--output", tmp_path / "run")
    done = run("train_det", *flags, expect=1)
    assert word in done.err and "other.safetensors" in done.err


def test_a_checkpoint_without_all_keys_names_them(detector_flags, weights, tmp_path):
    state, facts = load_weights(weights["r18"])
    del state["layer1.0.conv1.weight"]
    save_weights(tmp_path / "part.safetensors", state, facts)
    flags = (*detector_flags("r18"), "--weights", tmp_path / "part.safetensors", "--output", tmp_path / "run")
    assert "layer1.0.conv1.weight" in run("train_det", *flags, expect=1).err


def test_a_bad_training_image_is_skipped_and_named(sample, detector_flags, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(sample, copy)
    victim = sorted((copy / "scenes" / "images" / "train").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    run("train_det", *detector_flags("r18"), "--data", copy, "--output", tmp_path / "run")
    assert victim.name in (tmp_path / "run" / "log.txt").read_text()


def test_check_finds_the_data_sets_by_itself(sample, tmp_path):
    printed = run("prepare_data", "check", "--data", sample).out
    assert printed.count("no faults") == 6 and "sample/train: " in printed and "\ntrain: " in printed
    assert "--source" in run("prepare_data", "check", "--data", tmp_path, expect=1).err


def test_more_gpus_than_there_are_is_a_sentence(sample, tmp_path):
    flags = ("--dataset", "sample", "--data", sample, "--weights", "none", "--device", "cuda", "--gpus", 2)
    assert "cuda" in run("train_det", *flags, "--output", tmp_path / "run", expect=1).err.lower()


def test_without_installation_the_tools_say_how_to_install():
    command = [sys.executable, "-S", str(TOOLS / "train_det.py"), "--help"]
    bare = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=bare)
    assert done.returncode != 0 and "pip install -e" in done.stderr and "Traceback" not in done.stderr


def test_archives_are_unpacked_once_and_read(sample, tmp_path):
    root = tmp_path / "voc"
    root.mkdir()
    for name in ("VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"):
        with tarfile.open(root / name, "w") as archive:
            archive.add(sample / "VOCdevkit", "VOCdevkit")
    for _ in range(2):  # the second time there is nothing left to unpack
        assert "voc2007/test: no faults" in run("prepare_data", "voc07", "--data", root).out
    assert (root / "VOCdevkit" / "VOC2007" / "Annotations").is_dir()
