"""This clone against another one, such as that of the last release: one of the benchmarks beside this file, in turns.

python benchmarks/clones.py ../vertebra-0.1 -- detector.py --train --size 320 480 --threads 1
python benchmarks/clones.py ../vertebra-0.1 --turns 5 -- resampling.py --images 500 --resamples 100

Each turn is a process of the other clone and one of this. Every time in the benchmark's result file that both have is
compared: median of each clone over the turns, and the median and range of their ratios, this clone's time to
the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT

from vertebra.engine.provenance import describe
from vertebra.ground.files import write_json
from vertebra.ground.table import Row, Table

TIMES = ("median_s", "processor_s", "seconds")
COLUMNS = ("other, s", "this, s", "ratio", "least ratio", "largest ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="the other clone's directory")
    parser.add_argument("--turns", type=int, default=3, help="processes of each clone (default 3)")
    parser.add_argument("--output", type=Path, default=RESULTS / "clones.json", help="result file")
    parser.add_argument("benchmark", nargs="+", help="after --: a benchmark's file name and its arguments")
    args = parser.parse_args()
    turns = [[times_of(clone, args.benchmark) for clone in (args.clone.resolve(), ROOT)] for _ in range(args.turns)]
    times = {}
    for name in sorted(turns[0][0].keys() & turns[0][1].keys()):
        others, here = ([turn[side][name] for turn in turns] for side in (0, 1))
        ratios = [mine / other for other, mine in zip(others, here)]
        medians = map(statistics.median, (others, here, ratios))
        times[name] = dict(zip(COLUMNS, (*medians, min(ratios), max(ratios))))
    rows = [Row(name, [f"{figure:.4g}" for figure in figures.values()]) for name, figures in times.items()]
    print(Table(" ".join(args.benchmark), COLUMNS, rows).text())
    facts = {**describe(), "benchmark": args.benchmark, "other": commit_of(args.clone), "turns": args.turns}
    write_json(args.output, {**facts, "times": times})


def times_of(clone: Path, benchmark: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, str(clone / "benchmarks" / benchmark[0]), *benchmark[1:], "--output", str(output)]
        own = {**os.environ, "PYTHONPATH": str(clone)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=clone, env=own)
        return dict(leaves(json.loads(output.read_text())))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif path and path[-1] in TIMES and isinstance(value, float):
        yield " / ".join(path[1:-1]), value


def commit_of(clone: Path) -> str:
    return subprocess.run(
        ["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
