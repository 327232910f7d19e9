"""`vertebra import-weights` as a user types it, with mistakes too, and what it writes in use."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import get_args

import pytest
import torch

from backbones import create_backbone
from backbones.chain import PixelNorm
from tests.cli.conftest import TINY_BACKBONE, run
from vertebra.build.trained_detector import read_detector
from vertebra.build.weight_formats import FORMATS
from vertebra.cli.import_weights import Owner
from vertebra.engine.weights import load_weights, save_weights


def test_the_owners_that_can_be_named_are_those_in_the_table():
    assert get_args(Owner) == tuple(FORMATS)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.pth"
    state = create_backbone("r18", num_classes=4).state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    return path


def test_a_file_of_others_becomes_ours(theirs, tmp_path, sample):
    made = tmp_path / "new" / "ours.safetensors"
    statistics = ("--mean", 104, 117, 123, "--std", 1, 1, 1)
    flags = ("--channels", "bgr", *statistics, "--output", made)
    flags += ("--licence", "MIT", "--source", "https://a.org/x", "--trained-on", "ants")
    done = run("import_weights", theirs, "--as", "r18", *flags)
    assert "RGB, its BGR turned round, mean 123 117 104, deviation 1 1 1\n" in done.out and "4 classes" in done.out
    assert f"--backbone r18 --weights {made}" in done.out and "licence MIT" in done.out
    state, facts = load_weights(made)
    given = load_weights(theirs)[0]
    assert torch.equal(state["conv1.weight"], given["conv1.weight"].flip(1))
    assert all(torch.equal(state[name], given[name]) for name in given if name != "conv1.weight")
    assert facts["by_others"].items() >= {"licence": "MIT", "source": "https://a.org/x", "channels": "bgr"}.items()
    assert facts["backbone"].items() >= {"name": "r18", "channel_order": "RGB", "pixel_mean": [123, 117, 104]}.items()
    tiny = ("--data", sample / "objects", "--solver.iterations", 1, "--workers", 0, "--output", tmp_path / "run")
    run("train_backbone", *TINY_BACKBONE, "--width", 1, "--backbone", "r18", "--weights", made, *tiny)
    _, trained = load_weights(tmp_path / "run" / "model.safetensors")
    assert trained["backbone"]["pixel_mean"] == [123, 117, 104]
    assert trained["started_from"]["by_others"]["licence"] == "MIT"
    assert trained["started_from"]["training_data"] == {"name": "ants"}


def test_a_detector_is_restored_with_the_statistics_of_its_backbones_weights(detectors, tmp_path):
    state, facts = load_weights(detectors["r18"] / "model.safetensors")
    facts["backbone"] |= {"pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [4.0, 5.0, 6.0]}
    save_weights(tmp_path / "a.safetensors", state, facts)
    trained = read_detector(str(tmp_path / "a.safetensors"))
    _, on = trained.start(trained.recipe, trained.class_names)
    norms = [part for net in (trained.restore(), on) for part in net.modules() if isinstance(part, PixelNorm)]
    assert len(norms) >= 2 and {(*norm.mean_values, *norm.std_values) for norm in norms} == {(1, 2, 3, 4, 5, 6)}


@pytest.mark.parametrize(
    ("flags", "sentence", "code"),
    [
        ((), "run: vertebra import-weights {file} --as r18 --channels rgb|bgr --mean M M M --std S S S", 1),
        (("--format", "torchvison"), "torchvision", 2),
        (("--mean", 0.485, 0.456, 0.406), "pixels are 0..255 here: write 123.675 116.28 103.53", 2),
        (("--std", 0, 0, 0), "--std is to be above 0", 2),
        (("--format", "torchvision", "--by-order"), "both say what the names mean", 2),
        (("--format", "torchvision", "--output", "a.pth"), "ending in .safetensors", 2),
        (("--format", "moco"), "it lacks", 1),
        (("--format", "torchvision", "--stride-in", "3x3"), "and r18 has none: leave it out", 2),
        (("--as", "r19"), "the nearest name is 'r18'", 1),
        (("--as", "r34"), "does not fit this network", 1),
    ],
)
def test_mistakes_are_sentences(theirs, tmp_path, monkeypatch, flags, sentence, code):
    monkeypatch.chdir(tmp_path)
    given = flags if "--as" in flags else ("--as", "r18", *flags)
    done = run("import_weights", theirs, *given, expect=code)
    assert sentence.format(file=theirs) in " ".join(done.err.split()), done.err
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_is_ours_already_is_not_imported(weights):
    assert "give it as --weights itself" in run("import_weights", weights["r18"], "--as", "r18", expect=2).err


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harm.txt"),)


@pytest.mark.parametrize("name", ["a.pkl", "a.pth"])
def test_no_pickle_runs_code(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content = {"model": {"conv1.weight": Harmful()}}
    Path(name).write_bytes(pickle.dumps(content)) if name == "a.pkl" else torch.save(content, name)
    assert "it is refused" in run("import_weights", name, "--as", "r18", expect=1).err
    assert not Path("harm.txt").exists()
