"""Run a plan: where its trainings run, what each waits for, and a sentence on each that failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vertebra.engine import device
from vertebra.engine.jobs import lock
from vertebra.engine.jobs.jobs import Job, Outcome, Place, last_line, run_at
from vertebra.engine.jobs.processes import Processes, shares
from vertebra.ground.errors import RecipeError
from vertebra.lab.matrix import Matrix
from vertebra.lab.sweep import write_choices
from vertebra.lab.training import Training
from vertebra.recipes.schema_compare import CompareRecipe


def run(recipe: CompareRecipe, matrix: Matrix, place: Place, done: Sequence[Training]) -> Outcome:
    """Train what is not finished; returns how each job ended."""
    jobs = {training.name: job_of(recipe, matrix, training) for training in matrix.trainings()}
    names = {training.name for training in done}
    diverged = {trial.name for trial in matrix.all_trials() if trial.name not in names and trial.has_diverged()}
    todo = [job for name, job in jobs.items() if name not in names | diverged]
    outcome = run_at(place, todo, done=[jobs[name] for name in jobs if name in names])
    if matrix.trials:
        write_choices(recipe, list(matrix.trials.values()))
    return outcome


def lock_output(output: Path) -> None:
    """Make the directory, and keep it to this process. Raises RecipeError where another runs trainings there."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        lock.take(output)
    except lock.Taken as taken:
        raise RecipeError(f"--output {output} is in use: process {taken.process} runs trainings there") from None


def place_of(recipe: CompareRecipe) -> Place:
    """Return where the jobs of a comparison run: this machine's processes, or a cluster's queue."""
    consoles = recipe.output / "consoles"
    if recipe.slurm:
        from vertebra.engine.jobs.slurm import Cluster  # submitit is an extra

        return Cluster(
            dict(entry.split("=", 1) for entry in recipe.slurm),
            directory=recipe.output / "slurm",
            consoles=consoles,
            gpus=_gpus_of_a_job(recipe),
            cores=recipe.processes * (device.loader_workers(recipe.workers, processes=recipe.processes) + 1),
            at_once=recipe.at_once,
        )
    gpus = device.visible_gpus(recipe.device)
    if gpus and recipe.processes * recipe.at_once > len(gpus) and recipe.gpus > len(gpus):
        raise RecipeError(f"--gpus {recipe.gpus}, but this machine has {len(gpus)}; give the number of them to use")
    if gpus and recipe.jobs is not None and recipe.gpus > 1:
        raise RecipeError(
            f"--jobs {recipe.jobs} --gpus {recipe.gpus}: --jobs is for a CPU; with GPUs give --gpus-per-job, such as "
            f"--gpus {recipe.gpus} --gpus-per-job 1"
        )
    return this_machine(recipe.at_once, recipe.processes, recipe.device, consoles)


def this_machine(at_once: int, processes: int, wanted: str, consoles: Path) -> Place:
    """Return this machine as a place of `at_once` jobs, which share its cores and get its GPUs in turn."""
    gpus, cores = device.visible_gpus(wanted), device.usable_cores()
    return Processes(at_once, consoles, shares(at_once, processes, cores=cores, devices=gpus))


def _gpus_of_a_job(recipe: CompareRecipe) -> int:
    """GPUs to ask a cluster for; without a queue (cluster=local) none where this machine has none."""
    if recipe.device == "cpu" or (not recipe.is_queued and not device.visible_gpus(recipe.device)):
        return 0
    return recipe.processes


def job_of(recipe: CompareRecipe, matrix: Matrix, training: Training) -> Job:
    """Return the training as a job that waits for what it needs; with a sweep its command is known after the trials."""
    job = replace(training.job(), after=matrix.needs(training))
    trials = tuple(one.name for one in matrix.trials_for(training))
    if not trials:
        return job

    def command() -> tuple[str, ...]:
        decided = matrix.decided(recipe, training).command()
        write_choices(recipe, list(matrix.trials.values()))
        return decided

    return replace(job, command=command, after_end=trials)


def stopped(outcome: Outcome, place: Place) -> int:
    """Return the exit code of a plan that a signal has stopped, and print how to go on; 0 where none has."""
    if not outcome.stopped_by:
        return 0
    where = " What is in the queue stays there." if place.outlives else ""
    print(f"Stopped; the same command goes on from here.{where}", file=sys.stderr)
    return 128 + outcome.stopped_by


def failures(trainings: Sequence[Training], outcome: Outcome, place: Place) -> list[str]:
    """Return a sentence for each training without a result; diverged trials of a sweep are printed alone."""
    sentences = []
    for training in trainings:
        console = place.console(training.name)
        if training.name in outcome.not_run:
            sentences.append(f"{training.title}: not run, as {outcome.not_run[training.name]}")
        elif training.name in outcome.failed and training.value and training.has_diverged():
            print(f"{training.title}: diverged, so it is not the value ({console})", file=sys.stderr)
        elif training.name in outcome.failed:
            code = outcome.failed[training.name]
            sentences.append(f"{training.title}: ended with {code}: {last_line(console)} ({console})")
    return sentences
