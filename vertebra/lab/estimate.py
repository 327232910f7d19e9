"""How long a training will take, about: its multiply-adds over a rate that was measured, or the pace of its like.

The step's cost is that of the forward pass times three: backward takes two of the same kind. Frozen layers cost less
than that, and reading images, NMS and the like are not counted, so it is a forecast and no promise.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backbones import create_backbone
from backbones.cost import image_flops
from vertebra.build.training import autocast_of
from vertebra.engine import device, precision
from vertebra.engine.jobs.board import latest
from vertebra.engine.measure import timed_calls
from vertebra.lab.kinds import kind_of
from vertebra.lab.matrix import Matrix
from vertebra.lab.training import Training
from vertebra.recipes.schema_compare import CompareRecipe

BACKWARD_AND_FORWARD = 3
MEASURED_S = 0.8


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one step on the whole batch (all devices together), and of one image at test."""

    step: float
    test: float

    def of(self, training: Training, test_images: int) -> float:
        """Return all that the training computes, its evaluations included."""
        period = training.recipe.eval_period
        evaluations = 1 if period is None else -(-training.iterations // period)
        return training.iterations * self.step + evaluations * test_images * self.test


def cost_of(recipe: Any) -> Cost:
    """Return what the recipe's training costs, from its layers alone."""
    one, test = kind_of(recipe).flops(recipe)
    return Cost(BACKWARD_AND_FORWARD * recipe.solver.batch_size * one, test)


def measure_rate(on: torch.device, wanted: str) -> float:
    """Measure, for a second, a small net's multiply-adds a second in training on one device (a CPU: all its cores)."""
    resolved = precision.resolve(wanted, on)
    is_cpu = on.type == "cpu"
    batch, side = (4, 128) if is_cpu else (32, 224)
    net = create_backbone("r18" if is_cpu else "r50", num_classes=10).to(on)
    net = net.to(memory_format=torch.channels_last)
    pixels = torch.zeros(batch, 3, side, side, dtype=torch.uint8, device=on)

    def step() -> None:
        with autocast_of(on, resolved)():
            loss = net(pixels).float().square().mean()
        loss.backward()
        net.zero_grad(set_to_none=True)

    times_s = timed_calls(step, on, enough=1000, fewest=1, within_s=MEASURED_S)
    return BACKWARD_AND_FORWARD * batch * image_flops(net, side, side) / statistics.median(times_s)


def seconds_of(recipe: CompareRecipe, matrix: Matrix) -> tuple[dict[str, float], float | None]:
    """Return the seconds of each training by name, and the rate that was measured where no pace of its kind was known.

    A kind's measured pace holds for its evaluations as well.
    """
    everything = matrix.trainings()
    kinds: dict[str, Training] = {}
    for training in everything:
        kinds.setdefault(training.kind, training)
    costs = {kind: cost_of(training.recipe) for kind, training in kinds.items()}
    paces_s = {kind: measured_pace(training, everything) for kind, training in kinds.items()}
    rate = None
    if None in paces_s.values():
        here = device.resolve(recipe.device)
        # Jobs share a CPU's cores; a GPU is its job's alone.
        share = 1 / recipe.at_once if here.type == "cpu" else recipe.processes
        rate = measure_rate(here, everything[0].recipe.precision)
    samples = {one.command_name: one.recipe for one in (*matrix.pretrainings, *matrix.cells)}
    images = {command: len(kind_of(recipe).open_test(recipe)) for command, recipe in samples.items()}
    times_s = {}
    for training in everything:
        cost, pace_s = costs[training.kind], paces_s[training.kind]
        own_rate = cost.step / pace_s if pace_s else (rate or 1.0) * share
        times_s[training.name] = cost.of(training, images[training.command_name]) / own_rate
    return times_s, rate


def makespan_s(times_s: Mapping[str, float], needs: Mapping[str, Collection[str]], at_once: int) -> float:
    """Return the seconds until all trainings are done, `at_once` at a time and in order, each after those it needs."""
    waiting, running, now_s = list(times_s), list[tuple[float, str]](), 0.0
    unfinished = set(times_s)
    while waiting or running:
        ready = [name for name in waiting if unfinished.isdisjoint(needs[name])]
        for name in ready[: at_once - len(running)]:
            waiting.remove(name)
            heapq.heappush(running, (now_s + times_s[name], name))
        now_s, name = heapq.heappop(running)
        unfinished.remove(name)
    return now_s


def measured_pace(training: Training, like: list[Training]) -> float | None:
    """Return the seconds a step of those of its kind that have run; None where none has."""
    lines = [latest(other.output) for other in like if other.kind == training.kind]
    times_s = [line["time_s"] for line in lines if line.get("time_s")]
    return statistics.mean(times_s) if times_s else None
