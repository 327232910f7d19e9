"""How often the intervals of a comparison hold the true difference, and how often equal backbones are told apart.

python benchmarks/coverage.py                          # a reduced run, minutes
python benchmarks/coverage.py --pairs 500 500     # the whole of it, a quarter of an hour
python benchmarks/coverage.py --rules                  # seconds: degrees of freedom, rules in normal worlds
python benchmarks/coverage.py --figure mIoU --images 30 128 500 --pairs 300 300 300 --seeds 1 2 3   # minutes

A made-up detector: every object and image has its difficulty, shared by all runs; a run has its side's skill, and what
its seed changed for all objects, for a class and for each object. From these come the IoU and the score of a detection
of each object, and false ones. A made-up segmenter: an image has some of the classes, each on more or fewer of its
pixels, and a difficulty in each; a run is right on a share of the pixels of a class in an image, and gives the others
to the background or to what the image is easily taken for.
The true difference of two sides is that of their mean figure over seeds on huge samples. A pair draws new images and
new seeds of three sides, two of them equal; the interval should hold the truth in 95 % of pairs, and with equal sides 0
should be outside in 5 %. Fewer seeds are chosen among the most: rows of one number of images share their draws. What is
drawn is kept beside the result (.npz), to go on from or to judge another rule by.
"plain" is the bootstrap in two levels with percentiles that `statistics.comparison` does without; "images" is the
interval of one run a side, held against the figure of these very runs on 20,000 images: as in comparison, and by
percentiles.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, write_result  # first: it makes the rooms importable

import numpy as np  # isort: skip
from numpy.typing import NDArray

from vertebra.evaluation.metrics.average_precision import COCO_LEVELS, Matched
from vertebra.evaluation.metrics.matching import THRESHOLDS_T
from vertebra.evaluation.metrics.pixels import PixelCounts
from vertebra.evaluation.statistics.comparison import compare_sides, t_of_p
from vertebra.evaluation.statistics.resampling import draw_counts, resample_pixels, reweigh

Values = NDArray[np.float64]
CLASSES = 4
OBJECTS = 0.6  # of a class in an image
HUGE = 20_000  # images
SHOWN = np.array([1, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1, 0.08])  # share of the images that have a class, background first
PIXELS = 10_000  # of an image
# How much of the doubt counts, by the share of a side's spread that is added to the variance of the images.
DOUBTS: dict[str, Callable[[Values], Values]] = {
    "in full": np.ones_like,
    "fading (ours)": lambda share: np.minimum(1, 4 * share),
    "by its root": np.sqrt,
    "by the share": lambda share: share,
    "by its square": np.square,
}
FIGURE = {"AP": (0, None)}
_GRID = np.linspace(-6, 6, 4001)
_AREA = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in _GRID])


def normal(x: Values) -> Values:
    """The normal distribution function, well enough for made-up detectors."""
    return np.interp(x, _GRID, _AREA)


@dataclass(frozen=True)
class Scene:
    """Test images: by class the image and the difficulty of each object; by image how it breeds false detections."""

    images: int
    object_image: list[NDArray[np.int64]]
    difficulty: list[Values]
    clutter_I: Values


def draw_scene(images: int, random: np.random.Generator) -> Scene:
    clutter_I = random.normal(0, 0.5, images)
    image = [np.repeat(np.arange(images), random.poisson(OBJECTS, images)) for _ in range(CLASSES)]
    return Scene(images, image, [clutter_I[i] + random.normal(0, 1, len(i)) for i in image], clutter_I)


def train(skill: float, spread: float, random: np.random.Generator) -> Values:
    """A run: its skill in each class. spread: what another seed changes, in units of an object's difficulty."""
    return skill + random.normal(0, spread) + random.normal(0, spread, CLASSES)


def detect(skill_C: Values, scene: Scene, random: np.random.Generator) -> dict[str, Matched]:
    """The run's detections, matched."""
    matches = {}
    for place, (skill, image_G, difficulty_G) in enumerate(zip(skill_C, scene.object_image, scene.difficulty)):
        quality_G = skill - difficulty_G + random.normal(0, 0.7, len(image_G))
        iou_G = 0.35 + 0.63 * normal(quality_G)
        score_G = normal(0.8 * quality_G + random.normal(0, 0.6, len(image_G)))
        false_I = random.poisson(0.6 * np.exp(scene.clutter_I - 0.3 * skill))
        image_F = np.repeat(np.arange(scene.images), false_I)
        score_F = normal(random.normal(-0.6, 0.8, len(image_F)))
        hit_D = np.concatenate([(iou_G[:, None] >= THRESHOLDS_T) @ (1 << np.arange(10)), np.zeros(len(image_F), int)])
        image_D, score_D = np.concatenate([image_G, image_F]), np.concatenate([score_G, score_F])
        order_D = np.argsort(-score_D, kind="stable")
        matches[f"class{place}"] = Matched(
            image_D=image_D[order_D],
            scores_D=score_D[order_D],
            hit_AD=hit_D[order_D].astype(np.uint16)[None],
            ignored_AD=np.zeros((1, len(order_D)), np.uint16),
            truths_AI=np.bincount(image_G, minlength=scene.images)[None],
            thresholds=10,
        )
    return matches


def figures(skill_C: Values, scene: Scene, counts_SI: NDArray[np.int64], random: np.random.Generator) -> Values:
    """AP (0..100) of a run on the images as they are, and on each resample."""
    return reweigh(detect(skill_C, scene, random), counts_SI, FIGURE, COCO_LEVELS)["AP"].mean_S


@dataclass(frozen=True)
class Street:
    """Test images of a segmenter: of image and class the pixels (none where it has none of it) and the difficulty; the
    class that an image's pixels are taken for."""

    pixels_IC: NDArray[np.int64]
    difficulty_IC: Values
    lure_I: NDArray[np.int64]


def draw_street(images: int, random: np.random.Generator) -> Street:
    shares_IC = random.lognormal(0, 0.8, (images, len(SHOWN))) * (random.random((images, len(SHOWN))) < SHOWN)
    pixels_IC = np.rint(PIXELS * shares_IC / shares_IC.sum(axis=1, keepdims=True)).astype(np.int64)
    difficulty_IC = random.normal(0, 0.6, (images, 1)) + random.normal(0, 0.8, shares_IC.shape)
    return Street(pixels_IC, difficulty_IC, random.integers(1, len(SHOWN), images))


def segment(skill_C: Values, street: Street, random: np.random.Generator) -> PixelCounts:
    """The run's counts of pixels. Half of the wrong ones are given to the background, and all of the background's to
    the image's lure."""
    true_IC = street.pixels_IC
    right = 0.3 + 0.69 * normal(0.8 + skill_C - street.difficulty_IC + random.normal(0, 0.5, true_IC.shape))
    right_IC = np.rint(right * true_IC).astype(np.int64)
    wrong_IC, given_IC = true_IC - right_IC, right_IC.copy()
    to_ground_I = wrong_IC[:, 1:].sum(axis=1) // 2
    given_IC[:, 0] += to_ground_I
    given_IC[np.arange(len(given_IC)), street.lure_I] += wrong_IC.sum(axis=1) - to_ground_I
    return PixelCounts(right_IC, given_IC, true_IC)


def miou(skill_C: Values, street: Street, counts_SI: NDArray[Any], random: np.random.Generator) -> Values:
    """mIoU (0..100) of a run on the images as they are, and on each resample."""
    skill_C = np.resize(skill_C, len(SHOWN))  # a run's classes in turn: what a seed changes goes for two of them
    counts = segment(skill_C, street, random)
    return resample_pixels(counts, [str(place) for place in range(len(SHOWN))], counts_SI)["mIoU"].mean_S


@dataclass(frozen=True)
class World:
    """How images are drawn, and a run's figure on them."""

    draw: Callable[[int, np.random.Generator], Any]
    figures: Callable[[Values, Any, NDArray[Any], np.random.Generator], Values]


WORLDS = {"AP": World(draw_scene, figures), "mIoU": World(draw_street, miou)}


def on_huge(world: World, skill_C: Values, seed: int) -> float:
    """The figure of a run on one huge sample."""
    random = np.random.default_rng([seed, 9])
    return float(world.figures(skill_C, world.draw(HUGE, random), np.zeros((0, HUGE), np.int64), random)[0])


def true_difference(world: World, gain: float, spread: float, seeds: int = 200) -> dict[str, float]:
    """Mean over seeds of second side less first, its standard error, and the standard deviation over seeds.

    A seed changes the same on both sides and both see the same scene, so that most of their luck cancels.
    """
    values_K2 = np.array(
        [
            [on_huge(world, train(skill, spread, np.random.default_rng([7, seed])), seed) for skill in (0.0, gain)]
            for seed in range(seeds)
        ]
    )
    change_K = values_K2[:, 1] - values_K2[:, 0]
    return {
        "difference": float(change_K.mean()),
        "standard_error": float(change_K.std(ddof=1) / math.sqrt(seeds)),
        "deviation_over_seeds": float(values_K2.std(axis=0, ddof=1).mean()),
    }


def plain_bootstrap(sides: Values, random: np.random.Generator) -> tuple[float, float]:
    """Percentiles of the bootstrap in two levels: images and, with replacement within each side, seeds."""
    means = []
    for side_KS in sides:
        resamples = side_KS.shape[1] - 1
        chosen = random.integers(0, len(side_KS), (len(side_KS), resamples))
        means.append(side_KS[chosen, np.arange(1, resamples + 1)].mean(axis=0))
    low, high = np.quantile(means[1] - means[0], [0.025, 0.975])
    return float(low), float(high)


def one_pair(
    world: World, gain: float, spread: float, images: int, seeds: int, resamples: int, pair: int
) -> tuple[Values, Values]:
    """New images, new seeds: the runs' skills (3, K, C) and figures on the resamples (3, K, S) of a side, of its equal
    and of a side that gains."""
    random = np.random.default_rng([images, pair, int(1e6 * gain), int(1e6 * spread)])
    scene = world.draw(images, random)
    counts_SI = draw_counts(images, resamples, pair)
    skills_3KC = np.array([[train(skill, spread, random) for _ in range(seeds)] for skill in (0.0, 0.0, gain)])
    return skills_3KC, np.array(
        [[world.figures(skill_C, scene, counts_SI, random) for skill_C in side_KC] for side_KC in skills_3KC]
    )


def simulate(args: argparse.Namespace, images: int, pairs: int) -> tuple[Values, Values]:
    """Skills (P, 3, K, C) and figures (P, 3, K, S) of all pairs, taken up where an earlier run has stopped."""
    setting = json.dumps([args.figure, args.gain, args.spread, args.resamples, images, max(args.seeds)])
    part = args.output.with_suffix(f".{images}.npz")
    skills: list[Values] = []
    values: list[Values] = []
    if part.is_file():
        with np.load(part) as stored:
            if str(stored["setting"]) == setting:
                skills, values = list(stored["skills"]), list(stored["values"])
                print(f"{len(values)} pairs are in {part}", flush=True)
    for pair in range(len(values), pairs):
        one = one_pair(WORLDS[args.figure], args.gain, args.spread, images, max(args.seeds), args.resamples, pair)
        skills.append(one[0])
        values.append(one[1])
        if (pair + 1) % 25 == 0 or pair + 1 == pairs:
            part.parent.mkdir(parents=True, exist_ok=True)
            np.savez(part.with_suffix(".tmp.npz"), setting=setting, skills=skills, values=values)
            part.with_suffix(".tmp.npz").replace(part)
            print(f"\r  {images} images: {pair + 1} pairs", end="\n" if pair + 1 == pairs else "", flush=True)
    return np.array(skills[:pairs]), np.array(values[:pairs])


def intervals_of(
    world: World, images: int, skills_2KC: Values, sides_2KS: Values, truth: float, pair: int
) -> tuple[float, dict[str, list[float]]]:
    """What intervals of a pair should hold, and (low, high) of each kind."""
    ours = compare_sides(*sides_2KS, images=images)
    assert ours is not None
    if sides_2KS.shape[1] > 1:
        plain = plain_bootstrap(sides_2KS, np.random.default_rng([pair, 5]))
        return truth, {"ours": [ours.low, ours.high], "plain": list(plain)}
    percentiles = np.quantile(sides_2KS[1, 0, 1:] - sides_2KS[0, 0, 1:], [0.025, 0.975]).tolist()
    goal = on_huge(world, skills_2KC[1, 0], pair) - on_huge(world, skills_2KC[0, 0], pair)
    return goal, {"images, normal": [ours.low, ours.high], "images, percentiles": percentiles}


def measure(
    world: World, images: int, skills_P2KC: Values, values_P2KS: Values, truth: float, seeds: int
) -> dict[str, dict[str, float]]:
    """Share of intervals that hold the truth, for each kind of interval, and their mean width.

    Two seeds or more, but not all, are chosen in every way, the same places of both sides; the standard error is that
    of independent pairs, whose choices are not.
    """
    choices = list(itertools.combinations(range(values_P2KS.shape[2]), seeds)) if seeds > 1 else [(0,)]
    shares: dict[str, list[tuple[float, float]]] = {}
    for pair, (skills_2KC, sides_2KS) in enumerate(zip(skills_P2KC, values_P2KS)):
        held: dict[str, list[tuple[bool, float]]] = {}
        for chosen in map(list, choices):
            goal, intervals = intervals_of(world, images, skills_2KC[:, chosen], sides_2KS[:, chosen], truth, pair)
            for name, (low, high) in intervals.items():
                held.setdefault(name, []).append((low <= goal <= high, high - low))
        for name, one in held.items():
            shares.setdefault(name, []).append(tuple(np.mean(one, axis=0).tolist()))
    result = {}
    for name, one in shares.items():
        share_P, width_P = np.array(one).T
        result[name] = {
            "coverage": float(share_P.mean()),
            "standard_error": max(float(share_P.std(ddof=1)) / math.sqrt(len(one)), 1 / len(one)),
            "pairs": len(one),
            "choices_of_seeds": len(choices),
            "mean_width": float(width_P.mean()),
        }
    return result


def rules(seeds: int, unequal: float, worlds: int, random: np.random.Generator) -> dict[str, list[float]]:
    """Coverage (0..1) of rules for the doubt in a seed variance, in worlds where all is normal.

    A world has the variances of the images (common), of seeds (that of the second side `unequal` times the first's)
    and of their taste in images, whose share is known, as resampling tells it. The doubt is s^2 / (K - 1), s a side's
    sample variance, times a function of what is left of s without the taste in images, as a share of s.
    """
    freedoms = np.geomspace(0.5, 1e6, 300)
    quantiles = np.array([t_of_p(0.05, freedom) for freedom in freedoms])
    held: dict[str, list[float]] = {name: [] for name in DOUBTS}
    for common, taste in itertools.product((0, 0.3, 1), (0.2, 1)):
        for spread in (0, 0.1, 0.3, 1, 3, 6, 10, 30, 100):
            variances = (0, spread) if math.isinf(unequal) else (spread, unequal * spread)
            images = common + 2 * taste / seeds
            change = random.normal(0, np.sqrt(images + sum(variances) / seeds), worlds)
            all_2 = [(v + taste) * random.chisquare(seeds - 1, worlds) / (seeds - 1) / seeds for v in variances]
            rest_2 = [np.maximum(0, one - taste / seeds) for one in all_2]
            variance = images + sum(rest_2)
            for name, part in DOUBTS.items():
                doubt = sum(a**2 * part(r / a) for a, r in zip(all_2, rest_2)) / (seeds - 1)
                freedom = variance**2 / np.maximum(doubt, 1e-12)
                half = np.interp(np.log(freedom), np.log(freedoms), quantiles) * np.sqrt(variance)
                held[name].append(float(np.mean(np.abs(change) <= half)))
    return held


def compare_rules(seeds: list[int]) -> None:
    for count, unequal in itertools.product(seeds, (1, 4, math.inf)):
        if count > 1:
            for name, held in rules(count, unequal, 20_000, np.random.default_rng(0)).items():
                low, middle, high = (100 * f(held) for f in (min, np.mean, max))
                print(
                    f"{count} seeds, one side's variance {unequal:g} times the other's, doubt {name:18s} covers "
                    f"{low:.1f} .. {high:.1f} %, mean {middle:.1f}, {len(held)} worlds",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", choices=list(WORLDS), default="AP", help="of detectors, or of segmenters")
    parser.add_argument("--images", type=int, nargs="+", default=[200, 2000], help="default 200 2000")
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 50], help="for each of --images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 5], help="a side (default 1 2 3 5)")
    parser.add_argument("--gain", type=float, default=0.15, help="skill of the better side (default 0.15)")
    parser.add_argument("--spread", type=float, default=0.03, help="of skill over seeds (default 0.03)")
    parser.add_argument("--resamples", type=int, default=200, help="of the images (default 200)")
    parser.add_argument("--rules", action="store_true", help="compare rules for the degrees of freedom instead")
    parser.add_argument("--output", type=Path, default=RESULTS / "coverage.json", help="result file")
    args = parser.parse_args()
    if args.rules:
        compare_rules(args.seeds)
        return
    if len(args.pairs) != len(args.images):
        parser.error("--pairs: one number for each of --images")
    if min(*args.images, *args.seeds) < 1 or min(args.pairs) < 2 or args.resamples < 2:
        parser.error("--images and --seeds are 1 or more, --pairs and --resamples 2 or more")

    world = WORLDS[args.figure]
    truth = true_difference(world, args.gain, args.spread)
    shown = "true difference {difference:+.3f} +-{standard_error:.3f}; over seeds +-{deviation_over_seeds:.2f} {figure}"
    print(shown.format(**truth, figure=args.figure))
    results = []
    for images, pairs in zip(args.images, args.pairs):
        skills_P3KC, values_P3KS = simulate(args, images, pairs)
        for second, goal in ((1, 0.0), (2, truth["difference"])):
            for seeds in args.seeds:
                intervals = measure(
                    world, images, skills_P3KC[:, [0, second]], values_P3KS[:, [0, second]], goal, seeds
                )
                for name, one in intervals.items():
                    print(
                        f"  {images:5d} images, {seeds} seeds, {name:20s} holds {goal:+.2f} in "
                        f"{100 * one['coverage']:5.1f} % +-{100 * one['standard_error']:.1f} of {pairs} pairs, "
                        f"mean width {one['mean_width']:.2f} {args.figure}",
                        flush=True,
                    )
                results.append({"truth": goal, "images": images, "seeds": seeds, "intervals": intervals})
    setting = {k: v for k, v in vars(args).items() if k != "output"}
    write_result(args.output, {"setting": setting, "truth": truth, "results": results})


if __name__ == "__main__":
    main()
