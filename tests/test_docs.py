"""The documents tell the truth: links lead somewhere, and what a link names is in the file that it names."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[1]
DOCUMENTS = [*CLONE.glob("*.md"), *(path for path in (CLONE / "docs").rglob("*.md") if "_build" not in path.parts)]
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(CLONE).as_posix())
def test_links_lead_to_files_that_hold_what_they_name(document):
    for link in LINK.finditer(document.read_text(encoding="utf-8")):
        target = (document.parent / link["path"]).resolve()
        assert target.exists(), link[0]
        for name in re.findall(r"`(\w+)`", link["text"]):
            assert re.search(rf"\b{name}\b", target.read_text(encoding="utf-8")), link[0]


def test_the_commands_in_the_documents_exist_and_the_readme_names_all():
    from vertebra.cli import COMMANDS

    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        named = {name.replace("_", "-") for name in re.findall(r"tools/(\w+)\.py", text)}
        assert named <= {*COMMANDS}, document
        if document.name == "README.md":
            assert {*COMMANDS} <= named | {*re.findall(r"vertebra ([\w-]+)", text)}


@cache
def _help(*words):
    """What `vertebra WORDS --help` prints."""
    command = [sys.executable, "-m", "vertebra", *words, "--help"]
    return subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(CLONE).as_posix())
def test_the_flags_in_typed_commands_exist(document):
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for line in re.finditer(r"(?:tools/(\w+)\.py|^vertebra ([\w-]+))(.*)", blocks, re.MULTILINE):
        command, typed = (line[1] or line[2]).replace("_", "-"), line[3].partition(" -- ")[0]
        words = [command, typed.split()[0]] if command == "prepare-data" else [command]
        unknown = {flag for flag in re.findall(r"(?<!\S)--[a-z][\w.-]*", typed) if flag not in _help(*words)}
        assert not unknown, line[0]


def test_the_afternoons_reading_is_as_long_as_it_says():
    section = (CLONE / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## One afternoon")[2]
    files, lines = map(int, re.search(r"These (\d+) files, ([\d,]+) lines", section)[0].replace(",", "").split()[1::2])
    paths = [CLONE / "docs" / link["path"] for link in LINK.finditer(section)]
    assert len(paths) == files
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths) == pytest.approx(lines, rel=0.1)
