"""Compare backbones in a detector or a segmenter: run a matrix of backbones, heads and seeds, or report on runs that exist.

What the matrix would do, with an estimate of its time; then the same without --dry-run:

python tools/compare.py --backbones vgg16 r50 r101 --heads c4 fpn --dataset voc07 --data VOCdevkit --weights vgg16=torchvision r50=torchvision r101=FILE --seeds 3 --gpus 8 --gpus-per-job 4 --dry-run

Backbones without weights are pre-trained first; what follows a lone -- goes to the training of every cell:

python tools/compare.py --backbones plain18 r18 --data SAMPLE --pretrain sample/objects.yaml --jobs 2 -- --solver.iterations 300

Segmenters instead of detectors, compared by mean IoU:

python tools/compare.py --task seg --backbones vgg16 r101 --heads deeplabv3 pyramid --dataset voc12aug --data VOCdevkit --weights ... --seeds 3

The same learning rates for every backbone, the best by images held out of the training set; on a SLURM cluster (on a Ray
cluster with --ray auto):

python tools/compare.py --backbones vgg16 timm:resnet50d --weights ... --sweep solver.lr 0.01 0.02 0.04 --slurm partition=gpu time=240 ...

Runs that exist, and anyone's COCO results beside them:

python tools/compare.py RUN_DIR RUN_DIR ... --report DIR
python tools/compare.py RUN_DIR ... --predictions theirs=a.json theirs=b.json --expect published/voc07_c4.yaml --report DIR

Anyone's maps of segmenters, beside runs or by themselves (--truth DIR --classes classes.txt: a folder of PNGs):

python tools/compare.py --task seg --predictions ours=MAPS theirs=MAPS --truth voc2012/val --data VOCdevkit --report DIR

The same command again goes on: what is finished is kept, what was stopped or killed continues, what failed is tried
again. Each head is a comparison of its own; runs of one backbone that differ by the seed are one side of it. With one
seed on a side the report gives no verdict on the backbones. Exit code 1: a cell failed (the report is on the others),
or a figure of --expect was missed.
"""  # noqa: E501

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import find_recipe, load_recipe, parse_recipe, split_at_dashes
from vertebra.recipes.schema import flag_of, flatten
from vertebra.recipes.schema_compare import CompareRecipe

if TYPE_CHECKING:
    from vertebra.lab.matrix import Matrix
    from vertebra.lab.training import Training

Settings = CompareRecipe


def main(arguments: list[str]) -> int:
    arguments, overrides = split_at_dashes(arguments)
    recipe = parse_recipe(CompareRecipe, arguments, description=__doc__ or "")
    check(recipe, overrides)
    if not recipe.backbones:
        return report(recipe, list(recipe.runs), [])
    from vertebra.lab import forecast
    from vertebra.lab.matrix import check_predictions, plan, run
    from vertebra.lab.run import executor_of, failures, lock_output, stopped, with_workers

    recipe = with_workers(recipe)
    if recipe.output.is_dir() and not recipe.dry_run:
        lock_output(recipe.output)
    matrix = plan(recipe, overrides)
    check_predictions(recipe, matrix)
    done = finished(recipe, matrix)
    if recipe.dry_run:
        forecast.show(recipe, matrix, done)
        return 0
    lock_output(recipe.output)
    executor = executor_of(recipe)
    print(forecast.summary(recipe, matrix))
    print(f"{forecast.devices(recipe)} Consoles: {recipe.output / 'consoles'}", flush=True)
    outcome = run(recipe, matrix, executor, done)
    if code := stopped(outcome, executor):
        return code
    failed = failures(matrix.trainings(), outcome)
    runs = [cell.output for cell in in_order(recipe, finished(recipe, matrix))]
    return report(recipe, runs, failed)


def check(recipe: CompareRecipe, overrides: tuple[str, ...]) -> None:
    """Raise RecipeError for flags that are missing, or that have no effect here."""
    there = bool(recipe.runs) or (bool(recipe.predictions) and not recipe.backbones)
    if there == bool(recipe.backbones):
        raise RecipeError("name either finished run directories (or --predictions), or --backbones to run; see --help")
    if not recipe.backbones:
        flags = [flag_of(name) for name in recipe.matrix_fields()] + ["what follows the --"] * bool(overrides)
        if flags:
            verb = "is" if len(flags) == 1 else "are"
            raise RecipeError(
                f"{', '.join(flags)} {verb} for the --backbones of a matrix; runs that exist are only reported on"
            )
    files = [*(path for paths in recipe.predictions_of().values() for path in paths), recipe.truth]
    files = files if recipe.task == "det" else []  # maps are in folders, as score.py takes them
    for path in (*files, expected(recipe)):
        if path is not None and path in files and path.is_dir():
            raise RecipeError(f"{path} is a folder, not a file; of maps of segmenters say --task seg")
        if path is not None and not path.is_file():
            raise RecipeError(f"{path}: there is no such file; check the path")
    if len(recipe.backbones) == 1 and not recipe.predictions:
        raise RecipeError(f"{recipe.backbones[0]} alone is compared with nothing: name a second of --backbones")
    if recipe.backbones and recipe.data is None:
        raise RecipeError("--data is missing: the directory of the data set")
    if recipe.data is not None and not recipe.data.is_dir():
        raise RecipeError(f"--data {recipe.data} is not a directory; tools/prepare_data.py fetches or draws data sets")
    if recipe.images is not None and not recipe.images.is_dir():
        raise RecipeError(f"--images {recipe.images} is not a directory")
    if recipe.predictions and not recipe.truth and not recipe.runs and not recipe.backbones:
        what = "COCO JSON" if recipe.task == "det" else "folder of maps, or with --data the source,"
        raise RecipeError(f"--truth is missing: the {what} that --predictions are scored on")
    if (expectations := expected(recipe)) is not None:
        from vertebra.evaluation.report.expect import read_expectations

        read_expectations(expectations)  # an error in it should not wait for days of training


def expected(recipe: CompareRecipe) -> Path | None:
    """Return the file of --expect: a path, or an installed one below `configs/`."""
    if recipe.expect is None or recipe.expect.is_file():
        return recipe.expect
    try:
        return find_recipe(recipe.expect)
    except RecipeError:
        raise RecipeError(
            f"--expect {recipe.expect}: there is no such file; Vertebra has published/coco2015_c4.yaml and "
            "published/voc07_c4.yaml, of segmenters published/voc12_seg.yaml and published/coco_voc_seg.yaml"
        ) from None


def finished(recipe: CompareRecipe, matrix: Matrix) -> list[Training]:
    """Return the trainings that came to their end; cells with the value that the sweep has chosen.

    Raises UserError where a directory holds another recipe's run.
    """
    from vertebra.lab.sweep import Undecided

    done = [one for one in (*matrix.pretrainings, *matrix.all_trials()) if one.is_finished()]
    for cell in matrix.cells:
        try:
            decided = matrix.decided(recipe, cell)
        except Undecided:
            continue
        if decided.is_finished():
            done.append(cell)
    return done


def in_order(recipe: CompareRecipe, done: Sequence[Training]) -> list[Training]:
    """Return the cells among the finished trainings: the baseline's first, head by head."""
    cells = [one for one in done if one.command_name == recipe.trains.command and not one.value]
    heads = list(dict.fromkeys(cell.head for cell in cells))
    return sorted(cells, key=lambda cell: (heads.index(cell.head), recipe.backbones.index(cell.backbone), cell.seed))


def report(recipe: CompareRecipe, runs: list[Path], failed: list[str]) -> int:
    """Write the report on the runs and on --predictions; 1 where something failed or an expectation was missed."""
    for sentence in failed:
        print(f"error: {sentence}", file=sys.stderr)
    runs, alone = comparable(recipe, runs)
    if failed and not runs and (recipe.truth is None or len(recipe.predictions_of()) < 2):
        print("No report: no head has two sides with a result.", file=sys.stderr)
        return 1
    from vertebra.evaluation.report.render import write_report

    written = write_report(
        runs,
        recipe.report or recipe.output / "report",
        **predictions(recipe, runs),
        expect=expected(recipe),
        failed=[*failed, *alone],
    )
    for sentence in written.expectations_missed:
        print(f"error: not as expected: {sentence}", file=sys.stderr)
    for sentence in written.expectations_elsewhere:
        print(f"note: {sentence}", file=sys.stderr)
    print(f"\nThe report: {written.page.resolve()}")
    return 1 if failed or written.expectations_missed else 0


def predictions(recipe: CompareRecipe, runs: Sequence[Path]) -> dict[str, Any]:
    """Return what `write_report` is to know of --predictions."""
    given = recipe.predictions_of()
    if recipe.task == "det" or not given:
        return {"predictions": given, "truth": recipe.truth, "images": recipe.images}
    from vertebra.build.map_sides import map_sides, pictures_of, truth_of_run
    from vertebra.data.prepare.map_folders import open_truth

    if recipe.truth is None:
        return {"maps": map_sides(given, *truth_of_run(runs[0])), "images": recipe.images}
    truth = open_truth(recipe.truth, recipe.data, recipe.classes)
    maps = map_sides(given, truth, pictures_of(truth, recipe.images))
    return {"maps": maps, "images": recipe.images or truth.root}


def comparable(recipe: CompareRecipe, runs: list[Path]) -> tuple[list[Path], list[str]]:
    """Return the runs of heads that have two sides or more, and a sentence on each other head of a matrix."""
    if not recipe.backbones or recipe.predictions:
        return runs, []
    task = recipe.trains
    fields = {run: flatten(load_recipe(task.recipe, run / "config.yaml")) for run in runs}
    sides: dict[str, set[str]] = {}
    for one in fields.values():
        sides.setdefault(one[task.head], set()).add(one["backbone"])
    alone = {head: names for head, names in sides.items() if len(names) < 2}
    sentences = [
        f"{head}: only {', '.join(names)} has a result, so it is not compared" for head, names in alone.items()
    ]
    return [run for run, one in fields.items() if one[task.head] not in alone], sentences
