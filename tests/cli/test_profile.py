"""tools/profile_model.py as a user mistypes it: a sentence, before any network is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import run


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--batch-size", 0), "--batch-size is 1 or more, not 0"),
        (("--repeats", -1), "--repeats is 0 (count only) or more, not -1"),
        (("--width", 0), "--width is above 0, not 0"),
        (("--width", "nan"), "--width is above 0, not nan"),
        (("--size", 224, 0), "--size is 1 or more, not 0"),
        (("--classes", 0), "--classes is 1 or more, not 0"),
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
