"""The commands that users type: one module each, which imports nothing heavy until it has to run.

A module has `main(arguments) -> exit status` and `Settings`, the type or the function that its flags come from.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

# In the order in which one works with them.
STEPS: dict[str, dict[str, str]] = {
    "Data": {"prepare-data": "draw the sample set; fetch, convert, shard and check data sets"},
    "A backbone": {
        "train-backbone": "train a classifier",
        "eval-backbone": "top-1 and top-5 of weights, and of the ensemble of several",
        "import-weights": "make a file of ours from weights that others trained",
    },
    "A detector on it": {
        "train-det": "train Faster R-CNN or Mask R-CNN on any backbone, and evaluate it",
        "eval-det": "evaluate a detector again, on other data or with improvements at test",
        "predict": "find objects, or the class of each pixel, in your own pictures and videos",
        "export": "write a classifier, detector or segmenter for other runtimes, and check that it finds the same",
    },
    "What the backbone is worth": {
        "compare": "train and report a matrix of backbones, heads and seeds, or report on finished runs",
        "depth-study": "the same for plain and residual classifiers of several depths",
        "improvements": "what box refinement, context, several sizes and an ensemble are each worth",
    },
    "Segmentation": {
        "train-seg": "train a semantic segmenter on any backbone, and evaluate it",
        "eval-seg": "evaluate a segmenter again, on other images or at several sizes",
    },
    "Why": {
        "explain": "which errors make a detector as good as it is, or better than another",
        "score": "COCO's and VOC's figures of anyone's predictions, mean IoU of anyone's maps",
        "profile-model": "parameters, FLOPs, time and memory",
    },
    "For others": {"push": "publish a run on the Hugging Face Hub, with a model card"},
    "Localisation": {
        "train-loc": "train a per-class RPN to localise each image's object, and score it",
        "eval-loc": "score a localizer again",
    },
}
COMMANDS = {name: summary for commands in STEPS.values() for name, summary in commands.items()}
DATA_STEPS = ("sample", "convert", "shard", "check")  # of prepare-data, as is often forgotten
COMPLETION = "--tyro-print-completion"


def main() -> None:
    """Run `vertebra COMMAND ...` and exit with the command's status."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in COMMANDS:
        run(command, arguments)
    elif command in ("-h", "--help"):
        print(_help())
    elif command == "--version":
        from vertebra import __version__

        print(f"vertebra {__version__}")
    elif command.partition("=")[0] == COMPLETION:
        _print_completion(sys.argv[1:])
    else:
        from vertebra.ground.formats import did_you_mean

        hint = did_you_mean(command.replace("_", "-"), COMMANDS, "the commands are")
        if command in DATA_STEPS:
            hint = f"did you mean prepare-data {command}?"
        print(f"error: there is no command {command}; {hint}", file=sys.stderr)
        sys.exit(2)


def run(command: str, arguments: list[str] | None = None) -> None:
    """Run one command with its arguments, those of this process by default, and exit with its status."""
    try:
        from vertebra.cli.common import run_tool

        module = _module(command)
    except ModuleNotFoundError as missing:
        clone = Path(__file__).resolve().parents[2]
        sys.exit(f"error: Vertebra is not installed here: no package {missing.name!r}. Run: pip install -e {clone}")
    given = sys.argv[1:] if arguments is None else arguments
    run_tool(lambda: module.main(given))


def _module(command: str) -> Any:
    return import_module(f"vertebra.cli.{command.replace('-', '_')}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    steps = [
        "\n".join([step, *(f"  {name:{width}}  {summary}" for name, summary in commands.items())])
        for step, commands in STEPS.items()
    ]
    return "\n\n".join(
        [
            "usage: vertebra COMMAND ...",
            "Train a backbone, plug it into a detector, and measure what it is worth in mAP.",
            *steps,
            "`vertebra COMMAND --help` lists a command's settings with examples; `vertebra --version`.\n"
            f"Completion of commands and settings in a shell: source <(vertebra {COMPLETION} bash)",
            "A first study, without a download:\n"
            "  vertebra prepare-data sample --data SAMPLE\n"
            "  vertebra compare --config sample/demo.yaml --data SAMPLE --output runs/demo",
        ]
    )


def _print_completion(arguments: list[str]) -> None:
    """Print a shell's completion of all commands with all their flags, as `tyro` makes it."""
    from typing import Annotated, Union

    import tyro

    settings: list[Any] = [
        Annotated[_module(name).Settings, tyro.conf.subcommand(name, description=summary)]
        for name, summary in COMMANDS.items()
    ]
    everything: Any = Union[tuple(settings)]  # noqa: UP007
    tyro.cli(everything, prog="vertebra", args=arguments, config=(tyro.conf.OmitSubcommandPrefixes,))
