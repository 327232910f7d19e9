"""The templates of the reports' pages, and how they are filled in."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from vertebra.ground import formats

HERE = Path(__file__).parent


def environment(*places: Path) -> Environment:
    """Templates of the directories `places`, then of this one; HTML is escaped, a name that is not there an error."""
    made = Environment(
        loader=FileSystemLoader([*places, HERE]),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["md"] = formats.markdown
    return made


def text_of(*names: str) -> Markup:
    """Our own style or script files, one after the other, as they are."""
    return Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in names))
