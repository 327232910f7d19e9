"""Where real data is: VERTEBRA_DATA, else ../shared/data beside the repository; absent, such tests skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
