"""A comparison's trainings as jobs: where they run, what each waits for, and what is said of those that failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vertebra.ground.errors import RecipeError
from vertebra.lab import forecast

if TYPE_CHECKING:
    from vertebra.engine.jobs.jobs import Job, Outcome, Place
    from vertebra.lab.matrix import Matrix
    from vertebra.lab.training import Training
    from vertebra.recipes.schema_compare import CompareRecipe


def run(recipe: CompareRecipe, matrix: Matrix, done: Sequence[Training]) -> tuple[Outcome, Place]:
    """Trains what is not finished, on this machine or on a cluster."""
    from vertebra.engine.jobs.jobs import run_at

    recipe.output.mkdir(parents=True, exist_ok=True)
    take(recipe.output)
    place = place_of(recipe)
    jobs = {training.name: job_of(recipe, matrix, training) for training in matrix.trainings()}
    names = {training.name for training in done}
    diverged = {trial.name for trial in matrix.all_trials() if trial.name not in names and trial.has_diverged()}
    print(forecast.counted(recipe, matrix))
    print(f"{forecast.devices(recipe)} Consoles: {recipe.output / 'consoles'}", flush=True)
    todo = [job for name, job in jobs.items() if name not in names | diverged]
    outcome = run_at(place, todo, done=[jobs[name] for name in jobs if name in names])
    if matrix.trials:
        from vertebra.lab.sweep import write_choices

        write_choices(recipe, list(matrix.trials.values()))
    return outcome, place


def take(output: Path) -> None:
    """Makes the directory this process's until its end. Raises RecipeError where another runs a matrix there."""
    from vertebra.engine.jobs import lock

    try:
        lock.take(output)
    except lock.Taken as taken:
        raise RecipeError(f"--output {output} is in use: process {taken.process} runs a matrix there") from None


def place_of(recipe: CompareRecipe) -> Place:
    """Where the jobs run."""
    from vertebra.engine import device
    from vertebra.engine.jobs.processes import Processes, shares

    consoles = recipe.output / "consoles"
    if recipe.slurm:
        from vertebra.engine.jobs.slurm import Cluster

        return Cluster(
            dict(entry.split("=", 1) for entry in recipe.slurm),
            directory=recipe.output / "slurm",
            consoles=consoles,
            gpus=gpus_of_a_job(recipe),
            cores=recipe.processes * (recipe.workers + 1),
            at_once=recipe.at_once,
        )
    gpus, cores = device.visible_gpus(recipe.device), device.usable_cores()
    if gpus and recipe.processes * recipe.at_once > len(gpus) and recipe.gpus > len(gpus):
        raise RecipeError(f"--gpus {recipe.gpus}, but this machine has {len(gpus)}; say how many of them to use")
    if gpus and recipe.jobs is not None and recipe.gpus > 1:
        raise RecipeError(
            f"--jobs {recipe.jobs} --gpus {recipe.gpus}: --jobs is for a CPU; with GPUs say --gpus-per-job, such as "
            f"--gpus {recipe.gpus} --gpus-per-job 1"
        )
    return Processes(recipe.at_once, consoles, shares(recipe.at_once, recipe.processes, cores=cores, devices=gpus))


def gpus_of_a_job(recipe: CompareRecipe) -> int:
    """GPUs to ask a cluster for; without a queue (cluster=local) none where this machine has none."""
    from vertebra.engine import device

    if recipe.device == "cpu" or (not recipe.is_queued and not device.visible_gpus(recipe.device)):
        return 0
    return recipe.processes


def job_of(recipe: CompareRecipe, matrix: Matrix, training: Training) -> Job:
    """The training as a job that waits for what it needs."""
    from vertebra.engine.jobs.jobs import Job

    trials = tuple(one.name for one in matrix.trials_for(training))

    def settled() -> tuple[str, ...]:
        from vertebra.lab.sweep import write_choices

        command = matrix.settled(recipe, training).command()
        write_choices(recipe, list(matrix.trials.values()))
        return command

    return Job(
        training.name,
        training.output,
        settled if trials else training.command(),
        training.iterations,
        kind=training.kind,
        after=matrix.needs(training),
        once_ended=trials,
    )


def failures(matrix: Matrix, outcome: Outcome, place: Place) -> list[str]:
    """A sentence for each cell without a result and each training that failed, said and handed to the report."""
    from vertebra.engine.jobs.jobs import last_words

    sentences = []
    for training in matrix.trainings():
        console = place.console(training.name)
        if training.name in outcome.not_run:
            sentences.append(f"{training.title}: not run, as {outcome.not_run[training.name]}")
        elif training.name in outcome.failed and training.value and training.has_diverged():
            print(f"{training.title}: diverged, so it is not the value ({console})", file=sys.stderr)
        elif training.name in outcome.failed:
            code = outcome.failed[training.name]
            sentences.append(f"{training.title}: ended with {code}: {last_words(console)} ({console})")
    return sentences
