"""Progressive size: small pictures first, full ones at the end (Tan & Le 2021, §4). A function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Growth:
    """The pictures' side grows linearly from `start` at iteration 0 to `size` at `until` * `iterations`.

    In between it is a multiple of 32, or of 8 where `size` is below 64: what the strides of a network divide.
    until: 0..1.
    """

    start: int
    size: int
    until: float
    iterations: int

    def __post_init__(self) -> None:
        assert self.start <= self.size, (self.start, self.size)

    def side(self, iteration: int) -> int:
        """Pixels a side at `iteration`, counted from 0; never less than at the one before."""
        whole = self.until * self.iterations
        if iteration >= whole:
            return self.size
        step = 8 if self.size < 64 else 32
        side = self.start + (self.size - self.start) * iteration / whole
        return max(self.start, int(side) // step * step)
