"""The documents tell the truth: links lead somewhere, and what a link names is in the file that it names."""

import ast
import re
import shlex
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Union

import pytest
import torch
import tyro

from vertebra.cli import prepare_data
from vertebra.recipes.command_line import parse_recipe

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


HELPS = sorted((CLONE / "vertebra" / "cli").glob("*.py"))
INCOMPLETE = re.compile(r"…|\.\.\.|\||\[|--tyro-print-completion")


def _typed(document):
    """Command lines for the user to type: in blocks of code, between backticks, and in a command's help; not `a|b`."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    if document.suffix == ".py":
        lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    else:
        lines = [line for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
        if document.name != "results.md":  # names commands by their gist
            lines += [line for line in re.findall(r"`([^`\n]+)`", text) if " --" in line]
    found = (re.search(r"(?:\btools/(\w+)\.py|^vertebra ([a-z][\w-]*))( .*)?$", line.strip()) for line in lines)
    return [line for line in found if line and not INCOMPLETE.search(line[3] or "")]


class _Parsed(Exception):
    pass


def _parse(*arguments, **settings):
    parse_recipe(*arguments, **settings)
    raise _Parsed


@pytest.mark.parametrize("document", [*DOCUMENTS, *HELPS], ids=lambda path: path.relative_to(CLONE).as_posix())
def test_typed_commands_are_accepted_by_their_parsers(document, monkeypatch):
    prepared = [
        Annotated[wraps(made)(lambda **_: 0), tyro.conf.subcommand(name)]
        for name, made in prepare_data.COMMANDS.items()
    ]
    monkeypatch.setattr(prepare_data, "_Command", Union[tuple(prepared)])  # noqa: UP007
    refused = []
    for line in _typed(document):
        command = (line[1] or line[2]).replace("_", "-")
        module = import_module(f"vertebra.cli.{command.replace('-', '_')}")
        if command != "prepare-data":
            monkeypatch.setattr(module, "parse_recipe", _parse)
        try:
            module.main(shlex.split(line[3] or "", comments=True))
        except _Parsed:
            pass
        except (SystemExit, ValueError) as error:
            refused.append(f"{line[0]}: {error}")
    assert not refused, "\n".join(refused)


def test_the_network_on_the_page_of_own_backbones_is_one():
    page = (CLONE / "docs" / "own_backbone.md").read_text(encoding="utf-8")
    written = {}
    exec(re.search(r"^```python\n(.*?)^```", page, re.M | re.S)[1], written)
    backbone = written["make"](5)
    assert backbone(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 5)
    assert backbone.cut(stride=16)[0].stride == 16


def test_the_afternoons_reading_is_as_long_as_it_says():
    section = (CLONE / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## One afternoon")[2]
    files, lines = map(int, re.search(r"These (\d+) files, ([\d,]+) lines", section)[0].replace(",", "").split()[1::2])
    paths = [CLONE / "docs" / link["path"] for link in LINK.finditer(section)]
    assert len(paths) == files
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths) == pytest.approx(lines, rel=0.1)
