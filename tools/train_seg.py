"""`python tools/train_seg.py ...` is `vertebra train-seg ...`, from this clone."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from vertebra.cli import run

if __name__ == "__main__":
    run("train-seg")
