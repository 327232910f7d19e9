"""Faults of data sets, and the rules for boxes.

Legend: K objects. The rules: four finite numbers, of positive size, inside the image. What can only be a mistake (not a
number, negative size, wholly outside) is refused; what official data contain is fixed and noted once (zero size: left
out, or not trained on where others count them; reaching beyond the edge: clipped where boxes are used).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.ground.errors import DataError
from vertebra.ground.rules import have_negative_sides

CLIPPED = "training clips such boxes; if there are many, see whether they are corners instead of x, y, width, height"
EMPTY = ("such are left out", "no training sees such boxes, evaluations count them, as COCO's do")  # by keep_empty
TINY_PX = 1e-3  # a side below this is no side
EDGE_PX = 1.0  # boxes may reach this far beyond the image without a word: annotators round


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a data set. fatal: readers refuse it; else they fix it and go on.

    kind: the same few words for all faults that are fixed alike, by which they are counted; none: one of its own.
    """

    path: Path
    reason: str
    hint: str
    fatal: bool = True
    kind: str = ""

    @classmethod
    def of(cls, error: DataError) -> Fault:
        return cls(Path(error.where), error.reason, error.hint)

    def __str__(self) -> str:
        return str(DataError(self.path, self.reason, self.hint))


def refuse(faults: Sequence[Fault]) -> None:
    """Raise DataError for the first fatal fault, with the number of the others."""
    fatal = [fault for fault in faults if fault.fatal]
    if fatal:
        more = f" ({len(fatal) - 1} more; `python tools/prepare_data.py check` lists all)" if fatal[1:] else ""
        raise DataError(fatal[0].path, fatal[0].reason, fatal[0].hint + more)


def summarise(faults: Iterable[Fault]) -> tuple[str, ...]:
    """One sentence for each kind of fault that was fixed: where there are several, their number and one of them."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        if not fault.fatal:
            kinds.setdefault(fault.kind or str(fault), []).append(fault)
    return tuple(
        f"{alike[0].path}: {len(alike)} {kind}, such as: {alike[0].reason}" if alike[1:] else str(alike[0])
        for kind, alike in kinds.items()
    )


def judge_boxes(
    xywh_K4: np.ndarray,
    sizes_hw_K2: np.ndarray,
    name: Callable[[int], str],
    path: Path | Callable[[int], Path],
    *,
    keep_empty: bool = False,
) -> tuple[np.ndarray, list[Fault]]:
    """Return which boxes to keep (K bool), and a fault for each wrong one. name(k) is what box k is called.

    keep_empty: boxes of zero size stay, as objects that evaluations count and no training sees.
    """
    whole_K2 = sizes_hw_K2[:, ::-1].astype(np.float64)
    start_K2, size_K2 = xywh_K4[:, :2], xywh_K4[:, 2:]
    with np.errstate(invalid="ignore", over="ignore"):
        end_K2 = start_K2 + size_K2
        seen_K2 = np.minimum(end_K2, whole_K2) - np.maximum(start_K2, 0)
        beyond_K = (np.maximum(-start_K2, end_K2 - whole_K2) > EDGE_PX).any(axis=1)
        not_numbers_K = ~np.isfinite(xywh_K4).all(axis=1)
        negative_K = have_negative_sides(xywh_K4)
        zero_K = are_empty(xywh_K4)
        outside_K = (seen_K2 < TINY_PX).any(axis=1)
    verdicts = (
        (not_numbers_K, True, "has a box that is not four finite numbers", "correct or remove it", ""),
        (negative_K, True, "has a box of negative size", "boxes are x, y, width, height: correct it", ""),
        (zero_K, False, "has a box of zero size", EMPTY[keep_empty], f"boxes of zero size: {EMPTY[keep_empty]}"),
        (outside_K, True, "has a box wholly outside the image", "correct or remove it", ""),
        (beyond_K, False, "has a box that reaches beyond the image", CLIPPED, f"boxes beyond the edge: {CLIPPED}"),
    )
    faults: list[Fault] = []
    clear_K = np.ones(len(xywh_K4), bool)
    for wrong_K, fatal, reason, hint, kind in verdicts:
        for k in np.flatnonzero(wrong_K & clear_K).tolist():
            box = ", ".join(f"{number:g}" for number in xywh_K4[k])
            height, width = sizes_hw_K2[k]
            where = path if isinstance(path, Path) else path(k)
            reason_k = f"{name(k)} {reason} (x y w h {box} in {width} x {height})"
            faults.append(Fault(where, reason_k, hint, fatal, kind))
        clear_K &= ~wrong_K
    keep_K = zero_K & keep_empty | ~zero_K & ~outside_K
    return keep_K & ~not_numbers_K & ~negative_K, faults


def are_empty(xywh_K4: np.ndarray) -> Any:
    """Return which boxes have no size, K bool."""
    return (xywh_K4[:, 2:] < TINY_PX).any(axis=1)
