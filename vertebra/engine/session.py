"""The work between the steps of a training: logs, checkpoints, evaluations, and stops with a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import InitVar, asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vertebra.engine import rng
from vertebra.engine.advice import CoreWatch, LoaderWatch, LossWatch, core_use
from vertebra.engine.average import WeightAverage
from vertebra.engine.checkpoint import CheckpointError
from vertebra.engine.device import loader_workers, own_cores, peak_memory_mb
from vertebra.engine.distributed import World
from vertebra.engine.guard import FiniteGuard, NonFiniteLoss
from vertebra.engine.logs import figures_line, training_line
from vertebra.engine.meter import Clock, LossMeter, SampleCounter, losses_in
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.schedule import OBSERVE_PERIOD, Schedule
from vertebra.engine.stop import StopSignals
from vertebra.ground.errors import UserError

logger = logging.getLogger(__name__)

LARGEST_SKIPPED_SHARE = 0.01
FEWEST_SAMPLES = 1000  # shares of fewer samples than this say nothing: ten bad ones are always borne


@dataclass
class Record:
    """The history of a run, over all its processes; part of each checkpoint.

    iteration: steps taken. seconds: of training, without evaluations and checkpoints. samples, skipped: used, and
    replaced because they were bad. evaluated: the iteration of the last evaluation, and `figures` its figures.
    best, best_iteration: the best of the named figure so far.
    """

    iteration: int = 0
    seconds: float = 0.0
    samples: int = 0
    skipped: int = 0
    evaluated: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_iteration: int = 0

    def say_best(self, figure: str, path: Path) -> None:
        """Log that the best evaluation by `figure` was not the last, and that `path` has its weights."""
        if self.best_iteration != self.iteration:
            logger.info(
                "the best evaluation was at iteration %d (%s %.2f, at the end %.2f): its weights are %s",
                self.best_iteration, figure, self.best, self.figures[figure], path,
            )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Session:
    """One process's part in a run, from its start or its resumption to its end. Most methods are collective.

    The first fields are `loop.train`'s. window: what the schedule is shown next, if it follows the training.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    run: RunDirectory
    world: World
    best: str | None
    average: WeightAverage | None
    iterations: int
    workers: InitVar[int | None]
    record: Record = field(default_factory=Record)
    clock: Clock = field(default_factory=Clock)
    meter: LossMeter = field(default_factory=LossMeter)
    window: LossMeter = field(default_factory=LossMeter)
    counter: SampleCounter = field(default_factory=SampleCounter)

    def __post_init__(self, workers: int | None) -> None:
        self.watch = LossWatch(self.iterations)
        self.loader_watch = LoaderWatch(workers, most=loader_workers("auto"))
        self.core_watch = CoreWatch(own_cores())
        self._seconds_before = 0.0

    # Resuming and saving

    def restore(self, state: dict[str, Any] | None) -> int:
        """Put everything back as it was when `state` was saved; return its iteration, 0 without one.

        Raises CheckpointError where the state is another model's or optimiser's.
        """
        if state is None:
            return 0
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"The checkpoint in {self.run.checkpoints.directory} is of another architecture or optimiser "
                f"({' '.join(str(error).split())[:300]}); choose another --output."
            ) from error
        self.scaler.load_state_dict(state["scaler"])
        self.schedule.load_state_dict(state["schedule"])
        self.meter.load_state_dict(state["meter"], self.world.device)
        self.window.load_state_dict(state["window"], self.world.device)
        self.watch = LossWatch(**state["watch"])
        self.record = Record(**state["record"])
        self._seconds_before = self.record.seconds
        if self.world.rank < len(state["rng"]):
            rng.restore(state["rng"][self.world.rank])
        logger.info("Continuing at iteration %d.", self.record.iteration)
        return self.record.iteration

    def state(self) -> dict[str, Any]:
        """Return all that an exact resumption needs, as tensors and plain values."""
        self._collect_counts()
        self.record.seconds = self._seconds_before + self.clock.total_s()
        return {
            "iteration": self.record.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "meter": self.meter.state_dict(self.world),
            "window": self.window.state_dict(self.world),
            "watch": asdict(self.watch),
            "rng": self.world.gather_objects(rng.capture()),
            "record": asdict(self.record),
        }

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint on rank 0, in the background. best: also as best.pt."""
        with self.clock.paused(), self.world.patient():
            state = self.state()
            if self.world.is_main:
                self.run.checkpoints.save_in_background(state, best=best)

    def settle(self) -> None:
        """Return, on all processes, once the last checkpoint is written: none may leave before."""
        with self.world.patient():
            self.run.checkpoints.wait()
            self.world.barrier()

    # Logging and evaluating

    def add(self, values: dict[str, Tensor]) -> Tensor:
        """Add one micro-batch's values to the means, and return them in one vector. No host wait."""
        if self.schedule.follows_training():
            self.window.add(values)
        return self.meter.add(values)

    def step(self) -> None:
        """Count another iteration. The host waits after the first, and where the schedule observes the training.

        Raises what went wrong in writing the last checkpoint.
        """
        self.run.checkpoints.raise_failure()
        self.record.iteration += 1
        self.clock.tick()
        if self.average is not None:
            self.average.update(self.record.iteration)
        if self.record.iteration == 1:
            self.watch.first = sum(losses_in(self.meter.peek(self.world)))
        if self.schedule.follows_training() and self.record.iteration % OBSERVE_PERIOD == 0:
            self.schedule.observe_training(self.window.means(self.world))
            if not self.schedule.follows_training():
                logger.info("The warm-up ends after iteration %d, by the training error.", self.record.iteration)

    def log(self, lr: float) -> None:
        """Write one line for people, one for programs: the means over the period, and what they cost."""
        self._collect_counts()
        iteration, (time_s, data_s) = self.record.iteration, self.clock.lap()
        values = self.meter.means(self.world)
        values = {"loss": sum(losses_in(values)), **{name: value for name, value in values.items() if name != "loss"}}
        costs = {"time_s": time_s, "data_s": data_s, "lr": lr, "memory_mb": peak_memory_mb(self.world.device)}
        eta_s = self.clock.eta_s(self.iterations - iteration)
        logger.info(training_line(iteration, self.iterations, eta_s, values, costs))
        skipped = {"skipped": self.record.skipped} if self.record.skipped else {}
        self.run.metrics.write(iteration, {**values, **costs, **skipped}, section="train")
        warming_up = self.schedule.is_warming_up(iteration - 1)
        for warning in (
            self.watch.observe(iteration, values["loss"], lr=lr, warming_up=warming_up),
            self.loader_watch.observe(time_s, data_s),
            self.core_watch.observe(core_use()),
        ):
            if warning:
                logger.warning(warning)

    def evaluate(self, evaluate: Callable[[int], dict[str, float]], stop: StopSignals) -> None:
        """Evaluate, log the figures, show them to the schedule, and save; the best so far stays as best.pt.

        The figures of the weights' average come beside those of the weights, as "ema_" and their name.
        Leaves no trace in the random states, so that training goes on as if it had not been.
        Raises stop.Interrupted as soon as a signal comes: the last checkpoint is that of before the evaluation.
        """
        record = self.record
        with self.clock.paused(), self.world.patient():
            self.settle()  # nor do loaders fork while rank 0 writes
            with stop.at_once(record.iteration):
                self.world.broadcast_buffers(self.model)
                figures = self._figures(evaluate)
                if self.average is not None:
                    with self.average.lent():
                        self.world.broadcast_buffers(self.model)
                        figures |= {f"ema_{name}": value for name, value in self._figures(evaluate).items()}
        record.evaluated, record.figures = record.iteration, dict(figures)
        self.schedule.observe(figures)
        is_best = self._is_best(figures)
        logger.info(figures_line(record.iteration, figures))
        self.run.metrics.write(record.iteration, figures, section="evaluation")
        self.save(best=is_best)

    def _figures(self, evaluate: Callable[[int], dict[str, float]]) -> dict[str, float]:
        self.model.eval()
        with rng.preserved(), torch.no_grad():
            figures = self.world.broadcast_object(evaluate(self.record.iteration)) or {}
        self.model.train()
        return dict(figures)

    def _is_best(self, figures: dict[str, float]) -> bool:
        if self.best is None or not figures:  # a test set without truth gives none
            return False
        if self.best not in figures:
            raise ValueError(
                f"The best checkpoint is to be chosen by {self.best!r}, but the evaluation gives "
                f"{', '.join(figures) or 'nothing'}; name one of these."
            )
        if self.record.best is not None and not figures[self.best] > self.record.best:
            return False
        self.record.best, self.record.best_iteration = figures[self.best], self.record.iteration
        return True

    # Stopping with a reason

    def require_finite(self, guard: FiniteGuard) -> None:
        """Raise NonFiniteLoss with the state from before the bad iteration saved beside the checkpoints."""
        try:
            guard.read(self.meter.names)
        except NonFiniteLoss as error:
            self.record.iteration = error.iteration - 1
            state = {**self.state(), "not_finite": [error.iteration, list(error.image_ids), list(error.names)]}
            where = ""
            if self.world.is_main:
                path = self.run.checkpoints.save_aside(state, "not_finite")
                where = f" The state from before it is saved as {path}."
            self.world.barrier()
            advice = "Lower the learning rate, lengthen the warm-up, set a gradient clip, or look at these images."
            error.args = (f"{error}{where} {advice}",)
            raise

    def require_few_skipped(self) -> None:
        """Raise UserError, with a checkpoint saved, where more than 1 % of the samples were bad."""
        samples, skipped = self.record.samples, self.record.skipped
        if skipped <= LARGEST_SKIPPED_SHARE * max(samples, FEWEST_SAMPLES):
            return
        self.save()
        self.settle()
        raise UserError(
            f"{skipped} of {samples} samples could not be used by iteration {self.record.iteration}, more "
            f"than {LARGEST_SKIPPED_SHARE:.0%}; they are named in {self.run.log}. Fix or remove these files "
            "(prepare_data.py check finds all of them), then continue with --resume."
        )

    def _collect_counts(self) -> None:
        samples, skipped = self.counter.collect(self.world)
        self.record.samples += samples
        self.record.skipped += skipped
