"""The documents tell the truth: links lead somewhere, and what a link names is in the file that it names."""

import re
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[1]
DOCUMENTS = [*CLONE.glob("*.md"), *(CLONE / "docs").glob("*.md")]
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_hold_what_they_name(document):
    for link in LINK.finditer(document.read_text(encoding="utf-8")):
        target = (document.parent / link["path"]).resolve()
        assert target.exists(), link[0]
        for name in re.findall(r"`(\w+)`", link["text"]):
            assert re.search(rf"\b{name}\b", target.read_text(encoding="utf-8")), link[0]


def test_the_commands_in_the_readme_exist():
    from vertebra.cli import COMMANDS

    text = (CLONE / "README.md").read_text(encoding="utf-8")
    named = {name.replace("_", "-") for name in re.findall(r"tools/(\w+)\.py", text)}
    assert named and named <= {*COMMANDS}
    assert {*COMMANDS} <= named | {*re.findall(r"vertebra ([\w-]+)", text)}


def test_the_afternoons_reading_is_as_long_as_it_says():
    section = (CLONE / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## One afternoon")[2]
    files, lines = map(int, re.search(r"These (\d+) files, ([\d,]+) lines", section)[0].replace(",", "").split()[1::2])
    paths = [CLONE / "docs" / link["path"] for link in LINK.finditer(section)]
    assert len(paths) == files
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths) == pytest.approx(lines, rel=0.1)
