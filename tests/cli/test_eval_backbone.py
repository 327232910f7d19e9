"""Testing classifiers as a user does: views, ensembles, files for others, and wrong command lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from backbones import create_backbone
from tests.cli.conftest import run, run_process
from vertebra.engine.weights import load_weights


@pytest.fixture(scope="module")
def flat(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images without their classes, in the order of their names."""
    folder = tmp_path_factory.mktemp("flat")
    for number, path in enumerate(sorted((sample / "objects" / "val").glob("*/*"))):
        shutil.copy(path, folder / f"{number:03}{path.suffix}")
    return folder


def test_all_views_of_two_networks_and_their_ensemble(weights, sample, tmp_path):
    figures = tmp_path / "new" / "figures.json"
    views = ("1crop", "10crop", "dense", "multiscale")
    flags = ("--data", sample / "objects", "--ensemble", "--resize", 40, "--json", figures, "--workers", 0)
    done = run("eval_backbone", "--weights", *weights.values(), *flags, "--views", *views)
    results = json.loads(figures.read_text())
    assert [result["view"] for result in results] == [view for view in views for _ in range(3)]
    assert all(result["images"] == 20 and result["images_per_s"] > 0 for result in results)
    assert all(result["error1_interval"][0] <= result["error1"] <= result["error1_interval"][1] for result in results)
    assert results[9]["sides"] == [32, 37, 55, 69, 91] and results[11]["weights"] == list(map(str, weights.values()))
    assert {"commit", "command", "machine", "data"} <= set(results[0]["made"])
    table = done.out.splitlines()
    assert "top-1 error %" in table[0] and table[3].startswith("ensemble of 2") and "32 37 55 69 91" in done.out


def test_two_processes_write_what_one_writes(weights, sample, tmp_path):
    flags = ("--weights", weights["r18"], "--data", sample / "objects", "--views", "multiscale", "--scales", 32, 40)
    flags += ("--device", "cpu", "--precision", "fp32", "--batch-size", 3, "--workers", 0)
    run("eval_backbone", *flags, "--predictions", tmp_path / "one.csv")
    run_process("eval_backbone", *flags, "--predictions", tmp_path / "two.csv", "--gpus", 2)
    one, two = ((tmp_path / name).read_text() for name in ("one.csv", "two.csv"))
    assert one == two and len(one.splitlines()) == 21


def test_images_without_labels_get_ilsvrcs_lines(weights, sample, flat, tmp_path):
    _, facts = load_weights(weights["r18"])
    names = facts["class_names"]
    (tmp_path / "synsets.txt").write_text("".join(f"{name} {100 + place}\n" for place, name in enumerate(names)))
    flags = ("--weights", weights["r18"], "--workers", 0)
    labelled = tmp_path / "labelled.jsonl"
    run("eval_backbone", *flags, "--data", sample / "objects", "--predictions", labelled)
    unlabelled = (
        "--data",
        flat,
        "--unlabelled",
        "--ilsvrc",
        tmp_path / "out.txt",
        "--synsets",
        tmp_path / "synsets.txt",
    )
    done = run("eval_backbone", *flags, *unlabelled)
    assert "no labels" in done.out and "synsets.txt" in done.out
    expected = [
        " ".join(str(100 + names.index(name)) for name in json.loads(line)["top5"])
        for line in labelled.read_text().splitlines()
    ]
    assert (tmp_path / "out.txt").read_text().splitlines() == expected


def test_unlabelled_images_cannot_be_scored(weights, flat):
    done = run("eval_backbone", "--weights", weights["r18"], "--data", flat, expect=1)
    assert "20 images without classes" in done.err and "--unlabelled" in done.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--views", "10crop", "--no-flip"), "mirror images"),
        (("--scales", "32"), "--views multiscale"),
        (("--ensemble",), "--weights"),
        (("--synsets", "a.txt"), "--ilsvrc"),
        (("--unlabelled",), "--predictions"),
        (("--views", "1crop", "10crop", "--predictions", "a.csv"), "one result"),
        (("--views", "1crop", "1crop"), "twice"),
        (("--predictions", "a.txt"), ".jsonl"),
        (("--json", "."), "is a directory"),
        (("--batch-size", "0"), "batch_size: Input should be greater than or equal to 1, not 0"),
        (("--views", "1crp"), "10crop"),
        (("--flp",), "--flip"),
    ],
)
def test_wrong_command_lines_say_what_is_wrong(flags, words):
    done = run("eval_backbone", "--weights", "w.safetensors", "--data", "nowhere", *flags, expect=2)
    assert words in done.err


def test_sizes_that_the_network_cannot_see_are_a_wrong_command_line(weights, sample):
    flags = ("--data", sample / "objects", "--views", "multiscale", "--scales", 24)
    assert "--scales 24 is too small" in run("eval_backbone", "--weights", weights["r18"], *flags, expect=2).err


def test_a_file_that_is_not_there_is_named_without_an_error_number(weights, sample, tmp_path):
    flags = ("--data", sample / "objects", "--ilsvrc", tmp_path / "lines.txt", "--synsets", tmp_path / "ids.txt")
    message = run("eval_backbone", "--weights", weights["r18"], *flags, expect=1).err
    assert message.endswith(f"error: {tmp_path / 'ids.txt'}: No such file or directory; check the path\n")


@pytest.fixture
def springers(sample: Path, tmp_path: Path) -> Path:
    """Three tench and one English springer, as far as the names of their folders tell."""
    pictures = sorted((sample / "objects" / "val").glob("*/*"))
    for number, wnid in enumerate(["n01440764"] * 3 + ["n02102040"]):
        (tmp_path / "set" / "val" / wnid).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[number], tmp_path / "set" / "val" / wnid / f"{number}{pictures[number].suffix}")
    return tmp_path / "set"


def test_weights_of_others_are_tested_over_all_of_imagenets_classes(springers, tmp_path):
    """A network that always answers 217, ImageNet's place of the springer, then 0, the tench's."""
    state = create_backbone("r18").state_dict()
    state["fc.weight"].zero_()
    state["fc.bias"][[217, 0]] = torch.tensor([2.0, 1.0])
    torch.save(state, tmp_path / "a=b.pth")
    flags = ("--data", springers, "--size", 32, "--resize", 32, "--workers", 0, "--json", tmp_path / "figures.json")
    done = run("eval_backbone", "--weights", f"r18={tmp_path / 'a=b.pth'}", *flags)
    figures = json.loads((tmp_path / "figures.json").read_text())[0]
    assert (figures["top1"], figures["top5"], figures["images"]) == (25, 100, 4)
    assert "has 2 of ImageNet's 1,000 classes" in done.out and figures["backbone"] == "r18"
    refused = run("eval_backbone", "--weights", tmp_path / "a=b.pth", *flags, expect=1).err
    assert "does not name its backbone" in refused and "BACKBONE=FILE" in refused
    refused = run("eval_backbone", "--weights", f"r34={tmp_path / 'a=b.pth'}", *flags, expect=1).err
    assert "does not fit this network" in refused
    (tmp_path / "a=b.pth").unlink()
    assert "do not exist" in run("eval_backbone", "--weights", f"r18={tmp_path / 'a=b.pth'}", *flags, expect=1).err
    assert "write r50=torchvision" in run("eval_backbone", "--weights", "torchvision", *flags, expect=2).err


def test_a_file_that_names_its_backbone_is_of_no_other(weights, sample):
    flags = ("--data", sample / "objects", "--workers", 0)
    refused = run("eval_backbone", "--weights", f"r34={weights['r18']}", *flags, expect=1).err
    assert "holds weights of r18, not of r34" in refused
