"""What the report says in words. Every number here is also in the tables, written by the same `formats`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.report.formats import APOSTROPHE, NBSP

NO_VERDICT = "no verdict on the backbones"
COVERS = {
    "images": "image sampling only, not what another training seed would change",
    "seeds and images": "what other seeds and other images would change",
}


def headline(content: Mapping[str, Any]) -> str:
    """Which side is better, by how much, over how many seeds and at what cost; or why that cannot be said.

    A verdict on backbones takes several seeds on both sides and one protocol; without them it speaks of detectors.
    """
    lead, count = content["lead"], len(content["sides"])
    if lead is None:
        return _alone(content["sides"][0])
    a, b = _two(content)
    difference = lead["differences"]["AP"]
    verdict = lead["covers"] != "images" and not (a["file"] or b["file"])
    seeds = _seeds(a, b)
    if difference is None:
        return f"{a['label']} and {b['label']} were tested on one image with objects, which tells nothing of others"
    if not difference["distinguishable"]:
        kind = "" if verdict else " as detectors"
        by = f"{formats.plus_minus(difference)}{NBSP}AP apart (95 %{_corrected(content, difference)})"
        if count > 2:
            said = f"{b['label']} leads {_number(content)}, but is not distinguishable{kind} from {a['label']}"
        else:
            said = f"{a['label']} and {b['label']} are not distinguishable{kind}"
        return f"{said}: {by}, {seeds}" + ("" if verdict else f"; {_why_not(lead, a, b)}")
    by = f"{formats.plus_minus(difference)}{NBSP}AP (95 %), {seeds}{_price(lead)}"
    if verdict:
        if count > 2:
            return f"{b['label']} leads {_number(content)} and beats {a['label']}, the next, by {by}"
        return f"{b['label']} beats {a['label']} by {by}"
    if count > 2:
        return f"{b['label']} leads {_number(content)}, {by} above {a['label']}, the next; {_why_not(lead, a, b)}"
    return f"The detector {b['label']} scores above {a['label']} by {by}; {_why_not(lead, a, b)}"


def _alone(side: Mapping[str, Any]) -> str:
    over = f" over {len(side['seeds'])} seeds" if len(side["seeds"]) > 1 else ""
    told = formats.mean_and_spread(side["figures"]["AP"])
    return f"{side['label']} reaches {told}{NBSP}AP{over}; nothing to compare it with"


def _two(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    by_label = {side["label"]: side for side in content["sides"]}
    return by_label[content["lead"]["a"]], by_label[content["lead"]["b"]]


def _number(content: Mapping[str, Any]) -> str:
    """'3 backbones', where each side is another one with several seeds; otherwise detectors."""
    sides = content["sides"]
    names = {str(side["backbone"]) for side in sides if not side["file"] and len(side["seeds"]) > 1}
    return f"{len(sides)} {'backbones' if len(names) == len(sides) else 'detectors'}"


def _corrected(content: Mapping[str, Any], difference: Mapping[str, Any]) -> str:
    """Where the interval, which stands for itself, leaves 0 out, and the p-value, which is one of many, does not."""
    if difference["low"] <= 0 <= difference["high"]:
        return ""
    p_value = difference["adjusted_p"]
    return f", but p {formats.p_text(p_value)} corrected over {content['pairs_of_sides']} comparisons"


def _seeds(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    counts = len(a["seeds"]), len(b["seeds"])
    if counts[0] == counts[1]:
        return "1 seed each" if counts[0] == 1 else f"{counts[0]} seeds"
    return f"{counts[1]} seed{'s' if counts[1] > 1 else ''} against {counts[0]}"


def _why_not(lead: Mapping[str, Any], a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    if a["file"] or b["file"]:
        return f"the protocol is not known to be equal: {NO_VERDICT}"
    alone = "one seed" if max(len(a["seeds"]), len(b["seeds"])) == 1 else "one seed on a side"
    return f"{alone} gives {NO_VERDICT}"


def _price(lead: Mapping[str, Any]) -> str:
    """', at 1.5 times the detector's FLOPs'; nothing where they are not known."""
    ratio = lead["ratios"].get("flops")
    if not ratio:
        return ""
    if abs(ratio - 1) < 0.005:
        return ", at equal FLOPs of the detector"
    return f", at {formats.times(ratio)} the detector{APOSTROPHE}s FLOPs"


def ledes(content: Mapping[str, Any]) -> list[str]:
    """AP and AP50 of the two that the headline is about, and what the better one costs beside the other."""
    if content["lead"] is None:
        return []
    accuracy = _accuracy(content) if content["lead"]["differences"]["AP"] else None
    return [sentence for sentence in (accuracy, _cost(content)) if sentence]


def _accuracy(content: Mapping[str, Any]) -> str:
    a, b = _two(content)
    lead = content["lead"]
    told = []
    for name in ("AP", "AP50"):
        mine, theirs = (formats.mean_and_spread(side["figures"][name]) for side in (b, a))
        difference = lead["differences"][name]
        of = f"{a['label']}{APOSTROPHE}s " if name == "AP" else ""
        p_value = difference["p_value"] if difference["adjusted_p"] is None else difference["adjusted_p"]
        told.append(f"{mine} {name} against {of}{theirs}, {formats.change(difference)}, p {formats.p_text(p_value)}")
    return f"{b['label']} has {told[0]}; {told[1]}. In brackets the 95 % intervals: {COVERS[lead['covers']]}."


def _cost(content: Mapping[str, Any]) -> str | None:
    a, b = _two(content)
    ratios = content["lead"]["ratios"]
    told = []
    for name, what, write in (
        ("flops", "the FLOPs", formats.count),
        ("latency_s", "the latency", formats.seconds),
        ("time_per_image_s", "the time per image", formats.seconds),
        ("parameters", "the parameters", formats.count),
    ):
        if name in ratios and not (name == "time_per_image_s" and "latency_s" in ratios):
            mine, theirs = (write(side["cost"][name]["mean"]) for side in (b, a))
            told.append(f"{formats.ratio(ratios[name])} {what} ({mine} against {theirs})")
    return f"{b['label']} takes {formats.joined(told)}." if told else None


def notes(content: Mapping[str, Any], *, machines: Sequence[str | None] = ()) -> list[str]:
    """The honesty lines: what the intervals are made of, unequal seeds, machines, where the sample set comes from."""
    sides = content["sides"]
    counts = [len(side["seeds"]) for side in sides]
    drawn = f"{content['data']['images']} images, {content['resamples']} resamples"
    lines = []
    if max(counts) > 1:
        text = "Figures are mean ± standard deviation over seeds"
        if len(set(counts)) > 1:
            listed = [f"{side['label']} {count}" for side, count in zip(sides, counts)]
            text += f" ({formats.joined(listed)})"
        lines.append(text + ".")
    if len(sides) > 1:
        if sorted(counts)[-2] > 1:
            lines.append(
                "Intervals of sides with several seeds hold seeds and images "
                f"(variance components, Student{APOSTROPHE}s t; {drawn})."
            )
        if min(counts) == 1:
            several = (
                "Where a side has one seed, intervals cover" if max(counts) > 1 else "One seed each: intervals cover"
            )
            lines.append(f"{several} image sampling only ({drawn}), and give {NO_VERDICT}.")
        lines += _one_pretraining(sides)
    if len(sides) > 2:
        lines.append(
            "p-values of one figure are corrected (Holm): against the baseline over the comparisons of that table, "
            f"against the best over all {content['pairs_of_sides']} pairs of sides, as the same data have chosen it. "
            "Intervals stand for themselves."
        )
    if len(set(machines)) > 1:
        lines.append("The runs were made on different machines: times and memory compare with care.")
    if content["protocol"]["sample_hash"]:
        lines.append(f"Images: the generated sample set, generator {content['protocol']['sample_hash'][:12]}.")
    return lines


def _one_pretraining(sides: Sequence[Mapping[str, Any]]) -> list[str]:
    """What intervals over seeds leave out where the seeds are of the detector's training alone."""
    several = [side for side in sides if len(side["seeds"]) > 1 and not side["file"]]
    alike = [side["label"] for side in several if side["pretraining"]["same_for_all_seeds"]]
    if not alike:
        return []
    which = "a backbone" if len(alike) == len(several) else formats.joined(alike)
    return [
        f"All seeds of {which} start from one pre-training: what another pre-training would change is not in the "
        "intervals."
    ]


def shown_runs(content: Mapping[str, Any]) -> str:
    """Which runs the browser of images is about, where sides have several; '' otherwise."""
    sides = content["sides"]
    if all(len(side["seeds"]) == 1 for side in sides):
        return ""
    listed = [f"{side['label']} {'file' if side['file'] else 'seed'} {_first_seed(side)}" for side in sides]
    each = "one run of each" if len(sides) > 1 else "one run"
    return f"Images and their counts are of {each}: {formats.joined(listed)}; the others are not shown."


def _first_seed(side: Mapping[str, Any]) -> Any:
    return 1 if side["file"] else side["seeds"][0]
