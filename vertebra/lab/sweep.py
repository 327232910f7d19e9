"""A sweep over one field: every backbone and head tries all values with seed 0, and the best goes to all seeds.

The best value is chosen on images held out of the training set, never on the test set. The grid and this rule are
part of the protocol; the value chosen is a result (`vertebra.recipes.schema.protocol_fields`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vertebra.ground.errors import RecipeError, UserError
from vertebra.ground.files import write_json
from vertebra.lab.kinds import cell_kind_of
from vertebra.lab.training import Training, with_flags
from vertebra.recipes.schema import COMPARED, NO_EFFECT, flatten, path_part
from vertebra.recipes.schema_compare import CompareRecipe, Sweep


class Undecided(UserError):
    """A sweep has not chosen a value, or not yet."""


@dataclass(frozen=True)
class Choice:
    """The result of the trials of a backbone and a head. figures: by value, None where the training diverged."""

    backbone: str
    head: str
    figures: dict[str, float | None]
    chosen: str


def trials_of(recipe: CompareRecipe, first: Training) -> tuple[Training, ...]:
    """Plan seed 0 of a backbone and a head, once a value, tested on what is held out of the training images.

    Raises RecipeError for a field that a sweep cannot choose, and for a value that the field cannot have.
    """
    sweep = _sweep(recipe)
    _check(sweep, first, recipe.trains.noun)
    trials = []
    for value in sweep.values:
        output = recipe.output / "sweep" / f"{first.output.name}_{path_part(value)}"
        changes = {"seed": "0", "output": str(output), "validation": f"{recipe.sweep_share:g}", sweep.field: value}
        trial = replace(first, title=f"trial of {value} for {first.title}", output=output, value=value)
        trials.append(with_flags(trial, changes))
    _check_values(sweep, trials)
    return tuple(trials)


def _check_values(sweep: Sweep, trials: Sequence[Training]) -> None:
    """Raise RecipeError where two values make one recipe: 0.01 and 1e-2, or any of a field without effect."""
    seen: dict[str, str] = {}
    for trial in trials:
        value = flatten(trial.recipe)[sweep.field]
        other = seen.setdefault(repr(value), trial.value)
        if other != trial.value:
            raise RecipeError(f"--sweep {sweep.field}: {other} and {trial.value} both mean {value}; name one of them")


def with_choice(recipe: CompareRecipe, cell: Training, choice: Choice) -> Training:
    """Return the cell as it is trained once the sweep has chosen its value."""
    sweep = _sweep(recipe)
    grid = f"{sweep.field}: {' '.join(sweep.values)}"
    return with_flags(cell, {sweep.field: choice.chosen, "sweep": f"{grid}, {rule(recipe, cell)}"})


def rule(recipe: CompareRecipe, cell: Training) -> str:
    """Return the rule by which a value is chosen, in words."""
    _, _, figure = cell_kind_of(cell.recipe).figure(cell.recipe)
    return f"best {figure} on {recipe.sweep_share:g} of the training images, seed 0"


def choose(trials: Sequence[Training]) -> Choice:
    """Choose the value with the best figure, of equal ones the first.

    Raises Undecided where a trial has not ended yet (one that diverged has) or its figure cannot be read, and where all
    diverged.
    """
    figures: dict[str, float | None] = {}
    for trial in trials:
        if trial.is_finished():
            figures[trial.value] = _figure(trial)
        elif trial.has_diverged():
            figures[trial.value] = None
        else:
            raise Undecided(f"its sweep lacks the {trial.title} ({trial.output})")
    found = {value: figure for value, figure in figures.items() if figure is not None}
    if not found:
        raise Undecided(f"its sweep has no value with which the training did not diverge: {', '.join(figures)}")
    first = trials[0]
    return Choice(first.backbone, first.head, figures, max(found, key=lambda value: found[value]))


def write_choices(recipe: CompareRecipe, trials: Sequence[Sequence[Training]]) -> None:
    """Write OUTPUT/sweep.json: the grid, the rule, and of each backbone and head its figures and the choice."""
    sweep, choices = _sweep(recipe), []
    for group in trials:
        try:
            choices.append(vars(choose(group)))
        except Undecided:
            continue
    facts = {"field": sweep.field, "values": list(sweep.values), "rule": rule(recipe, trials[0][0]), "choices": choices}
    recipe.output.mkdir(parents=True, exist_ok=True)
    write_json(recipe.output / "sweep.json", facts)


def _sweep(recipe: CompareRecipe) -> Sweep:
    sweep = recipe.swept()
    assert sweep is not None
    return sweep


def _figure(trial: Training) -> float | None:
    path = trial.output / "evaluation.json"
    metric, name, _ = cell_kind_of(trial.recipe).figure(trial.recipe)
    try:
        evaluation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        figure = evaluation[metric][name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Undecided(
            f"{path} has no {metric} {name} ({error})", hint="remove the run, and it is tried again"
        ) from None
    if figure is None:
        reason = "there is no object in the held-out images, or no labelled pixel"
        raise Undecided(path, reason, "give a greater --sweep-share")
    return float(figure)


def _check(sweep: Sweep, first: Training, noun: str) -> None:
    fields = [name for name in flatten(first.recipe) if name not in NO_EFFECT | COMPARED | {"sweep", "validation"}]
    if sweep.field not in fields:
        near = [name for name in fields if name.endswith(f".{sweep.field}")]
        near = near or difflib.get_close_matches(sweep.field, fields, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        raise RecipeError(f"--sweep {sweep.field}", f"a {noun}'s recipe has no such field that can be swept", hint)
    if any(argument.split("=")[0].replace("_", "-") == sweep.flag for argument in first.flags):
        raise RecipeError(f"--sweep {sweep.field}: {sweep.flag} stands after the -- as well; the sweep is to choose it")
