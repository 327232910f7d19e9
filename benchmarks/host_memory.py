"""Host memory: of a training as it goes on, and of ImageNet's names in many loader processes.

python benchmarks/host_memory.py training --iterations 2000 --workers 4
python benchmarks/host_memory.py names --images 1281167 --ranks 8 --workers 8

Memory is proportional set size (PSS): a page that several processes share counts once over all of them. training draws
the sample set, trains a small detector with masks, and compares the second quarter of the training with its last.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, ROOT, write_result

PERIOD_S = 1.0
CLASSES = 1000
NAMES_READ = 50_000  # by each loader process
DETECTOR = (
    *("--dataset", "sample", "--backbone", "r18", "--width", "0.25", "--weights", "none", "--model.norms", "trained"),
    *("--model.freeze-stride", "0", "--model.masks", "--input.shorter-side", "96", "128", "--input.longer-side", "192"),
    *(
        "--input.test-shorter-side",
        "128",
        "--model.proposals-before-nms",
        "200",
        "100",
        "--model.proposals",
        "50",
        "50",
    ),
    *("--model.rois", "16", "--solver.batch-size", "4", "--test.limit", "4", "--device", "cpu", "--precision", "fp32"),
)


def pss_mb(processes: list[int]) -> float:
    """The memory of these processes together, MB; of those that have ended, none."""
    return _memory_mb(processes, "Pss:")


def private_mb(processes: list[int]) -> float:
    """What these processes share with nobody, MB."""
    return _memory_mb(processes, "Private_")


def _memory_mb(processes: list[int], kind: str) -> float:
    total = 0
    for process in processes:
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(kind))
    return total / 1024


def with_children(process: int) -> list[int]:
    """The process and all that it started, and they."""
    try:
        started = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        started = []
    return [process, *(one for child in started for one in with_children(int(child)))]


def training(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        data, run = Path(name) / "data", Path(name) / "run"
        tools = ROOT / "tools"
        draw = [sys.executable, tools / "prepare_data.py", "sample", "--data", data, "--scenes", 60, 8]
        subprocess.run(list(map(str, draw)), check=True, stdout=subprocess.DEVNULL)
        command = [sys.executable, tools / "train_det.py", *DETECTOR, "--data", data, "--output", run]
        command += ["--solver.iterations", args.iterations, "--workers", args.workers, "--log-period", 5]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
        seen: list[tuple[int, float]] = []
        while process.poll() is None:
            time.sleep(PERIOD_S)
            lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
            iteration = json.loads(lines[-1])["iteration"] if lines else 0
            if 0 < iteration < args.iterations:
                seen.append((iteration, round(pss_mb(with_children(process.pid)), 1)))
        if process.returncode:
            sys.exit(f"the training ended with {process.returncode}")
    quarters = [
        statistics.median(mb for at, mb in seen if low < 4 * at / args.iterations <= low + 1) for low in range(1, 4)
    ]
    growth = 100 * (quarters[-1] / quarters[0] - 1)
    print(f"PSS of the training and {args.workers} workers, medians of quarters 2 to 4: {quarters} MB, {growth:+.1f} %")
    return {"quarters_mb": quarters, "growth_percent": growth, "all": seen}


def names(args: argparse.Namespace) -> dict[str, Any]:
    few, many = (_names_memory(count, args.ranks, args.workers) for count in (CLASSES, args.images))
    more = {name: round(many[name] - few[name], 1) for name in many}
    processes = args.ranks * (args.workers + 1)
    print(
        f"{args.images} names in {processes} processes: {more['pss_mb']:.0f} MB more than {CLASSES} names "
        f"({more['pss_mb'] / args.ranks:.0f} MB for each of {args.ranks} ranks), of which a loader process has "
        f"{more['worker_mb']:.1f} MB for itself"
    )
    return {"processes": processes, "few_names": few, "names": many, "more": more}


def _names_memory(images: int, ranks: int, workers: int) -> dict[str, float]:
    """The memory of all processes, and what the largest loader process shares with none, MB.

    Each rank has shuffled its first epoch, and each of its loader processes has read names all over the set.
    """
    context = multiprocessing.get_context("fork")
    ready, end = context.Semaphore(0), context.Event()
    leaders = [context.Process(target=_rank, args=(images, rank, ranks, workers, ready, end)) for rank in range(ranks)]
    for leader in leaders:
        leader.start()
    for _ in range(ranks * workers):
        ready.acquire()
    families = [with_children(leader.pid or 0) for leader in leaders]
    found = {
        "pss_mb": pss_mb([one for family in families for one in family]),
        "worker_mb": max(private_mb([one]) for family in families for one in family[1:]),
    }
    end.set()
    for leader in leaders:
        leader.join()
    return found


def _rank(images: int, rank: int, ranks: int, workers: int, ready: Any, end: Any) -> None:
    from vertebra.data.datasets.records import ClassificationDataset
    from vertebra.data.datasets.strings import Strings
    from vertebra.data.loading.sampling import Share, TrainRequests, one_group

    file_names = (f"n{image % CLASSES:08d}/n{image % CLASSES:08d}_{image:08d}.JPEG" for image in range(images))
    labels_I = np.arange(images) % CLASSES
    dataset = ClassificationDataset(Path("train"), "train", ("a",) * CLASSES, Strings(file_names), labels_I)
    share = Share(batch=32 * ranks, rank=rank, world_size=ranks)
    requests = TrainRequests(one_group(images, share), share)
    assert len(requests[0].indices) == 32

    def work() -> None:
        rng = random.Random(os.getpid())
        for _ in range(min(images, NAMES_READ)):
            dataset.path(rng.randrange(images))
        ready.release()
        end.wait()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("training", "names"))
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--workers", type=int, help="loader processes of each (default 4, of names 8)")
    parser.add_argument("--output", type=Path, help="result file (default: in benchmarks/results)")
    args = parser.parse_args()
    args.workers = args.workers or (4 if args.what == "training" else 8)
    result = training(args) if args.what == "training" else names(args)
    write_result(args.output or RESULTS / f"host_memory_{args.what}.json", result)


if __name__ == "__main__":
    main()
