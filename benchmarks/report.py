"""Processor seconds and memory of a report on two detectors with several seeds, from files to the page.

python benchmarks/report.py                        # 2 x 3 files of COCO val's size: 500,000 boxes each
python benchmarks/report.py --images 500 --seeds 2 --profile report.prof

The set is that of benchmarks/resampling.py. `tools/compare.py` is run on the files in a process of its own: its time,
the processor's time, which is the one to read on a busy machine, and the most memory it had.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import RESULTS, write_result  # first: it makes the rooms importable
from resampling import detections, truth_like_coco

import numpy as np  # isort: skip

COMPARE = Path(__file__).parents[1] / "tools" / "compare.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="default 5000")
    parser.add_argument("--detections", type=int, default=100, help="an image and file (default 100)")
    parser.add_argument("--seeds", type=int, default=3, help="files a detector (default 3)")
    parser.add_argument("--profile", type=Path, help="write cProfile's figures of compare.py to this file")
    parser.add_argument("--output", type=Path, default=RESULTS / "report.json", help="result file")
    args = parser.parse_args()
    if min(args.images, args.detections, args.seeds) < 1:
        parser.error("--images, --detections and --seeds: at least 1")
    random = np.random.default_rng(0)
    truth = truth_like_coco(args.images, random)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "truth.json").write_text(json.dumps(truth))
        files = []
        for side in "ab":
            for seed in range(args.seeds):
                path = folder / f"{side}{seed}.json"
                path.write_text(json.dumps(detections(truth, args.detections, random)))
                files.append(f"{side}={path}")
        profile = ["-m", "cProfile", "-o", str(args.profile)] if args.profile else []
        command = [sys.executable, *profile, str(COMPARE), "--predictions", *files]
        command += ["--truth", str(folder / "truth.json"), "--report", str(folder / "report")]
        start = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        clock_s = time.perf_counter() - start
        size_mb = sum(path.stat().st_size for path in (folder / "report").rglob("*") if path.is_file()) / 1e6
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "clock_s": clock_s,
        "processor_s": used.ru_utime + used.ru_stime,
        "most_memory_mb": used.ru_maxrss / 1024,
        "report_mb": size_mb,
    }
    print(", ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    setting = {name: value for name, value in vars(args).items() if name not in ("output", "profile")}
    write_result(args.output, {"setting": setting, "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
