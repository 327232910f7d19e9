"""The site: `make docs` builds it into docs/_build/html, and every warning is an error."""

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
CLONE = DOCS.parent
sys.path.insert(0, str(CLONE))

from vertebra import __version__  # noqa: E402
from vertebra.cli import STEPS  # noqa: E402

project = "Vertebra"
copyright = "the Vertebra authors, Apache-2.0"
version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
highlight_language = "none"
default_role = "code"  # docstrings have code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
maximum_signature_line_length = 100
html_theme = "furo"
html_title = f"Vertebra {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]


def write_commands(app):
    """Write each command's --help, by the steps of work, for the page on commands to include."""
    parts = []
    for step, commands in STEPS.items():
        parts.append(f"## {step}\n")
        for name, summary in commands.items():
            done = subprocess.run(
                [sys.executable, "-m", "vertebra", name, "--help"],
                cwd=CLONE,
                env={**os.environ, "COLUMNS": "88", "NO_COLOR": "1"},
                capture_output=True,
                text=True,
                check=True,
            )
            parts.append(f"### {name}\n\n{summary[0].upper()}{summary[1:]}.\n\n```text\n{done.stdout.strip()}\n```\n")
    (DOCS / "_build").mkdir(exist_ok=True)
    (DOCS / "_build" / "commands.md").write_text("\n".join(parts), encoding="utf-8")


def list_fields(app, what, name, obj, options, lines):
    """Make a docstring's "name: what it is" lines, each with the lines that go on with it, a list of fields."""
    described, listed = [], False
    for line in lines:
        field = re.match(r"([a-z_]\w*(?:, [a-z_]\w*)*): (.+)", line)
        if field:
            described += [] if listed else [""]
            line = f":{field[1]}: {field[2]}"
        elif listed and line.strip():
            line = f"    {line.strip()}"
        listed = bool(field) or (listed and bool(line.strip()))
        described.append(line)
    lines[:] = described


def setup(app):
    app.connect("builder-inited", write_commands)
    app.connect("autodoc-process-docstring", list_fields)
