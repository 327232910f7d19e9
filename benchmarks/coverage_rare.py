"""How often equal detectors are told apart by a class that few images have, with and without the rule for it.

python benchmarks/coverage_rare.py                     # a minute or two

The made-up detectors of `coverage.py`, two equal sides, one class: a given number of the images has an object of it,
false detections are in all of them. A claim is a p-value below 0.05. With --gain the second side is better, claims are
right, and there should be many.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from common import RESULTS, write_result  # first: it makes the rooms importable

import numpy as np  # isort: skip

from coverage import Scene, Values, figures, train

from evaluation.comparison import compare_sides


def rare_scene(images: int, shown: int, random: np.random.Generator) -> Scene:
    """Images of which the first `shown` have one object of the one class."""
    clutter_I = random.normal(0, 0.5, images)
    return Scene(images, [np.arange(shown)], [clutter_I[:shown] + random.normal(0, 1, shown)], clutter_I)


def one_pair(args: argparse.Namespace, shown: int, pair: int) -> Values:
    """Figures (2, K, S) of two sides' runs on the images as they are and on the resamples that have the class."""
    random = np.random.default_rng([shown, pair])
    scene = rare_scene(args.images, shown, random)
    counts_SI = random.multinomial(args.images, np.full(args.images, 1 / args.images), size=args.resamples)
    return np.array(
        [
            [figures(train(skill, args.spread, random)[:1], scene, counts_SI, random) for _ in range(max(args.seeds))]
            for skill in (0.0, args.gain)
        ]
    )


def is_claimed(sides_2KS: Values, images: int | None) -> bool:
    difference = compare_sides(*sides_2KS, images=images)
    return difference is not None and difference.distinguishable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shown", type=int, nargs="+", default=[1, 2, 3, 5, 6, 8, 10, 20], help="images with the class"
    )
    parser.add_argument("--images", type=int, default=200, help="of the data set (default 200)")
    parser.add_argument("--pairs", type=int, default=400, help="of sides, for each of --shown (default 400)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="a side (default 1 2 3)")
    parser.add_argument("--gain", type=float, default=0.0, help="skill of the second side over the first (default 0)")
    parser.add_argument("--spread", type=float, default=0.03, help="of skill over seeds (default 0.03)")
    parser.add_argument("--resamples", type=int, default=100, help="of the images (default 100)")
    parser.add_argument("--output", type=Path, default=RESULTS / "coverage_rare.json", help="result file")
    args = parser.parse_args()
    if max(args.shown) > args.images or min(*args.shown, *args.seeds) < 1 or min(args.pairs, args.resamples) < 2:
        parser.error("--shown is 1 to --images, --seeds 1 or more, --pairs and --resamples 2 or more")

    results = []
    for shown in args.shown:
        pairs = [one_pair(args, shown, pair) for pair in range(args.pairs)]
        for seeds in args.seeds:
            told = {
                rule: float(np.mean([is_claimed(sides_2KS[:, :seeds], images) for sides_2KS in pairs]))
                for rule, images in (("ours", shown), ("without", None))
            }
            error = {rule: math.sqrt(share * (1 - share) / args.pairs) for rule, share in told.items()}
            print(
                f"{shown:3d} images with the class, {seeds} seeds: claims in "
                + ", ".join(f"{100 * told[rule]:.1f} % +-{100 * error[rule]:.1f} ({rule})" for rule in told),
                flush=True,
            )
            results.append({"shown": shown, "seeds": seeds, "claims": told, "standard_error": error})
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    write_result(args.output, {"setting": setting, "results": results})


if __name__ == "__main__":
    main()
