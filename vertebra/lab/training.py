"""One training of a comparison: a command line of its tool, and the recipe that it means."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from vertebra.build import build, build_detection
from vertebra.engine.jobs.board import latest
from vertebra.engine.rundir import RunDirectory
from vertebra.recipes.command_line import drop_other_lengths, validated
from vertebra.recipes.schema import BackboneRecipe, RunRecipe, flag_of, flatten, may_differ
from vertebra.recipes.schema_detection import DetectionRecipe


@dataclass(frozen=True)
class Training:
    """One run of the matrix: what it is, where it goes, the flags of its tool, and the recipe that they make.

    head "" where the matrix has one recipe alone; value: of the swept field, in a trial of the sweep.
    """

    tool: str
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
    def title(self) -> str:
        """For people: fpn on r50, seed 1."""
        if self.tool == "train_backbone":
            return f"pre-training of {self.backbone}"
        what = f"{self.head or 'detector'} on {self.backbone}"
        return f"trial of {self.value} for {what}" if self.value else f"{what}, seed {self.seed}"

    @property
    def kind(self) -> str:
        """Trainings of one kind take equally long a step."""
        return f"{self.tool} {self.backbone} {self.head}"

    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "vertebra", self.tool.replace("_", "-"), *self.flags)

    def has_diverged(self) -> bool:
        """Whether it ended because its loss was no number any more (`vertebra.engine.guard`)."""
        return any((self.output / "checkpoints").glob("not_finite_*.pt"))

    def share_left(self) -> float:
        """Of its steps, the share that has not been done."""
        return max(0.0, 1 - latest(self.output).get("iteration", 0) / self.iterations)

    def is_finished(self) -> bool:
        """Whether its run came to its end. Raises RunError where its directory holds another recipe's run."""
        free = may_differ(self.recipe)
        if self.recipe.precision == "auto":  # the run's own was settled by the machine that it ran on
            free |= {"precision"}
        return RunDirectory.is_finished(self.output, self.recipe.model_dump(mode="json"), may_differ=free)


def with_flags(training: Training, values: dict[str, str]) -> Training:
    """The training with further flags, and the recipe and length that they make.

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
    meant = flatten(recipe)
    flags = tuple(part for name, value in values.items() for part in _typed(name, value, meant[name]))
    return replace(training, flags=training.flags + flags, recipe=recipe, iterations=steps_of(recipe))


def _typed(name: str, value: str, meant: object) -> tuple[str, ...]:
    """As a command line says it: --test.flip or --test.no-flip, --solver.lr 0.02."""
    if not isinstance(meant, bool):
        return (flag_of(name), value)
    *place, last = name.split(".")
    return (flag_of(".".join([*place, last if meant else f"no_{last}"])),)


def steps_of(recipe: RunRecipe) -> int:
    """The length of the recipe's training."""
    assert isinstance(recipe, BackboneRecipe | DetectionRecipe)
    if recipe.solver.iterations:
        return build.iterations_of(recipe, 0)
    same = {"solver": type(recipe.solver)(), "seed": 0, "output": None, "weights": type(recipe)().weights}
    return build.iterations_of(recipe, _images_of(recipe.model_copy(update=same)))


@functools.cache  # a large set takes seconds to open, and all cells of a matrix have the same
def _images_of(recipe: BackboneRecipe | DetectionRecipe) -> int:
    if isinstance(recipe, DetectionRecipe):
        return len(build_detection.open_train(recipe))
    return len(build.open_classes(recipe, "train"))
