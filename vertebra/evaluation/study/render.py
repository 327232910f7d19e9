"""`write_study`: finished classification runs in; report.html, report.md and report.json with the same figures out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from vertebra.evaluation.report.content import as_json
from vertebra.evaluation.report.page import environment, text_of
from vertebra.evaluation.report.render import write_all
from vertebra.evaluation.study import charts, tables
from vertebra.evaluation.study.content import assemble
from vertebra.evaluation.study.protocols import sort_runs
from vertebra.evaluation.study.runs import read_study_run
from vertebra.ground import formats
from vertebra.ground.errors import UserError

HERE = Path(__file__).parent


def write_study(run_dirs: Sequence[Path], out: Path) -> Path:
    """Report on finished runs of classifiers: report.html, report.md and report.json in the directory `out`.

    Returns the path of report.html. Raises UserError where there is no run, one is unfinished or broken, or a net
    has two runs of one seed under one protocol.
    """
    directories = [Path(directory) for directory in run_dirs]
    if not directories:
        raise UserError("there is no finished run to report on")
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise UserError("a run directory was given twice", hint="name each once: it would count as two seeds")
    study = assemble(sort_runs([read_study_run(directory) for directory in directories]))
    styles = charts.styles_by_depth(one.net for one in study.nets)
    templates = environment(HERE)
    shared = {
        "report": study,
        "f": formats,
        "nets": tables.net_table(study.nets),
        "responses": tables.response_table(study.responses),
        "runs": tables.run_table(study.runs),
    }
    markdown = templates.get_template("study.md.j2").render(**shared)
    page = templates.get_template("study.html.j2").render(
        **shared,
        depth_chart=charts.depth_chart(study.nets),
        curve_charts=charts.curve_charts(study.curves),
        response_charts=charts.response_charts(study.responses, styles),
        legend=charts.legend(study.responses, styles),
        style=text_of("style.css") + Markup((HERE / "study.css").read_text(encoding="utf-8")),
    )
    return write_all(Path(out), as_json(study), markdown, page)
