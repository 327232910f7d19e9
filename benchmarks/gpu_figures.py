"""Figures of `gpu.py`, and the setting in which its parts measure them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from common import alternate, ratio  # first: it makes the rooms importable

import torch  # isort: skip
from steps import Stopwatch

from vertebra.engine import precision as precisions
from vertebra.engine.measure import timed_calls

Value = TypeVar("Value")


@dataclass(frozen=True)
class Figure:
    """A measurement. at_least, at_most: what is hoped for, and `source`, where that comes from."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    source: str = ""

    def cells(self) -> list[str]:
        """The figure, its unit, what is hoped for with a word where that is missed, and its source."""
        bounds = ((self.at_least, "at least"), (self.at_most, "at most"))
        hope = "".join(f"{words} {bound:.4g}" for bound, words in bounds if bound is not None)
        missed = (self.at_least is not None and not self.value >= self.at_least) or (
            self.at_most is not None and not self.value <= self.at_most
        )
        return [f"{self.value:.4g}", self.unit, f"{hope}: missed" if missed else hope, self.source]


@dataclass(frozen=True)
class Setting:
    """tiny: sizes with which a CPU is done in seconds. work: what does not stay. found: figures of the parts before."""

    device: torch.device
    tiny: bool
    work: Path
    output: Path
    found: Mapping[str, float]

    def pick(self, full: Value, tiny: Value) -> Value:
        return tiny if self.tiny else full

    @property
    def precision(self) -> str:
        return precisions.resolve("auto", self.device)

    def median_s(self, call: Callable[[], Any]) -> float:
        return statistics.median(timed_calls(call, self.device, enough=self.pick(15, 1), warmup=self.pick(4, 1)))

    def in_turns(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
        rounds, warmup = self.pick((9, 3), (1, 0))
        return alternate(calls, rounds=rounds, warmup=warmup, device=self.device.type)


def beside(what: str, seconds: Mapping[str, list[float]], images: int) -> Iterator[Figure]:
    """Every candidate's rate, and the time of our last one over that of each of torchvision's."""
    ours = [name for name in seconds if name.startswith("ours")][-1]
    for name, values in seconds.items():
        yield Figure(f"{what}, {name}", images / statistics.median(values), "images/s")
        if not name.startswith("ours"):
            value = ratio(seconds[ours], values)["median"]
            yield Figure(f"{what}, {ours} of {name}", value, "of its time", at_most=1.0)


def of_loop(what: str, watch: Stopwatch, images: int, **target: Any) -> Iterator[Figure]:
    """The rate of a training loop, and how often the host waited in a step."""
    yield Figure(what, images / watch.step_s, "images/s", **target)
    places = f"here: {', '.join(dict.fromkeys(watch.waits))}" if watch.waits else ""
    yield Figure(f"{what}: waits of the host", len(watch.waits) / watch.steps, "a step", at_most=0, source=places)
