"""One training of a comparison: a command line of its tool, and the recipe that it means."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from configs.command_line import validated
from configs.schema import RunRecipe, flag_of, may_differ
from engine.rundir import RunDirectory


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

    def command(self, tools: Path) -> tuple[str, ...]:
        return (sys.executable, str(tools / f"{self.tool}.py"), *self.flags)

    def has_diverged(self) -> bool:
        """Whether it ended because its loss was no number any more (`engine.guard`)."""
        return any((self.output / "checkpoints").glob("not_finite_*.pt"))

    def is_finished(self) -> bool:
        """Whether its run came to its end. Raises RunError where its directory holds another recipe's run."""
        free = may_differ(self.recipe)
        if self.recipe.precision == "auto":  # the run's own was settled by the machine that it ran on
            free |= {"precision"}
        return RunDirectory.is_finished(self.output, self.recipe.model_dump(mode="json"), may_differ=free)


def with_flags(training: Training, values: dict[str, str]) -> Training:
    """The training with further flags, and the recipe that they make."""
    flags = tuple(part for name, value in values.items() for part in (flag_of(name), value))
    fields = training.recipe.model_dump(mode="json")
    for name, value in values.items():
        *place, last = name.split(".")
        inner = fields
        for part in place:
            inner = inner[part]
        inner[last] = value
    recipe = validated(type(training.recipe), fields, " ".join(flags[-2:]))
    return replace(training, flags=training.flags + flags, recipe=recipe)
