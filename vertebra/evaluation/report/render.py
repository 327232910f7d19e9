"""`write_report`: runs and predictions in; report.html, .md, .json and .tex with the same figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.report import charts, latex, overview, sentences, tables
from vertebra.evaluation.report.assess import assess
from vertebra.evaluation.report.browser.build import Browser, build_browser
from vertebra.evaluation.report.browser.maps import MapSide, build_map_browser
from vertebra.evaluation.report.comparable import HeadRuns, read
from vertebra.evaluation.report.content import Content
from vertebra.evaluation.report.expect import compare, missed, other_heads_notes, read_expectations
from vertebra.evaluation.report.page import environment, text_of, write_all
from vertebra.evaluation.report.runs import SegmenterRun
from vertebra.evaluation.report.sides import Side, group_runs
from vertebra.evaluation.report.task import DETECTION
from vertebra.ground import formats
from vertebra.ground.parse import as_json

MOST_IMAGES = 500  # in the browser of images


@dataclass(frozen=True)
class Written:
    """page: report.html. contents: what each head's report states. expectations_missed: a sentence for each published
    number that is not reproduced; expectations_elsewhere: one for each head that some are for and no run has."""

    page: Path
    contents: tuple[Content, ...]
    expectations_missed: tuple[str, ...]
    expectations_elsewhere: tuple[str, ...] = ()


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    predictions: Mapping[str, Path | Sequence[Path]] | None = None,
    truth: Path | None = None,
    maps: Sequence[SegmenterRun] = (),
    images: Path | None = None,
    expect: Path | None = None,
    failed: Sequence[str] = (),
) -> Written:
    """Compare finished runs; report.html, .md, .json and .tex go into `out`.

    Runs are all of detectors, with files of predictions beside them, or all of segmenters, with `maps` beside them.
    Runs of several heads are a comparison each, in `out`/HEAD, with an overview in `out`. The first side is the
    baseline. predictions: COCO results by the name of their side, several files being several seeds, scored on
    `truth` (None: the runs'), whose pictures lie in `images`. expect: published numbers (`expect.py`). failed: what
    has no result and why, in sentences.
    Raises UserError where runs are unfinished, or protocols or truths of one head differ.
    """
    expected = [] if expect is None else read_expectations(Path(expect))
    compared = read(runs, predictions, truth, maps)
    out = Path(out)
    heads = [one.head for one in compared]
    only = len(compared) == 1
    contents = []
    for one in compared:
        content = assess(one, failed if only else ())
        content = replace(content, expectations=compare(expected, content, heads))
        browser = _browse(one, content, images)
        if browser is None:
            content = replace(content, notes=[*content.notes, sentences.NO_IMAGES])
        else:
            content = replace(content, gallery=browser.gallery)
        contents.append(content)
        page = render(content, browser, out if only else out / folder(one.head))
    if not only:
        reports = [(folder(content.head), content) for content in contents]
        page = render_overview(overview.assess_heads(reports, failed), out)
    not_met = [sentence for one in contents for sentence in missed(one.expectations, one.head)]
    return Written(page, tuple(contents), tuple(not_met), tuple(other_heads_notes(expected, heads)))


def folder(head: str | None) -> str:
    """Return the directory of a head's report within the overview's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in head or "unknown")


def _browse(compared: HeadRuns, content: Content, images: Path | None) -> Browser | None:
    """Return the browser of images, of the first run of each side; None where a segmenter's maps are not there."""
    sides = group_runs(compared.runs)
    pair = [content.labels.index(label) for label in content.pair]
    first, shown = compared.runs[0], [compared.runs[side.places[0]] for side in sides]
    options: dict[str, Any] = {
        "image_roots": _image_roots(sides, images),
        "max_images": MOST_IMAGES,
        "pair": (pair[0], pair[-1]),
        "note": sentences.shown_runs(content.task, content.sides),
    }
    if compared.task is DETECTION:
        found = [(side.label, run.predictions) for side, run in zip(sides, shown)]
        return build_browser(first.truth, found, **options)
    if not all(run.images for run in shown):
        return None
    maps = [MapSide(side.label, run.read_map, run.counts) for side, run in zip(sides, shown)]
    return build_map_browser(maps, shown[0].images, shown[0].read_truth, first.class_names, **options)


def _image_roots(sides: Sequence[Side], images: Path | None) -> list[Path]:
    """Return where the truth's images may lie: in `images`, below a run's image_root, or that relative to the run."""
    roots = [] if images is None else [Path(images)]
    for side in sides:
        for run in side.runs:
            if not side.is_file:
                root = Path(run.evaluation.get("image_root") or ".")
                roots += [root, run.path / root]
    return list(dict.fromkeys(roots))


def render(content: Content, browser: Browser | None, out: Path) -> Path:
    """Write one head's report into `out`; return its page."""
    shared: dict[str, Any] = {"report": content, "f": formats, **tables.all_tables(content)}
    templates = environment()
    markdown = templates.get_template("report.md.j2").render(**shared)
    page = templates.get_template("report.html.j2").render(
        **shared,
        browser=browser,
        charts=charts.draw(content),
        style=Markup("\n").join((text_of("style.css", "report.css"), *([browser.style] if browser else []))),
        script=Markup("\n").join((text_of("script.js"), *([browser.script] if browser else []))),
    )
    tex = latex.tabular(shared["main"], [content.headline, *filter(None, [content.caveat]), *content.first])
    return write_all(out, as_json(content), markdown, page, tex)


def render_overview(content: overview.Overview, out: Path) -> Path:
    """Write the overview of several heads into `out`; return its page."""
    shared: dict[str, Any] = {"report": content, "f": formats, "heads_table": overview.table(content)}
    templates = environment()
    markdown = templates.get_template("overview.md.j2").render(**shared)
    page = templates.get_template("overview.html.j2").render(
        **shared, fronts=overview.draw(content), style=text_of("style.css", "report.css")
    )
    tex = latex.tabular(shared["heads_table"], [content.title])
    return write_all(out, as_json(content), markdown, page, tex)
