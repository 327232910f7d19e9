"""From a comparison's recipe to its trainings, and their run: backbones to pre-train, trials of a sweep, the cells.

A cell is a backbone with a head and a seed. A training is a command line that anyone can type; its recipe is what that
command line means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from backbones import BackboneError
from vertebra.build import detection_data, segmenter
from vertebra.build.backbone import pretrained_backbone
from vertebra.build.map_sides import map_sides, pictures_of
from vertebra.build.training import pipeline_of
from vertebra.build.weights import TORCHVISION_WEIGHTS, local_file
from vertebra.engine.jobs.jobs import Executor, Job, Outcome, run_at
from vertebra.evaluation.metrics.files import read_predictions, read_truth
from vertebra.evaluation.why.explain import require_same_truth
from vertebra.ground.errors import RecipeError
from vertebra.lab.kinds import cell_kind_of
from vertebra.lab.sweep import choose, trials_of, with_choice, write_choices
from vertebra.lab.training import Training, common_flags, seeded, steps_of
from vertebra.recipes.command_line import find_recipe, load_recipe, parse_recipe
from vertebra.recipes.schema import BackboneRecipe, flag_of, flatten, path_part
from vertebra.recipes.schema_compare import SET_BY_MATRIX, CompareRecipe, Head, Task
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe


@dataclass(frozen=True)
class Matrix:
    """All trainings of a plan.

    trials: of the sweep, by (backbone, head). cells: what is compared, seed by seed, so that a plan that is stopped
    early has compared something; with a sweep they still lack the value that it will choose.
    """

    cells: tuple[Training, ...]
    pretrainings: tuple[Training, ...] = ()
    trials: dict[tuple[str, str], tuple[Training, ...]] = field(default_factory=dict)

    def all_trials(self) -> list[Training]:
        return [trial for trials in self.trials.values() for trial in trials]

    def trainings(self) -> list[Training]:
        """Return all, in the order in which they are begun."""
        return [*self.pretrainings, *self.all_trials(), *self.cells]

    def trials_for(self, training: Training) -> tuple[Training, ...]:
        """Return the trials that choose a value for this cell; none for other trainings, and without a sweep."""
        return self.trials.get((training.backbone, training.head), ()) if training in self.cells else ()

    def needs(self, training: Training) -> tuple[str, ...]:
        """Return the names of those that must finish before this one begins: the pre-training of its backbone."""
        return tuple(one.name for one in self.pretrainings if one.backbone == training.backbone and one != training)

    def decided(self, recipe: CompareRecipe, cell: Training) -> Training:
        """Return the cell with the value that its sweep has chosen. Raises Undecided before the sweep is done."""
        trials = self.trials_for(cell)
        return with_choice(recipe, cell, choose(trials)) if trials else cell


def plan(recipe: CompareRecipe, overrides: tuple[str, ...] = ()) -> Matrix:
    """Plan the matrix of a comparison; overrides: flags for the training of every cell.

    Raises RecipeError for whatever would make a cell fail that can be seen beforehand.
    """
    by_head = flag_of(recipe.trains.head)
    for argument in overrides:
        if (flag := argument.split("=")[0]) in (*SET_BY_MATRIX, by_head):
            hint = "give --heads" if flag == by_head else "write it before the --"
            raise RecipeError(f"{flag} is the matrix's own flag", hint=hint)
    heads = recipe.all_heads()
    weights, pretrainings = recipe.weights_of(), []
    for backbone in recipe.backbones:
        if backbone not in weights:
            pretrainings.append(_pretraining(recipe, backbone))
            weights[backbone] = str(pretrainings[-1].output / "model.safetensors")
    firsts = {
        (backbone, head.name): _cell(recipe, backbone, head, weights[backbone], overrides)
        for head in heads
        for backbone in recipe.backbones
    }
    for first in firsts.values():
        check(first, is_pretrained=first.backbone not in recipe.weights_of())
    _check_heads(recipe.trains, firsts)
    trials = {} if not recipe.sweep else {key: trials_of(recipe, first) for key, first in firsts.items()}
    cells = tuple(
        seeded(first, seed, first.output.with_name(f"{first.output.name}_seed{seed}"))
        for seed in range(recipe.seeds)
        for first in firsts.values()
    )
    return Matrix(cells, tuple(pretrainings), trials)


def run(recipe: CompareRecipe, matrix: Matrix, executor: Executor, done: Sequence[Training]) -> Outcome:
    """Train what is not finished; returns how each job ended."""
    jobs = {training.name: job_of(recipe, matrix, training) for training in matrix.trainings()}
    names = {training.name for training in done}
    diverged = {trial.name for trial in matrix.all_trials() if trial.name not in names and trial.has_diverged()}
    todo = [job for name, job in jobs.items() if name not in names | diverged]
    outcome = run_at(executor, todo, done=[jobs[name] for name in jobs if name in names])
    if matrix.trials:
        write_choices(recipe, list(matrix.trials.values()))
    return outcome


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


def check_predictions(recipe: CompareRecipe, matrix: Matrix) -> None:
    """Read --predictions and --truth as the report will, days from now.

    Raises RecipeError for a name that a backbone has, ValueError for what is not of the matrix's test set.
    """
    if not recipe.predictions:
        return
    for name in recipe.predictions_of():
        if name in recipe.backbones:
            raise RecipeError(f"--predictions {name}=...: {name} is one of the --backbones; give it another name")
    first = matrix.cells[0].recipe
    if isinstance(first, SegmentationRecipe):
        maps = segmenter.open_test(first)
        map_sides(recipe.predictions_of(), maps, pictures_of(maps, None))
        return
    assert isinstance(first, DetectionRecipe)
    test_set = detection_data.open_test(first)
    truth = read_truth(test_set.coco_truth())
    if recipe.truth is not None:
        require_same_truth(truth, read_truth(recipe.truth), (test_set.source, str(recipe.truth)))
    for paths in recipe.predictions_of().values():
        for path in paths:
            read_predictions(path, truth)


def _check_heads(task: Task, firsts: dict[tuple[str, str], Training]) -> None:
    """Raise RecipeError where two heads are alike in the field by which the report keeps heads apart."""
    seen: dict[str, str] = {}
    for (_, name), first in firsts.items():
        fields = flatten(first.recipe)
        other = seen.setdefault(f"{fields[task.head]} {fields.get('engine')}", name)
        if other != name:
            raise RecipeError(
                f"the heads {other} and {name} have one {task.head.partition('.')[2]}, {fields[task.head]}, by which "
                "the report keeps heads apart: compare them in two matrices"
            )


def _pretraining(recipe: CompareRecipe, backbone: str) -> Training:
    data = recipe.pretrain_data
    if data is None and recipe.dataset == "sample" and recipe.data is not None:
        data = recipe.data / "objects"
    if recipe.pretrain is None or data is None:
        raise RecipeError(
            f"{backbone} has no weights: give --weights {backbone}=FILE (or =torchvision, =none), "
            "or --pretrain RECIPE --pretrain-data DIR"
        )
    if not data.is_dir():
        raise RecipeError(f"--pretrain-data {data} is not a directory")
    output = recipe.output / f"{path_part(backbone)}_backbone"
    flags = (
        *("--config", recipe.pretrain, "--backbone", backbone, "--data", str(data), "--output", str(output)),
        *common_flags(recipe),
    )
    parsed = parse_recipe(BackboneRecipe, list(flags), description="")
    title = f"pre-training of {backbone}"
    return Training(
        "train-backbone", title, backbone, "", parsed.seed, output, flags, parsed, iterations=steps_of(parsed)
    )


def _cell(recipe: CompareRecipe, backbone: str, head: Head, weights: str, overrides: tuple[str, ...]) -> Training:
    """Plan the backbone with the head and seed 0."""
    stem = "_".join(part for part in (path_part(backbone), head.name) if part)
    task = recipe.trains
    flags = (
        *("--config", head.recipe, "--dataset", recipe.dataset, "--backbone", backbone),
        *("--data", str(recipe.data), "--weights", weights, *common_flags(recipe)),
        *(exchange_head(task, head.recipe, head.head) if head.head else ()),
        *overrides,
    )
    try:
        parsed = parse_recipe(task.recipe, list(flags), description="")
    except RecipeError as error:
        if not (head.name and overrides):
            raise
        raise RecipeError(
            f"{head.name}: {error} (what follows the -- is for every head; for one of them, write a recipe: "
            f"--heads {head.name}=FILE.yaml)"
        ) from None
    title = f"{head.name or task.noun} on {backbone}"
    output = recipe.output / stem
    return Training(task.command, title, backbone, head.name, 0, output, flags, parsed, iterations=steps_of(parsed))


def exchange_head(task: Task, config: str, head: str) -> tuple[str, ...]:
    """Return the flags that give a recipe another head, and what has to change with it; none where it has that head."""
    recipe = load_recipe(task.recipe, find_recipe(config))
    return cell_kind_of(recipe).exchange(recipe, head)


def check(cell: Training, *, is_pretrained: bool) -> None:
    """Build the network without its numbers, and its pipeline.

    is_pretrained: the matrix itself makes the weights. Raises RecipeError where one of them cannot be, or where its
    weights are missing.
    """
    recipe = cell.recipe
    assert isinstance(recipe, DetectionRecipe | SegmentationRecipe)
    try:
        with torch.device("meta"):
            if recipe.weights == "none":
                pretrained_backbone(recipe)
            cell_kind_of(recipe).make(recipe)
        pipeline_of(recipe)
    except (BackboneError, ValueError) as error:
        raise RecipeError(f"{cell.title}: {error}") from None
    if recipe.weights == "torchvision" and cell.backbone not in TORCHVISION_WEIGHTS:
        known = ", ".join(TORCHVISION_WEIGHTS)
        raise RecipeError(f"torchvision has no weights for {cell.backbone}; it has them for {known}")
    if recipe.weights not in ("none", "torchvision") and not is_pretrained and not local_file(recipe.weights).is_file():
        raise RecipeError(f"--weights {cell.backbone}={recipe.weights}: there is no such file")
