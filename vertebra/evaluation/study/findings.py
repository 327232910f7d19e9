"""What a study of depth found: the comparison of the deepest with the shallowest nets, and how it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vertebra.evaluation.report import formats
from vertebra.evaluation.study.claims import Difference, difference
from vertebra.evaluation.study.runs import Group, Protocol


@dataclass(frozen=True)
class Finding:
    """Deep less shallow in one measure, in points of error: for plain nets, for residual ones, and the first less the
    second, which is what depth costs nets for having no shortcuts."""

    measure: str
    shallow: int
    deep: int
    labels: dict[str, str]
    plain: Difference
    residual: Difference
    contrast: Difference

    @property
    def verdict(self) -> str:
        """shown: deeper plain nets are worse, and lose more by depth than residual nets do. not shown. single: of
        single runs nothing can be said."""
        if self.contrast.se is None:
            return "single"
        return "shown" if self.plain.sign > 0 and self.contrast.sign > 0 else "not shown"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def find(protocol: Protocol, measure: str) -> Finding | None:
    """The finding in `measure` ("training error", "test error"), None where there is no such set of four nets.

    Shallow and deep are the least and the greatest depth that plain and residual nets share; of shortcuts, the first
    of A, B, C that both depths have.
    """
    corners = corner_groups(protocol)
    if corners is None:
        return None
    values = [g.train_errors if measure == "training error" else g.test_errors("1crop") for g in corners]
    if not all(values):
        return None
    shallow_plain, deep_plain, shallow_residual, deep_residual = values
    names = ("shallow_plain", "deep_plain", "shallow_residual", "deep_residual")
    return Finding(
        measure=measure,
        shallow=corners[0].net.depth,
        deep=corners[1].net.depth,
        labels={name: group.net.label for name, group in zip(names, corners)},
        plain=difference([deep_plain], [shallow_plain]),
        residual=difference([deep_residual], [shallow_residual]),
        contrast=difference([deep_plain, shallow_residual], [shallow_plain, deep_residual]),
    )


def corner_groups(protocol: Protocol) -> tuple[Group, Group, Group, Group] | None:
    """Shallow plain, deep plain, shallow residual, deep residual."""
    depths = sorted(set(protocol.depths("plain")) & set(protocol.depths("residual")))
    if len(depths) < 2:
        return None
    shallow, deep = depths[0], depths[-1]
    plain = (protocol.group("plain", shallow), protocol.group("plain", deep))
    for shortcut in ("A", "B", "C"):
        residual = (protocol.group("residual", shallow, shortcut), protocol.group("residual", deep, shortcut))
        if plain[0] and plain[1] and residual[0] and residual[1]:
            return plain[0], plain[1], residual[0], residual[1]
    return None


def headline(finding: Finding | None, protocol: Protocol) -> str:
    """The first sentence of the report."""
    if finding is None:
        return f"{formats.joined([group.net.label for group in protocol.groups])} under one recipe"
    said = {"shown": "Degradation is shown: ", "not shown": "Degradation is not shown: ", "single": ""}
    return said[finding.verdict] + "; ".join((_compared(finding, "plain"), _compared(finding, "residual")))


def _compared(finding: Finding, family: str) -> str:
    deep, shallow = finding.labels[f"deep_{family}"], finding.labels[f"shallow_{family}"]
    if family == "residual":
        return f"{deep}{formats.APOSTROPHE}s is {_beside(finding.residual, shallow)}"
    return f"{deep}{formats.APOSTROPHE}s {finding.measure} is {_beside(finding.plain, shallow)}"


def _beside(change: Difference, other: str) -> str:
    points = formats.points(abs(change.value))
    if points == formats.points(0):
        return f"as high as {other}{formats.APOSTROPHE}s"
    return f"{points}{formats.NBSP}points {'above' if change.value > 0 else 'below'} {other}{formats.APOSTROPHE}s"


def sentences(findings: Sequence[Finding]) -> list[str]:
    """What the headline leaves out: intervals, the test of the claim, and the test error."""
    return [sentence for finding in findings for sentence in _told(finding)]


def _told(finding: Finding) -> list[str]:
    plain, residual, contrast = (
        with_interval(change) for change in (finding.plain, finding.residual, finding.contrast)
    )
    depths = f"from {finding.shallow} to {finding.deep} layers"
    first = f"In {finding.measure}, going {depths} changes plain nets by {plain} points, residual nets by {residual}"
    test = f"; depth costs plain nets {contrast} points more than residual ones"
    if finding.contrast.se is None:
        return [f"{first}{test}. One seed of each net or of some: no statement on spread, and so no claim."]
    return [f"{first}{test}."]


def with_interval(change: Difference) -> str:
    """'+3.10 (95 % +2.20 to +4.00)', the value alone where no spread is known."""
    value = formats.signed_points(change.value)
    if change.low is None or change.high is None:
        return value
    return f"{value} (95{formats.NBSP}%: {formats.signed_points(change.low)} to {formats.signed_points(change.high)})"
