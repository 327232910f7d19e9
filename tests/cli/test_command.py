"""The `vertebra` command: what its help teaches, how it names itself, and how fast it answers a wrong command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import ENVIRONMENT, TOOLS
from vertebra import __version__
from vertebra.cli import COMMANDS

HOUSE = TOOLS.parent
HEAVY = ("torch", "cv2", "numpy", "pycocotools", "scipy", "matplotlib")


def vertebra(*words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, "PYTHONPATH": str(HOUSE), "COLUMNS": "100"}
    command = [sys.executable, "-m", "vertebra", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HOUSE.parent, timeout=60)
    assert done.returncode == expect, done.stderr
    return done


def test_help_names_every_command_in_the_order_of_work():
    lines = vertebra("--help").stdout.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in COMMANDS]
    assert listed == list(COMMANDS) and listed[:3] == ["prepare-data", "train-backbone", "eval-backbone"]
    assert vertebra().stdout.splitlines() == lines


def test_every_command_is_a_tool_and_every_tool_a_command():
    scripts = {path.stem.replace("_", "-"): path.read_text() for path in TOOLS.glob("*.py")}
    assert scripts.keys() == {*COMMANDS}
    for command, script in scripts.items():  # all are as train_det.py, which other tests start
        expected = scripts["train-det"].replace("train-det", command)
        assert script == expected.replace("train_det", command.replace("-", "_")), command


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train_dat"], "error: there is no command train_dat; did you mean train-det?"),
        (["check"], "error: there is no command check; did you mean prepare-data check?"),
        (["prepare-data", "chek"], "error: there is no prepare-data chek; did you mean check?"),
        (["bake"], "error: there is no command bake; the commands are prepare-data, "),
        (["train-det", "--solver.lrr", "1"], "--solver.lr"),
        (["prepare-data", "sample"], "Missing from vertebra prepare-data sample"),
        (["train-det", "--dataset", "sample"], "error: --weights is missing"),
        (["train-det", "--dataset", "sample", "--weights", "a.safetensors"], "error: --data is missing"),
        (["train-det", "--weights", "none"], "error: --weights none trains everything: add --model.norms trained"),
        (
            ["train-det", "--dataset", "vocxml", "--weights", "a.safetensors"],
            "needs --train-source vocxml:DIR/train and",
        ),
        (["train-loc"], "error: --weights is missing"),
        (["train-backbone"], "error: --data is missing"),
        (
            ["train-backbone", "--config", "imagenet/fast.yaml", "--data", ".", "--solver.schedule", "plateau"],
            "error: --solver.schedule plateau follows",
        ),
        (["train-backbone", "--compile", "--checkpoint-activations"], "do not go together: leave one of them out"),
        (["train-det", "--solver.warmup-until-error", "80"], "error: solver.warmup_until_error follows a classifier's"),
        (["train-det", "--dataset", "voc7"], "error: dataset 'voc7' is not one of voc07"),
        (["train-backbone", "--solver.lr", "0"], "error: solver.lr: "),
    ],
)
def test_a_wrong_command_line_is_a_sentence_within_a_second(words, sentence):
    before, started = os.times(), time.perf_counter()
    done = vertebra(*words, expect=2)
    after = os.times()
    assert sentence in " ".join(done.stderr.split())
    processor_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert min(processor_s, time.perf_counter() - started) < 1


def test_version_and_usage_name_the_command_as_it_was_typed():
    assert vertebra("--version").stdout == f"vertebra {__version__}\n"
    assert vertebra("prepare-data", "voc07", "--help").stdout.startswith("usage: vertebra prepare-data voc07 ")
    script = [sys.executable, str(TOOLS / "train_det.py"), "--help"]
    assert subprocess.run(script, capture_output=True, text=True, env=ENVIRONMENT).stdout.startswith(
        "usage: train_det.py "
    )


def test_a_shell_completes_commands_and_their_flags():
    script = vertebra("--tyro-print-completion", "bash").stdout
    assert "complete -F _tyro_vertebra vertebra" in script
    grouped = ["--solver.lr"] if sys.version_info >= (3, 11) else []  # tyro leaves groups out on Python 3.10
    for word in (*COMMANDS, *grouped, "--download", "--heads", "--voc-files"):
        assert f"'{word}'" in script


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_at_once(command):
    """A processor second is four times what it takes: importing torch alone is three."""
    probe = (
        f"import sys; sys.argv = ['vertebra', {command!r}, '--help']\n"
        "from vertebra.cli import main\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        f"assert not { ({*HEAVY})!r} & sys.modules.keys()\n"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=HOUSE)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: vertebra {command}")
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


WRONG_PATHS = {
    ("eval-det", "nowhere"): "nowhere is not a directory",
    ("eval-det", "--weights", "a.pth", "--output", "out"): "a.pth do not exist",
    ("eval-det", "--weights", "torchvision:fasterrcnn_resnet50_fpn=b.pth", "--output", "out"): "b.pth do not exist",
    ("eval-det", "."): "model.safetensors is missing",
    ("eval-det", "--weights", "README.md", "--ensemble", "c.pth", "--output", "out"): "c.pth do not exist",
    ("eval-loc", "nowhere"): "nowhere is not a directory",
    ("eval-loc", "--weights", "d.pth", "--output", "out"): "d.pth do not exist",
    ("eval-backbone", "--weights", "e.pth", "--data", "."): "e.pth do not exist",
    ("predict", "nowhere.jpg", "--weights", "e.pth"): "nowhere.jpg: no such file",
    ("predict", "README.md", "--weights", "."): "model.safetensors is missing",
    ("predict", "README.md", "--weights", "f.pth", "--output", "README.md"): "is a file; name a directory",
    ("predict", "README.md", "--weights", "f.pth"): "f.pth do not exist",
}


def test_wrong_paths_are_said_at_once():
    probe = (
        "import sys; from vertebra.cli import main\n"
        f"for words in {list(WRONG_PATHS)!r}:\n"
        "    sys.argv = ['vertebra', *words]\n"
        "    try: main()\n"
        "    except SystemExit as done: assert done.code in (1, 2), words\n"
        f"    assert not { ({*HEAVY})!r} & sys.modules.keys(), words\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=HOUSE)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(WRONG_PATHS), lines
    assert all(line.startswith("error: ") and said in line for line, said in zip(lines, WRONG_PATHS.values())), lines


def test_trainings_of_a_plan_run_this_clones_code_from_any_folder(tmp_path):
    """Also from one with a folder of the name, which Python would take for the package; -S: nothing is installed."""
    (tmp_path / "vertebra").mkdir()
    starts = (
        f"import subprocess, sys; sys.path.insert(0, {str(TOOLS.parent)!r}); import vertebra.cli.common; "
        "sys.exit(subprocess.run([sys.executable, '-S', '-m', 'vertebra', '--version']).returncode)"
    )
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run([sys.executable, "-c", starts], cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, f"vertebra {__version__}\n"), ended.stderr
