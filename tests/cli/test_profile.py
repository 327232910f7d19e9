"""tools/profile_model.py as a user mistypes it: a sentence, before any network is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import run


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--batch-size", 0), "batch_size: Input should be greater than or equal to 1"),
        (("--repeats", -1), "repeats: Input should be greater than or equal to 0"),
        (("--width", 0), "width: Input should be greater than 0"),
        (("--width", "nan"), "width: Input should be "),
        (("--size", 224, 0), "size.1: Input should be greater than or equal to 1"),
        (("--classes", 0), "classes: Input should be greater than or equal to 1"),
        (("--body", "fpn"), "--body and --masks are of a detector: add --detector"),
        (("--json", "."), "--json . is a directory: name a file"),
    ],
)
def test_a_number_that_cannot_be_is_a_sentence(flags, sentence):
    assert sentence in run("profile_model", "--backbone", "r18", *flags, expect=2).err


def test_the_place_of_the_figures_is_made_before_the_work(tmp_path: Path):
    flags = ("--backbone", "cifar_r8", "--repeats", 0, "--size", 32, 32, "--json", tmp_path / "new" / "cost.json")
    run("profile_model", *flags)
    assert (tmp_path / "new" / "cost.json").is_file()


def test_each_network_has_a_line_of_counts_times_and_memory():
    flags = ("--repeats", 1, "--size", 32, 32, "--classes", 10, "--device", "cpu", "--precision", "fp32")
    title, head, first, second = run("profile_model", "--backbone", "cifar_r8", "cifar_r14", *flags).out.splitlines()
    assert title == "32x32 px, batch 1, fp32 on cpu"
    assert head.split() == ["parameters", "FLOPs", "ms/image", "spread", "MB"]
    # The first convolution, three stages of one block each, whose shortcuts have no weights, and the classifier.
    stem, classifier = 9 * 3 * 16 + 2 * 16, 64 * 10 + 10
    stages = sum(9 * (a * b + b * b) + 4 * b for a, b in ((16, 16), (16, 32), (32, 64)))
    parameters = stem + stages + classifier
    assert first.split()[:3] == ["cifar_r8", f"{parameters:,}", "0.01G"] and second.startswith("cifar_r14")
    assert float(first.split()[-1]) >= 4 * parameters // 2**20
