"""What all benchmarks share: alternating timing, its summary, and a result file with all that a figure needs."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks run from a clone, installed or not

import torch  # noqa: E402

from engine.provenance import describe  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


def alternate(
    candidates: Mapping[str, Callable[[], None]],
    *,
    rounds: int,
    warmup: int = 1,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call, `rounds` of them per candidate, in turns: A B A B ...

    In turns, so that a machine that grows busier or hotter slows all alike. Warm-up calls are not counted. On a GPU
    each call is waited for. clock: `time.process_time` counts this process's CPU seconds, all threads
    together, for a look on a busy machine; to be used with one thread.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(-warmup, rounds):
        for name, call in candidates.items():
            _wait(device)
            start = clock()
            call()
            _wait(device)
            if turn >= 0:
                seconds[name].append(clock() - start)
    return seconds


def draw_epoch(make: Callable[[], Iterable[Any]]) -> Callable[[], None]:
    """Makes a loader and takes all its batches."""

    def call() -> None:
        for _ in make():
            pass

    return call


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median, extremes, quartiles and all the values, in seconds."""
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "quartiles_s": [quartiles[0], quartiles[2]],
        "n": len(seconds),
        "all_s": seconds,
    }


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Our time over theirs, round by round: its median and extremes (below 1: ours is faster)."""
    ratios = [a / b for a, b in zip(ours, theirs)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "n": len(ratios)}


def conclude(
    path: Path, setting: Mapping[str, Any], seconds: Mapping[str, list[float]], pairs: Sequence[tuple[int, int]]
) -> None:
    """Prints the ratios of these pairs of candidates, by their places, and writes the result."""
    names = list(seconds)
    ratios = {f"{names[a]} / {names[b]}": ratio(seconds[names[a]], seconds[names[b]]) for a, b in pairs}
    for name, one in ratios.items():
        print(f"{name}: {one['median']:.3f}  ({one['min']:.3f} .. {one['max']:.3f})")
    write_result(path, {"setting": setting, "times": {n: summary(v) for n, v in seconds.items()}, "ratios": ratios})


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """The result with commit, versions, machine and command, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**describe(), **result}, indent=1) + "\n")
    print(f"written: {path}")
