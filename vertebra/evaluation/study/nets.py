"""The networks of a depth study, as tables name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vertebra.evaluation.study.published import Key
from vertebra.ground.formats import TIMES

FAMILIES = {  # names in the catalogue and in the tables
    "plain": (re.compile(r"(?P<cifar>cifar_)?plain(?P<depth>\d+)(?P<norms>)"), "plain-{}"),
    "residual": (re.compile(r"(?P<cifar>cifar_)?r(?P<depth>\d+)(?P<norms>)"), "ResNet-{}"),
    "vgg": (re.compile(r"(?P<cifar>)vgg(?P<depth>\d+)(?P<norms>_bn)?"), "VGG-{}"),
}
BOTTLENECK_DEPTH = 50  # from here on a residual net for ImageNet has bottlenecks, whose stride has two places


@dataclass(frozen=True)
class Net:
    """A network as tables name it. family: one of FAMILIES or "other"; shortcut: of residual nets."""

    label: str
    family: str
    depth: int
    shortcut: str | None
    cifar: bool
    as_published: bool  # of the paper's widths, bottlenecks that stride in their first 1x1, a VGG without norms

    @property
    def key(self) -> Key:
        return self.family, self.depth, self.shortcut

    @property
    def facts(self) -> dict[str, Any]:
        """Return what tells a report's figures apart."""
        return {"label": self.label, "family": self.family, "depth": self.depth}

    @property
    def order(self) -> tuple[int, int, str]:
        """Sort plain nets before residual ones, and shallow before deep."""
        families = [*FAMILIES, "other"]
        return families.index(self.family), self.depth, self.label


def describe_net(identity: Mapping[str, Any]) -> Net:
    """Return the network of a run's provenance."""
    name, width = str(identity.get("name")), identity.get("width") or 1.0
    for family, (pattern, label) in FAMILIES.items():
        found = pattern.fullmatch(name)
        if found is None:
            continue
        depth, cifar, norms = int(found["depth"]), bool(found["cifar"]), bool(found["norms"])
        shortcut = identity.get("shortcut") if family == "residual" else None
        late = shortcut is not None and depth >= BOTTLENECK_DEPTH and not cifar and identity.get("stride_in") == "3x3"
        parts = [
            label.format(depth),
            f" {shortcut}" if shortcut and not cifar else "",
            " with norms" if norms else "",
            " (stride in 3x3)" if late else "",
            f" {TIMES}{width:g}" if width != 1 else "",
        ]
        return Net("".join(parts), family, depth, shortcut, cifar, width == 1 and not norms and not late)
    return Net(name, "other", 0, identity.get("shortcut"), False, False)
