"""`write_study`: finished classification runs in; report.html, report.md and report.json with the same figures out.

Errors are in per cent, differences in points, deep less shallow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.evaluation.report.page import environment, text_of, write_all
from vertebra.evaluation.study import charts, findings, tables
from vertebra.evaluation.study.averages import Curves, Responses, mean_curves, mean_responses
from vertebra.evaluation.study.findings import Finding
from vertebra.evaluation.study.protocols import Group, Protocol, sort_runs
from vertebra.evaluation.study.runs import StudyRun, read_study_run
from vertebra.ground import formats
from vertebra.ground.errors import UserError
from vertebra.ground.formats import APOSTROPHE
from vertebra.ground.parse import as_json
from vertebra.ground.table import Table


@dataclass(frozen=True)
class Study:
    """What the report says; the nets of the main protocol are compared and drawn, the runs are those of all."""

    title: str
    headline: str
    sentences: list[str]
    notes: list[str]
    findings: list[Finding]
    findings_table: Table | None
    tables: list[Table]
    nets: Sequence[Group]
    curves: list[Curves]
    responses: list[Responses]
    runs: list[StudyRun]
    protocol: dict[str, Any]
    cifar: bool

    def to_dict(self) -> dict[str, Any]:
        findings_table = _table_dict(self.findings_table) if self.findings_table else None
        return {**vars(self), "tables": list(map(_table_dict, self.tables)), "findings_table": findings_table}


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
    templates = environment()
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
        style=text_of("style.css", "study.css"),
    )
    return write_all(Path(out), as_json(study), markdown, page)


def assemble(protocols: Sequence[Protocol]) -> Study:
    """Return the report of runs that are sorted by protocol; the first protocol's are compared and drawn."""
    main = protocols[0]
    found = findings.find_all(main)
    return Study(
        title="Plain and residual nets by depth",
        headline=findings.headline(found, main),
        sentences=[findings.sentence(finding) for finding in found],
        notes=notes(protocols, bool(found)),
        findings=found,
        findings_table=tables.findings_table(found) if found else None,
        tables=tables.paper_tables(protocols),
        nets=main.groups,
        curves=[mean_curves(group) for group in main.groups],
        responses=[facts for group in main.groups if (facts := mean_responses(group))],
        runs=[run for protocol in protocols for group in protocol.groups for run in group.runs],
        protocol=dict(sorted(main.fields.items())),
        cifar=main.first.net.cifar,
    )


def notes(protocols: Sequence[Protocol], compared: bool) -> list[str]:
    """Return what a reader must know to read the figures."""
    main = protocols[0]
    first = main.first
    images = (first.provenance.get("training_data") or {}).get("images", 0)
    classes = len(first.provenance.get("class_names") or ())
    lines = [
        f"{first.data_name}, {images:,} training images of {classes} classes; {tables.schedule(first, None)}.",
        "Training error: of the augmented images of each step, with the weights of that step; its figure is the mean "
        "over the last tenth of the training. Test error: with the final weights.",
    ]
    if compared:
        lines.append(
            f"Intervals are 95 % by Welch{APOSTROPHE}s t over seeds: each net has a spread of its own. Degradation is "
            "called shown where deep plain nets are worse than shallow ones, and lose more by depth than residual nets "
            "do, each with its whole interval."
        )
    else:
        lines.append(
            f"No claim on depth: that needs plain and residual nets of the paper{APOSTROPHE}s widths, of two depths "
            "that both have, under one protocol."
        )
    warm = [group.net.label for group in main.groups if group.runs[0].has_warm_start]
    if warm:
        lines.append(
            f"{formats.joined(warm)} began at a lower rate, as in the paper (section 4.2); all else was equal."
        )
    for other in protocols[1:]:
        names = formats.joined([group.net.label for group in other.groups])
        lines.append(f"Another protocol, in columns of its own and not in the figures: {names} ({other.difference}).")
    return lines


def _table_dict(table: Table) -> dict[str, Any]:
    heads = table.heads or [()] * len(table.columns)
    return {
        "title": table.title,
        "columns": [{"name": name, "notes": list(head)} for name, head in zip(table.columns, heads)],
        "rows": [[row.name, [str(cell) for cell in row.cells]] for row in table.rows],
        "notes": [table.note] if table.note else [],
        "heads": [{"notes": list(head), "span": span} for head, span in table.spanning_heads],
    }
