"""The report on finished runs: report.html (self-contained), report.md, report.json and report.tex."""

from vertebra.evaluation.report.render import Written, write_report

__all__ = ["Written", "write_report"]
