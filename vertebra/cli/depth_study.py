"""What depth does to plain and to residual nets: train them under one recipe, and report (He et al. 2015, section 4).

python tools/depth_study.py --config configs/cifar10/cpu.yaml --data CIFAR --nets cifar_plain20 cifar_plain56 cifar_r20 cifar_r56 --seeds 3 --output runs/depth --jobs 2

python tools/depth_study.py --study cifar10 --data CIFAR --seeds 5 --jobs 8

python tools/depth_study.py RUN_DIR RUN_DIR ... --report DIR

The same command again goes on: what is finished is kept, what was stopped continues, what failed is tried again. What
follows a lone -- goes to every training: ... --data CIFAR -- --solver.iterations 800 --eval-period 100
"""  # noqa: E501

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import load_recipe, parse_recipe, split_at_dashes
from vertebra.recipes.schema import BackboneRecipe
from vertebra.recipes.schema_study import DepthRecipe

if TYPE_CHECKING:
    from vertebra.lab.training import Training

Settings = DepthRecipe


def main(arguments: list[str]) -> int:
    arguments, overrides = split_at_dashes(arguments)
    recipe = parse_recipe(DepthRecipe, arguments, description=__doc__ or "")
    if bool(recipe.runs) == bool(recipe.all_nets()):
        raise RecipeError("name either finished run directories, or the --nets (or --study) to run; see --help")
    if recipe.runs and overrides:
        raise RecipeError("what follows -- goes to trainings, but runs that exist are only reported on")
    from vertebra.evaluation.study.render import write_study
    from vertebra.evaluation.study.runs import read_study_run
    from vertebra.lab.run import with_workers

    recipe = with_workers(recipe)
    runs, code = list(recipe.runs), 0
    if not runs:
        from vertebra.lab import depth

        cells = depth.plan(recipe, overrides)
        if recipe.dry_run:
            show(cells, recipe.at_once)
            return 0
        code = train(recipe, cells)
        runs = [cell.output for cell in cells if cell.is_finished()]
        if code > 128 or not runs:
            return code
    for run in runs:
        read_study_run(run)  # what cannot be reported on is an error before anything is measured
    code = measure(recipe, runs) or code
    if code > 128:
        return code
    page = write_study(runs, recipe.report or recipe.output / "report")
    print(f"\nThe report: {page.resolve()}")
    return code


def show(cells: list[Training], jobs: int) -> None:
    """Print the plan in words and commands."""
    print(f"{len(cells)} training{'s' * (len(cells) > 1)}, {jobs} at a time")
    for number, cell in enumerate(cells, 1):
        print(f"[{number}/{len(cells)}] {cell.title} -> {cell.output}")
        print("    " + shlex.join(cell.command()))


def train(study: DepthRecipe, cells: list[Training]) -> int:
    """Train what is not finished; returns the exit code, with a line for each training that failed."""
    from vertebra.engine.jobs.jobs import run_at
    from vertebra.lab.run import executor_of, failures, lock_output, stopped

    done = [cell for cell in cells if cell.is_finished()]
    if len(done) == len(cells):
        return 0
    lock_output(study.output)
    executor = executor_of(study)
    outcome = run_at(executor, [cell.job() for cell in cells if cell not in done], done=[cell.job() for cell in done])
    if code := stopped(outcome, executor):
        return code
    sentences = failures(cells, outcome)
    for sentence in sentences:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if sentences else 0


def measure(study: DepthRecipe, runs: list[Path]) -> int:
    """Measure what the report shows of finished runs beside their training: other views, and the layers' responses."""
    from vertebra.engine.jobs.jobs import Job, run_at
    from vertebra.lab.run import executor_of, stopped

    jobs = []
    for run, name in zip(runs, names_of(runs)):
        for view in study.views:
            if (run / f"evaluation_{view}.json").exists():
                continue
            command = (
                *(sys.executable, "-m", "vertebra", "eval-backbone", "--weights", str(run / "model.safetensors")),
                *("--data", str(data_of(study, run)), "--views", view, "--json", str(run / f"evaluation_{view}.json")),
                *("--device", study.device, "--gpus", str(study.gpus), "--workers", str(study.workers)),
            )
            console = study.output / "consoles" / f"{name}_{view}"
            jobs.append(Job(f"{name}_{view}", console, command, 1, kind=view))
    failed = False
    if jobs:
        executor = executor_of(study)
        outcome = run_at(executor, jobs)
        if code := stopped(outcome, executor):
            return code
        failed = bool(outcome.failed or outcome.not_run)  # the board has a line on each
    if study.responses:
        for run in runs:
            if not (run / "responses.json").exists():
                measure_responses(study, run)
    return int(failed)


def names_of(runs: list[Path]) -> list[str]:
    """Return a name for each run: its directory's, with a number before it where two directories have one name."""
    names = [run.resolve().name for run in runs]
    return names if len({*names}) == len(names) else [f"{number}_{name}" for number, name in enumerate(names, 1)]


def data_of(study: DepthRecipe, run: Path) -> Path:
    """Return the data set that a finished run is measured on: --data, or that of its training."""
    return study.data or load_recipe(BackboneRecipe, run / "config.yaml").data or Path()


def measure_responses(study: DepthRecipe, run: Path) -> None:
    """Write the run's responses.json; where it cannot be made, print why and go on."""

    from vertebra.build.classification_data import class_test_loader, open_classes
    from vertebra.build.views import load_net
    from vertebra.engine import device
    from vertebra.engine.distributed import World
    from vertebra.evaluation.predict.responses import response_deviations
    from vertebra.ground.files import write_json

    try:
        recipe = load_recipe(BackboneRecipe, run / "config.yaml")
        view = recipe.input.model_copy(update={"resident": "no"})  # a few images need no data set on the device
        recipe = recipe.model_copy(update={"data": data_of(study, run), "input": view, "workers": study.workers})
        world = World(device=device.resolve(study.device))
        net = load_net(run / "model.safetensors", world.device, size=None, resize=None, precision=recipe.precision)
        layers = net.backbone.three_by_three()
        loader = class_test_loader(recipe, open_classes(recipe, "val"), world, limit=study.responses)
        deviations, images = response_deviations(net.backbone, layers, loader, device=world.device)
    except (ValueError, OSError) as error:
        print(f"{run}: no layer responses: {error}", file=sys.stderr)
        return
    found = [{"layer": name, "deviation": value} for name, value in deviations.items()]
    write_json(run / "responses.json", {"images": images, "layers": found})
    print(f"{run}: responses of {len(found)} layers over {images} images", flush=True)
