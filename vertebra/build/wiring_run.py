"""How trainings begin, and where an evaluation finds its weights and leaves its results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vertebra.ground.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    from vertebra.engine.distributed import World
    from vertebra.engine.rundir import RunDirectory
    from vertebra.recipes.schema import RunRecipe

    class TrainingSet(Protocol):
        """What every kind of training set tells of itself."""

        @property
        def class_names(self) -> Sequence[str]: ...
        def fingerprint(self) -> str: ...


logger = logging.getLogger("vertebra.build.wiring_run")

AnyRecipe = TypeVar("AnyRecipe", bound="RunRecipe")


def default_output(job: str, recipe: RunRecipe, data: str) -> Path:
    """Where a run goes that was not told: runs/JOB_BACKBONE_DATA_SEED."""
    from vertebra.recipes.schema import path_part

    return Path("runs") / f"{job}_{path_part(recipe.backbone)}_{data}_{recipe.seed}"


def settled(recipe: AnyRecipe, world: World, *, job: str, data: str) -> AnyRecipe:
    """The recipe with what it left open: the precision on this device, and the run directory. From here on, log lines
    are seen. job, data: for the directory's name."""
    from vertebra.engine import precision
    from vertebra.engine.logs import setup_logging

    setup_logging(is_main=world.is_main)
    precise = precision.resolve(recipe.precision, world.device)
    output = recipe.output or default_output(job, recipe, data)
    return recipe.model_copy(update={"precision": precise, "output": output})


def is_finished(recipe: RunRecipe, world: World, train_set: TrainingSet) -> bool:
    """Whether the run has come to its end before, which is said: to be asked before weights and networks are made.

    Raises RunError where the directory holds a finished run of another recipe, or `resume` was not asked for.
    """
    from vertebra.engine.rundir import RunDirectory

    assert recipe.output is not None
    return RunDirectory(recipe.output).finished and open_run(recipe, world, train_set) is None


def open_run(recipe: RunRecipe, world: World, train_set: TrainingSet, notes: Iterable[str] = ()) -> RunDirectory | None:
    """The run's directory, its log and, as warnings, notes on the data; None where the run is finished, which is said.

    To be called when all else that can be wrong with the command has been found: a directory that was made would be
    in the way of the mended one. A run that goes on with other images (one may have been bad, and is gone) says so.
    Raises RunError where the directory holds something else or a run on other classes, or where `resume` was not asked
    for.
    """
    from vertebra.engine.logs import setup_logging
    from vertebra.engine.rundir import RunDirectory, RunError
    from vertebra.recipes.schema import may_differ

    assert recipe.output is not None
    fields = recipe.model_dump(mode="json")
    run = RunDirectory.open(recipe.output, fields, resume=recipe.resume, may_differ=may_differ(recipe), world=world)
    changed = run.note_data({"classes": list(train_set.class_names), "fingerprint": train_set.fingerprint()})
    if "classes" in changed:
        raise RunError(f"{run.path} holds a run on other classes than those of --data; choose another --output.")
    if run.finished:
        if world.is_main:
            of = " (of a training on other images than those of --data)" if changed else ""
            print(f"{run.path} is finished: its weights are {run.weights}{of}, its figures {run.evaluation}")
        return None
    setup_logging(run.log, is_main=world.is_main)
    if changed:
        logger.warning("the training images are not those that this run began with: it goes on with those of --data")
    for note in notes:
        logger.warning(note)
    return run


def take_up(recipe: RunRecipe, run: RunDirectory, world: World) -> tuple[dict[str, Any] | None, int]:
    """The state that the run goes on from, and its iteration; None and 0 at the beginning.

    From here on random draws that no image's key decides (dropout) differ between processes.
    """
    from vertebra.engine import rng

    state = run.latest_state()
    rng.seed_all(recipe.seed, rank=world.rank)
    return state, int(state["iteration"]) if state else 0


def weights_file(run: Path | None, weights: Path | None, *, tool: str) -> Path:
    """The file that an evaluation reads: `weights`, or the run directory's. tool: what makes such runs.

    Raises ValueError where it is not there.
    """
    if run is None:
        assert weights is not None
        return weights
    if not run.is_dir():
        raise ValueError(f"{run} is not a directory; name a run directory of {tool}")
    path = run / "model.safetensors"
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: the run is not finished; run its {tool} command with --resume, or name a file of "
            "weights"
        )
    return path


def refuse_other_protocol(differing: list[str]) -> None:
    """Raises RecipeError where results would not be of the protocol that the run directory names."""
    if differing:
        raise RecipeError(
            f"--output is missing: {', '.join(differing)} would not be as in the run's own protocol, "
            "so the results need a directory of their own"
        )


def results_directory(output: Path, world: World) -> RunDirectory:
    """Where an evaluation's files go; made if it is not there."""
    from vertebra.engine.rundir import RunDirectory

    if world.is_main:
        output.mkdir(parents=True, exist_ok=True)
    return RunDirectory(output, world=world, tensorboard=False)
