"""Compare backbones in a detector: run the matrix, or report on runs that exist.

python tools/compare.py RUN_DIR RUN_DIR ... --report DIR

python tools/compare.py --backbones vgg16 r101 --dataset voc07 --data VOCdevkit --weights vgg16=FILE r101=FILE --seeds 3

Runs of one backbone that differ by the seed are one side in the report: mean and standard deviation, and differences
with intervals over seeds and images. With one seed on a side the report gives no verdict on the backbones.

The jobs run one after the other, each by the tools that you could have typed yourself; a killed matrix goes on with
--resume, and what is finished is not run again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import run_tool

from configs.command_line import RecipeError, parse_recipe
from configs.schema import DEFAULT_RECIPES, CompareRecipe

TOOLS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Job:
    """One command of the matrix: `name` for people, `output` its run directory."""

    name: str
    output: Path
    command: tuple[str, ...]


def safe(name: str) -> str:
    """A backbone's name as a part of a path (torchvision:resnet50 -> torchvision-resnet50)."""
    return name.replace(":", "-").replace("/", "-")


def plan(recipe: CompareRecipe) -> tuple[list[Job], list[Path]]:
    """The jobs in order, and the run directories that the report compares."""
    common = (
        "--device",
        recipe.device,
        "--workers",
        str(recipe.workers),
        "--gpus",
        str(recipe.gpus),
        "--resume",
    )
    weights = dict(entry.split("=", 1) for entry in recipe.weights)
    detection = recipe.detection or DEFAULT_RECIPES.get(recipe.dataset)
    if detection is None:
        raise RecipeError(f"dataset {recipe.dataset!r} is not one of {', '.join(DEFAULT_RECIPES)}")
    if recipe.data is None:
        raise RecipeError("--data is missing: the directory of the detection data set")
    jobs, runs = [], []
    for backbone in recipe.backbones:
        if backbone not in weights:
            jobs.append(_pretraining(recipe, backbone, common))
            weights[backbone] = str(jobs[-1].output / "model.safetensors")
        for seed in range(recipe.seeds):
            output = recipe.output / f"{safe(backbone)}_seed{seed}"
            command = (
                *(
                    sys.executable,
                    str(TOOLS / "train_det.py"),
                    "--config",
                    detection,
                    "--dataset",
                    recipe.dataset,
                ),
                *("--backbone", backbone, "--data", str(recipe.data), "--weights", weights[backbone]),
                *("--seed", str(seed), "--output", str(output), *common),
            )
            jobs.append(Job(f"detector on {backbone}, seed {seed}", output, command))
            runs.append(output)
    return jobs, runs


def _pretraining(recipe: CompareRecipe, backbone: str, common: tuple[str, ...]) -> Job:
    data = recipe.pretrain_data
    if data is None and recipe.dataset == "sample" and recipe.data is not None:
        data = recipe.data / "objects"
    if recipe.pretrain is None or data is None:
        raise RecipeError(
            f"{backbone} has no weights: give --weights {backbone}=FILE (or =torchvision, =none), "
            "or --pretrain RECIPE --pretrain-data DIR"
        )
    output = recipe.output / f"{safe(backbone)}_backbone"
    command = (
        *(
            sys.executable,
            str(TOOLS / "train_backbone.py"),
            "--config",
            recipe.pretrain,
            "--backbone",
            backbone,
        ),
        *("--data", str(data), "--output", str(output), *common),
    )
    return Job(f"pre-training of {backbone}", output, command)


def main() -> int:
    recipe = parse_recipe(CompareRecipe, description=__doc__ or "")
    if bool(recipe.runs) == bool(recipe.backbones):
        raise RecipeError("name either finished run directories, or --backbones to run; see --help")
    runs = list(recipe.runs)
    if recipe.backbones:
        jobs, runs = plan(recipe)
        for number, job in enumerate(jobs, 1):
            print(f"[{number}/{len(jobs)}] {job.name} -> {job.output}", flush=True)
            if recipe.dry_run:
                print("    " + shlex.join(job.command))
        if recipe.dry_run:
            return 0
        if code := run_jobs(jobs, resume=recipe.resume):
            return code
    from evaluation.report import write_report

    page = write_report(runs, recipe.report or recipe.output / "report").page
    print(f"\nThe report: {page.resolve()}")
    return 0


def run_jobs(jobs: list[Job], *, resume: bool) -> int:
    """Run the jobs in order; the first failure ends the matrix with its exit code, what is done stays."""
    started = [job for job in jobs if (job.output / "config.yaml").exists()]
    if started and not resume:
        raise RecipeError(f"{started[0].output} holds a run already; add --resume, or choose another --output")
    for number, job in enumerate(jobs, 1):
        print(f"\n=== [{number}/{len(jobs)}] {job.name}", flush=True)
        code = subprocess.run(job.command).returncode
        if code:
            print(
                f"{job.name} ended with {code}; its log is {job.output / 'log.txt'}. "
                "The same command with --resume goes on from here.",
                file=sys.stderr,
            )
            return code if 0 < code < 256 else 1
    return 0


if __name__ == "__main__":
    run_tool(main)
