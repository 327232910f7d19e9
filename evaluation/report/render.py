"""`write_report`: finished run directories in; report.html, report.md and report.json with the same figures out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from evaluation.report import charts, formats, tables
from evaluation.report.browser import build_browser
from evaluation.report.collect import Run, read_runs
from evaluation.report.content import assemble, compared_pair
from evaluation.report.origins import label_runs
from evaluation.report.scores import score
from evaluation.report.templates import environment, text_of


def write_report(run_dirs: Sequence[Path], out: Path, *, max_images: int = 500, title: str | None = None) -> Path:
    """Compare finished detection runs and write report.html, report.md and report.json into the directory `out`.

    The first run is the baseline. `max_images` bounds the browser of images. Returns the path of report.html.
    Raises `ReportError` where the runs are unfinished, or their protocols or truths differ.
    """
    runs, truth = read_runs([Path(directory) for directory in run_dirs])
    scores = [score(run, truth) for run in runs]
    labels = label_runs(runs)
    best_first = sorted(range(len(runs)), key=lambda place: -scores[place]["AP"])
    pair = compared_pair(labels, best_first)
    browser = build_browser(
        truth,
        [(label, run.predictions) for label, run in zip(labels, runs)],
        image_roots=_image_roots(runs[0]),
        max_images=max_images,
        pair=(labels.index(pair[0]), labels.index(pair[1])),
    )
    content = assemble(runs, truth, scores, list(browser.content["thresholds"].values()), title=title)
    content["gallery"] = browser.content

    shared = {"report": content, "f": formats, **tables.all_tables(content)}
    templates = environment()
    markdown = templates.get_template("template.md.j2").render(**shared)
    page = templates.get_template("template.html.j2").render(
        **shared,
        browser=browser,
        charts=charts.draw(content),
        style=Markup("\n").join((text_of("style.css"), browser.style)),
        script=Markup("\n").join((text_of("script.js"), browser.script)),
    )
    return write_all(Path(out), content, markdown, page)


def write_all(out: Path, content: Mapping[str, Any], markdown: str, page: str) -> Path:
    """Writes report.json, report.md and report.html into `out`, each whole or not at all; the last one's path."""
    told = json.dumps(content, indent=1, allow_nan=False) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("report.json", told), ("report.md", markdown), ("report.html", page)):
        temporary = out / f".{name}.{os.getpid()}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, out / name)
        finally:
            temporary.unlink(missing_ok=True)
    return out / "report.html"


def _image_roots(run: Run) -> list[Path]:
    """Where a run's images lie: below its image_root as it is, or relative to the run's directory."""
    root = Path(run.evaluation.get("image_root") or ".")
    return [root, run.directory / root]
