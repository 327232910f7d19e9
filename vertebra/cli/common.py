"""Shared by all commands: settings of one kind, processes, and an end in a sentence rather than a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro
from pydantic import AfterValidator

if TYPE_CHECKING:
    from vertebra.engine.distributed import World
    from vertebra.recipes.schema import RunRecipe

os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
# OpenMP reads this when torch is imported. By default its threads spin 300,000 rounds (milliseconds) for one another;
# where another process has taken a core, the one that they wait for cannot run meanwhile, and a step takes several
# times as long (benchmarks/neighbours.py). After 1,000 rounds, about what a sleep and a call cost, they sleep.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"
# Trainings of a plan are `python -m vertebra` in processes of their own: those of a clone are to run its code from any
# folder, installed or not, and also from the folder above a clone that is named vertebra.
_CLONE = Path(__file__).resolve().parents[2]
if (_CLONE / "pyproject.toml").is_file():
    _places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(_CLONE), *_places]))


def _not_one(resamples: int) -> int:
    if resamples < 0 or resamples == 1:
        raise ValueError(f"give 2 or more, or 0 for no interval, not {resamples}")
    return resamples


Check = tuple[object, str]  # is there a fault, and the sentence on it
# Kinds of settings. A pydantic model has a method `json`, so that the field has another name than its flag.
JsonFile = Annotated[Path | None, tyro.conf.arg(name="json")]
Resamples = Annotated[int, AfterValidator(_not_one)]
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]  # without its --no-

Tested = TypeVar("Tested", bound="RunRecipe")


def one_network(settings: Any) -> Check:
    """Refuse (see `schema.refuse`) settings that name no network, or two: `run` and `weights`."""
    is_wrong = (settings.run is None) == (settings.weights is None)
    return is_wrong, "name either a run directory, or --weights FILE; see --help"


def place_of(results: str, settings: Any) -> Check:
    """Refuse results without a place: a run has its own, weights do not."""
    return settings.output is None and settings.run is None, f"--output is missing: where {results} go"


def as_exported(settings: Any, fixed: Sequence[str]) -> Check:
    """Refuse changes to what an exported file was made with: the fields `fixed`, precision, processes, device."""
    from vertebra.build.export_formats import format_of
    from vertebra.recipes.schema import flag_of

    given = settings.given(*fixed, "precision", "gpus")
    flags = " ".join(map(flag_of, [*given, *(["device"] if settings.device == "cuda" else [])]))
    is_wrong = settings.weights is not None and format_of(settings.weights) and flags
    return is_wrong, (
        f"{flags} cannot be changed in {settings.weights}, an exported file (on CPUs, in fp32): leave it out, or "
        "evaluate the run that it was exported from"
    )


def with_changes(
    trained: Tested, settings: Any, test: dict[str, Any], changes: dict[str, Any], world: World | None = None
) -> Tested:
    """Return the recipe of a training with what the command line changes: fields of its test, and others.

    world: where it will be tested, which decides on a precision `auto`.
    """
    from vertebra.recipes.command_line import validated

    fields = trained.model_dump()
    fields |= {"workers": settings.workers, **settings.given("precision"), **changes}
    fields["test"] = {**fields["test"], **test}
    recipe = validated(type(trained), fields, "the command line")
    if world is None:
        return recipe
    from vertebra.engine import precision

    return recipe.model_copy(update={"precision": precision.resolve(recipe.precision, world.device)})


def make_room(flag: str, path: Path | None) -> None:
    """Make the directory of a file that is to be written, before any work, so that none is lost for want of a place.

    flag: the one that named the file. Raises RecipeError where the path is a directory, OSError where none can be made.
    """
    if path is None:
        return
    if path.is_dir():
        from vertebra.ground.errors import RecipeError

        raise RecipeError(f"{flag} {path} is a directory: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)


def bar(description: str, unit: str = "image") -> Callable[..., Any]:
    """Return what shows, on a terminal, a progress bar over what it is given."""
    from tqdm import tqdm

    return partial(tqdm, desc=description, unit=unit, dynamic_ncols=True, disable=None)


@contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """Give what shows on a progress bar how many images are done, and of how many."""
    with bar(description)() as shown:

        def show(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield show


def in_processes(gpus: int, device: str, work: Callable[[World], int]) -> int:
    """Do `work` in this process, or run this whole command in `gpus` processes; returns the exit status."""
    from vertebra.engine import distributed
    from vertebra.engine.device import memory_in_words

    if gpus > 1 and not distributed.is_under_launcher():
        return distributed.relaunch(gpus, device=device)
    with (
        distributed.started(device) as world,
        memory_in_words(world.device, "fewer or smaller images at a time, or a device with more memory"),
    ):
        return work(world)


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a command and exit: 0 done, 1 the work failed, 2 the command line is wrong, 130/138/143 interrupted.

    Errors that a user can fix (ValueError, OSError and their kin) are printed as one sentence; others are bugs and keep
    their traceback. VERTEBRA_TRACEBACK=1 shows it for all.
    """
    try:
        code = main()
    except KeyboardInterrupt as stopped:  # stop.Interrupted says where, and how to go on
        print(str(stopped) or "\nInterrupted.", file=sys.stderr)
        sys.exit(getattr(stopped, "exit_code", 130))
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        is_fixable = isinstance(error, (ValueError, OSError, ImportError)) or hasattr(error, "exit_code")
        if os.environ.get("VERTEBRA_TRACEBACK") or not is_fixable:
            raise
        code = getattr(error, "exit_code", 1)
        print(f"error: {_sentence(error)}", file=sys.stderr)
    sys.exit(code or 0)


def _sentence(error: Exception) -> str:
    """Return the error's message; the system's own errors with their file first and without their number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    hint = "; check the path" if isinstance(error, FileNotFoundError | NotADirectoryError) else ""
    return f"{error.filename}: {error.strerror}{hint}" if error.filename else error.strerror
