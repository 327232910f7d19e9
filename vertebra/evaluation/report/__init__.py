"""The report on finished runs: report.html (self-contained), report.md, report.json and report.tex."""
