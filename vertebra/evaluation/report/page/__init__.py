"""The templates, styles and scripts of reports; the browser of images has its own beside its code."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from vertebra.ground import formats

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
