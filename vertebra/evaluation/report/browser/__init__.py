"""The browser of images: truth and two sides beside each other, drawn, sorted and filtered in the page."""

from vertebra.evaluation.report.browser.build import Browser, build_browser

__all__ = ["Browser", "build_browser"]
