"""What a checked data set holds, in numbers and sentences: its classes, its boxes, and what two sets have in common.

Legend: C classes, I images, K objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.semantic import SemanticDataset
from vertebra.data.prepare.anchor_fit import MATCH, Anchors, fit
from vertebra.data.prepare.check import Checked
from vertebra.data.prepare.near_duplicates import near_duplicates
from vertebra.ground.formats import counted, first_few

FEW = 10  # objects, or images, of a class
OTHER_SHARE = 5.0  # times as frequent in one set as in the other
_LISTED = 30  # classes that are named with their counts
_SHOWN = 5  # examples in a sentence
Json = dict[str, Any]


def contents(checked: Checked, anchors: Anchors | None = None) -> Json:
    """Return a set's numbers as JSON has them. anchors: of a recipe, which the boxes are compared with."""
    pictures = checked.pictures
    if pictures is None:
        return {}
    found: Json = {"images": len(pictures), "classes": _counts(checked)}
    if isinstance(pictures, SemanticDataset):
        found["labelled"] = pictures.labelled
    if checked.survey is not None:
        pixels = dict(zip(pictures.class_names, checked.survey.pixels_C.tolist()))
        found["pixels"] = {"ignored": checked.survey.ignored, "of_classes": pixels}
    if isinstance(pictures, DetectionDataset):
        found["labelled"] = pictures.labelled
        found["objects"] = len(pictures.labels_K)
        found["images_without_objects"] = int((np.diff(pictures.starts) == 0).sum())
        found["crowd_regions"] = int(pictures.crowd_K.sum())
        if anchors is not None and (boxes := fit(pictures, anchors)) is not None:
            found["anchors"] = asdict(boxes)
    return found


def _counts(checked: Checked) -> dict[str, int]:
    """Objects, or images, by class."""
    pictures = checked.pictures
    assert pictures is not None
    if isinstance(pictures, SemanticDataset):
        counts_C = [0] * len(pictures.class_names) if checked.survey is None else checked.survey.images_C.tolist()
        return dict(zip(pictures.class_names, counts_C))
    labels = pictures.labels_K - 1 if isinstance(pictures, DetectionDataset) else pictures.labels_I
    return dict(zip(pictures.class_names, np.bincount(labels, minlength=len(pictures.class_names)).tolist()))


def contents_in_words(found: Json, recipe: str = "") -> Iterator[str]:
    """Yield sentences on contents(). recipe: whose anchors they were compared with."""
    if not found:
        return
    classes, things = found["classes"], "objects" if "objects" in found else "images"
    if not found.get("labelled", True):
        yield f"{counted(found['images'], 'image')} without annotations, to predict on; nothing to score against"
        return
    head = counted(found["images"], "image")
    if "objects" in found:
        head += f", {counted(found['objects'], 'object')}"
        if empty := found["images_without_objects"]:
            head += f" (none in {counted(empty, 'image')})"
    ordered = sorted(classes.items(), key=lambda one: -one[1])
    if len(classes) <= _LISTED:
        yield f"{head}: {', '.join(f'{name} {count}' for name, count in classes.items())}"
    else:
        most, least = ordered[:_SHOWN], [one for one in ordered if one[1]][-_SHOWN:]
        yield (
            f"{head} of {len(classes)} classes: most of {', '.join(f'{name} {count}' for name, count in most)}; "
            f"fewest of {', '.join(f'{name} {count}' for name, count in least)}"
        )
    if "pixels" in found:
        yield _pixels_in_words(**found["pixels"])
    if none := [name for name, count in classes.items() if not count]:
        yield f"{len(none)} of {counted(len(classes), 'class')} without {things}: {first_few(none)}"
    if few := [name for name, count in classes.items() if 0 < count < FEW]:
        yield f"{len(few)} of {counted(len(classes), 'class')} with fewer than {FEW} {things}: {first_few(few)}"
    if "anchors" in found:
        yield _anchors_in_words(found["anchors"], recipe)


def _pixels_in_words(ignored: int, of_classes: dict[str, int]) -> str:
    labelled = sum(of_classes.values())
    ordered = sorted(of_classes.items(), key=lambda one: -one[1])[:_LISTED]
    shares = ", ".join(f"{name} {count / labelled:.1%}" for name, count in ordered if count)
    return f"pixels ({ignored / max(labelled + ignored, 1):.1%} ignored): {shares or 'of no class'}"


def _anchors_in_words(found: Json, recipe: str) -> str:
    sides = found["box_sides_px"]
    sizes = " ".join(f"{size:g}" for size in found["sizes"])
    sentence = (
        f"as {recipe} sees them (shorter side {found['shorter_side']} px), boxes have sides of {sides['10%']:.0f} to "
        f"{sides['90%']:.0f} px (8 of 10; median {sides['50%']:.0f}); {found['unmatched']:.0%} of them have no anchor "
        f"with IoU {MATCH} (sizes {sizes})"
    )
    if not found["better_sizes"]:
        return sentence
    better = " ".join(f"{size:g}" for size in found["better_sizes"])
    return f"{sentence}: try --model.anchor-sizes {better}, which leave {found['better_unmatched']:.0%}"


def comparison(train: Checked, test: Checked) -> Json:
    """Return what a set to train on and a set to test on have in common, as JSON has it.

    same_files: pictures that both list. near_duplicates: other pictures of the test set that look like one of the
    training set. classes: those that only one of them has objects of, and those of quite another share.
    """
    one, other = train.pictures, test.pictures
    assert one is not None and other is not None and train.looks is not None and test.looks is not None
    names, others = (list(map(pictures.name, range(len(pictures)))) for pictures in (one, other))
    known = set(map(os.path.realpath, names))
    same = {place for place, name in enumerate(others) if os.path.realpath(name) in known}
    alike = near_duplicates(train.looks, test.looks)
    found: Json = {
        "train": train.source,
        "test": test.source,
        "same_files": len(same),
        "near_duplicates": [
            {"test": others[b], "train": names[a], "likeness": round(likeness, 4)}
            for b, a, likeness in alike
            if b not in same
        ],
    }
    counts, counts_other = _counts(train), _counts(test)
    if counts.keys() != counts_other.keys() or not (sum(counts.values()) and sum(counts_other.values())):
        return found
    share = {name: count / sum(counts.values()) for name, count in counts.items()}
    share_other = {name: count / sum(counts_other.values()) for name, count in counts_other.items()}
    found["only_in_test"] = [name for name in counts if counts_other[name] and not counts[name]]
    found["only_in_train"] = [name for name in counts if counts[name] and not counts_other[name]]
    found["other_shares"] = {
        name: [share[name], share_other[name]]
        for name in counts
        if min(counts[name], counts_other[name]) >= FEW
        and not 1 / OTHER_SHARE < share[name] / share_other[name] < OTHER_SHARE
    }
    return found


def comparison_in_words(found: Json) -> Iterator[str]:
    """Yield sentences on comparison()."""
    train, test = found["train"], found["test"]
    if found["same_files"]:
        yield f"{counted(found['same_files'], 'picture')} of {test} also in {train}: do not test on the same files"
    if alike := found["near_duplicates"]:
        pairs = [f"{os.path.basename(one['test'])} is {os.path.basename(one['train'])}" for one in alike]
        yield (
            f"{counted(len(alike), 'picture')} of {test} like one of {train}, so that a test would reward learning by "
            f"heart: {first_few(pairs)}"
        )
    for key, one, need, other in (
        ("only_in_test", test, "learn from", train),
        ("only_in_train", train, "be tested on", test),
    ):
        if absent := found.get(key):
            yield f"{counted(len(absent), 'class')} of {one} without anything to {need} in {other}: {first_few(absent)}"
    if shares := found.get("other_shares"):
        yield f"classes {OTHER_SHARE:g} times as frequent in one as in the other: " + first_few(
            [f"{name} {a:.1%} of {train}, {b:.1%} of {test}" for name, (a, b) in shares.items()]
        )
