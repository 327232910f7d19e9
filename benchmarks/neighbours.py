"""A training step alone and beside one busy process, by how long OpenMP's threads spin before they sleep.

python benchmarks/neighbours.py
python benchmarks/neighbours.py --seconds 20 --settings "" GOMP_SPINCOUNT=1000

Each setting gets a process of its own, since OpenMP reads its variables when it is loaded; each process times a step of
pre-training and one of detection, alone and then beside a process that never waits. "" leaves all to OpenMP, whose
threads spin for 300,000 rounds: a thread that waits in that way for one that has no core keeps it from getting one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import RESULTS, summary, write_result  # first: it makes the packages importable

import torch  # isort: skip
import torch.nn.functional as F

SETTINGS = ("", "GOMP_SPINCOUNT=0", "GOMP_SPINCOUNT=1000", "GOMP_SPINCOUNT=10000", "OMP_WAIT_POLICY=PASSIVE")
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
WARM_UP, FEWEST_STEPS = 2, 5


def pretraining_step() -> Callable[[], None]:
    """ResNet-18 at half its width on 32 small images, about as on the sample set."""
    from backbones import create_backbone

    net = create_backbone("r18", num_classes=10, width=0.5).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    pixels_N3HW = torch.randint(0, 256, (32, 3, 64, 64), dtype=torch.uint8)
    labels_N = torch.randint(0, 10, (32,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(pixels_N3HW), labels_N).backward()
        optimizer.step()

    return step


def detection_step() -> Callable[[], None]:
    """Faster R-CNN on the cut network of the sample set's recipe, and two small images."""
    from detector import batch_of, our_step

    from vertebra.build.backbone import make_detector_backbone
    from vertebra.build.detector import make_detector
    from vertebra.recipes.command_line import find_recipe, load_recipe
    from vertebra.recipes.schema_detection import DetectionRecipe

    recipe = load_recipe(DetectionRecipe, find_recipe("sample/detection.yaml"))
    model = make_detector(recipe, make_detector_backbone(recipe), 80).train()
    images, targets = batch_of((224, 288), 2, torch.device("cpu"))
    return lambda: our_step(model, images, targets, "fp32", True)


STEPS = {"pre-training": pretraining_step, "detection": detection_step}


def time_steps(step: Callable[[], None], seconds: float) -> list[float]:
    """Seconds of each step, for that many seconds and at least FEWEST_STEPS."""
    for _ in range(WARM_UP):
        step()
    times_s: list[float] = []
    while sum(times_s) < seconds or len(times_s) < FEWEST_STEPS:
        started = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - started)
    return times_s


def measure_here(seconds: float) -> dict[str, list[float]]:
    """Time each step in this process, alone and beside a busy process."""
    torch.manual_seed(0)
    steps = {name: make() for name, make in STEPS.items()}
    times = {f"{name}, alone": time_steps(step, seconds) for name, step in steps.items()}
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        times |= {f"{name}, beside a busy process": time_steps(step, seconds) for name, step in steps.items()}
    finally:
        busy.kill()
        busy.wait()
    return times


def measure(setting: str, seconds: float) -> dict[str, list[float]]:
    """Time the steps in a new process with this setting, and none that the caller's shell has."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= dict([setting.split("=", 1)]) if setting else {}
    command = [sys.executable, __file__, "--here", "--seconds", str(seconds)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="NAME=VALUE; '' for OpenMP's own")
    parser.add_argument("--seconds", type=float, default=4, help="for each figure (default 4)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS / "neighbours.json", help="result file")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure_here(args.seconds)))
        return
    results = {}
    for setting in args.settings:
        times = {name: summary(seconds) for name, seconds in measure(setting, args.seconds).items()}
        results[setting or "OpenMP's own"] = times
        figures = "; ".join(f"{name} {1000 * one['median_s']:.0f} ms" for name, one in times.items())
        print(f"{setting or 'own':24s} {figures}", flush=True)
    write_result(args.output, {"seconds": args.seconds, "cores": os.cpu_count(), "times": results})


if __name__ == "__main__":
    main()
