"""The benchmark of growth: its made-up set has no faults, and each part of it does its work."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("scale_benchmark", BENCHMARKS / "scale.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_each_part_of_the_benchmark_of_growth_does_its_work(scale, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VERTEBRA_CACHE", "")
    scale.make_set(tmp_path, 40)
    told = {part: scale.PARTS[part](tmp_path) for part in scale.PARTS if part != "report"}
    assert told["open"] == {"objects": 280} and told["classes"] == {"pictures": 40}
    assert told["epoch"] == {"batches": 3} and told["read"] == {"predictions": 400}
    assert len(told["loader"]["worker_all_mb"]) == 3 and min(told["loader"]["worker_all_mb"]) > 0
    printed = capsys.readouterr().out
    assert "coco/train2017: no faults" in printed and "same files" not in printed
    assert "40 images (-: no truth)" in printed


def test_growth_is_the_ratio_of_each_size_to_the_one_before(scale):
    found = {10: {"peak_mb": 2.0}, 1000: {"peak_mb": 90.0}, 100: {"peak_mb": 9.0}}
    assert scale.growths(found, "peak_mb") == [4.5, 10.0]
