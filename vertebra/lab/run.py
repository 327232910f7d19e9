"""Where the trainings of a plan run, and a sentence on each that failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vertebra.engine import device
from vertebra.engine.jobs import lock
from vertebra.engine.jobs.jobs import Executor, Outcome
from vertebra.engine.jobs.local import Local, shares
from vertebra.ground.cores import usable_cores
from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema_compare import CompareRecipe
from vertebra.recipes.schema_jobs import Jobs

if TYPE_CHECKING:
    from vertebra.lab.training import Training

Plan = TypeVar("Plan", bound=Jobs)


def lock_output(output: Path) -> None:
    """Make the directory, and keep it to this process. Raises RecipeError where another runs trainings there."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        lock.take(output)
    except lock.Taken as taken:
        raise RecipeError(f"--output {output} is in use: process {taken.process} runs trainings there") from None


def with_workers(recipe: Plan) -> Plan:
    """Return the recipe with --workers as a number: jobs of this machine share its cores, and those of Ray a node's.

    The jobs of a SLURM queue find out what they got.
    """
    if recipe.slurm and recipe.is_queued:
        return recipe
    sharing = (
        recipe.processes * recipe.at_once if recipe.ray is None else max(recipe.processes, len(device.visible_gpus()))
    )
    return recipe.model_copy(update={"workers": device.loader_workers(recipe.workers, processes=sharing)})


def executor_of(recipe: Jobs) -> Executor:
    """Return what runs the jobs of a plan: this machine's processes, a SLURM queue, or Ray."""
    consoles, processes = recipe.output / "consoles", recipe.processes
    gpus = 0 if recipe.device == "cpu" else processes
    cores = processes * (device.loader_workers(recipe.workers, processes=processes) + 1)
    if recipe.slurm and recipe.is_queued:
        from vertebra.engine.jobs.slurm import Cluster  # submitit is an extra

        return Cluster(recipe.slurm_words(), recipe.output / "slurm", consoles, gpus=gpus, cores=cores)
    if recipe.ray in (None, "local"):
        check_gpus(recipe)
    if recipe.ray is not None:
        from vertebra.engine.jobs.on_ray import RayCluster  # so is ray

        return RayCluster(recipe.ray, consoles, processes=processes, gpus=gpus, cores=cores, wanted=recipe.device)
    here, own_cores = device.visible_gpus(recipe.device), usable_cores()
    return Local(recipe.at_once, consoles, shares(recipe.at_once, processes, cores=own_cores, devices=here))


def check_gpus(recipe: Jobs) -> None:
    """Raise RecipeError for more GPUs than this machine has, and where two jobs would each get all of them."""
    here = device.visible_gpus(recipe.device)
    if here and recipe.processes * recipe.at_once > len(here) and recipe.gpus > len(here):
        raise RecipeError(f"--gpus {recipe.gpus}, but this machine has {len(here)}; give the number of them to use")
    if here and isinstance(recipe, CompareRecipe) and recipe.jobs is not None and recipe.gpus > 1:
        raise RecipeError(
            f"--jobs {recipe.jobs} --gpus {recipe.gpus}: --jobs is for a CPU; with GPUs give --gpus-per-job, such as "
            f"--gpus {recipe.gpus} --gpus-per-job 1"
        )


def stopped(outcome: Outcome, executor: Executor) -> int:
    """Return the exit code of a plan that a signal has stopped, and print how to go on; 0 where none has."""
    if not outcome.stopped_by:
        return 0
    where = " What is in the queue stays there." if executor.outlives else ""
    print(f"Stopped; the same command goes on from here.{where}", file=sys.stderr)
    return 128 + outcome.stopped_by


def failures(trainings: Sequence[Training], outcome: Outcome) -> list[str]:
    """Return a sentence for each training without a result; diverged trials of a sweep are printed alone."""
    sentences = []
    for training in trainings:
        if training.name in outcome.not_run:
            sentences.append(f"{training.title}: not run, as {outcome.not_run[training.name]}")
        elif training.name in outcome.failed and training.value and training.has_diverged():
            print(f"{training.title}: diverged, so it is not the value", file=sys.stderr)
        elif training.name in outcome.failed:
            sentences.append(f"{training.title}: {outcome.reasons[training.name]}")
    return sentences
