"""The report on finished detection runs: report.html (self-contained), report.md, report.json and report.tex."""

from vertebra.evaluation.report.reading import ReportError
from vertebra.evaluation.report.render import Written, write_report

__all__ = ["ReportError", "Written", "write_report"]
