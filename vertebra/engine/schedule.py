"""Learning-rate schedules: functions from the step (0, 1, ...) to a factor on each group's base rate.

All but two are pure and hold no state, so that a resumed run needs nothing but its iteration. `Plateau`, which
follows the figures of the evaluations, and `WarmupUntilError`, which follows those of the training, are the
exceptions; their state travels in the checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

POLY_POWER = 0.9  # Chen et al. 2017, §4.1
OBSERVE_PERIOD = 50  # iterations between two `observe_training`; on a GPU each one waits for the device


class Schedule:
    """A factor at every step. This one is pure: it follows nothing and has no state."""

    def __call__(self, step: int) -> float:
        raise NotImplementedError

    def follows_training(self) -> bool:
        """Tell whether this waits for `observe_training`."""
        return False

    def is_warming_up(self, step: int) -> bool:
        """Tell whether a warm-up still damps the rate of that step."""
        return False

    def observe(self, figures: dict[str, float]) -> None:
        """Take one evaluation's figures."""

    def observe_training(self, values: dict[str, float]) -> None:
        """Take the means of a stretch of training."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put `state_dict` back."""


@dataclass(frozen=True)
class Constant(Schedule):
    """1 at every step."""

    def __call__(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True)
class MultiStep(Schedule):
    """Multiplied by `gamma` at every milestone, from that step on. He et al. 2015 divide by 10."""

    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __call__(self, step: int) -> float:
        return self.gamma ** sum(step >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 at step 0 to 0 at step `iterations`, and 0 beyond."""

    iterations: int

    def __call__(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(step / self.iterations, 1.0)))


@dataclass(frozen=True)
class Linear(Schedule):
    """The straight line from 1 at step 0 to 0 at step `iterations`, and 0 beyond; to a power: DeepLab's "poly"."""

    iterations: int
    power: float = 1.0

    def __call__(self, step: int) -> float:
        return (1 - min(step / self.iterations, 1.0)) ** self.power


@dataclass(frozen=True)
class Warmup(Schedule):
    """`after`, damped during the first `steps` steps: from `start` of it to all of it (Goyal et al. 2017, §2.2).

    The steps of `after` count from 0 all the same.
    """

    after: Schedule
    steps: int
    start: float = 0.001

    def __call__(self, step: int) -> float:
        done = 1.0 if step >= self.steps else step / self.steps
        return (self.start * (1 - done) + done) * self.after(step)

    def is_warming_up(self, step: int) -> bool:
        return step < self.steps

    def observe(self, figures: dict[str, float]) -> None:
        self.after.observe(figures)  # a plateau under a warm-up is followed all the same

    def state_dict(self) -> dict[str, Any]:
        return self.after.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.after.load_state_dict(state)


@dataclass
class WarmupUntilError(Schedule):
    """`start` of `after` until the training's top-1 error falls below `error` per cent, then all of it, for good.

    He et al. 2015, §4.2: CIFAR's 110 layers begin at a tenth "until the training error is below 80% (about 400
    iterations)". The loop shows it the mean over every `OBSERVE_PERIOD` iterations, however often it logs.
    """

    after: Schedule
    error: float
    start: float = 0.1
    waiting: bool = True

    def __call__(self, step: int) -> float:
        return (self.start if self.waiting else 1.0) * self.after(step)

    def follows_training(self) -> bool:
        return self.waiting

    def is_warming_up(self, step: int) -> bool:
        return self.waiting

    def observe_training(self, values: dict[str, float]) -> None:
        """Take the means of a stretch of training. Raises ValueError where top1 is not among them."""
        if "top1" not in values:
            raise ValueError(
                f"The warm-up follows the training's top1, but the model gives {', '.join(values) or 'nothing'}; "
                "give it a length in iterations instead."
            )
        self.waiting = self.waiting and not 100.0 - values["top1"] < self.error

    def observe(self, figures: dict[str, float]) -> None:
        self.after.observe(figures)

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": self.waiting, "after": self.after.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waiting = state["waiting"]
        self.after.load_state_dict(state["after"])


@dataclass
class Plateau(Schedule):
    """Multiplied by `gamma` whenever `figure` has not risen for more than `patience` evaluations in a row.

    He et al. 2015, §3.4: "divided by 10 when the error plateaus". A rise is one of more than `threshold` of the best
    so far (relative).
    """

    figure: str
    gamma: float = 0.1
    patience: int = 5
    threshold: float = 1e-4
    factor: float = 1.0
    best: float | None = None
    stale: int = 0

    def __call__(self, step: int) -> float:
        return self.factor

    def observe(self, figures: dict[str, float]) -> None:
        """Take one evaluation's figures. Raises ValueError where the followed figure is not among them."""
        if self.figure not in figures:
            raise ValueError(
                f"The plateau schedule follows {self.figure!r}, but the evaluation gives "
                f"{', '.join(figures) or 'nothing'}; name one of these."
            )
        value = figures[self.figure]
        if self.best is None or value > self.best * (1 + self.threshold):
            self.best, self.stale = value, 0
            return
        self.stale += 1
        if self.stale > self.patience:
            self.factor, self.stale = self.factor * self.gamma, 0

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self.best, self.stale = state["factor"], state["best"], state["stale"]
