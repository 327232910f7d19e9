"""`write_report`: runs and predictions in; report.html, .md, .json and .tex with the same figures out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.report import charts, formats, latex, overview, sentences, tables
from vertebra.evaluation.report.browser import build_browser
from vertebra.evaluation.report.collect import Comparable, read_all
from vertebra.evaluation.report.content import assemble
from vertebra.evaluation.report.expect import Expectation, hold, missed, read_expectations, strays_told
from vertebra.evaluation.report.sides import Side, group_runs
from vertebra.evaluation.report.templates import environment, text_of


@dataclass(frozen=True)
class Written:
    """page: report.html. expectations_missed: a sentence for each published number that is not reproduced;
    expectations_elsewhere: one for each head that some of them are of and no run has."""

    page: Path
    expectations_missed: tuple[str, ...]
    expectations_elsewhere: tuple[str, ...] = ()


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    predictions: Mapping[str, Path | Sequence[Path]] | None = None,
    truth: Path | None = None,
    images: Path | None = None,
    expect: Path | None = None,
    failed: Sequence[str] = (),
    max_images: int = 500,
    title: str | None = None,
) -> Written:
    """Compare finished detection runs and files of predictions; report.html, .md, .json and .tex go into `out`.

    Runs of several heads are a comparison each, in `out`/HEAD, with an overview in `out`. The first side is the
    baseline. predictions: COCO results by the name of their side, several files being several seeds, scored on
    `truth` (None: the runs'), whose pictures lie in `images`. expect: published numbers (`expect.py`). failed: what
    has no result and why, in sentences. `max_images` bounds the browser of images.
    Raises ReportError where runs are unfinished, or protocols or truths of one head differ.
    """
    expected = [] if expect is None else read_expectations(Path(expect))
    compared = read_all(runs, predictions, truth)
    out = Path(out)
    heads = [one.head for one in compared]
    elsewhere = tuple(strays_told(expected, heads))
    if len(compared) == 1:
        content, page = _write_head(
            compared[0], out, expected, heads, images=images, failed=failed, max_images=max_images, title=title
        )
        return Written(page, tuple(missed(content["expectations"], content["head"])), elsewhere)
    told = []
    for one in compared:
        content, _ = _write_head(
            one, out / folder(one.head), expected, heads, images=images, max_images=max_images, title=None
        )
        told.append((folder(one.head), content))
    page = _write_overview(overview.assemble(told, title=title, failed=failed), out)
    not_met = [one for _, content in told for one in missed(content["expectations"], content["head"])]
    return Written(page, tuple(not_met), elsewhere)


def folder(head: str | None) -> str:
    """The directory of a head's report within the overview's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in head or "unknown")


def _write_head(
    compared: Comparable,
    out: Path,
    expected: Sequence[Expectation],
    heads: Sequence[str | None],
    *,
    images: Path | None,
    max_images: int,
    title: str | None,
    failed: Sequence[str] = (),
) -> tuple[dict[str, Any], Path]:
    """One head's report, the report's `heads` being these; its content and its page."""
    content = assemble(compared, title=title, failed=failed)
    content["expectations"] = hold(expected, content, heads)
    sides = group_runs(compared.runs)
    labels = [side.label for side in sides]
    pair = [labels.index(label) for label in content["pair"]]
    browser = build_browser(
        compared.truth,
        [(side.label, side.runs[0].predictions) for side in sides],
        image_roots=_image_roots(sides, images),
        max_images=max_images,
        pair=(pair[0], pair[-1]),
        note=sentences.shown_runs(content),
    )
    content["gallery"] = browser.content
    shared = {"report": content, "f": formats, **tables.all_tables(content)}
    templates = environment()
    said = templates.get_template("template.md.j2").render(**shared)
    page = templates.get_template("template.html.j2").render(
        **shared,
        browser=browser,
        charts=charts.draw(content),
        style=Markup("\n").join((text_of("style.css", "content.css"), browser.style)),
        script=Markup("\n").join((text_of("script.js"), browser.script)),
    )
    tex = latex.tabular(shared["main"], [content["headline"], *content["first"]])
    return content, write_all(out, content, said, page, tex)


def _write_overview(content: dict[str, Any], out: Path) -> Path:
    heads = overview.table(content)
    shared = {"report": content, "f": formats, "heads_table": heads}
    templates = environment()
    said = templates.get_template("overview.md.j2").render(**shared)
    page = templates.get_template("overview.html.j2").render(
        **shared, fronts=overview.draw(content), style=text_of("style.css", "content.css")
    )
    tex = latex.tabular(heads, [content["title"]])
    return write_all(out, content, said, page, tex)


def write_all(out: Path, content: Mapping[str, Any], markdown: str, page: str, tex: str | None = None) -> Path:
    """Writes report.json, .md, .tex (if any) and .html into `out`, each whole or not at all; the last one's path."""
    told = json.dumps(content, indent=1, allow_nan=False) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("report.json", told), ("report.md", markdown), ("report.tex", tex), ("report.html", page)):
        if text is None:
            continue
        temporary = out / f".{name}.{os.getpid()}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, out / name)
        finally:
            temporary.unlink(missing_ok=True)
    return out / "report.html"


def _image_roots(sides: Sequence[Side], images: Path | None) -> list[Path]:
    """Where the truth's images may lie: in `images`, below a run's image_root, or that relative to its directory."""
    roots = [] if images is None else [Path(images)]
    for side in sides:
        for run in side.runs:
            if not side.is_file:
                root = Path(run.evaluation.get("image_root") or ".")
                roots += [root, run.path / root]
    return list(dict.fromkeys(roots))
