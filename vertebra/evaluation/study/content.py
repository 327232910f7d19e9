"""Everything the study's report says, as one JSON-able value; HTML and Markdown only lay it out.

Errors are in per cent, differences in points, deep less shallow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.curves import smoothed, thinned
from vertebra.evaluation.study import findings
from vertebra.evaluation.study.averages import mean_and_spread, mean_curve, rounded
from vertebra.evaluation.study.claims import Difference
from vertebra.evaluation.study.runs import Group, Protocol, StudyRun
from vertebra.evaluation.study.tables import Column, Table, data_of, departures, paper_tables, schedule

SMOOTHING = 0.02  # share of a training curve over which its mean is taken
VERDICTS = {"shown": "shown", "not shown": "not shown", "single": "no statement"}


def assemble(protocols: Sequence[Protocol], *, title: str | None) -> dict[str, Any]:
    """The whole report of runs that are sorted by protocol; the first protocol's are compared and drawn."""
    main = protocols[0]
    found = [finding for measure in ("training error", "test error") if (finding := findings.find(main, measure))]
    return {
        "title": title or "Plain and residual nets by depth",
        "headline": findings.headline(found[0] if found else None, main),
        "sentences": findings.sentences(found),
        "notes": notes(protocols, bool(found)),
        "findings": [finding.to_dict() for finding in found],
        "findings_table": findings_table(found).to_dict() if found else None,
        "tables": [table.to_dict() for table in paper_tables(protocols)],
        "nets": [describe_group(group) for group in main.groups],
        "curves": [curves(group) for group in main.groups],
        "responses": [told for group in main.groups if (told := responses(group))],
        "runs": [describe_run(run) for protocol in protocols for group in protocol.groups for run in group.runs],
        "protocol": dict(sorted(main.fields.items())),
        "cifar": main.first.net.cifar,
    }


def notes(protocols: Sequence[Protocol], compared: bool) -> list[str]:
    """What a reader must know to read the figures."""
    main = protocols[0]
    told = [
        f"{data_of(main.first)}; {schedule(main.first, None)}.",
        "Training error: of the augmented images of each step, with the weights of that step; its figure is the mean "
        "over the last tenth of the training. Test error: with the final weights.",
    ]
    if compared:
        told.append(
            "Intervals are 95 % by Welch\u2019s t over seeds: each net has a spread of its own. Degradation is called "
            "shown where deep plain nets are worse than shallow ones, and lose more by depth than residual nets do, "
            "each with its whole interval."
        )
    else:
        told.append(
            "No claim on depth: that needs plain and residual nets of the paper\u2019s widths, of two depths that both "
            "have, under one protocol."
        )
    warm = [group.net.label for group in main.groups if group.runs[0].has_warm_start]
    if warm:
        told.append(f"{formats.joined(warm)} began at a lower rate, as in the paper (section 4.2); all else was equal.")
    for other in protocols[1:]:
        names = formats.joined([group.net.label for group in other.groups])
        told.append(
            f"Another protocol, in columns of its own and not in the figures: {names} ({departures(other, main)})."
        )
    return told


def findings_table(found: Sequence[findings.Finding]) -> Table:
    """Deep less shallow, by measure."""
    first = found[0]
    columns = [
        Column(f"{first.labels['deep_plain']} less {first.labels['shallow_plain']}", ("Plain nets",)),
        Column(f"{first.labels['deep_residual']} less {first.labels['shallow_residual']}", ("Residual nets",)),
        Column("the first less the second", ("What depth costs without shortcuts",)),
        Column("Degradation"),
    ]
    rows = []
    for finding in found:
        cells = [_difference_cell(change) for change in (finding.plain, finding.residual, finding.contrast)]
        rows.append((finding.measure.capitalize(), [*cells, VERDICTS[finding.verdict]]))
    notes = ["In brackets the 95 % interval; SE: standard error over seeds."] if first.contrast.se is not None else []
    return Table("Deep less shallow, points of error", columns, rows, notes)


def _difference_cell(change: Difference) -> str:
    """The value, and on a line of its own its interval and standard error."""
    value = formats.signed_points(change.value)
    if change.low is None or change.high is None:
        return value
    low, high = formats.signed_points(change.low), formats.signed_points(change.high)
    return f"{value}\n({low} to {high}), SE {formats.points(change.se)}"


def describe_group(group: Group) -> dict[str, Any]:
    """One net: its mean errors and their spread."""
    told: dict[str, Any] = {
        "label": group.net.label,
        "family": group.net.family,
        "depth": group.net.depth,
        "runs": len(group.runs),
        "parameters": group.runs[0].parameters,
    }
    for name, values in (("train_error", group.train_errors), ("test_error", group.test_errors("1crop"))):
        mean, deviation = mean_and_spread(values) if values else (None, None)
        told[name] = {"mean": mean, "deviation": deviation, "values": values}
    return told


def curves(group: Group) -> dict[str, Any]:
    """Training and test error over the iterations, means over seeds."""
    train, _ = mean_curve([thinned(smoothed(run.train_curve, SMOOTHING)) for run in group.runs])
    test, band = mean_curve([run.test_curve for run in group.runs])
    return {
        "label": group.net.label,
        "family": group.net.family,
        "depth": group.net.depth,
        "train": rounded(train),
        "test": rounded(test),
        "test_band": rounded(band),
    }


def responses(group: Group) -> dict[str, Any] | None:
    """Each 3x3 layer's deviation, the mean over those seeds that were measured; None where none was."""
    measured = [run.responses for run in group.runs if run.responses]
    if not measured:
        return None
    layers = zip(*(told["layers"] for told in measured))
    deviations = [mean_and_spread([layer["deviation"] for layer in same])[0] for same in layers]
    return {
        "label": group.net.label,
        "family": group.net.family,
        "depth": group.net.depth,
        "runs": len(measured),
        "images": measured[0]["images"],
        "deviations": [round(value, 5) for value in deviations],
        "mean": round(mean_and_spread(deviations)[0], 4),
    }


def describe_run(run: StudyRun) -> dict[str, Any]:
    """One run's own figures and where they come from."""
    provenance = run.provenance
    return {
        "label": run.net.label,
        "seed": run.seed,
        "train_error": run.train_error,
        "errors": run.errors,
        "iterations": run.iterations,
        "training_s": provenance.get("training_s"),
        "commit": provenance.get("commit"),
        "command": provenance.get("command"),
        "machine": provenance.get("machine"),
        "protocol_hash": provenance.get("protocol_hash"),
        "directory": str(run.directory),
    }
