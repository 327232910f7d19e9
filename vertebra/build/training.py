"""The parts that every training has: its length, optimiser, learning rate, precision and share of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from vertebra.data.loading.sampling import Share
from vertebra.data.transforms.pipeline import Pipeline
from vertebra.engine import precision as precisions
from vertebra.engine import schedule as schedules
from vertebra.engine.device import loader_workers
from vertebra.engine.distributed import World
from vertebra.engine.optim import OPTIMIZERS
from vertebra.engine.schedule import Schedule
from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema import BackboneRecipe, RunRecipe, Solver, require_length
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_localisation import LocalisationRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

Recipe = BackboneRecipe | DetectionRecipe | LocalisationRecipe | SegmentationRecipe


def iterations_of(recipe: Recipe, images: int) -> int:
    """Return the steps of the training: `iterations`, or `epochs` over that many images, rounded up.

    Raises RecipeError where neither is given, or where the rate would wait for evaluations that nobody asked for.
    """
    solver = recipe.solver
    require_length(solver, recipe.eval_period)
    if solver.epochs is None:
        assert solver.iterations is not None
        return solver.iterations
    return max(1, -(-int(solver.epochs * images) // solver.batch_size))


def pipeline_of(recipe: Recipe) -> Pipeline | None:
    """Return the recipe's pipeline of albumentations, if it has one. Raises RecipeError where that cannot be made."""
    if not recipe.input.albumentations:
        return None
    truths: tuple[str, ...] = ("bboxes",)
    if isinstance(recipe, BackboneRecipe):
        truths = ()
    if isinstance(recipe, SegmentationRecipe):
        truths = ("mask",)
    if isinstance(recipe, DetectionRecipe) and recipe.model.masks:
        truths = ("bboxes", "masks")
    return Pipeline(recipe.input.albumentations, truths)


def describe_rate(solver: Solver) -> str | None:
    """Return a sentence on the learning rate where the batch is another one than the rate was written for."""
    if solver.lr_batch is None or solver.lr_batch == solver.batch_size:
        return None
    return (
        f"batch {solver.batch_size} instead of {solver.lr_batch}: learning rate {solver.lr:g} x "
        f"{solver.batch_size}/{solver.lr_batch} = {solver.rate():g} (linear scaling; --solver.lr-batch "
        f"{solver.batch_size} takes {solver.lr:g} as it is)"
    )


def build_optimizer(solver: Solver, model: nn.Module) -> Optimizer:
    """Return the optimiser over all trained parameters of `model`."""
    options: dict[str, Any] = {"lr": solver.rate(), "weight_decay": solver.weight_decay}
    options |= {"decay_norms": solver.decay_norms, "layer_decay": solver.layer_decay}
    if solver.optimizer == "sgd":
        options |= {"momentum": solver.momentum, "nesterov": solver.nesterov}
    make: Any = OPTIMIZERS[solver.optimizer]
    return make(model, **options)


def build_schedule(solver: Solver, iterations: int, *, figure: str, images: int = 0) -> Schedule:
    """Return the learning rate's factor as a function of the step.

    figure: what a plateau follows. images: in the training set, for a warm-up in epochs.
    """
    milestones = tuple(round(share * iterations) for share in solver.milestones)
    kinds: dict[str, Callable[[], Schedule]] = {
        "constant": schedules.Constant,
        "steps": lambda: schedules.MultiStep(milestones, solver.gamma),
        "cosine": lambda: schedules.Cosine(iterations),
        "linear": lambda: schedules.Linear(iterations),
        "poly": lambda: schedules.Linear(iterations, power=schedules.POLY_POWER),
        "plateau": lambda: schedules.Plateau(figure, gamma=solver.gamma, patience=solver.patience),
    }
    schedule = kinds[solver.schedule]()
    if solver.warmup_until_error is not None:
        return schedules.WarmupUntilError(schedule, solver.warmup_until_error, solver.warmup_factor)
    warmup = solver.warmup_iterations
    if solver.warmup_epochs is not None:
        warmup = round(solver.warmup_epochs * images / solver.batch_size)
    return schedules.Warmup(schedule, warmup, solver.warmup_factor) if warmup else schedule


def parts_of_batch(solver: Solver, processes: int, begun: int) -> int:
    """Return the parts in which each of `processes` takes its images of a step.

    begun: processes with which the run began. The batch is as large as ever; where fewer processes go on, each takes
    its images in more parts, so that none has more of them in memory (and no norm sees more of them) at once.
    Raises RecipeError where the batch does not divide.
    """
    batch, most = solver.batch_size, solver.batch_size // (solver.accumulate * begun)
    for parts in range(solver.accumulate, solver.accumulate + 1 if processes == begun else batch + 1):
        if batch % (processes * parts) == 0 and batch // (processes * parts) <= most:
            return parts
    fitting = ", ".join(str(n) for n in range(1, batch + 1) if batch % (n * solver.accumulate) == 0)
    raise RecipeError(
        f"solver.batch_size {batch} does not divide by {processes} processes x {solver.accumulate} accumulated parts = "
        f"{processes * solver.accumulate}",
        hint=f"start {fitting} processes, or a new run with another --solver.batch-size",
    )


def training_share(recipe: RunRecipe, solver: Solver, world: World, *, start: int, iterations: int) -> Share:
    """Return this process's share of the steps from `start` on."""
    share = own_share(recipe, world, solver.batch_size)
    return replace(share, parts=solver.accumulate, start=start, stop=iterations)


def own_share(recipe: RunRecipe, world: World, batch: int, limit: int | None = None) -> Share:
    """Return this process's share of a set, in batches of that many images. limit: of images, evenly spaced."""
    return Share(
        batch=batch,
        rank=world.rank,
        world_size=world.size,
        seed=recipe.seed,
        workers=loader_workers(recipe.workers),
        limit=limit,
    )


def autocast_of(device: torch.device, precision: str) -> Callable[[], Any]:
    """Return a maker of autocast contexts, for evaluation."""
    return lambda: precisions.autocast(device, precision)


def check_classes(known: Sequence[str], origin: object, found: Sequence[str], place: object) -> None:
    """Raise ValueError unless `place` has exactly the classes, in their order, that `origin` (weights, data) knows."""
    if tuple(known) != tuple(found):
        only = sorted(set(known) ^ set(found))
        raise ValueError(
            f"{origin} and {place} have different classes: "
            + (f"{', '.join(only[:5])} are only in one of them" if only else "the same ones in another order")
        )
