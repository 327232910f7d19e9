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
