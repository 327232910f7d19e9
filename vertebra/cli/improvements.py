"""What each improvement at test is worth, one after the other: the cumulative table of He et al. 2015, appendix B.

python tools/improvements.py RUN --context-run RUN_WITH_CONTEXT --ensemble RUN2 RUN3 --output DIR

Rows: the detector as it is, + box refinement, + context (a run trained with --model.context), + several sizes
(--multi-scale 200 400 600 800 1000), + mirrored images (--flip), + ensemble. A row that is done is kept, so the same
command goes on where it was stopped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from pydantic import Field

from vertebra.cli import eval_det
from vertebra.cli.common import Switch, in_processes
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import load_recipe, parse_recipe
from vertebra.recipes.schema import OfTest, flatten, protocol_fields, refuse
from vertebra.recipes.schema_detection import DetectionRecipe

if TYPE_CHECKING:
    from vertebra.engine.distributed import World

SAME_NETWORK = ("backbone", "width", "shortcut", "stride_in")


class Settings(OfTest):
    """Which runs of train_det.py, and which improvements."""

    run: tyro.conf.Positional[Path] = Field(description="The baseline's run directory.")
    output: Path = Field(description="Where the rows' results and the table go.")
    context_run: Path | None = Field(
        None, description="The same recipe's run with --model.context; from its row on it is the detector."
    )
    multi_scale: tuple[int, ...] = Field((), description="Shorter sides, pixels; none given: no such row.")
    multi_scale_region: int | None = Field(
        None, ge=1, description="Root of a region's area at its ideal size, pixels, instead of the recipe's."
    )
    flip: Switch = Field(False, description="A row with mirrored images, which the paper has not.")
    ensemble: tuple[str, ...] = Field((), description="Run directories or weights of the other detectors.")
    data: Path | None = Field(None, description="Directory of the data set; default: the runs'.")

    def check(self) -> None:
        refuse(
            (
                self.multi_scale_region is not None and not self.multi_scale,
                "--multi-scale-region has no effect without --multi-scale: add that, or leave it out",
            ),
            (
                self.output in (self.run, self.context_run, *map(Path, self.ensemble)),
                f"{self.output} is a run's own directory; give the table another --output",
            ),
        )


@dataclass(frozen=True)
class Row:
    """key: of the paper's row; evaluation: the settings of eval_det.py."""

    key: str
    title: str
    evaluation: eval_det.Settings


def plan(settings: Settings) -> list[Row]:
    """Return the rows in order; each has all that the one above has."""
    now = eval_det.Settings(
        run=settings.run,
        data=settings.data,
        workers=settings.workers,
        device=settings.device,
        precision=settings.precision,
    )
    rows = [Row("baseline", "baseline", now)]

    def add(key: str, title: str, **changes: Any) -> None:
        rows.append(Row(key, title, rows[-1].evaluation.model_copy(update=changes)))

    add("refinement", "+ box refinement", refine=True)
    if settings.context_run is not None:
        add("context", "+ context", run=settings.context_run)
    if settings.multi_scale:
        region = settings.multi_scale_region
        add("multi_scale", "+ several sizes", multi_scale=settings.multi_scale, multi_scale_region=region)
    if settings.flip:
        add("flip", "+ mirrored images", flip=True)
    if settings.ensemble:
        add("ensemble", f"+ ensemble of {1 + len(settings.ensemble)}", ensemble=settings.ensemble)
    return [
        replace(row, evaluation=row.evaluation.model_copy(update={"output": settings.output / f"{place}_{row.key}"}))
        for place, row in enumerate(rows)
    ]


def check(settings: Settings) -> None:
    """Raise RecipeError where the rows would differ in more than their titles."""
    recipe = recipe_of(settings.run)
    test = recipe.test
    if test.refine or test.multi_scale or test.flip or recipe.model.context:
        raise RecipeError(
            f"{settings.run} has improvements of its own in its recipe; name a run without them as baseline"
        )
    for row in plan(settings):
        changed(row)
    check_detectors(settings, recipe)
    if settings.context_run is None:
        return
    other = recipe_of(settings.context_run)
    if not other.model.context:
        raise RecipeError(f"{settings.context_run} was trained without context; train it with --model.context")
    sides = [{**protocol_fields(one), **{name: flatten(one)[name] for name in SAME_NETWORK}} for one in (recipe, other)]
    differing = [name for name in sides[0] if sides[0][name] != sides[1].get(name) and name != "model.context"]
    if differing:
        raise RecipeError(
            f"{settings.context_run} differs from {settings.run} in {', '.join(differing)} too, so that the context's "
            "share would not be known; train both by one recipe"
        )


def check_detectors(settings: Settings, recipe: DetectionRecipe) -> None:
    """Raise ValueError where a detector is missing, or makes no ensemble with the first: before the first row.

    Published ones are not fetched for it.
    """
    from vertebra.build.detector import check_member
    from vertebra.build.results import weights_file
    from vertebra.build.torchvision_detectors import torchvision_classes, torchvision_recipe
    from vertebra.build.trained_detector import read_detector

    first = settings.context_run or settings.run
    for run in dict.fromkeys((settings.run, first)):
        weights_file(run, tool="train_det.py")
    classes = tuple(read_detector(str(first)).names.values())
    for one in settings.ensemble:
        if one.startswith("torchvision:") and "=" not in one:
            theirs = torchvision_recipe(name := one.removeprefix("torchvision:")), torchvision_classes(name)
        else:
            theirs = (member := read_detector(one)).recipe, member.names
        check_member(one, theirs[0], tuple(theirs[1].values()), recipe, classes)


def changed(row: Row, world: World | None = None) -> DetectionRecipe:
    """Return the recipe under which the row is tested. Raises RecipeError where it cannot be."""
    assert row.evaluation.run is not None
    return eval_det.changed(recipe_of(row.evaluation.run), row.evaluation, world)


def recipe_of(run: Path) -> DetectionRecipe:
    if not (run / "config.yaml").is_file():
        raise ValueError(f"{run} is not a run directory of train_det.py: it has no config.yaml")
    return load_recipe(DetectionRecipe, run / "config.yaml")


def is_done(row: Row, world: World) -> bool:
    """True where the row's results are there, of these settings, these images and these weights."""
    settings = row.evaluation
    assert settings.run is not None and settings.output is not None
    path = settings.output / "evaluation.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("tested")
        age = path.stat().st_mtime
        places = [settings.run, *map(Path, settings.ensemble)]
        weights = [place / "model.safetensors" if place.is_dir() else place for place in places]
        newer = any(file.is_file() and file.stat().st_mtime > age for file in weights)
    except (OSError, ValueError):
        return False
    return bool(found == eval_det.tested(settings, changed(row, world))) and not newer


def main(arguments: list[str]) -> int:
    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    check(settings)
    rows = plan(settings)
    return in_processes(settings.gpus, settings.device, lambda world: evaluate(settings, rows, world))


def evaluate(settings: Settings, rows: list[Row], world: World) -> int:
    """Evaluate what is not done yet, then write and print the table."""
    from vertebra.evaluation.statistics.improvements import Evaluated, improvement_table, to_markdown
    from vertebra.ground.files import write_json, write_text

    for number, row in enumerate(rows, 1):
        done = is_done(row, world)
        if world.is_main:
            print(f"[{number}/{len(rows)}] {row.title}: {row.evaluation.output}{', done' if done else ''}", flush=True)
        if not done:
            eval_det.evaluate(row.evaluation, world)
    if not world.is_main:
        return 0
    found = [Evaluated(row.key, row.title, row.evaluation.output) for row in rows if row.evaluation.output is not None]
    table = improvement_table(found)
    text = to_markdown(table)
    write_json(settings.output / "improvements.json", {"rows": table})
    write_text(settings.output / "improvements.md", text)
    print(f"\n{text}\nthe table: {settings.output / 'improvements.md'}")
    return 0
