"""What the report says in words. Every number here is also in the tables, written by the same `formats`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report import formats


def headline(
    runs: Sequence[Mapping[str, Any]], lead: Mapping[str, Any], over_seeds: Mapping[str, Any] | None = None
) -> str:
    """Which detector scores higher, and by how much AP; which backbone is better only where both have several seeds.

    `lead` is the comparison of the best two runs or of the pair, its `b` the better one where they can be told
    apart; `over_seeds` is that of the backbones.
    """
    sides = over_seeds["sides"] if over_seeds else []
    if over_seeds and 1 < len(sides) < len(runs):
        return _verdict(over_seeds["lead"], len(sides))
    difference = lead["differences"]["AP"]
    better, other = (lead["b"], lead["a"]) if difference["value"] >= 0 else (lead["a"], lead["b"])
    if not difference["distinguishable"]:
        if len(runs) > 2:
            return f"{better} leads {len(runs)} detectors, but is not distinguishable from {other}"
        return f"{lead['a']} and {lead['b']} are not distinguishable as detectors"
    by = f"{formats.ap(abs(difference['value']))}{formats.NBSP}AP above {other}"
    if len(sides) == 1:
        return f"{better} leads {len(runs)} seeds of one backbone: {by}, the next"
    if len(runs) > 2:
        return f"{better} leads {len(runs)} detectors: {by}, the next; one seed gives no verdict on the backbones"
    return f"{better} is the better of two detectors: {by}; one seed gives no verdict on the backbones"


def _verdict(backbones: Mapping[str, Any], count: int) -> str:
    """On the best two backbones: over seeds and images, or none where one of them has a single seed."""
    difference = backbones["differences"]["AP"]
    if backbones["covers"] == "images":
        by = f"{formats.ap(difference['estimate'])}{formats.NBSP}AP above {backbones['a']}"
        return f"{backbones['b']} scores {by}; one seed on a side gives no verdict on the backbones"
    if not difference["distinguishable"]:
        if count > 2:
            return f"{backbones['b']} leads {count} backbones, but is not distinguishable from {backbones['a']}"
        return f"{backbones['a']} and {backbones['b']} are not distinguishable as backbones of a detector"
    seeds = sorted(set(difference["seeds"]))
    by = f"{formats.ap(difference['estimate'])}{formats.NBSP}AP above {backbones['a']}"
    over = f"over {' and '.join(map(str, seeds))} seeds"
    if count > 2:
        return f"{backbones['b']} makes the best of {count} detectors: {by}, the next, {over}"
    return f"{backbones['b']} makes the better detector: {by}, {over}"


def accuracy_over_seeds(over_seeds: Mapping[str, Any], runs: int) -> str | None:
    """AP and AP50 of the best two backbones, where some have several seeds; None where every run stands alone."""
    one = over_seeds["lead"]
    if not one or len(over_seeds["sides"]) == runs:
        return None
    sides = {side["label"]: side for side in over_seeds["sides"]}
    counts = {label: len(side["seeds"]) for label, side in sides.items()}
    told = []
    for name in ("AP", "AP50"):
        a, b = (formats.mean_and_spread(sides[one[key]]["figures"][name]) for key in ("a", "b"))
        difference = one["differences"][name]
        of = f" of {one['a']} over {_seeds(counts[one['a']])}" if name == "AP" else ""
        told.append(
            f"{b} {name} against {a}{of}, a difference of {formats.signed(difference['estimate'])} (95 % interval "
            f"{formats.interval(difference['low'], difference['high'])}, p {formats.p_text(difference['p_value'])})"
        )
    covers = "seeds and images" if one["covers"] != "images" else "image sampling only"
    return f"{one['b']} over {_seeds(counts[one['b']])} reaches {told[0]}, and {told[1]}; the intervals cover {covers}."


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "1 seed"


def accuracy_sentence(lead: Mapping[str, Any], by_label: Mapping[str, Mapping[str, Any]]) -> str:
    """AP and AP50 of the two, with the intervals of their difference."""
    a, b, sign = lead["a"], lead["b"], 1
    if lead["differences"]["AP"]["value"] < 0:
        a, b, sign = b, a, -1
    told = []
    for name in ("AP", "AP50"):
        difference = lead["differences"][name]
        low, high = sorted((sign * difference["low"], sign * difference["high"]))
        including = "" if difference["distinguishable"] else ", which includes 0"
        told.append(
            f"{formats.ap(by_label[b]['figures'][name])} {name} against "
            f"{a + chr(8217) + 's ' if name == 'AP' else ''}{formats.ap(by_label[a]['figures'][name])}, "
            f"{'a difference of ' if name == 'AP' else ''}{formats.signed(sign * difference['value'])} "
            f"(95 % interval {formats.interval(low, high)}{including})"
        )
    return f"{b} reaches {told[0]}, and {told[1]}."


def cost_sentence(lead: Mapping[str, Any], by_label: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What the better one costs beside the other: FLOPs, time and parameters, those that are known."""
    a, b = lead["a"], lead["b"]
    turned = lead["differences"]["AP"]["value"] < 0
    if turned:
        a, b = b, a
    cost_a, cost_b = by_label[a]["cost"], by_label[b]["cost"]
    told = []
    for name, what, write in (
        ("flops", "the FLOPs", formats.count),
        ("time_per_image_s", "the time per image", formats.seconds),
        ("parameters", "the parameters", formats.count),
    ):
        ratio = lead["ratios"].get(name)
        if ratio:
            ratio = 1 / ratio if turned else ratio
            told.append(f"{formats.ratio(ratio)} {what} ({write(cost_b[name])} against {write(cost_a[name])})")
    if not told:
        return None
    listed = told[0] if len(told) == 1 else ", ".join(told[:-1]) + " and " + told[-1]
    return f"{b} takes {listed}."


def notes(
    runs: Sequence[Mapping[str, Any]],
    *,
    images: int,
    resamples: int,
    pretraining: str | None,
    sample_hash: str | None,
    over_seeds: str | None = None,
) -> list[str]:
    """The honesty lines: what the intervals cover, unequal pre-training, where the sample set comes from."""
    seeds = {formats.plain(run["seed"]) for run in runs}
    if len({json.dumps(run["backbone"], sort_keys=True) + run["weights"] for run in runs}) < len(runs):
        first = "Where runs are compared one by one, every seed is a run of its own"
    else:
        first = f"One seed each ({f'seed {seeds.pop()}' if len(seeds) == 1 else 'different seeds'})"
    lines = [
        f"{first}: the interval covers image sampling only (paired bootstrap over {images} images, "
        f"{resamples} resamples), not what another training seed would change."
    ]
    if over_seeds:
        lines.append(over_seeds)
    if pretraining:
        lines.append(pretraining)
    if sample_hash:
        lines.append(f"Images: the generated sample set, generator {sample_hash[:12]}.")
    return lines
