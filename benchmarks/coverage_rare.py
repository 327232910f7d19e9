"""How often equal detectors are told apart by a class that few images have, with and without the rule for it.

python benchmarks/coverage_rare.py                     # a minute or two

Two equal sides, one class, of which a given number of the images has an object. Once the detectors are those of
`coverage.py`, with false detections in all images; once they find an object or do not, and nothing else. A claim is a
p-value below 0.05. With --gain the second side is better, claims are right, and there should be many.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

from common import RESULTS, write_result  # first: it makes the rooms importable

import numpy as np  # isort: skip

from coverage import Scene, Values, figures, train

from vertebra.evaluation.metrics.average_precision import IntArray
from vertebra.evaluation.statistics.comparison import compare_sides
from vertebra.evaluation.statistics.resampling import draw_counts


def rare_scene(images: int, shown: int, random: np.random.Generator) -> Scene:
    """Images of which the first `shown` have one object of the one class."""
    clutter_I = random.normal(0, 0.5, images)
    return Scene(images, [np.arange(shown)], [clutter_I[:shown] + random.normal(0, 1, shown)], clutter_I)


def made_up(args: argparse.Namespace, shown: int, counts_SI: IntArray, random: np.random.Generator) -> Values:
    """AP (2, K, S) of the made-up detectors."""
    scene = rare_scene(args.images, shown, random)
    return np.array(
        [
            [figures(train(skill, args.spread, random)[:1], scene, counts_SI, random) for _ in range(max(args.seeds))]
            for skill in (0.0, args.gain)
        ]
    )


def found_or_not(args: argparse.Namespace, shown: int, counts_SI: IntArray, random: np.random.Generator) -> Values:
    """The share of the objects found (2, K, S): AP at one threshold without false detections, the worst case of few
    images, since all may agree."""
    skill_2K1 = np.array([[0.0], [args.gain]])[..., None] + random.normal(0, args.spread, (2, max(args.seeds), 1))
    noise_2KG = random.normal(0, 0.7, (2, max(args.seeds), shown))
    found_2KG = (skill_2K1 - random.normal(0, 1, shown) + noise_2KG > 0).astype(float)
    weights_SG = np.concatenate([np.ones((1, shown), int), counts_SI[:, :shown]])
    with np.errstate(invalid="ignore"):
        return 100 * found_2KG @ (weights_SG / weights_SG.sum(axis=1, keepdims=True)).T


WORLDS = {"made-up detectors": made_up, "found or not": found_or_not}


def one_pair(args: argparse.Namespace, world: str, shown: int, pair: int) -> Values:
    """Figures (2, K, S) of two sides' runs on the images as they are and on the resamples."""
    random = np.random.default_rng([shown, pair])
    return WORLDS[world](args, shown, draw_counts(args.images, args.resamples, pair), random)


def is_claimed(sides_2KS: Values, images: int | None) -> bool:
    difference = compare_sides(*sides_2KS, images=images)
    return difference is not None and difference.distinguishable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shown", type=int, nargs="+", default=[1, 2, 3, 5, 6, 8, 10, 20], help="images with the class"
    )
    parser.add_argument("--images", type=int, default=200, help="of the data set (default 200)")
    parser.add_argument("--pairs", type=int, default=300, help="of sides, for each of --shown (default 300)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="a side (default 1 2 3)")
    parser.add_argument("--gain", type=float, default=0.0, help="skill of the second side over the first (default 0)")
    parser.add_argument("--spread", type=float, default=0.03, help="of skill over seeds (default 0.03)")
    parser.add_argument("--resamples", type=int, default=100, help="of the images (default 100)")
    parser.add_argument("--output", type=Path, default=RESULTS / "coverage_rare.json", help="result file")
    args = parser.parse_args()
    if max(args.shown) > args.images or min(*args.shown, *args.seeds) < 1 or min(args.pairs, args.resamples) < 2:
        parser.error("--shown is 1 to --images, --seeds 1 or more, --pairs and --resamples 2 or more")

    results = []
    for world, shown in itertools.product(WORLDS, args.shown):
        pairs = [one_pair(args, world, shown, pair) for pair in range(args.pairs)]
        for seeds in args.seeds:
            claims = {
                rule: float(np.mean([is_claimed(sides_2KS[:, :seeds], images) for sides_2KS in pairs]))
                for rule, images in (("ours", shown), ("without", None))
            }
            error = {rule: math.sqrt(share * (1 - share) / args.pairs) for rule, share in claims.items()}
            print(
                f"{world}: {shown:3d} images with the class, {seeds} seeds: claims in "
                + ", ".join(f"{100 * claims[rule]:.1f} % +-{100 * error[rule]:.1f} ({rule})" for rule in claims),
                flush=True,
            )
            results.append({"world": world, "shown": shown, "seeds": seeds, "claims": claims, "standard_error": error})
    setting = {name: value for name, value in vars(args).items() if name != "output"}
    write_result(args.output, {"setting": setting, "results": results})


if __name__ == "__main__":
    main()
