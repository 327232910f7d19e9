"""What benchmarks share: alternating timing, its summary, commands in forked processes, and a result file."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks run from a clone, installed or not

import torch  # noqa: E402

from vertebra import cli  # noqa: E402
from vertebra.engine.measure import wait_for  # noqa: E402
from vertebra.engine.provenance import describe  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
FEWEST_ROUNDS = 5


def timing_parser(
    description: str | None, *, rounds: int, timed: str = "calls", device: bool = False, threads: int | None = 0
) -> argparse.ArgumentParser:
    """The arguments that benchmarks share: --rounds, --output, with `device` --device, and with `threads` --threads
    and --cpu-seconds. threads: the default; None: torch's; 0: there is one thread and no choice. `parse_timing` reads
    and checks them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"timed {timed} of each, at least {FEWEST_ROUNDS} (default {rounds})"
    )
    if device:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    if threads != 0:
        parser.add_argument(
            "--threads", type=int, default=threads, help=f"of torch on the CPU (default {threads or 'all cores'})"
        )
        parser.add_argument(
            "--cpu-seconds", action="store_true", help="of this process, with one thread: for a busy machine"
        )
    parser.add_argument("--output", type=Path, help="result file (default: in benchmarks/results)")
    return parser


def parse_timing(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of a `timing_parser`, checked; torch has as many threads as they say, or one."""
    args = parser.parse_args()
    device, threads = getattr(args, "device", "cpu"), getattr(args, "threads", 1)
    if args.rounds < FEWEST_ROUNDS:
        parser.error(f"--rounds: at least {FEWEST_ROUNDS}, a figure needs a spread")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no CUDA device here")
    if threads is not None and threads < 1:
        parser.error("--threads: at least 1")
    if getattr(args, "cpu_seconds", False):
        if threads not in (None, 1) or device != "cpu":
            parser.error("--cpu-seconds counts one process on one thread: no --threads or --device cuda with it")
        threads = args.threads = 1
    if threads is not None:
        torch.set_num_threads(threads)
    return args


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """The clock that --cpu-seconds chooses."""
    return time.process_time if args.cpu_seconds else time.perf_counter


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
            wait_for(torch.device(device))
            start = clock()
            call()
            wait_for(torch.device(device))
            if turn >= 0:
                seconds[name].append(clock() - start)
    return seconds


def side_by_side(args: argparse.Namespace, candidates: Mapping[str, Callable[[], None]]) -> dict[str, list[float]]:
    """`alternate` by the arguments of a `timing_parser` with a device; prints what it took."""
    seconds = alternate(candidates, rounds=args.rounds, device=args.device, clock=clock_of(args))
    print_times(seconds)
    return seconds


def print_times(seconds: Mapping[str, list[float]], unit: Literal["s", "ms"] = "s") -> None:
    """Prints each candidate's median and extremes."""
    for name, values in seconds.items():
        one = summary(values)
        median, least, most = (one[key] * (1000 if unit == "ms" else 1) for key in ("median_s", "min_s", "max_s"))
        print(f"{name:36s} median {median:.3f} {unit}  ({least:.3f} .. {most:.3f}, n {one['n']})")


def draw_epoch(make: Callable[[], Iterable[Any]]) -> Callable[[], None]:
    """Makes a loader and takes all its batches."""

    def call() -> None:
        for _ in make():
            pass

    return call


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


def forked(work: Callable[[], int]) -> int:
    """Return the id of a new process that does `work` and ends with its status."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        code = work()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def typed(command: str, flags: tuple[str, ...], console: Path) -> None:
    """Do what a user types, with its output in `console`; raises SystemExit."""
    output = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [f"tools/{command.replace('-', '_')}.py", *flags]
    cli.run(command, list(flags))


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """The result with commit, versions, machine and command, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**describe(), **result}, indent=1) + "\n")
    print(f"written: {path}")
