"""The script for a first hour on a GPU, tried on a CPU; and what it must not lose where a part fails there."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch")

# Of each part a figure that nothing but its work can give.
EXPECTED = {
    "ceilings": "copy, read and written",
    "tests": "skipped",
    "numerics": "c4: boxes of the same regions, bf16 of fp32",
    "detectors": "coco_mask_fpn_1x on r18, steps of 1",
    "classifiers": "r50, 224 px, the training loop",
    "end_to_end": "detector",
    "cifar_net": "cifar_r8: 64,000 steps of 128",
    "kernels": "RoIAlign of a pyramid and its gradient: ours of torchvision's",
    "latency": "fpn, one image, ours fp32",
    "loader": "ours, 1 workers, random crops of JPEGs of 500x375",
    "profile": "r18, ",
    "compiled": "cifar_r8, compiled: 64,000 steps of 128",
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import gpu  # type: ignore[import-not-found]

    return gpu


def test_every_part_gives_its_figures_on_a_cpu(gpu: Any, tmp_path: Path) -> None:
    status = gpu.main(["--output", str(tmp_path), "--device", "cpu", "--tiny"])
    log = (tmp_path / "log.txt").read_text()
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert {name: part["ended"] for name, part in parts.items()} == dict.fromkeys(gpu.NAMES, "done"), log[-5000:]
    assert status == 0 and list(EXPECTED) == list(gpu.NAMES)
    table = (tmp_path / "table.txt").read_text()
    for name, part in parts.items():
        figures = {figure["name"]: figure["value"] for figure in part["figures"]}
        assert all(math.isfinite(value) and value >= 0 for value in figures.values()), (name, figures)
        expected = [value for figure, value in figures.items() if figure.startswith(EXPECTED[name])]
        assert expected and (expected[0] > 0 or name == "numerics"), (name, figures)
        assert f"{name}, " in table and all(figure in table for figure in figures)
    assert "at least 3079" in table and "at most 180" in table
    assert (tmp_path / "profile.txt").stat().st_size > 1000


def fails(setting: Any) -> Iterator[Any]:
    from gpu_figures import Figure  # type: ignore[import-not-found]

    yield Figure("before", 1.0, "s")
    raise RuntimeError("this GPU has no such thing")


def hangs(setting: Any) -> Iterator[Any]:
    import subprocess

    from gpu_figures import Figure

    sleeper = subprocess.Popen(["sleep", "600"])
    yield Figure("its child", float(sleeper.pid), "s")
    time.sleep(600)


def works(setting: Any) -> Iterator[Any]:
    from gpu_figures import Figure

    yield Figure("frames", setting.found["before"] + 1, "images/s", at_least=170, source="others")


def test_a_part_that_fails_or_hangs_costs_its_own_time_and_none_of_its_figures(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {fails: 30, hangs: 1, works: 30}
    monkeypatch.setattr(gpu, "PARTS", limits)
    monkeypatch.setattr(gpu, "NAMES", {part.__name__: part for part in limits})
    arguments = ["--output", str(tmp_path), "--device", "cpu", "--tiny"]
    assert gpu.main([*arguments, "--parts", "fails", "hangs"]) == 1
    assert gpu.main([*arguments, "--parts", "works"]) == 0  # the others' figures stay
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert parts["fails"]["ended"] == "failed with 1, see log.txt"
    assert parts["hangs"]["ended"] == "out of time after 1 s" and parts["hangs"]["seconds"] < 20
    assert [part["figures"][0]["name"] for part in parts.values()] == ["before", "its child", "frames"]
    assert "this GPU has no such thing" in (tmp_path / "log.txt").read_text()
    assert not is_running(int(parts["hangs"]["figures"][0]["value"]))
    (line,) = [line for line in (tmp_path / "table.txt").read_text().splitlines() if "frames" in line]
    assert line.split() == ["frames", "2", "images/s", "at", "least", "170:", "missed", "others"]


def is_running(process: int) -> bool:
    """Not gone, and not a zombie that nobody has waited for."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_the_process_that_forks_never_asks_for_a_gpu(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # From then on torch would refuse its forks to use one.
    here = os.getpid()

    def asked(*_: Any) -> int:
        assert os.getpid() != here
        return 0

    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", asked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(asked()))
    with pytest.raises(SystemExit):  # after a look by another process
        gpu.main(["--output", str(tmp_path), "--parts", "ceilings"])
    assert gpu.main(["--output", str(tmp_path), "--device", "cpu", "--tiny", "--parts", "ceilings"]) == 0


def test_with_no_time_left_no_part_is_begun(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BUDGET_S", 3)
    assert gpu.main(["--output", str(tmp_path), "--device", "cpu", "--tiny", "--parts", "ceilings"]) == 1
    part = json.loads((tmp_path / "results.json").read_text())["parts"]["ceilings"]
    assert part == {"ended": "no time was left", "seconds": 0, "figures": []}


def test_a_stopwatch_counts_the_timed_steps_and_notes_the_waits_in_them(gpu: Any) -> None:
    from steps import WAIT, Stopwatch  # type: ignore[import-not-found]

    ticks = iter(range(100))
    watch = Stopwatch(3, 5, torch.device("cpu"), clock=lambda: next(ticks) * 10.0)
    taken = []
    for step in watch.watch(range(50)):
        taken.append(step)
        warnings.warn("not this one", stacklevel=1)
        if step in (1, 4, 6, 8):  # 4 and 6 are timed
            with warnings.catch_warnings(record=step in (1, 8)):
                warnings.warn(WAIT, stacklevel=1)
    assert taken == list(range(9)) == list(range(watch.iterations))
    assert watch.step_s == 2.0
    assert len(watch.waits) == 2 and all(place.startswith("test_gpu_call.py:") for place in watch.waits)
