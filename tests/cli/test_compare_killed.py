"""A matrix that is killed again and again ends as one that was left alone.

Killed is SIGKILL, of the matrix and of its jobs: nothing can be saved, nothing be tidied up. The same command goes on.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import ENVIRONMENT, TINY_BACKBONE, TOOLS, run
from tests.cli.test_compare import ON_CPU, TINY
from tests.engine import test_on_ray
from vertebra.engine.weights import load_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TINY_SEGMENTER = (
    *("--width", "0.25", "--input.crop", "64", "64", "--input.base-side", "64", "--input.test-side", "64"),
    *("--solver.iterations", "8", "--solver.batch-size", "4", "--solver.warmup-iterations", "0"),
    *("--log-period", "1", "--checkpoint-period", "2", "--precision", "fp32"),
)
# What differs between two runs of one command: how long they took.
TIMES = re.compile(r"_s$|time|cost|ratio|latency|memory|second|commit|command|directory|machine|front|origin", re.I)


def start(*arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None):
    command = [sys.executable, str(TOOLS / "compare.py"), *map(str, arguments)]
    environment = {**ENVIRONMENT, **(environment or {})}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
    )


def trainings() -> dict[int, str]:
    """Process id and output's name of every cell that is trained on this machine; its launcher's alone."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if {"train-det", "train-seg"} & {*words[:5]} and "--output" in words:
            found[int(place.name)] = (words[words.index("--output") + 1], parent)
    return {process: output for process, (output, parent) in found.items() if parent not in found}


def lines_of(output: Path) -> int:
    path = output / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen | None = None, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def figures(content: Any) -> Any:
    """A report's content without what time says, in numbers or in words."""
    if isinstance(content, str) and re.search(r"\b(time|latency|memory)\b", content):
        return "a sentence on time"
    if isinstance(content, dict):
        return {key: figures(value) for key, value in content.items() if not TIMES.search(key)}
    return [figures(value) for value in content] if isinstance(content, list) else content


def assert_same(one: Path, other: Path) -> None:
    """Two finished runs: same weights to the bit, same detections, same losses."""
    states = [load_weights(place / "model.safetensors")[0] for place in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), one.name
    assert (one / "predictions.json").read_bytes() == (other / "predictions.json").read_bytes()
    logs = [[json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()] for place in (one, other)]
    assert figures(logs[0]) == figures(logs[1])


def report_of(place: Path) -> dict[str, Any]:
    return {str(path.relative_to(place)): figures(json.loads(path.read_text())) for path in place.rglob("report.json")}


def test_killed_with_a_job_and_as_a_whole_it_ends_as_an_undisturbed_one(detectors, sample, weights, tmp_path):
    output = tmp_path / "runs"
    given = [f"{name}={weights[name]}" for name in ("plain18", "r18")]
    command = (
        *("--backbones", "plain18", "r18", "--data", sample, "--weights", *given, "--output", output),
        *("--jobs", 2, *ON_CPU, "--", *TINY),
    )
    cells = [output / f"{name}_seed0" for name in ("plain18", "r18")]

    def running() -> dict[int, str]:
        return {process: place for process, place in trainings().items() if place in map(str, cells)}

    first = start(*command)
    wait_for(lambda: all(lines_of(cell) >= 3 for cell in cells), first)
    kill(first)
    wait_for(lambda: not running(), seconds=20)
    assert not (cells[0] / "provenance.json").exists()

    second = start(*command)
    wait_for(lambda: any(place == str(cells[1]) for place in running().values()), second)
    (victim,) = (process for process, place in running().items() if place == str(cells[1]))
    os.kill(victim, signal.SIGKILL)
    _, err = second.communicate(timeout=240)
    assert second.returncode == 1 and "detector on r18, seed 0: ended with -9" in err and "Traceback" not in err

    last = run("compare", *command)
    assert "2 of 2 finished" in last.out
    for name, cell in zip(("plain18", "r18"), cells):
        assert_same(detectors[name], cell)
    run("compare", detectors["plain18"], detectors["r18"], "--report", tmp_path / "undisturbed")
    assert report_of(tmp_path / "undisturbed") == report_of(output / "report") != {}


def test_a_matrix_of_segmenters_that_is_killed_ends_as_an_undisturbed_one(sample, tmp_path):
    homes = [tmp_path / name for name in ("killed", "calm")]

    def command(home: Path) -> tuple[object, ...]:
        cells = ("--task", "seg", "--backbones", "plain18", "r18", "--weights", "plain18=none", "r18=none")
        return (*cells, "--data", sample, "--output", home, "--jobs", 2, *ON_CPU, "--", *TINY_SEGMENTER)

    first = start(*command(homes[0]))
    wait_for(lambda: all(lines_of(homes[0] / f"{name}_seed0") >= 3 for name in ("plain18", "r18")), first)
    kill(first)
    wait_for(lambda: not any(str(homes[0]) in place for place in trainings().values()), seconds=20)
    assert not (homes[0] / "plain18_seed0" / "provenance.json").exists()
    for home in homes:
        done = run("compare", *command(home))
        assert "2 of 2 finished" in done.out and "The report: " in done.out
    for name in ("plain18_seed0", "r18_seed0"):
        one, other = (home / name for home in homes)
        states = [load_weights(place / "model.safetensors")[0] for place in (one, other)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), name
        maps = [{path.name: path.read_bytes() for path in (place / "maps").iterdir()} for place in (one, other)]
        assert maps[0] == maps[1] != {}
    assert report_of(homes[0] / "report") == report_of(homes[1] / "report") != {}


@test_on_ray.needs_ray
def test_a_matrix_on_ray_whose_node_is_killed_ends_as_an_undisturbed_one(detectors, sample, weights, tmp_path):
    """Three minutes. One job goes on from its checkpoint on the node that is left, the other is not disturbed."""
    output = tmp_path / "runs"
    given = [f"{name}={weights[name]}" for name in ("plain18", "r18")]
    cells = [output / f"{name}_seed0" for name in ("plain18", "r18")]
    with test_on_ray.two_nodes() as (address, second):
        matrix = start(
            *("--backbones", "plain18", "r18", "--data", sample, "--weights", *given, "--output", output),
            *("--ray", address, "--device", "cpu", "--workers", 1, "--", *TINY),
            environment=test_on_ray.LOOPBACK,
        )
        wait_for(lambda: all(lines_of(cell) >= 3 for cell in cells), matrix)
        os.kill(second, signal.SIGKILL)
        out, err = matrix.communicate(timeout=400)
    assert matrix.returncode == 0 and "2 of 2 finished" in out and out.count("is started again") == 1, (out, err)
    for name, cell in zip(("plain18", "r18"), cells):
        assert_same(detectors[name], cell)


@pytest.mark.slow
def test_two_backbones_with_two_heads_and_three_seeds_killed_twice_and_once_a_job(sample, tmp_path):
    pretraining = tmp_path / "pretraining.yaml"
    config = Path(TINY_BACKBONE[TINY_BACKBONE.index("--config") + 1])
    text = (TOOLS.parent / "configs" / config).read_text()
    pretraining.write_text(text.replace("epochs: 12", "iterations: 4").replace("width: 0.5", "width: 0.25"))
    command = (
        *("--backbones", "plain18", "r18", "--heads", "c4", "fpn", "--seeds", 3, "--data", sample, "--output", "runs"),
        *("--pretrain", pretraining, "--jobs", 2, *ON_CPU, "--", *TINY),
    )
    places = {name: tmp_path / name for name in ("undisturbed", "killed")}
    for place in places.values():
        place.mkdir()
    calm = start(*command, cwd=places["undisturbed"])
    out, err = calm.communicate()
    assert calm.returncode == 0, (out, err)

    home = places["killed"]
    jobs_killed: set[str] = set()
    matrices_killed = 0
    for _ in range(60):
        matrix = start(*command, cwd=home)
        while matrix.poll() is None:
            for process, output in trainings().items():
                is_ours = Path(f"/proc/{process}/cwd").exists() and os.readlink(f"/proc/{process}/cwd") == str(home)
                if is_ours and output not in jobs_killed and 3 <= lines_of(home / output) < 7:
                    os.kill(process, signal.SIGKILL)
                    jobs_killed.add(output)
                    if matrices_killed < 2 and len(jobs_killed) in (4, 8):
                        matrices_killed += 1
                        matrix.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        matrix.communicate()
        if matrix.returncode == 0:
            break
    assert matrix.returncode == 0 and matrices_killed == 2
    assert len(jobs_killed) == 12, "every job was killed once"
    cells = sorted(path.parent.name for path in home.glob("runs/*_seed*/provenance.json"))
    assert len(cells) == 12
    for cell in cells:
        assert_same(places["undisturbed"] / "runs" / cell, home / "runs" / cell)
    assert report_of(places["undisturbed"] / "runs" / "report") == report_of(home / "runs" / "report") != {}
