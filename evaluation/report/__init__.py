"""The report on finished detection runs: report.html (self-contained), report.md and report.json."""

from evaluation.report.reading import ReportError
from evaluation.report.render import write_report

__all__ = ["ReportError", "write_report"]
