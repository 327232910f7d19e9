"""The plan of a matrix in words: its cells as a table, the commands, and about how long all will take."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vertebra.lab.estimate import Cost
    from vertebra.lab.matrix import Matrix
    from vertebra.lab.training import Training
    from vertebra.recipes.schema_compare import CompareRecipe


def show(recipe: CompareRecipe, matrix: Matrix, done: Sequence[Training]) -> None:
    """Prints the plan with the estimate; nothing is run but a second's measurement of this machine's rate."""
    times_s, rate = estimate(recipe, matrix)
    sweep = recipe.swept()
    chosen = f" {sweep.flag} CHOSEN --sweep ..." if sweep else ""
    todo = [one for one in matrix.trainings() if one not in done and not (one.value and one.has_diverged())]
    print(counted(recipe, matrix))
    print(devices(recipe) + "\n")
    table(recipe, matrix, done, times_s)
    for number, training in enumerate(matrix.trainings(), 1):
        left_s = times_s[training.name] * training.share_left()
        state = f"about {roughly(left_s)}" if training in todo else "finished" if training in done else "diverged"
        print(f"[{number}/{len(matrix.trainings())}] {training.title} -> {training.output}  {state}")
        command = shlex.join(training.command())
        print(f"    {command}{chosen if matrix.trials_for(training) else ''}")
    total_s = total(recipe, matrix, todo, times_s)
    print(f"\nTime: about {roughly(total_s)} for what is not finished. {grounds(recipe, matrix, rate)}")


def total(recipe: CompareRecipe, matrix: Matrix, todo: Sequence[Training], times_s: dict[str, float]) -> float:
    """Seconds until all is done, each training beginning as soon as there is room and what it needs is there.

    What a job waits in a cluster's queue is not counted.
    """
    from vertebra.lab.estimate import makespan_s

    left_s = {one.name: times_s[one.name] * one.share_left() for one in todo}
    needs = {one.name: {*matrix.needs(one), *(trial.name for trial in matrix.trials_for(one))} for one in todo}
    return makespan_s(left_s, needs, max(1, len(todo)) if recipe.is_queued else recipe.at_once)


def roughly(seconds: float) -> str:
    """An estimate with no more digits than it deserves: 40 s, 12 min, 5 h 20 min, 16 days."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{max(1, round(seconds))} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60 // 10 * 10:02d} min"
    return f"{round(minutes / 1440)} days"


def counted(recipe: CompareRecipe, matrix: Matrix) -> str:
    """12 cells: 2 backbones x 2 heads x 3 seeds on voc07; ..."""

    def many(number: int, what: str) -> str:
        return f"{number} {what}{'s' * (number != 1)}"

    parts = [many(len(recipe.backbones), "backbone"), many(max(1, len(recipe.heads)), "head")]
    told = f"{many(len(matrix.cells), 'cell')}: {' x '.join([*parts, many(recipe.seeds, 'seed')])} on {recipe.dataset}"
    if matrix.pretrainings:
        told += f"; {many(len(matrix.pretrainings), 'pre-training')}"
    if matrix.trials:
        told += f"; a sweep of {len(recipe.sweep) - 1} values of {recipe.sweep[0]} for each backbone and head"
    return told


def devices(recipe: CompareRecipe) -> str:
    """How many run at a time, and on what."""
    if recipe.is_queued:
        return f"All go to the cluster's queue, each with {recipe.processes} process(es) or GPU(s)."
    jobs = "1 job" if recipe.at_once == 1 else f"{recipe.at_once} jobs"
    told = f"{jobs} at a time, each in {recipe.processes} process{'es' * (recipe.processes > 1)}"
    if recipe.gpus > 1 and recipe.gpus_per_job is None:
        told += f" on all of --gpus {recipe.gpus} (--gpus-per-job N: {recipe.gpus}/N jobs at a time with N each)"
    return told + "."


def table(recipe: CompareRecipe, matrix: Matrix, done: Sequence[Training], times_s: dict[str, float]) -> None:
    """Backbones down, heads across: how many seeds are finished, and what one takes."""
    heads = list(dict.fromkeys(cell.head for cell in matrix.cells))
    rows = [["", *(head or "detector" for head in heads)]]
    for backbone in recipe.backbones:
        cells = [[one for one in matrix.cells if (one.backbone, one.head) == (backbone, head)] for head in heads]
        finished = [sum(one in done for one in seeds) for seeds in cells]
        texts = [
            f"{count} of {len(seeds)} finished, about {roughly(times_s[seeds[0].name])} each"
            for count, seeds in zip(finished, cells)
        ]
        rows.append([backbone, *texts])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    print()


def estimate(recipe: CompareRecipe, matrix: Matrix) -> tuple[dict[str, float], float | None]:
    """Seconds of each training by name, and the rate that was measured where no pace of its kind was known.

    A kind's measured pace says how fast its evaluations go as well.
    """
    from vertebra.build import build, build_detection
    from vertebra.engine import device
    from vertebra.lab.estimate import cost_of, measure_rate, measured_pace

    everything = matrix.trainings()
    kinds: dict[str, Training] = {}
    for training in everything:
        kinds.setdefault(training.kind, training)
    costs: dict[str, Cost] = {kind: cost_of(training.recipe) for kind, training in kinds.items()}
    paces_s = {kind: measured_pace(training, everything) for kind, training in kinds.items()}
    rate = None
    if None in paces_s.values():
        here = device.resolve(recipe.device)
        # Jobs share a CPU's cores; a GPU is its job's alone.
        share = 1 / recipe.at_once if here.type == "cpu" else recipe.processes
        rate = measure_rate(here, everything[0].recipe.precision)
    first = matrix.cells[0].recipe
    images = {"train_det": len(build_detection.open_test(first))}  # type: ignore[arg-type]
    if matrix.pretrainings:
        images["train_backbone"] = len(build.open_classes(matrix.pretrainings[0].recipe, "val"))  # type: ignore[arg-type]
    times_s = {}
    for training in everything:
        cost, pace_s = costs[training.kind], paces_s[training.kind]
        own_rate = cost.step / pace_s if pace_s else (rate or 1.0) * share
        times_s[training.name] = cost.of(training, images[training.tool]) / own_rate
    return times_s, rate


def grounds(recipe: CompareRecipe, matrix: Matrix, rate: float | None) -> str:
    """On what the estimate rests."""
    from vertebra.engine import device
    from vertebra.lab.estimate import measured_pace

    everything = matrix.trainings()
    here = "this machine's CPU" if device.resolve(recipe.device).type == "cpu" else "a GPU of this machine"
    ran = [one.kind for one in everything if measured_pace(one, everything) is not None]
    told = []
    if ran:
        told.append(f"the pace of steps that have run in {recipe.output}")
    if rate is not None:
        others = "of the others " if ran else ""
        told.append(
            f"multiply-adds {others}over {rate / 1e9:.3g} G a second, measured on {here} just now (reading "
            "images, NMS and the like are not counted)"
        )
    if recipe.is_queued:
        return f"It is reckoned from {' and '.join(told)}, as if nothing waited in the queue."
    return f"It is reckoned from {' and '.join(told)}."
