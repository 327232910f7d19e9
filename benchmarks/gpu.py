"""All that is to be known of a first hour on a GPU, in eight minutes: figures beside what is hoped for.

pip install --no-index wheels/*.whl
python benchmarks/gpu.py --output OUT
python benchmarks/gpu.py --output OUT --parts detectors profile
python benchmarks/gpu.py --output OUT --device cpu --tiny

Each part is a process of its own with a time limit: one that fails or hangs costs its own time alone, and what it had
measured stays. A part is left out where the time of all is over. OUT gets results.json (with commit, versions and
machine), table.txt, log.txt (all that the parts print) and profile.txt; the figures of parts that are not named by
--parts stay. --tiny tries the script itself: no figure means anything.

The machine needs torch, torchvision, Triton and a C compiler, numpy, scipy, OpenCV, PyYAML, safetensors, Jinja2, tqdm,
tensorboard, pytest and hypothesis (with pytest-xdist the tests take less time), no network. What it lacks comes as
wheels, usually pycocotools, pydantic, pydantic-core, annotated-types, typing-inspection, tyro, docstring-parser and
typeguard; where there is a network, with that machine's version of Python:
pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 --platform \
    manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest wheels NAME ...
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import forked  # first: it makes the rooms importable

import gpu_machine  # isort: skip
import gpu_numbers
import gpu_trainings
import torch
from gpu_figures import Figure, Setting

from vertebra.engine.provenance import describe
from vertebra.ground.files import append_line, write_json, write_text
from vertebra.ground.table import Row, Table

# Parts and the seconds that each may take, in the order of what is worth most.
PARTS: dict[Callable[[Setting], Iterator[Figure]], int] = {
    gpu_machine.ceilings: 25,
    gpu_machine.tests: 100,
    gpu_numbers.numerics: 45,
    gpu_trainings.detectors: 100,
    gpu_trainings.classifiers: 50,
    gpu_machine.end_to_end: 140,
    gpu_trainings.cifar_net: 30,
    gpu_numbers.kernels: 35,
    gpu_trainings.latency: 45,
    gpu_machine.loader: 45,
    gpu_trainings.profile: 30,
    gpu_trainings.compiled: 100,
}
NAMES = {part.__name__: part for part in PARTS}
BUDGET_S = 465
LEAST_S = 15  # with less left no part is begun
DONE = "done"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory of the results")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes with which a CPU is done in seconds")
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=list(NAMES), metavar="PART", help=", ".join(NAMES))
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    results, table = args.output / "results.json", args.output / "table.txt"
    parts: dict[str, Any] = json.loads(results.read_text())["parts"] if results.exists() else {}
    until = time.monotonic() + BUDGET_S
    with tempfile.TemporaryDirectory() as scratch:
        facts = origin(Path(scratch))
        if args.device == "cuda" and not facts["machine"]["gpus"]:
            parser.error("--device cuda: torch sees no GPU here")
        for name in args.parts:
            work = Path(scratch) / name
            work.mkdir()
            found = {figure["name"]: figure["value"] for part in parts.values() for figure in part["figures"]}
            setting = Setting(torch.device(args.device), args.tiny, work, args.output, found)
            parts[name] = run(NAMES[name], setting, until - time.monotonic())
            print(table_of({name: parts[name]}), flush=True)
            ordered = {known: parts[known] for known in NAMES if known in parts}
            write_json(results, {**facts, "device": args.device, "tiny": args.tiny, "parts": ordered})
            write_text(table, table_of(ordered))
    print(f"written: {results}, {table}")
    return 0 if all(parts[name]["ended"] == DONE for name in args.parts) else 1


def origin(scratch: Path) -> dict[str, Any]:
    """Commit, versions, machine and command, found by a process of its own: one that has seen the GPU cannot fork."""
    path = scratch / "origin.json"
    wait(forked(lambda: path.write_text(json.dumps(describe())) and 0), 60)
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def run(part: Callable[[Setting], Iterator[Figure]], setting: Setting, left_s: float) -> dict[str, Any]:
    """A part in a process of its own: its figures, how it ended, and after how many seconds."""
    if left_s < LEAST_S:
        return {"ended": "no time was left", "seconds": 0, "figures": []}
    lines, began = setting.work / "figures.jsonl", time.monotonic()
    how = wait(forked(lambda: measure(part, setting, lines)), min(PARTS[part], left_s))
    figures = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    return {"ended": how, "seconds": round(time.monotonic() - began, 1), "figures": figures}


def measure(part: Callable[[Setting], Iterator[Figure]], setting: Setting, lines: Path) -> int:
    """Write a part's figures, one a line, and what else it prints to the log; return the exit status."""
    os.setsid()  # so that what it starts ends with it
    log = os.open(setting.output / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    print(f"\n== {part.__name__}")
    if setting.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        for figure in part(setting):
            append_line(lines, json.dumps(asdict(figure)))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def wait(process: int, limit_s: float) -> str:
    """Return how a process ended: by itself, or with all that it has started after `limit_s`."""
    until = time.monotonic() + limit_s
    while (ended := os.waitpid(process, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.02)
    with suppress(ProcessLookupError):  # what it has left behind
        os.killpg(process, signal.SIGKILL)
    if ended == (0, 0):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return f"out of time after {limit_s:.0f} s"
    code = os.waitstatus_to_exitcode(ended[1])
    return f"failed with {code}, see log.txt" if code else DONE


def table_of(parts: Mapping[str, Any]) -> str:
    """Each figure beside what is hoped for."""
    rows = []
    for name, part in parts.items():
        group = f"{name}, {part['seconds']:.0f} s{'' if part['ended'] == DONE else ': ' + part['ended']}"
        figures = [Figure(**figure) for figure in part["figures"]]
        rows += [Row(one.name, one.cells(), group=group) for one in figures] or [Row("-", [""] * 4, group=group)]
    columns = ("value", "unit", "hoped for", "by")
    return Table("", columns, rows, left=frozenset(columns[1:])).text() + "\n"


if __name__ == "__main__":
    sys.exit(main())
