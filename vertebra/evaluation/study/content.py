"""What the study's report says; HTML and Markdown lay it out, report.json is `as_json` of it.

Errors are in per cent, differences in points, deep less shallow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.study import findings
from vertebra.evaluation.study.averages import Curves, Responses, mean_curves, mean_responses
from vertebra.evaluation.study.findings import Finding
from vertebra.evaluation.study.protocols import Group, Protocol
from vertebra.evaluation.study.runs import StudyRun
from vertebra.evaluation.study.tables import findings_table, paper_tables, schedule
from vertebra.ground import formats
from vertebra.ground.formats import APOSTROPHE
from vertebra.ground.table import Table


@dataclass(frozen=True)
class Study:
    """The whole report; the nets of the main protocol are compared and drawn, the runs are those of all protocols."""

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
        tables = [_table_dict(table) for table in self.tables]
        findings_table = _table_dict(self.findings_table) if self.findings_table else None
        return {**vars(self), "tables": tables, "findings_table": findings_table}


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
        findings_table=findings_table(found) if found else None,
        tables=paper_tables(protocols),
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
        f"{first.data_name}, {images:,} training images of {classes} classes; {schedule(first, None)}.",
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
