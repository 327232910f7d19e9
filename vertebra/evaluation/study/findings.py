"""Does depth cost plain nets what it does not cost residual ones? The deepest against the shallowest nets of a study.

A difference is a sum of means over seeds, with signs; its interval is Welch's: groups of a few runs each, with spreads
of their own, and Student's t for as many degrees of freedom as they leave.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vertebra.evaluation.statistics.comparison import LEVEL, t_of_p
from vertebra.evaluation.study.protocols import Group, Protocol
from vertebra.ground import formats
from vertebra.ground.formats import APOSTROPHE, NBSP

MEASURES = ("training error", "test error")


@dataclass(frozen=True)
class Change:
    """A difference in points. `se`, `low` and `high` are None where a group is a single run: no spread is known.

    runs: of the smallest group.
    """

    value: float
    se: float | None
    low: float | None
    high: float | None
    runs: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)

    @property
    def interval(self) -> str:
        """'+2.20 to +4.00', empty where no spread is known."""
        if self.low is None or self.high is None:
            return ""
        return formats.interval(self.low, self.high, formats.signed_points)

    def __str__(self) -> str:
        value = formats.signed_points(self.value)
        return f"{value} (95{NBSP}%: {self.interval})" if self.interval else value


def change(plus: Sequence[Sequence[float]], minus: Sequence[Sequence[float]]) -> Change:
    """Return the means of the groups `plus` less those of the groups `minus`, each group the figures of its runs."""
    value = sum(map(statistics.fmean, plus)) - sum(map(statistics.fmean, minus))
    groups = [*plus, *minus]
    runs = min(map(len, groups))
    if runs < 2:
        return Change(value, None, None, None, runs)
    shares = [statistics.variance(group) / len(group) for group in groups]
    se = math.sqrt(sum(shares))
    if se == 0:
        return Change(value, 0.0, value, value, runs)
    freedom = sum(shares) ** 2 / sum(share**2 / (len(group) - 1) for share, group in zip(shares, groups))
    half = t_of_p(1 - LEVEL, freedom) * se
    return Change(value, se, value - half, value + half, runs)


class Corners(NamedTuple):
    """The shallowest and the deepest nets that a study has of both kinds."""

    shallow_plain: Group
    deep_plain: Group
    shallow_residual: Group
    deep_residual: Group


@dataclass(frozen=True)
class Finding:
    """Deep less shallow in one measure, in points of error: for plain nets, for residual ones, and the first less the
    second, which is what depth costs nets for having no shortcuts."""

    measure: str
    corners: Corners
    plain: Change
    residual: Change
    contrast: Change

    @property
    def depths(self) -> tuple[int, int]:
        return self.corners.shallow_plain.net.depth, self.corners.deep_plain.net.depth

    @property
    def verdict(self) -> str:
        """shown: deeper plain nets are worse, and lose more by depth than residual nets do. not shown. single: of
        single runs nothing can be said."""
        if self.contrast.se is None:
            return "single"
        return "shown" if self.plain.sign > 0 and self.contrast.sign > 0 else "not shown"

    def to_dict(self) -> dict[str, Any]:
        shallow, deep = self.depths
        labels = {name: group.net.label for name, group in self.corners._asdict().items()}
        facts = {"measure": self.measure, "shallow": shallow, "deep": deep, "labels": labels, "verdict": self.verdict}
        return {**facts, "plain": self.plain, "residual": self.residual, "contrast": self.contrast}


def find_all(protocol: Protocol) -> list[Finding]:
    """Return a finding for each measure that four such nets have."""
    corners = find_corners(protocol)
    if corners is None:
        return []
    found = []
    for measure in MEASURES:
        errors = [g.train_errors if measure == "training error" else g.test_errors() for g in corners]
        if all(errors):
            shallow_plain, deep_plain, shallow_residual, deep_residual = errors
            plain, residual = change([deep_plain], [shallow_plain]), change([deep_residual], [shallow_residual])
            contrast = change([deep_plain, shallow_residual], [shallow_plain, deep_residual])
            found.append(Finding(measure, corners, plain, residual, contrast))
    return found


def find_corners(protocol: Protocol) -> Corners | None:
    """Return the nets of the least and the greatest depth that plain and residual nets share, None without two depths.

    Of shortcuts, the first of A, B, C that both depths have.
    """
    plain = {group.net.depth: group for group in reversed(protocol.published("plain"))}
    residual = {(group.net.depth, group.net.shortcut): group for group in protocol.published("residual")}
    depths = sorted(plain.keys() & {depth for depth, _ in residual})
    if len(depths) < 2:
        return None
    shallow, deep = depths[0], depths[-1]
    for shortcut in "ABC":
        if (shallow, shortcut) in residual and (deep, shortcut) in residual:
            return Corners(plain[shallow], plain[deep], residual[shallow, shortcut], residual[deep, shortcut])
    return None


def headline(found: Sequence[Finding], protocol: Protocol) -> str:
    """Return the first sentence of the report."""
    if not found:
        return f"{formats.joined([group.net.label for group in protocol.groups])} under one recipe"
    first = found[0]
    verdicts = {"shown": "Degradation is shown: ", "not shown": "Degradation is not shown: ", "single": ""}
    labels = [f"{group.net.label}{APOSTROPHE}s" for group in first.corners]
    plain = f"{labels[1]} {first.measure} is {_compared(first.plain, labels[0])}"
    return f"{verdicts[first.verdict]}{plain}; {labels[3]} is {_compared(first.residual, labels[2])}"


def _compared(change: Change, other: str) -> str:
    points = formats.points(abs(change.value))
    if points == formats.points(0):
        return f"as high as {other}"
    return f"{points}{NBSP}points {'above' if change.value > 0 else 'below'} {other}"


def sentence(finding: Finding) -> str:
    """Return what the headline leaves out: intervals, and what depth costs nets without shortcuts."""
    shallow, deep = finding.depths
    text = (
        f"In {finding.measure}, going from {shallow} to {deep} layers changes plain nets by {finding.plain} points, "
        f"residual nets by {finding.residual}; depth costs plain nets {finding.contrast} points more than residual "
        "ones."
    )
    single = " One seed of each net or of some: no statement on spread, and so no claim."
    return text + single if finding.verdict == "single" else text
