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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import load_recipe, parse_recipe, split_at_dashes
from vertebra.recipes.schema import BackboneRecipe, flag_of, may_differ, protocol_fields
from vertebra.recipes.schema_study import SET_BY_STUDY, WARM_DEPTH, WARM_START, DepthRecipe, Net

if TYPE_CHECKING:
    from vertebra.engine.jobs.jobs import Job

EVALUATIONS = 40  # of a training whose recipe names no period: the points of its curve


@dataclass(frozen=True)
class Cell:
    """One net with one seed: the flags of its training, and the recipe that they make."""

    net: Net
    seed: int
    output: Path
    flags: tuple[str, ...]
    recipe: BackboneRecipe
    iterations: int

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "vertebra", "train-backbone", *self.flags)


Settings = DepthRecipe


def main(arguments: list[str]) -> int:
    arguments, overrides = split_at_dashes(arguments)
    recipe = parse_recipe(DepthRecipe, arguments, description=__doc__ or "")
    if bool(recipe.runs) == bool(recipe.all_nets()):
        raise RecipeError("name either finished run directories, or the --nets (or --study) to run; see --help")
    if recipe.runs and overrides:
        raise RecipeError("what follows -- goes to trainings, but runs that exist are only reported on")
    runs, code = list(recipe.runs), 0
    if not runs:
        cells = plan(recipe, overrides)
        if recipe.dry_run:
            show(cells, recipe.jobs)
            return 0
        runs, code = train(recipe, cells)
        if not runs:
            return code
    from vertebra.evaluation.study import write_study
    from vertebra.evaluation.study.runs import read_study_run

    for run in runs:
        read_study_run(run)  # what cannot be reported on is said before anything is measured
    code = measure(recipe, runs) or code
    if code > 128:
        return code
    page = write_study(runs, recipe.report or recipe.output / "report")
    print(f"\nThe report: {page.resolve()}")
    return code


def plan(study: DepthRecipe, overrides: tuple[str, ...]) -> list[Cell]:
    """Every net with every seed, seed by seed, so that a study that is stopped early has compared something.

    Raises RecipeError for a wrong command line, and where two names are one net under one recipe.
    """
    from vertebra.data.datasets.shards import is_url

    for argument in overrides:
        if argument.split("=")[0] in SET_BY_STUDY:
            raise RecipeError(f"{argument.split('=')[0]} is the study's own flag; write it before the --")
    if study.data is None:
        raise RecipeError("--data is missing: the directory of the data set")
    if not study.data.is_dir() and not is_url(study.data):
        raise RecipeError(f"--data {study.data} is not a directory")
    planned = [(net, *prepare(study, net, overrides)) for net in study.all_nets()]
    cells = [_cell(study, seed, *one) for seed in range(study.seeds) for one in planned]
    seen: dict[str, Cell] = {}
    for cell in cells[: len(planned)]:
        facts = repr((describe(cell.net, cell.recipe), protocol_fields(cell.recipe)))
        if facts in seen:
            raise RecipeError(f"{seen[facts].output.name} and {cell.output.name} are one net; name it once")
        seen[facts] = cell
    return cells


def prepare(study: DepthRecipe, net: Net, overrides: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """The flags of the net's trainings but for their seed, and their length in steps."""
    options = dict(net.options)
    is_cifar = net.backbone.startswith("cifar_")
    config = options.pop("config", study.config or ("cifar10/paper.yaml" if is_cifar else "imagenet/paper.yaml"))
    flags = (
        *("--config", config, "--backbone", net.backbone, "--data", str(study.data), "--resume"),
        *("--device", study.device, "--gpus", str(study.gpus), "--workers", str(study.workers)),
        *(part for name, value in options.items() for part in (flag_of(name), value)),
        *overrides,
    )
    recipe = parse_recipe(BackboneRecipe, list(flags), description="")
    iterations = length(recipe)
    flags += _warm_start(net, recipe, overrides)
    if recipe.eval_period is None:
        flags += ("--eval-period", str(max(1, iterations // EVALUATIONS)))
    return flags, iterations


def _cell(study: DepthRecipe, seed: int, net: Net, flags: tuple[str, ...], iterations: int) -> Cell:
    output = study.output / f"{net.directory}_s{seed}"
    flags += ("--seed", str(seed), "--output", str(output))
    return Cell(net, seed, output, flags, parse_recipe(BackboneRecipe, list(flags), description=""), iterations)


def describe(net: Net, recipe: BackboneRecipe) -> dict[str, Any]:
    """What the net is. Raises RecipeError where it cannot be built, or does not have what its options say."""
    import torch

    from backbones import BackboneError
    from vertebra.build import build

    try:
        with torch.device("meta"):
            identity = build.build_backbone(recipe, num_classes=10).identity()
    except BackboneError as error:
        raise RecipeError(str(error)) from None
    for option in ("shortcut", "stride_in"):
        asked = dict(net.options).get(option)
        if asked not in (None, identity[option]):
            has = f"always has {identity[option]}" if identity[option] else "has none"
            raise RecipeError(f"{net.backbone}:{option}={asked}: this net {has}; leave the option out")
    return identity


def length(recipe: BackboneRecipe) -> int:
    """Steps of the recipe's training."""
    from vertebra.build import build

    images = 0 if recipe.solver.iterations else len(build.open_classes(recipe, "train"))
    return build.iterations_of(recipe.model_copy(update={"eval_period": recipe.eval_period or 1}), images)


def _warm_start(net: Net, recipe: BackboneRecipe, overrides: tuple[str, ...]) -> tuple[str, ...]:
    """CIFAR nets of 110 layers and more begin at a tenth of the rate, as the paper's, unless the recipe says how."""
    depth = "".join(filter(str.isdigit, net.backbone)) if net.backbone.startswith("cifar_") else ""
    solver = recipe.solver
    told = solver.warmup_until_error or solver.warmup_epochs or any("warmup" in argument for argument in overrides)
    if not depth or int(depth) < WARM_DEPTH or told:
        return ()
    return tuple(part for name, value in WARM_START.items() for part in (flag_of(name), value))


def show(cells: list[Cell], jobs: int) -> None:
    """The plan in words and commands."""
    print(f"{len(cells)} training{'s' * (len(cells) > 1)}, {jobs} at a time")
    for number, cell in enumerate(cells, 1):
        print(f"[{number}/{len(cells)}] {cell.net.backbone}, seed {cell.seed} -> {cell.output}")
        print("    " + shlex.join(cell.command))


def train(study: DepthRecipe, cells: list[Cell]) -> tuple[list[Path], int]:
    """Trains what is not finished; the finished runs' directories (none where it was stopped), and the exit code."""
    from vertebra.engine.jobs.jobs import Job

    jobs = [
        Job(cell.output.name, cell.output, cell.command, cell.iterations, kind=cell.net.directory) for cell in cells
    ]
    done = [job for job, cell in zip(jobs, cells) if is_finished(cell)]
    code = run_together(study, [job for job in jobs if job not in done], done)
    if code > 128:
        return [], code
    return [cell.output for cell in cells if is_finished(cell)], code


def run_together(study: DepthRecipe, todo: list[Job], done: list[Job]) -> int:
    """The jobs, `study.jobs` at a time; the exit code, with a line for each that failed."""
    from vertebra.engine import device
    from vertebra.engine.jobs.processes import run_jobs, shares

    if not todo:
        return 0
    consoles = study.output / "consoles"
    outcome = run_jobs(
        todo,
        at_once=study.jobs,
        consoles=consoles,
        environments=shares(
            study.jobs, study.gpus, cores=device.usable_cores(), devices=device.visible_gpus(study.device)
        ),
        done=done,
    )
    if outcome.stopped_by:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 128 + outcome.stopped_by
    for name, status in outcome.failed.items():
        print(f"{name} ended with {status}: {consoles / name}.txt says why", file=sys.stderr)
    for name, reason in outcome.not_run.items():
        print(f"{name} was not run: {reason}", file=sys.stderr)
    return 1 if outcome.failed or outcome.not_run else 0


def measure(study: DepthRecipe, runs: list[Path]) -> int:
    """What the report wants to know of finished runs beside their training: other views, and the layers' responses."""
    from vertebra.engine.jobs.jobs import Job

    named = list(zip(runs, names_of(runs)))
    missing = [
        (run, f"{name}_{view}", view)
        for run, name in named
        for view in study.views
        if not (run / f"evaluation_{view}.json").exists()
    ]
    jobs = []
    for run, name, view in missing:
        command = (
            *(sys.executable, "-m", "vertebra", "eval-backbone", "--weights", str(run / "model.safetensors")),
            *("--data", str(data_of(study, run)), "--views", view, "--json", str(run / f"evaluation_{view}.json")),
            *("--device", study.device, "--gpus", str(study.gpus), "--workers", str(study.workers)),
        )
        jobs.append(Job(name, study.output / "consoles" / name, command, 1, kind=view))
    code = run_together(study, jobs, [])
    if study.responses and code <= 128:
        for run in runs:
            if not (run / "responses.json").exists():
                measure_responses(study, run)
    return code


def names_of(runs: list[Path]) -> list[str]:
    """A name for each run: its directory's, with its number before it where two directories are called alike."""
    names = [run.resolve().name for run in runs]
    return names if len({*names}) == len(names) else [f"{number}_{name}" for number, name in enumerate(names, 1)]


def data_of(study: DepthRecipe, run: Path) -> Path:
    """The data set that a finished run is measured on: --data, or what its training was given."""
    return study.data or load_recipe(BackboneRecipe, run / "config.yaml").data or Path()


def measure_responses(study: DepthRecipe, run: Path) -> None:
    """Writes the run's responses.json; where it cannot be made, says why and goes on."""
    from vertebra.build import build
    from vertebra.build.build_views import load_net
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
        loader = build.class_test_loader(recipe, build.open_classes(recipe, "val"), world, limit=study.responses)
        deviations, images = response_deviations(net.backbone, layers, loader, device=world.device)
    except (ValueError, OSError) as error:
        print(f"{run}: no layer responses: {error}", file=sys.stderr)
        return
    told = [{"layer": name, "deviation": value} for name, value in deviations.items()]
    write_json(run / "responses.json", {"images": images, "layers": told})
    print(f"{run}: responses of {len(told)} layers over {images} images", flush=True)


def is_finished(cell: Cell) -> bool:
    """Whether the cell's run came to its end. Raises RunError where its directory holds another recipe's run."""
    from vertebra.engine import device, precision
    from vertebra.engine.rundir import RunDirectory

    resolved = precision.resolve(cell.recipe.precision, device.resolve(cell.recipe.device))
    recipe = cell.recipe.model_copy(update={"precision": resolved})
    return RunDirectory.is_finished(cell.output, recipe.model_dump(mode="json"), may_differ=may_differ(recipe))
