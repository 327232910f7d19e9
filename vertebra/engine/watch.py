"""Notices a training that gets nowhere: with too high a rate the loss need not become NaN, it may just never fall."""

from __future__ import annotations

from dataclasses import dataclass

FALLEN = 0.98  # of its first value: a loss below this has come down
SHARE = 0.05  # of the training that it may take for that, after the warm-up
FEWEST_ITERATIONS = 100


@dataclass
class LossWatch:
    """Says once that the loss has not come below its starting value for a twentieth of the training.

    iterations: length of the training. first: the loss of its first iteration, None before it.
    stretch: iterations since the loss was last seen below `first`; the warm-up's do not count.
    """

    iterations: int
    first: float | None = None
    last_look: int = 0
    stretch: int = 0
    warned: bool = False

    def begin(self, loss: float) -> None:
        """Takes the loss of the first iteration."""
        self.first = loss

    def look(self, iteration: int, loss: float, *, lr: float, warming_up: bool) -> str | None:
        """Takes the mean loss since the last look; the sentence of the warning where it is due."""
        since, self.last_look = iteration - self.last_look, iteration
        if self.first is None or self.first <= 0 or loss <= FALLEN * self.first:
            self.stretch = 0
        elif not warming_up:
            self.stretch += since
        if self.warned or self.stretch < max(FEWEST_ITERATIONS, SHARE * self.iterations):
            return None
        self.warned = True
        return (
            f"The loss has not come below where it began ({self.first:.3g}) for {self.stretch} iterations; it is "
            f"{loss:.3g}. The learning rate of {lr:.3g} is probably too high: stop, and try a third of it "
            "(--solver.lr) or a longer warm-up (--solver.warmup-iterations)."
        )
