"""Trainings on two cores, alone and beside one busy process: by loader processes, threads, and how long threads spin.

python benchmarks/neighbours.py                        # some minutes on a quiet machine
python benchmarks/neighbours.py --rounds 9 --ways "2 workers" "1 worker"

Each way is a process of its own (OpenMP reads its variables when it is loaded) that trains on the same made-up pictures
of 480 x 640, as `train-backbone` and `train-det` do on the sample set: batches of 32 and 4, decoded and drawn anew each
time. All stand still while one of them takes its turn: some steps that count not, for what workers had made ready, then
--seconds of steps, alone and then beside a process that never waits. `GOMP_SPINCOUNT` is the rounds that a thread spins
for another before it sleeps: the commands set 1,000, OpenMP's own are 300,000.
A ratio is of one round: the way's median step over that of the first way.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, ratio, summary, write_result  # first: it makes the packages importable

import numpy as np  # isort: skip

SPIN = {"GOMP_SPINCOUNT": "1000"}
WAYS: dict[str, tuple[int, dict[str, str]]] = {  # loader processes, variables
    "2 workers": (2, SPIN),
    "1 worker": (1, SPIN),
    "0 workers": (0, SPIN),
    "1 worker, 1 thread": (1, {**SPIN, "OMP_NUM_THREADS": "1"}),
    "2 workers, OpenMP's own spinning": (2, {}),
}
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
KINDS = ("pre-training", "detection")
SURROUNDINGS = ("alone", "beside a busy process")
CORES = 2
PICTURES, CLASSES = 128, 4
ITERATIONS = 100_000  # more than there are: the loader has no end


def make_data(folder: Path) -> None:
    """The sample set's layout: pictures like photographs, for detection with boxes, and by class."""
    import cv2
    from report_page import make_pictures
    from resampling import truth_like_coco

    random = np.random.default_rng(0)
    cv2.setNumThreads(1)
    for split, count in (("train", PICTURES), ("val", 2 * CLASSES)):
        truth = truth_like_coco(count, random)
        pictures = folder / "scenes" / split
        pictures.mkdir(parents=True)
        make_pictures(pictures, truth, random)
        path = folder / f"scenes/annotations/instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(truth))
        for place, picture in enumerate(sorted(pictures.iterdir())):
            home = folder / "objects" / split / f"class{place % CLASSES}"
            home.mkdir(parents=True, exist_ok=True)
            os.link(picture, home / picture.name)


def make_step(kind: str, folder: Path, workers: int) -> Callable[[], None]:
    """A step of a training as its command makes it, from the loader to the optimiser."""
    from vertebra.build.classifier_run import ClassifierTraining
    from vertebra.build.detector_run import DetectorTraining
    from vertebra.build.training import build_optimizer
    from vertebra.engine import precision, rng
    from vertebra.engine.distributed import World
    from vertebra.engine.loop import total_loss
    from vertebra.recipes.command_line import find_recipe, load_recipe
    from vertebra.recipes.schema import BackboneRecipe
    from vertebra.recipes.schema_detection import DetectionRecipe

    world, rest = World(), {"workers": workers, "device": "cpu"}
    job: Any
    if kind == "detection":
        recipe = load_recipe(DetectionRecipe, find_recipe("sample/detection.yaml"))
        job = DetectorTraining(recipe.model_copy(update={"data": folder, "weights": "none", **rest}), world)
    else:
        classes = load_recipe(BackboneRecipe, find_recipe("sample/objects.yaml"))
        view = classes.input.model_copy(update={"resident": "no", "cache_mb": 0})
        job = ClassifierTraining(classes.model_copy(update={"data": folder, "input": view, **rest}), world)
    job.prepare()
    rng.seed_all(0)
    model, precise = job.make_model().train(), precision.resolve("auto", world.device)
    optimizer = build_optimizer(job.recipe.solver, model)
    batches = iter(job.train_loader(start=0, iterations=ITERATIONS))

    def step() -> None:
        inputs = next(batches).inputs
        with precision.autocast(world.device, precise):
            loss = total_loss(model(*inputs))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def serve(way: str, folder: Path) -> None:
    """Take turns, as they are asked for line by line: a kind of training and for how many seconds."""
    from vertebra.engine.advice import core_use
    from vertebra.engine.device import fit_threads

    fit_threads()
    workers = WAYS[way][0]
    steps = {kind: make_step(kind, folder, workers) for kind in KINDS}
    for line in sys.stdin:
        kind, seconds = json.loads(line)
        for _ in range(2 * workers + 1):  # what was made ready meanwhile
            steps[kind]()
        before, times_s = core_use(), []
        while sum(times_s) < seconds or len(times_s) < 3:
            started = time.perf_counter()
            steps[kind]()
            times_s.append(time.perf_counter() - started)
        after = core_use()
        told = {"step_s": statistics.median(times_s), "steps": len(times_s)}
        if before is not None and after is not None:
            told["waited"] = round((after.waited_s - before.waited_s) / sum(times_s), 3)
        print(json.dumps(told), flush=True)


@contextmanager
def started(way: str, folder: Path) -> Iterator[Callable[[str, float], dict[str, float]]]:
    """A process for that way; calling takes a turn."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | WAYS[way][1]
    command = [sys.executable, __file__, "--here", way, "--data", str(folder)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:

        def turn(kind: str, seconds: float) -> dict[str, float]:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps([kind, seconds]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield turn
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def busy_process() -> Iterator[Callable[[bool], None]]:
    """A process that never waits; calling lets it run, or holds it."""
    spin = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # it ends with this process, however that ends
    process = subprocess.Popen([sys.executable, "-c", spin])
    try:
        process.send_signal(signal.SIGSTOP)
        yield lambda runs: process.send_signal(signal.SIGCONT if runs else signal.SIGSTOP)
    finally:
        process.kill()
        process.wait()


def measure(ways: list[str], rounds: int, seconds: float, folder: Path) -> dict[str, dict[str, list[dict[str, float]]]]:
    """By kind and surroundings, then by way: a turn a round."""
    found: dict[str, Any] = {f"{kind}, {where}": {way: [] for way in ways} for kind in KINDS for where in SURROUNDINGS}
    with ExitStack() as stack:
        let_run = stack.enter_context(busy_process())
        turns = {way: stack.enter_context(started(way, folder)) for way in ways}
        for turn in turns.values():  # all have begun before any is timed
            for kind in KINDS:
                turn(kind, 0)
        for number in range(1, rounds + 1):
            for kind in KINDS:
                for way, turn in turns.items():
                    for where in SURROUNDINGS:
                        let_run(where != "alone")
                        found[f"{kind}, {where}"][way].append(turn(kind, seconds))
                        let_run(False)
            print(f"round {number} of {rounds}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="ratios are to the first")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--seconds", type=float, default=1.0, help="of steps a turn (default 1)")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS / "neighbours.json", help="result file")
    args = parser.parse_args()
    if args.here:
        serve(args.here, args.data)
        return
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)  # all that is started here as well
    load, begun = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        make_data(Path(name))
        found = measure(args.ways, args.rounds, args.seconds, Path(name))
    results: dict[str, Any] = {}
    for setting, by_way in found.items():
        steps = {way: [turn["step_s"] for turn in turns] for way, turns in by_way.items()}
        first = steps[args.ways[0]]
        results[setting] = {
            way: {**summary(mine), "of_first": ratio(mine, first), "waited": [one.get("waited") for one in by_way[way]]}
            for way, mine in steps.items()
        }
        print(setting)
        for way, one in results[setting].items():
            of = one["of_first"]
            print(
                f"  {way:34s} {1000 * one['median_s']:5.0f} ms a step   x {of['median']:.2f} "
                f"({of['min']:.2f} .. {of['max']:.2f}), n {one['n']}   waited for a core {one['waited']}"
            )
    setting = {"rounds": args.rounds, "seconds": args.seconds, "cores": len(cores), "load_before": load}
    print(f"load before: {load:.1f} (a quiet machine's is near 0); {time.monotonic() - begun:.0f} s in all")
    write_result(args.output, {"setting": setting, "times": results})


if __name__ == "__main__":
    main()
