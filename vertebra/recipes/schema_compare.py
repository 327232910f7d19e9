"""What can be set in a comparison: backbones, heads, seeds, where they run, and where the report goes.

Plain data as `vertebra.recipes.schema` is: nothing here imports torch or another room.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from pydantic import AliasChoices, Field

from vertebra.recipes.schema import DEFAULT_RECIPES, Body, CellRecipe, flag_of, refuse
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_jobs import Jobs
from vertebra.recipes.schema_segmentation import SEGMENTATION_RECIPES, SegmentationRecipe, SegmenterHead

BODIES: tuple[str, ...] = get_args(Body)

# The recipe of a named head on a data set. Where none stands here it is the data set's own, or --recipe, with the head
# exchanged: see `vertebra.lab.kinds`.
HEAD_RECIPES: dict[tuple[str, str], str] = {
    **{(dataset, "c4"): recipe for dataset, recipe in DEFAULT_RECIPES.items()},
    **{
        (dataset, "fpn"): "detection/coco_fpn_1x.yaml"
        for dataset in ("coco", "coco2014", "imagenet_det", "json", "yolo")
    },
    ("sample", "fpn"): "sample/fpn.yaml",
}
SEGMENTER_RECIPES = {
    (dataset, head): f"segmentation/voc12_{head}.yaml"
    for dataset in ("voc12", "voc12aug")
    for head in ("fcn", "deeplabv3")
}
# Fields with an effect on a report on runs that exist, or on --predictions alone; all others are a matrix's.
REPORT_FIELDS = frozenset({"runs", "output", "resume", "report", "predictions", "truth", "classes", "images", "expect"})
# Flags that the matrix itself gives to every training, beside that of the head.
SET_BY_MATRIX = (
    *("--config", "--backbone", "--dataset", "--data", "--weights", "--seed", "--output", "--resume", "--device"),
    *("--gpus", "--workers", "--validation", "--sweep"),
)


@dataclass(frozen=True)
class Task:
    """What the cells of a matrix train.

    noun: what to call it. command: that trains it, with a recipe of the class `recipe`. head: the field in which cells
    with different heads differ, and `heads` its values. recipes: of each data set; head_recipes: of a head on one.
    """

    noun: str
    command: str
    recipe: type[CellRecipe]
    head: str
    heads: tuple[str, ...]
    recipes: Mapping[str, str]
    head_recipes: Mapping[tuple[str, str], str]


TASKS = {
    "det": Task("detector", "train-det", DetectionRecipe, "model.body", BODIES, DEFAULT_RECIPES, HEAD_RECIPES),
    "seg": Task(
        *("segmenter", "train-seg", SegmentationRecipe, "model.head"),
        *(get_args(SegmenterHead), SEGMENTATION_RECIPES, SEGMENTER_RECIPES),
    ),
}


@dataclass(frozen=True)
class Head:
    """A column of the matrix: its name ("" where only one recipe was asked for), its recipe, and the head to give it.

    head None: the recipe's own.
    """

    name: str
    recipe: str
    head: str | None = None


@dataclass(frozen=True)
class Sweep:
    """The values of one field that are tried on every backbone and head."""

    field: str
    values: tuple[str, ...]

    @property
    def flag(self) -> str:
        return flag_of(self.field)


class CompareRecipe(Jobs):
    """Finished runs to report on, or a matrix of backbones, heads and seeds under one protocol."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = Field((), description="Finished run directories to compare.")
    task: Literal["det", "seg"] = Field("det", description="What is trained on the backbones: detectors, segmenters.")
    backbones: tuple[str, ...] = Field((), description="The backbones to compare; the first is the baseline.")
    heads: tuple[str, ...] = Field(
        (),
        description=f"{', '.join(BODIES)} (det), {', '.join(get_args(SegmenterHead))} (seg), each with its recipe for "
        "the data set, or NAME=RECIPE.yaml; none: the one recipe of --recipe or of the data set. Each head is a "
        "comparison of its own.",
    )
    dataset: str = Field(
        "sample", description="; ".join(f"{name}: {', '.join(task.recipes)}" for name, task in TASKS.items())
    )
    data: Path | None = Field(None, description="Directory of the data set, or of a --truth that is a source in it.")
    seeds: int = Field(1, ge=1, description="Runs of each backbone with each head: seeds 0 to N-1.")
    weights: tuple[str, ...] = Field(
        (), description="BACKBONE=FILE, =hf:USER/NAME, =torchvision or =none; a backbone without it is pre-trained."
    )
    pretrain: str | None = Field(None, description="Recipe with which backbones without weights are pre-trained.")
    pretrain_data: Path | None = Field(None, description="Folder of classes for the pre-training.")
    recipe: Annotated[str | None, tyro.conf.arg(aliases=["--detection"])] = Field(
        None,
        validation_alias=AliasChoices("recipe", "detection"),
        description="Recipe of the detectors or segmenters; none: the data set's.",
    )
    sweep: tuple[str, ...] = Field(
        (),
        description="FIELD VALUE VALUE ...: seed 0 of every backbone and head is trained once a value, and the best on "
        "a held-out part of the training images goes to all seeds.",
    )
    sweep_share: float = Field(0.1, gt=0, lt=1, description="Share of the training images that a sweep holds out.")
    output: Path = Field(Path("runs/compare"), description="Where the runs and the report go.")
    gpus: int = Field(1, ge=1, description="Devices (on a CPU: processes) in use at a time.")
    gpus_per_job: int | None = Field(
        None, ge=1, description="Devices of each job, GPUS/GPUS_PER_JOB at a time; none: all of --gpus for each job."
    )
    resume: bool = Field(False, description="Not needed: the same command again goes on by itself.")
    dry_run: bool = Field(False, description="Show the plan and an estimate of its time, and stop.")
    report: Path | None = Field(None, description="Where the report goes; none: OUTPUT/report.")
    predictions: tuple[str, ...] = Field(
        (),
        description="NAME=FILE ...: COCO results of detectors without a run directory; with --task seg NAME=FOLDER "
        "...: maps of segmenters, as score.py --metric miou takes them; several of one name are seeds.",
    )
    truth: Path | None = Field(
        None,
        description="What --predictions are scored on; none: the runs' truth. COCO JSON; with --task seg a folder of "
        "PNGs, or with --data a source such as voc2012/val.",
    )
    classes: Path | None = Field(None, description="Classes of a --truth that is a folder of PNGs, one a line.")
    images: Path | None = Field(None, description="Directory of that truth's images, to be shown.")
    expect: Path | None = Field(
        None,
        description="YAML or JSON file of published figures, such as published/coco2015_c4.yaml; exit 1 where one is "
        "missed.",
    )

    def check(self) -> None:
        self.check_place()
        self._check_entries()
        share = CompareRecipe.model_fields["sweep_share"].default
        per_job = self.gpus_per_job or 1
        refuse(
            (self.gpus % per_job, f"--gpus {self.gpus} is not a multiple of --gpus-per-job {per_job}"),
            (
                self.jobs and self.gpus_per_job,
                f"--jobs is for a CPU; with --gpus-per-job, --gpus {self.gpus} gives how many run at a time",
            ),
            (
                self.classes and (self.task == "det" or not self.truth or self.data),
                "--classes is for --task seg with a --truth that is a folder of maps; other truths have their classes",
            ),
            (
                self.task == "seg" and self.truth and (self.runs or self.backbones),
                "--truth: folders of maps beside runs are scored on the truth of these; leave it out",
            ),
            (
                self.task == "seg" and self.predictions and self.data and not (self.truth or self.backbones),
                "--data is where the source lies that --truth names, such as voc2012/val",
            ),
            (not self.sweep and self.sweep_share != share, "--sweep-share is for a --sweep"),
            (
                len(self.sweep) in (1, 2),
                f"--sweep {' '.join(self.sweep)}: name a field and at least two values, such as solver.lr 0.01 0.02",
            ),
        )
        self.all_heads()

    def _check_entries(self) -> None:
        """Raise ValueError for entries that are no NAME=VALUE where they must be, of no backbone, or there twice."""
        form = "NAME=FILE" if self.task == "det" else "NAME=FOLDER"
        pairs = [("predictions", form, entry) for entry in self.predictions]
        for field, form, entry in [
            *pairs,
            *(("weights", "BACKBONE=FILE (or =torchvision, =none)", entry) for entry in self.weights),
        ]:
            name, _, value = entry.partition("=")
            if not name or not value:
                raise ValueError(f"--{field} {entry}: write {form}")
            if field == "weights" and self.backbones and name not in self.backbones:
                known = ", ".join(self.backbones)
                raise ValueError(f"--weights {entry}: write BACKBONE=FILE with one of the backbones {known}")
        for field in ("backbones", "sweep", "heads", "weights", "slurm"):
            is_plain = field in ("backbones", "sweep")
            names = [entry if is_plain else entry.partition("=")[0] for entry in getattr(self, field)]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                hint = ", --seeds repeats them" if field in ("backbones", "heads") else ""
                raise ValueError(f"--{field} has {', '.join(twice)} twice; name each once{hint}")

    @property
    def trains(self) -> Task:
        return TASKS[self.task]

    def matrix_fields(self) -> list[str]:
        """Return the fields that were set and have no effect on a report on runs that exist."""
        others = REPORT_FIELDS | ({"task", "data"} if self.task == "seg" and self.predictions else set())
        return list(self.given(*sorted(CompareRecipe.model_fields.keys() - others)))

    @property
    def processes(self) -> int:
        """Processes of each job."""
        return self.gpus_per_job or self.gpus

    @property
    def at_once(self) -> int:
        """Jobs at a time."""
        return self.jobs or self.gpus // self.processes

    def all_heads(self) -> list[Head]:
        """Return the heads with their recipes. Raises ValueError for an unknown head or data set."""
        recipes = self.trains.recipes
        if self.dataset not in recipes:
            raise ValueError(f"dataset {self.dataset!r} is not one of {', '.join(recipes)}")
        own = self.recipe or recipes[self.dataset]
        if not self.heads:
            return [Head("", own)]
        return [self._head(text, own) for text in self.heads]

    def _head(self, text: str, own: str) -> Head:
        name, equals, recipe = text.partition("=")
        if equals:
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or not recipe:
                raise ValueError(f"--heads {text}: write NAME=RECIPE.yaml with a NAME of letters, digits, - and _")
            return Head(name, recipe)
        heads = self.trains.heads
        if name not in heads:
            raise ValueError(f"there is no head {name!r}: it is one of {', '.join(heads)}, or NAME=RECIPE.yaml")
        listed = None if self.recipe else self.trains.head_recipes.get((self.dataset, name))
        return Head(name, listed or own, name)

    def swept(self) -> Sweep | None:
        """Return the sweep that was asked for, its field as it is written in a recipe."""
        if not self.sweep:
            return None
        return Sweep(self.sweep[0].removeprefix("--").replace("-", "_"), self.sweep[1:])

    def weights_of(self) -> dict[str, str]:
        """Return the weights that were named, by backbone."""
        return dict(entry.split("=", 1) for entry in self.weights)

    def predictions_of(self) -> dict[str, list[Path]]:
        """Return the files of predictions, by the name of their side."""
        sides: dict[str, list[Path]] = {}
        for entry in self.predictions:
            name, _, path = entry.partition("=")
            sides.setdefault(name, []).append(Path(path))
        return sides
