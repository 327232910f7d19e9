"""Real data (in VERTEBRA_DATA, else ../shared/data beside the repository; absent, such tests skip), and a report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.chromium import Visit, chromium_or_skip, playwright_or_skip
from tests.evaluation.report_cases import trained_run, write_images
from vertebra.evaluation.report.render import Written, write_report

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    root = Path(os.environ.get("VERTEBRA_DATA") or HOUSE.parent / "shared" / "data")
    if not (root / "eval_fixtures").is_dir():
        pytest.skip(f"no eval_fixtures in {root}; set VERTEBRA_DATA to the real data")
    return root / "eval_fixtures"


@pytest.fixture(scope="session")
def voc2007_dir(fixtures_dir: Path) -> Path:
    path = fixtures_dir.parent / "VOCdevkit" / "VOC2007"
    if not path.is_dir():
        pytest.skip(f"no VOC2007 in {path.parent}")
    return path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, the second much better, and the images that they saw."""
    root = tmp_path_factory.mktemp("pair")
    write_images(root / "images")
    return [trained_run(root, "plain18", 0.4), trained_run(root, "r18", 0.95, 2)]


@pytest.fixture(scope="session")
def report(pair: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_report(pair, tmp_path_factory.mktemp("report") / "out")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = chromium_or_skip()
    with playwright_or_skip()() as driver:
        browser = driver.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    contexts = []

    def open_it(path: Path, address: str = "", **options: Any) -> Visit:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(30_000)
        contexts.append(context)
        visit = Visit(context.new_page())
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.on("console", lambda message: visit.complaints.append(message.text))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.goto(path.as_uri() + address)
        return visit

    yield open_it
    for context in contexts:
        context.close()
