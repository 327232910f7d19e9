"""A real browser for tests: the system's Chromium, driven by playwright where that is installed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
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


@dataclass
class Visit:
    """A page that was opened, with all that it asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def files(self) -> list[str]:
        return list(self.page.locator("#cases h3").all_text_contents())

    def choose(self, **values: str) -> None:
        for name, value in values.items():
            self.page.locator(f"select[name={name}]").select_option(value)

    def count(self) -> str:
        return str(self.page.locator("#browser-count").inner_text())

    def listed(self) -> list[str]:
        """The files of all pages of the list, in order."""
        files = self.files()
        following = self.page.locator('[data-page="1"]').first
        while following.is_visible() and following.is_enabled():
            following.click()
            files += self.files()
        return files
