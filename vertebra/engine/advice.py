"""What the log of a training says once: a loss that does not fall, a device that waits for data, a busy machine."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import NamedTuple

FALLEN = 0.98  # of its first value: a loss below this has come down
SHARE = 0.05  # of the training that it may take for that, after the warm-up
FEWEST_ITERATIONS = 100
STARVED = 0.2  # of the time, spent waiting for data
PERIODS = 2  # of the log in a row, before that is worth a warning
LOOK_S = 20.0  # over which a machine is judged
WAITING = 0.2  # of the time, in which the main thread could have run and had no core
OWN = 0.8  # of the cores: a training that uses more of them waits for itself


@dataclass
class LossWatch:
    """Warns once that the loss has not come below its starting value for a twentieth of the training.

    With too high a rate the loss need not become NaN, it may just never fall.
    iterations: length of the training. first: the loss of its first iteration, None before it.
    last_look: the iteration of the last `observe`. stretch: iterations since the loss was last below `first`, without
    those of the warm-up.
    """

    iterations: int
    first: float | None = None
    last_look: int = 0
    stretch: int = 0
    warned: bool = False

    def observe(self, iteration: int, loss: float, *, lr: float, warming_up: bool) -> str | None:
        """Take the mean loss since the last call; return the warning where it is due."""
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


@dataclass
class LoaderWatch:
    """Warns once that the device waits for data.

    workers: loader processes of this process; None: the loader has none to give, its images are on the device.
    most: of them, for which the machine has cores. periods: of the log in a row in which the device waited.
    """

    workers: int | None
    most: int
    periods: int = 0
    warned: bool = False

    def observe(self, time_s: float, data_s: float) -> str | None:
        """Take the seconds of an iteration, and those of them spent waiting for data; return the warning where due."""
        self.periods = self.periods + 1 if data_s > STARVED * time_s else 0
        if self.workers is None or self.warned or self.periods < PERIODS:
            return None
        self.warned = True
        # The loader is the slower side: so many workers make a batch in time_s (none of them: this process, in data_s).
        # The device would use one up in the rest.
        wanted = ceil((self.workers * time_s or data_s) / max(time_s - data_s, 0.01 * time_s))
        sentence = f"The device waits for data: {data_s:.3g} of {time_s:.3g} s a step. "
        if wanted <= self.most:
            return f"{sentence}--workers {wanted} instead of {self.workers} would do."
        return (
            f"{sentence}It would take --workers {wanted} instead of {self.workers}, and the machine has cores for "
            f"{self.most}: smaller image files, a lighter augmentation or more cores would help."
        )


class CoreUse(NamedTuple):
    """Seconds so far: of the clock, of the main thread waiting for a core, of cores that the training has used."""

    clock_s: float
    waited_s: float
    used_s: float


def core_use(scheduled: Path = Path("/proc")) -> CoreUse | None:
    """Return those of this process and its loader processes; None where the system does not tell (Linux does).

    To be called by the main thread. What a cgroup's quota holds back counts as waiting too.
    """
    with suppress(OSError, ValueError, IndexError):
        waited_s = int((scheduled / "thread-self/schedstat").read_text().split()[1]) / 1e9
        used_s = time.process_time()
        for worker in multiprocessing.active_children():
            with suppress(OSError):  # it has ended
                used_s += int((scheduled / f"{worker.pid}/schedstat").read_text().split()[0]) / 1e9
        return CoreUse(time.monotonic(), waited_s, used_s)
    return None


@dataclass
class CoreWatch:
    """Warns once that other programs use the cores that a training could use.

    cores: that this process may use, its share of those of its machine.
    """

    cores: int
    before: CoreUse | None = field(default_factory=core_use)
    warned: bool = False

    def observe(self, now: CoreUse | None) -> str | None:
        """Take the use so far; return the warning where it is due."""
        before = self.before
        if self.warned or now is None or before is None or now.clock_s - before.clock_s < LOOK_S:
            return None
        self.before = now
        seconds, waited_s, used_s = (after - then for after, then in zip(now, before))
        if waited_s < WAITING * seconds or used_s > OWN * self.cores * seconds:
            return None
        self.warned = True
        threads, fewer = max(1, int(used_s / seconds)), ""
        if self.cores > 1:
            fewer = f", or start it with OMP_NUM_THREADS={threads}, as a thread without a core holds up all others"
        return (
            f"The machine is busy: for {waited_s / seconds:.0%} of the last {seconds:.0f} s the training was ready and "
            f"had no core, as other programs use them; it got {used_s / seconds:.1f} of {self.cores}. Its times say "
            f"little meanwhile. End what else runs (top shows it), move the training{fewer}."
        )
