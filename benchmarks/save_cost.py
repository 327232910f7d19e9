"""What a checkpoint costs the training: written before the next step, as it once was, and behind it.

python benchmarks/save_cost.py --backbone r50
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from common import RESULTS, alternate, conclude, parse_timing, timing_parser  # first: it makes the packages importable

from backbones import create_backbone
from vertebra.engine.checkpoint import Checkpoints
from vertebra.engine.optim import fill_momentum, sgd


def main() -> None:
    parser = timing_parser(__doc__, rounds=7, timed="saves")
    parser.add_argument("--backbone", default="r50")
    args = parse_timing(parser)
    model = create_backbone(args.backbone)
    optimizer = sgd(model, lr=0.1)
    fill_momentum(optimizer)
    state = {"iteration": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with tempfile.TemporaryDirectory(dir=RESULTS.parent) as place:  # on the disk: /tmp may be memory
        checkpoints = Checkpoints(Path(place))
        behind: list[float] = []

        def save_behind() -> None:
            """The copy alone: this is what the loop waits for. The write ends before the next save begins."""
            began = time.perf_counter()
            checkpoints.save_in_background(state)
            behind.append(time.perf_counter() - began)
            checkpoints.wait()

        seconds = alternate(
            {"before the next step": lambda: checkpoints.save(state), "": save_behind}, rounds=args.rounds
        )
    seconds["behind it"] = behind[-args.rounds :]
    del seconds[""]
    output = args.output or RESULTS / "save_cost.json"
    conclude(output, {"backbone": args.backbone, "state": "weights and momentum"}, seconds, [(1, 0)])


if __name__ == "__main__":
    main()
