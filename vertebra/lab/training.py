"""One training of a plan: a command line, and the recipe that it means."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from vertebra.build.training import iterations_of
from vertebra.engine.jobs.board import latest
from vertebra.engine.jobs.jobs import Job
from vertebra.engine.rundir import RunDirectory
from vertebra.recipes.command_line import drop_other_lengths, validated
from vertebra.recipes.schema import ADDED, BackboneRecipe, RunRecipe, flag_of, flatten, may_differ, require_trackers
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_jobs import Jobs
from vertebra.recipes.schema_segmentation import SegmentationRecipe


@dataclass(frozen=True)
class Training:
    """One run: what it is, where it goes, the flags of its command, and the recipe that they make.

    title: what to call it in a sentence. head: of a cell, "" where a plan has one alone. value: of the swept
    field, in a trial of a sweep.
    """

    command_name: str
    title: str
    backbone: str
    head: str
    seed: int
    output: Path
    flags: tuple[str, ...]
    recipe: RunRecipe
    iterations: int
    value: str = ""

    @property
    def name(self) -> str:
        return f"sweep_{self.output.name}" if self.value else self.output.name

    @property
    def kind(self) -> str:
        """Trainings of one kind take equally long a step."""
        return f"{self.command_name} {self.backbone} {self.head}"

    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "vertebra", self.command_name, *self.flags)

    def job(self) -> Job:
        return Job(self.name, self.output, self.command(), self.iterations, kind=self.kind)

    def has_diverged(self) -> bool:
        """True where it ended because its loss was not finite (`vertebra.engine.guard`)."""
        return any((self.output / "checkpoints").glob("not_finite_*.pt"))

    def remaining(self) -> float:
        """Return the share of its steps that has not been done."""
        return max(0.0, 1 - latest(self.output).get("iteration", 0) / self.iterations)

    def is_finished(self) -> bool:
        """True where its run came to its end. Raises UserError where its directory holds another recipe's run."""
        free = may_differ(self.recipe)
        if self.recipe.precision == "auto":  # the machine that it ran on has decided
            free |= {"precision"}
        return RunDirectory.is_finished(self.output, self.recipe.model_dump(mode="json"), may_differ=free, added=ADDED)


def common_flags(recipe: Jobs) -> tuple[str, ...]:
    """Return the flags that a plan gives to all its trainings. Raises RecipeError where a tracker is not installed."""
    require_trackers(recipe.track)
    devices = ("--device", recipe.device, "--gpus", str(recipe.processes))
    track = ("--track", *recipe.track) if recipe.track else ()
    return (*devices, "--workers", str(recipe.workers), *track, "--resume")


def seeded(first: Training, seed: int, output: Path) -> Training:
    """Return a training like the first, with its seed and its directory."""
    one = replace(first, title=f"{first.title}, seed {seed}", seed=seed, output=output)
    return with_flags(one, {"seed": str(seed), "output": str(output)})


def with_flags(training: Training, values: dict[str, str]) -> Training:
    """Return the training with further flags, and the recipe and length that they make.

    Raises RecipeError for a value that its field cannot have, and for a second length beside one on the command line.
    """
    named = [flag_of(name) for name in values]
    fields = drop_other_lengths(training.recipe, [*training.flags, *named]).model_dump(mode="json")
    for name, value in values.items():
        *place, last = name.split(".")
        inner = fields
        for part in place:
            inner = inner[part]
        inner[last] = value
    recipe = validated(type(training.recipe), fields, f"{named[-1]} {list(values.values())[-1]}")
    parsed = flatten(recipe)
    flags = tuple(part for name, value in values.items() for part in _as_flag(name, value, parsed[name]))
    return replace(training, flags=training.flags + flags, recipe=recipe, iterations=steps_of(recipe))


def _as_flag(name: str, value: str, parsed: object) -> tuple[str, ...]:
    """Write a field as on a command line: --solver.lr 0.02, and a switch as --test.flip or --test.no-flip."""
    if not isinstance(parsed, bool):
        return (flag_of(name), value)
    *place, last = name.split(".")
    return (flag_of(".".join([*place, last if parsed else f"no_{last}"])),)


def steps_of(recipe: RunRecipe) -> int:
    """Return the length of the recipe's training in steps; in epochs it takes a look at the data."""
    assert isinstance(recipe, BackboneRecipe | DetectionRecipe | SegmentationRecipe)
    if recipe.solver.iterations:
        return iterations_of(recipe, 0)
    same = {"solver": type(recipe.solver)(), "seed": 0, "output": None, "weights": type(recipe)().weights}
    return iterations_of(recipe, _images_of(recipe.model_copy(update=same)))


@functools.cache  # a large set takes seconds to open, and all trainings of a plan have the same
def _images_of(recipe: RunRecipe) -> int:
    from vertebra.lab.kinds import kind_of  # every detector and segmenter, which a study of classifiers does not need

    return len(kind_of(recipe).open_train(recipe))
