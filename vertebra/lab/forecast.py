"""The plan of a matrix in words: its cells as a table, the commands, and about how long all will take."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from vertebra.engine import device
from vertebra.ground.formats import counted
from vertebra.ground.table import Row, Table
from vertebra.lab.estimate import makespan_s, measured_pace, seconds_of
from vertebra.lab.matrix import Matrix
from vertebra.lab.training import Training
from vertebra.recipes.schema_compare import CompareRecipe


def show(recipe: CompareRecipe, matrix: Matrix, done: Sequence[Training]) -> None:
    """Print the plan with the estimate; nothing is run but a second's measurement of this machine's rate."""
    times_s, rate = seconds_of(recipe, matrix)
    sweep = recipe.swept()
    chosen = f" {sweep.flag} CHOSEN --sweep ..." if sweep else ""
    todo = [one for one in matrix.trainings() if one not in done and not (one.value and one.has_diverged())]
    print(summary(recipe, matrix))
    print(devices(recipe) + "\n")
    print(table(recipe, matrix, done, times_s).text() + "\n")
    for number, training in enumerate(matrix.trainings(), 1):
        remaining_s = times_s[training.name] * training.remaining()
        state = f"about {roughly(remaining_s)}" if training in todo else "finished" if training in done else "diverged"
        print(f"[{number}/{len(matrix.trainings())}] {training.title} -> {training.output}  {state}")
        command = shlex.join(training.command())
        print(f"    {command}{chosen if matrix.trials_for(training) else ''}")
    total_s = total(recipe, matrix, todo, times_s)
    print(f"\nTime: about {roughly(total_s)} for what is not finished. {grounds(recipe, matrix, rate)}")


def total(recipe: CompareRecipe, matrix: Matrix, todo: Sequence[Training], times_s: dict[str, float]) -> float:
    """Return the seconds until all is done, each training beginning when there is room and what it needs is there.

    The time that a job waits in a cluster's queue is not counted.
    """
    remaining_s = {one.name: times_s[one.name] * one.remaining() for one in todo}
    needs = {one.name: {*matrix.needs(one), *(trial.name for trial in matrix.trials_for(one))} for one in todo}
    return makespan_s(remaining_s, needs, max(1, len(todo)) if recipe.is_queued else recipe.at_once)


def roughly(seconds: float) -> str:
    """Write an estimate with no more digits than it deserves: 40 s, 12 min, 5 h 20 min, 16 days."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{max(1, round(seconds))} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60 // 10 * 10:02d} min"
    return f"{round(minutes / 1440)} days"


def summary(recipe: CompareRecipe, matrix: Matrix) -> str:
    """Return a line: 12 cells: 2 backbones x 2 heads x 3 seeds on voc07; ..."""
    numbers = {"backbone": len(recipe.backbones), "head": max(1, len(recipe.heads)), "seed": recipe.seeds}
    product = " x ".join(counted(number, noun) for noun, number in numbers.items())
    line = f"{counted(len(matrix.cells), 'cell')}: {product} on {recipe.dataset}"
    if matrix.pretrainings:
        line += f"; {counted(len(matrix.pretrainings), 'pre-training')}"
    if matrix.trials:
        line += f"; a sweep of {len(recipe.sweep) - 1} values of {recipe.sweep[0]} for each backbone and head"
    return line


def devices(recipe: CompareRecipe) -> str:
    """Return a sentence: how many run at a time, and on what."""
    if recipe.is_queued:
        where = "Ray" if recipe.ray else "the cluster's queue"
        return f"All go to {where}, each with {recipe.processes} process(es) or GPU(s)."
    sentence = f"{counted(recipe.at_once, 'job')} at a time, each in {counted(recipe.processes, 'process')}"
    if recipe.gpus > 1 and recipe.gpus_per_job is None:
        sentence += f" on all of --gpus {recipe.gpus} (--gpus-per-job N: {recipe.gpus}/N jobs at a time with N each)"
    return sentence + "."


def table(recipe: CompareRecipe, matrix: Matrix, done: Sequence[Training], times_s: dict[str, float]) -> Table:
    """Return backbones down, heads across: how many seeds are finished, and what one takes."""
    heads = list(dict.fromkeys(cell.head for cell in matrix.cells))
    rows = []
    for backbone in recipe.backbones:
        cells = []
        for head in heads:
            seeds = [one for one in matrix.cells if (one.backbone, one.head) == (backbone, head)]
            finished = sum(one in done for one in seeds)
            cells.append(f"{finished} of {len(seeds)} finished, about {roughly(times_s[seeds[0].name])} each")
        rows.append(Row(backbone, cells))
    columns = [head or recipe.trains.noun for head in heads]
    return Table("", columns, rows, left=frozenset(columns))


def grounds(recipe: CompareRecipe, matrix: Matrix, rate: float | None) -> str:
    """Return a sentence on what the estimate rests."""
    everything = matrix.trainings()
    here = "this machine's CPU" if device.resolve(recipe.device).type == "cpu" else "a GPU of this machine"
    is_paced = any(measured_pace(one, everything) is not None for one in everything)
    reasons = [f"the pace of steps that have run in {recipe.output}"] if is_paced else []
    if rate is not None:
        others = "of the others " if is_paced else ""
        reasons.append(
            f"multiply-adds {others}over {rate / 1e9:.3g} G a second, measured on {here} just now (reading "
            "images, NMS and the like are not counted)"
        )
    queue = ", as if nothing waited in the queue" if recipe.is_queued else ""
    return f"It is estimated from {' and '.join(reasons)}{queue}."
