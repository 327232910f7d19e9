"""Learning-rate schedules: functions from the step (0, 1, ...) to a factor on each group's base rate.

All but two are pure and hold no state, so that a resumed run needs nothing but its iteration. `Plateau`, which
follows the figures of the evaluations, and `WarmupUntilError`, which follows those of the training, are the
exceptions; their state travels in the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Schedule = Callable[[int], float]

LOOK_PERIOD = 50  # iterations between looks at the training's own figures; on a GPU each one waits for the device


@dataclass(frozen=True)
class Constant:
    """1 at every step."""

    def __call__(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True)
class MultiStep:
    """Multiplied by `gamma` at every milestone, from that step on. He et al. 2015 divide by 10."""

    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __call__(self, step: int) -> float:
        return self.gamma ** sum(step >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 at step 0 to `final` at step `iterations`, and `final` beyond."""

    iterations: int
    final: float = 0.0

    def __call__(self, step: int) -> float:
        done = min(step / self.iterations, 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Polynomial:
    """(1 - step / iterations) ** power, from 1 down to `final`; power 1 is the straight line."""

    iterations: int
    power: float = 1.0
    final: float = 0.0

    def __call__(self, step: int) -> float:
        left = 1 - min(step / self.iterations, 1.0)
        return self.final + (1 - self.final) * left**self.power


@dataclass(frozen=True)
class Warmup:
    """`after`, damped during the first `steps` steps.

    Linear: from `start` of it to all of it (Goyal et al. 2017, §2.2). Constant: `start` of it, then all of it at
    once (He et al. 2015, §4.2: CIFAR's 110 layers begin at a tenth). The steps of `after` count from 0 either way.
    """

    after: Schedule
    steps: int
    start: float = 0.001
    kind: str = "linear"

    def __call__(self, step: int) -> float:
        return self._damping(step) * self.after(step)

    def _damping(self, step: int) -> float:
        if step >= self.steps:
            return 1.0
        if self.kind == "constant":
            return self.start
        done = step / self.steps
        return self.start * (1 - done) + done

    # A plateau under a warm-up is followed all the same.
    def observe(self, figures: dict[str, float]) -> None:
        observe(self.after, figures)

    def state_dict(self) -> dict[str, Any]:
        return state_of(self.after)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state(self.after, state)


@dataclass
class WarmupUntilError:
    """`start` of `after` until the training's top-1 error falls below `error` per cent, then all of it, for good.

    He et al. 2015, §4.2: CIFAR's 110 layers begin at a tenth "until the training error is below 80% (about 400
    iterations)". The loop shows it the mean over every `LOOK_PERIOD` iterations, however often it logs.
    """

    after: Schedule
    error: float
    start: float = 0.1
    waiting: bool = True

    def __call__(self, step: int) -> float:
        return (self.start if self.waiting else 1.0) * self.after(step)

    def observe_training(self, values: dict[str, float]) -> None:
        """Takes the means of a stretch of training. Raises ValueError where top1 is not among them."""
        if "top1" not in values:
            raise ValueError(
                f"The warm-up follows the training's top1, but the model gives {', '.join(values) or 'nothing'}; "
                "give it a length in iterations instead."
            )
        self.waiting = self.waiting and not 100.0 - values["top1"] < self.error

    def observe(self, figures: dict[str, float]) -> None:
        observe(self.after, figures)

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": self.waiting, "after": state_of(self.after)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.waiting = state["waiting"]
        load_state(self.after, state["after"])


@dataclass
class Plateau:
    """Multiplied by `gamma` whenever `figure` has not improved for more than `patience` evaluations in a row.

    He et al. 2015, §3.4: "divided by 10 when the error plateaus". An improvement is one of more than `threshold`
    of the best so far (relative). mode: "max" or "min".
    """

    figure: str
    mode: str = "max"
    gamma: float = 0.1
    patience: int = 5
    threshold: float = 1e-4
    floor: float = 0.0
    factor: float = 1.0
    best: float | None = None
    stale: int = 0

    def __call__(self, step: int) -> float:
        return self.factor

    def observe(self, figures: dict[str, float]) -> None:
        """Takes one evaluation's figures. Raises ValueError where the followed figure is not among them."""
        if self.figure not in figures:
            raise ValueError(
                f"The plateau schedule follows {self.figure!r}, but the evaluation gives "
                f"{', '.join(figures) or 'nothing'}; name one of these."
            )
        if self._improves(figures[self.figure]):
            self.best, self.stale = figures[self.figure], 0
            return
        self.stale += 1
        if self.stale > self.patience:
            self.factor, self.stale = max(self.factor * self.gamma, self.floor), 0

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return True
        if self.mode == "max":
            return value > self.best * (1 + self.threshold)
        return value < self.best * (1 - self.threshold)

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self.best, self.stale = state["factor"], state["best"], state["stale"]


def create_schedule(
    kind: str,
    *,
    iterations: int,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    final: float = 0.0,
    figure: str = "",
    patience: int = 5,
    warmup_iterations: int = 0,
    warmup_start: float = 0.001,
    warmup_kind: str = "linear",
    warmup_until_error: float | None = None,
) -> Schedule:
    """The schedule of a recipe's words: constant, steps, cosine, linear or plateau, after a warm-up.

    warmup_until_error: see WarmupUntilError; it takes the place of a warm-up of `warmup_iterations`.
    Raises ValueError for an unknown kind, naming those that there are.
    """
    kinds: dict[str, Callable[[], Schedule]] = {
        "constant": Constant,
        "steps": lambda: MultiStep(tuple(milestones), gamma),
        "cosine": lambda: Cosine(iterations, final),
        "linear": lambda: Polynomial(iterations, 1.0, final),
        "plateau": lambda: Plateau(figure=figure, gamma=gamma, patience=patience),
    }
    if kind not in kinds:
        raise ValueError(f"There is no schedule {kind!r}; choose one of {', '.join(kinds)}.")
    if warmup_kind not in ("linear", "constant"):
        raise ValueError(f"There is no warm-up {warmup_kind!r}; choose linear or constant.")
    schedule = kinds[kind]()
    if warmup_until_error is not None:
        return WarmupUntilError(schedule, warmup_until_error, warmup_start)
    return Warmup(schedule, warmup_iterations, warmup_start, warmup_kind) if warmup_iterations else schedule


def observe(schedule: Schedule, figures: dict[str, float]) -> None:
    """Shows an evaluation's figures to a schedule that follows them; pure ones take no notice."""
    if hasattr(schedule, "observe"):
        schedule.observe(figures)


def is_warming_up(schedule: Schedule, step: int) -> bool:
    """Whether the rate of that step is still damped by a warm-up."""
    return follows_training(schedule) or (isinstance(schedule, Warmup) and step < schedule.steps)


def follows_training(schedule: Schedule) -> bool:
    """Whether `schedule` waits to be shown means of the training."""
    return isinstance(schedule, WarmupUntilError) and schedule.waiting


def observe_training(schedule: Schedule, values: dict[str, float]) -> None:
    """Shows the means of a stretch of training to a schedule that follows them."""
    if isinstance(schedule, WarmupUntilError):
        schedule.observe_training(values)


def state_of(schedule: Schedule) -> dict[str, Any]:
    """What a checkpoint must hold of `schedule`; nothing for a pure one."""
    return schedule.state_dict() if hasattr(schedule, "state_dict") else {}


def load_state(schedule: Schedule, state: dict[str, Any]) -> None:
    """Takes `state_of` back."""
    if state and hasattr(schedule, "load_state_dict"):
        schedule.load_state_dict(state)
