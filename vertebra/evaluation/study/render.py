"""`write_study`: finished classification runs in; report.html, report.md and report.json with the same figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vertebra.evaluation.plots.svg import swatch
from vertebra.evaluation.report import formats
from vertebra.evaluation.report.reading import ReportError
from vertebra.evaluation.report.render import write_all
from vertebra.evaluation.report.templates import HERE as REPORT
from vertebra.evaluation.report.templates import environment
from vertebra.evaluation.study import charts
from vertebra.evaluation.study.content import assemble
from vertebra.evaluation.study.runs import read_study_run, sort_runs

HERE = Path(__file__).parent


def write_study(run_dirs: Sequence[Path], out: Path, *, title: str | None = None) -> Path:
    """Report on finished runs of classifiers: report.html, report.md and report.json in the directory `out`.

    Returns the path of report.html. Raises ReportError where there is no run, one is unfinished or broken, or a net
    has two runs of one seed under one protocol.
    """
    directories = [Path(directory) for directory in run_dirs]
    if not directories:
        raise ReportError("There is no finished run to report on.")
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise ReportError("The same run directory was given twice: it would count as two seeds.")
    content = assemble(sort_runs([read_study_run(directory) for directory in directories]), title=title)
    templates, shared = environment(HERE), {"report": content, "f": formats}
    markdown = templates.get_template("study.md.j2").render(**shared)
    style = "\n".join(path.read_text(encoding="utf-8") for path in (REPORT / "style.css", HERE / "study.css"))
    page = templates.get_template("study.html.j2").render(
        **shared, charts=charts.draw(content), legends=_legends(content), style=Markup(style)
    )
    return write_all(Path(out), content, markdown, page)


def _legends(content: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Name and line of each net whose responses are drawn."""
    styles = charts.styles_by_depth(content["nets"])
    return [(net["label"], swatch(styles[net["depth"]], kind=net["family"], dot=False)) for net in content["responses"]]
