"""The commands that users type: one module each, which imports nothing heavy until it has to run."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

COMMANDS = {
    "prepare-data": "draw, fetch, convert, shard and check data sets",
    "train-backbone": "train a classifier",
    "eval-backbone": "top-1 and top-5 of a classifier's weights and of their ensemble",
    "train-det": "train Faster R-CNN or Mask R-CNN on any backbone, and evaluate it",
    "eval-det": "evaluate a detector again, or others' detectors",
    "predict": "a detector on your own pictures and videos",
    "compare": "plan and run a matrix of backbones, heads and seeds, or report on finished runs",
    "depth-study": "plain against residual nets of several depths",
    "improvements": "what box refinement, context, several sizes and an ensemble are each worth",
    "score": "score anyone's COCO-format predictions",
    "explain": "why a detector is as good as it is, or better than another",
    "profile-model": "parameters, FLOPs, time and memory",
    "train-loc": "train a per-class RPN to localise each image's object",
    "eval-loc": "score a localizer again",
}


def main() -> None:
    """Run `vertebra COMMAND ...` and exit with the command's status."""
    from vertebra import __version__

    names = sys.argv[1:2]
    if names == ["--version"]:
        print(f"vertebra {__version__}")
    elif not names or names[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
        print("\n".join(["usage: vertebra COMMAND ...; vertebra COMMAND --help lists its settings", "", *lines]))
    elif names[0] not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(names[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands: {', '.join(COMMANDS)}"
        sys.exit(f"error: there is no command {names[0]}; {hint}")
    else:
        run(names[0], sys.argv[2:])


def run(command: str, arguments: list[str] | None = None) -> None:
    """Run one command with its arguments, those of this process by default, and exit with its status."""
    try:
        from vertebra.cli.common import run_tool

        module = import_module(f"vertebra.cli.{command.replace('-', '_')}")
    except ModuleNotFoundError as missing:
        clone = Path(__file__).resolve().parents[2]
        sys.exit(f"error: Vertebra is not installed here: no package {missing.name!r}. Run: pip install -e {clone}")
    given = sys.argv[1:] if arguments is None else arguments
    run_tool(lambda: module.main(given))
