"""What every tool does around its job: check the installation, end in a sentence rather than a traceback.

Importing this module makes the check, so the tools import it before any room.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from configs.schema import RunRecipe
    from engine.distributed import World

os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")

ROOMS = ("backbones", "detectors", "data", "evaluation", "engine", "configs")
HOUSE = Path(__file__).resolve().parent.parent


def check_installation() -> None:
    """Exit with a sentence when a room is missing or is another package's."""
    for room in ROOMS:
        spec = find_spec(room)
        if spec is None:
            sys.exit(f"Vertebra is not installed here: no package {room!r}. Run: pip install -e {HOUSE}")
        places = [Path(place).resolve() for place in spec.submodule_search_locations or ()]
        if not any((place / "__init__.py").is_file() and _is_ours(place) for place in places):
            sys.exit(
                f"The package {room!r} that Python finds is {places[0] if places else spec.origin}, not Vertebra's. "
                f"Use an environment of its own: python -m venv .venv && .venv/bin/pip install -e {HOUSE}"
            )


def _is_ours(place: Path) -> bool:
    return place.parent == HOUSE or (place.parent / "configs" / "schema.py").is_file()


def default_output(job: str, recipe: RunRecipe, data: str) -> Path:
    """Where a run goes that was not told: runs/JOB_BACKBONE_DATA_SEED."""
    from configs.schema import path_part

    return Path("runs") / f"{job}_{path_part(recipe.backbone)}_{data}_{recipe.seed}"


def make_room(flag: str, path: Path | None) -> None:
    """Makes the directory of a file that is to be written, before any work: none is lost for a place that cannot be.

    flag: that named the file. Raises RecipeError where the path is a directory, OSError where none can be made.
    """
    if path is None:
        return
    if path.is_dir():
        from configs.command_line import RecipeError

        raise RecipeError(f"{flag} {path} is a directory: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)


def in_processes(gpus: int, device: str, work: Callable[[World], int]) -> int:
    """`work` in this process, or this whole command in `gpus` processes; the exit status."""
    from engine import distributed

    if gpus > 1 and not distributed.is_under_launcher():
        return distributed.relaunch(gpus, device=device)
    with distributed.started(device) as world:
        return work(world)


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a tool and exit: 0 done, 1 the work failed, 2 the command line is wrong, 130/143 interrupted.

    Errors that are meant for people (ValueError, OSError and their kin) are printed as one sentence; others are
    faults of ours and keep their traceback. VERTEBRA_TRACEBACK=1 shows it for all.
    """
    try:
        code = main()
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if os.environ.get("VERTEBRA_TRACEBACK"):
            raise
        code = _explain(error)
    sys.exit(code or 0)


def _explain(error: Exception) -> int:
    if interrupted := getattr(error, "exit_code", None):
        print(error, file=sys.stderr)
        return int(interrupted)
    if type(error).__name__ == "RecipeError":
        print(f"error: {error}", file=sys.stderr)
        return 2
    meant_for_people = isinstance(error, (ValueError, OSError, ImportError))
    if not meant_for_people and type(error).__module__.split(".")[0] not in ROOMS:
        raise error
    print(f"error: {_sentence(error)}", file=sys.stderr)
    return 1


def _sentence(error: Exception) -> str:
    """What the error says; the system's own errors with their file first and without their number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    mend = "; check the path" if isinstance(error, FileNotFoundError | NotADirectoryError) else ""
    return f"{error.filename}: {error.strerror}{mend}" if error.filename else error.strerror


check_installation()
