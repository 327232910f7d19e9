"""The files of reports, and their templates, styles and scripts; the browser of images has its own beside its code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from vertebra.ground import formats
from vertebra.ground.files import write_text

HERE = Path(__file__).parent
PLACES = (HERE, HERE.parent / "browser")


def environment() -> Environment:
    """Return the templates; HTML is escaped, unknown names fail."""
    made = Environment(
        loader=FileSystemLoader(PLACES),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["md"] = formats.markdown
    return made


def text_of(*names: str) -> Markup:
    """Return the report's style or script files, one after the other, as they are."""
    paths = [next(place / name for place in PLACES if (place / name).is_file()) for name in names]
    return Markup("\n".join(path.read_text(encoding="utf-8") for path in paths))


def write_all(out: Path, content: Mapping[str, Any], markdown: str, page: str, tex: str | None = None) -> Path:
    """Write report.json, .md, .tex (if any) and .html into `out`, each whole or not at all; return the page."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(out / "report.md", markdown)
    if tex is not None:
        write_text(out / "report.tex", tex)
    write_text(out / "report.html", page)
    return out / "report.html"
