"""`write_report`: finished run directories in; report.html, report.md and report.json with the same figures out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from evaluation.files import class_names
from evaluation.report import charts, formats, gallery, tables
from evaluation.report.collect import Run, read_runs
from evaluation.report.content import assemble, describe_gallery
from evaluation.report.matching import best_threshold, match_images
from evaluation.report.scores import score

HERE = Path(__file__).parent


def write_report(run_dirs: Sequence[Path], out: Path, *, max_images: int = 24, title: str | None = None) -> Path:
    """Compare finished detection runs and write report.html, report.md and report.json into the directory `out`.

    The first run is the baseline. `max_images` bounds the gallery. Returns the path of report.html.
    Raises `ReportError` where the runs are unfinished, or their protocols or truths differ.
    """
    runs, truth = read_runs([Path(directory) for directory in run_dirs])
    scores = [score(run, truth) for run in runs]
    matches = [match_images(truth, run.predictions) for run in runs]
    thresholds = [best_threshold(list(by_image.values())) for by_image in matches]
    content = assemble(runs, truth, scores, thresholds, title=title)
    labels = [run["label"] for run in content["runs"]]
    pair = (labels.index(content["pair"][0]), labels.index(content["pair"][1]))
    cases = gallery.all_cases(truth, matches, thresholds, pair)
    shown = gallery.choose(cases, max_images)
    content["gallery"] = describe_gallery(cases, shown, thresholds, labels, content["pair"])
    panes, missing = _draw(runs, shown, thresholds, labels, class_names(truth))
    content["gallery"]["images_not_found"] = missing

    shared = {"report": content, "f": formats, **tables.all_tables(content)}
    templates = environment()
    markdown = templates.get_template("template.md.j2").render(**shared)
    page = templates.get_template("template.html.j2").render(
        **shared,
        panes=panes,
        charts=charts.draw(content),
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "script.js").read_text(encoding="utf-8")),
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


def _draw(
    runs: Sequence[Run],
    shown: Sequence[gallery.Case],
    thresholds: Sequence[float],
    labels: Sequence[str],
    names: Mapping[int, str],
) -> tuple[list[dict[str, Any]], int]:
    """The SVG of every shown image (its photo, the truth's pane, the runs' panes), and how many have no photo."""
    paths = [
        gallery.find_image(runs[0].evaluation.get("image_root"), runs[0].directory, case.image["file_name"])
        for case in shown
    ]
    data = gallery.thumbnails(paths, [(case.image["width"], case.image["height"]) for case in shown])
    panes = [
        {
            "photo": gallery.photo(index, case, uri),
            "truth": gallery.truth_pane(index, case, names),
            "runs": [
                gallery.run_pane(index, case, run, thresholds[run], names, label) for run, label in enumerate(labels)
            ],
        }
        for index, (case, uri) in enumerate(zip(shown, data))
    ]
    return panes, sum(uri is None for uri in data)


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
