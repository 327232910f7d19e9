"""The report on finished detection runs: report.html (self-contained), report.md, report.json and report.tex."""

from evaluation.report.reading import ReportError
from evaluation.report.render import Written, write_report

__all__ = ["ReportError", "Written", "write_report"]
