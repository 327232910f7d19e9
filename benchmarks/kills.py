"""SIGKILL at random moments of a training, which then is resumed: does it end as the undisturbed one, to the bit?

python benchmarks/kills.py --kills 200 --seed 0
python benchmarks/kills.py --kills 200 --seed 0 --at-once 8

Every training is the real command on a small sample set, in a process that is forked once all is imported: a classifier
with an average of its weights, and a detector, in turns. A kill is drawn in three steps: the kind of moment (MOMENTS),
one of the times that the undisturbed training comes to such a moment, and how far into it. Compared are all weights
that a run leaves behind, its metrics (without times), and a detector's predictions.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import RESULTS, forked, typed, write_result  # first: it makes the packages importable

import torch  # isort: skip
from safetensors.torch import load_file

from vertebra.build import classifier_run, detector_run, run
from vertebra.cli import prepare_data, train_backbone, train_det  # noqa: F401 (imported once, for all forks)
from vertebra.engine import loop
from vertebra.engine.checkpoint import Checkpoints
from vertebra.engine.session import Session

MOMENTS = ("start", "step", "save", "evaluation", "end")
TIMES = {"time_s", "data_s", "memory_mb"}
COMMON = (
    *("--backbone", "r18", "--width", "0.25", "--device", "cpu", "--workers", "0", "--precision", "fp32", "--resume"),
    *("--solver.iterations", "4", "--log-period", "1", "--checkpoint-period", "1", "--eval-period", "2"),
)
COMMANDS = {
    "train-backbone": (
        *("--config", "sample/objects.yaml", "--data", "{set}/objects", "--solver.batch-size", "8", "--ema", "0.9"),
        *("--input.size", "32", "--input.resize", "32", "--recompute-norms", "8"),
    ),
    "train-det": (
        *("--config", "sample/detection.yaml", "--dataset", "sample", "--data", "{set}", "--solver.batch-size", "2"),
        *("--weights", "none", "--model.norms", "trained", "--model.freeze-stride", "0", "--model.rois", "8"),
        *("--input.shorter-side", "64", "--input.test-shorter-side", "64", "--input.longer-side", "96"),
    ),
}


class Watch:
    """Where a training is, in memory that it shares with the process that kills it.

    Checkpoints are written by a thread of their own, so that a save has a place of its own here.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4 * (len(MOMENTS) + 2))
        self._slots = memoryview(self._memory).cast("i")  # entries of each moment, the main thread's, is it saving
        self.visits: list[tuple[str, float, float]] = []  # moment, begin and end; known in the training alone

    def entries(self, moment: str) -> int:
        """Return how often that moment was come to."""
        return self._slots[MOMENTS.index(moment)]

    def now(self) -> str:
        """Return the moment of now."""
        return "save" if self._slots[-1] else MOMENTS[self._slots[-2]]

    def clear(self) -> None:
        for slot in range(len(self._slots)):
            self._slots[slot] = 0

    def follow(self, owner: Any, name: str, moment: str) -> None:
        """From now on calls of `owner.name` are that moment."""
        call, own = getattr(owner, name), MOMENTS.index(moment)
        slot, value = (-1, 1) if moment == "save" else (-2, own)

        def followed(*arguments: Any, **options: Any) -> Any:
            before, self._slots[slot] = self._slots[slot], value
            self._slots[own] += 1
            began = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.visits.append((moment, began, time.perf_counter()))
                self._slots[slot] = before

        setattr(owner, name, followed)


def training(command: str, data: Path, output: Path, watch: Watch) -> int:
    """Start a training, watched, in a process of its own; return its id."""

    def work() -> int:
        flags = tuple(word.format(set=data) for word in COMMANDS[command])
        watch.follow(loop, "train", "step")
        watch.follow(Session, "evaluate", "evaluation")
        watch.follow(Checkpoints, "save", "save")
        for job in (classifier_run.ClassifierTraining, detector_run.DetectorTraining):
            watch.follow(job, "finish", "end")
        watch.follow(run, "train", "start")
        try:
            typed(command, (*flags, *COMMON, "--output", str(output)), output.with_suffix(".txt"))
        finally:
            output.with_suffix(".json").write_text(json.dumps(watch.visits))
        return 0

    watch.clear()
    return forked(work)


def finish(process: int, console: Path) -> None:
    """Wait for a process. Raises SystemExit with its output where it failed."""
    if code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        sys.exit(f"a training ended with {code}:\n{console.read_text()[-3000:]}")


def content(output: Path) -> dict[str, Any]:
    """All that must be equal: weights by file and name, metrics, predictions."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {"metrics": [{k: v for k, v in line.items() if k not in TIMES} for line in lines]}
    for path in sorted(output.glob("*.safetensors")):
        found |= {f"{path.name} {name}": tensor for name, tensor in load_file(path).items()}
    for path in output.glob("predictions.json"):
        found["predictions"] = path.read_bytes()
    return found


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def differences(output: Path, undisturbed: Path) -> list[str]:
    """Return the names of what differs."""
    one, other = content(output), content(undisturbed)
    missing = one.keys() ^ other.keys()
    return [name for name in {**one, **other} if name in missing or not same(one[name], other[name])]


def wait_for(process: int, condition: Callable[[], bool]) -> None:
    """Return once `condition` holds, or the process has ended."""
    while not condition() and not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.0002)


def kill_once(number: int, seed: int, data: Path, place: Path, watch: Watch) -> dict[str, Any]:
    """Kill a training at a drawn moment, resume it, compare it."""
    command = list(COMMANDS)[number % len(COMMANDS)]
    moment = MOMENTS[number // len(COMMANDS) % len(MOMENTS)]
    visits = json.loads((place / f"{command}.json").read_text())
    loop_began = next(began for name, began, _ in visits if name == "step")
    ends = {"start": loop_began}  # the others are within it
    durations_s = [ends.get(name, ended) - began for name, began, ended in visits if name == moment]
    draw = random.Random(f"{seed} {number}")
    began = time.perf_counter()
    for attempt in range(20):  # one that has ended before it was killed does not count
        output = place / f"{number}_{attempt}"
        visit = draw.randrange(len(durations_s))
        delay_s = draw.random() * durations_s[visit]
        process = training(command, data, output, watch)
        wait_for(process, lambda visit=visit: watch.entries(moment) > visit)
        time.sleep(delay_s)
        wait_for(process, lambda: watch.now() == moment)
        os.kill(process, signal.SIGKILL)
        fell = watch.now()
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL:
            break
    else:
        sys.exit(f"kill {number}: the training always ended before it could be killed in its {moment}")
    finish(training(command, data, output, watch), output.with_suffix(".txt"))
    found = differences(output, place / command)
    seconds = time.perf_counter() - began
    return {"number": number, "command": command, "fell": fell, "differs": found, "seconds": round(seconds, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=1, help="trainings at a time")
    parser.add_argument("--output", type=Path, default=RESULTS / "kills.json", help="result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        place, watch = Path(scratch), Watch()
        data = place / "set"
        sample = ("sample", "--data", str(data), "--scenes", "8", "4", "--objects", "20", "10")
        finish(forked(lambda: typed("prepare-data", sample, place / "set.txt") or 0), place / "set.txt")
        for command in COMMANDS:
            finish(training(command, data, place / command, watch), place / f"{command}.txt")

        def share(first: int) -> int:
            own = Watch()
            for number in range(first, args.kills, args.at_once):
                result = kill_once(number, args.seed, data, place, own)
                (place / f"result_{number}.json").write_text(json.dumps(result))
                state = f"DIFFERS in {', '.join(result['differs'][:3])}" if result["differs"] else "equal"
                print(f"{number:4}  {result['command']:14}  {result['fell']:10}  {result['seconds']:5.1f} s  {state}")
            sys.stdout.flush()
            return 0

        workers = [forked(lambda first=first: share(first)) for first in range(args.at_once)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
        results = [json.loads(path.read_text()) for path in sorted(place.glob("result_*.json"))]
    equal = sum(not result["differs"] for result in results)
    fell = Counter(result["fell"] for result in results)
    print(f"{equal} of {len(results)} equal to the bit; killed in " + ", ".join(f"{m} {fell[m]}" for m in MOMENTS))
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    write_result(args.output, {"setting": setting, "equal": equal, "fell": dict(fell), "kills": results})
    return 0 if equal == len(results) == args.kills and not any(codes) else 1


if __name__ == "__main__":
    sys.exit(main())
