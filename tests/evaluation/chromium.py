"""A real browser for tests: the system's Chromium, driven by playwright where that is installed."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_or_skip() -> str:
    """The path of a Chromium; skips with what to install where there is none."""
    path = next((path for name in NAMES if (path := shutil.which(name))), "")
    if not path:
        pytest.skip("no Chromium on this machine: apt install chromium")
    return path


def playwright_or_skip() -> Any:
    """playwright's sync_playwright; it drives the Chromium that is there, and needs no browser of its own."""
    reason = "the browser's tests need playwright: pip install -e '.[browser]'"
    return pytest.importorskip("playwright.sync_api", reason=reason).sync_playwright
