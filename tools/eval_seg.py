"""`python tools/eval_seg.py ...` is `vertebra eval-seg ...`, from this clone."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from vertebra.cli import run

if __name__ == "__main__":
    run("eval-seg")
