"""A tiny sample set, a backbone trained on it and finished detector runs, made once by the tools themselves."""

from __future__ import annotations

import io
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from vertebra import cli
from vertebra.engine import logs

TOOLS = Path(__file__).resolve().parents[2] / "tools"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

# Small enough for seconds; everything else is as in the recipes.
TINY_BACKBONE = ("--config", "sample/objects.yaml", "--width", "0.25", "--input.size", "32", "--input.resize", "32")
TINY_DETECTOR = (
    *("--config", "sample/detection.yaml", "--dataset", "sample", "--width", "0.25", "--workers", "0"),
    *("--input.shorter-side", "96", "--input.test-shorter-side", "96", "--model.rois", "8", "--device", "cpu"),
    *("--solver.iterations", "8", "--log-period", "1", "--checkpoint-period", "2", "--precision", "fp32"),
)


@dataclass(frozen=True)
class Done:
    """A command's exit status and what it printed; of one that was sent a signal, the seconds from there to its end."""

    code: int
    out: str
    err: str
    took_s: float = 0.0


def run(tool: str, *arguments: object, expect: int = 0) -> Done:
    """Run a tool with what a user types, in this process: starting Python and torch a hundred times takes minutes.

    Fails unless it exits with `expect`, and on any traceback. --gpus needs `run_process`.
    """
    out, err = io.StringIO(), io.StringIO()
    argv = [str(TOOLS / f"{tool}.py"), *map(str, arguments)]
    with _as_in_a_process(argv), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.run(tool.replace("_", "-"))
    return _checked(Done(ended.value.code, out.getvalue(), err.getvalue()), expect)


def run_process(tool: str, *arguments: object, expect: int = 0, timeout_s: float = 300) -> Done:
    """The same in a process of its own, as a user's shell runs it: for what only a process has."""
    command = [sys.executable, str(TOOLS / f"{tool}.py"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=timeout_s)
    return _checked(Done(ended.returncode, ended.stdout, ended.stderr), expect)


def _checked(done: Done, expect: int) -> Done:
    assert done.code == expect, f"exit {done.code}\n{done.out[-3000:]}\n{done.err[-3000:]}"
    assert "Traceback" not in done.err, done.err
    return done


@contextmanager
def _as_in_a_process(argv: list[str]) -> Iterator[None]:
    """ENVIRONMENT's one thread and no GPU, and the tool's sys.argv; and nothing left behind."""
    threads, states = torch.get_num_threads(), (random.getstate(), np.random.get_state())
    levels = {room: logging.getLogger(room).level for room in logs.ROOMS}
    torch.set_num_threads(1)
    try:
        with (
            mock.patch.object(sys, "argv", argv),
            mock.patch.object(torch.cuda, "is_available", lambda: False),
            torch.random.fork_rng(devices=[]),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])
        logs.setup_logging(is_main=False)  # closes the run's log
        for room, level in levels.items():
            logging.getLogger(room).setLevel(level)


def run_until(tool: str, *arguments: object, when: Callable[[], bool], send: signal.Signals) -> Done:
    """A tool that gets a signal as soon as `when()` holds."""
    command = [sys.executable, str(TOOLS / f"{tool}.py"), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 240
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(send)
    sent = time.monotonic()
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err, time.monotonic() - sent)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample") / "set"
    run("prepare_data", "sample", "--data", root, "--scenes", 24, 9, "--objects", 60, 20)
    return root


@pytest.fixture(scope="session")
def weights(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of two backbones by name."""
    made = {}
    for name in ("r18", "plain18"):
        output = tmp_path_factory.mktemp("backbones") / name
        tiny = (*TINY_BACKBONE, "--solver.iterations", "4", "--solver.batch-size", "16", "--workers", "0")
        run("train_backbone", *tiny, "--backbone", name, "--data", sample / "objects", "--output", output)
        made[name] = output / "model.safetensors"
    return made


@pytest.fixture(scope="session")
def detector_flags(sample: Path, weights: dict[str, Path]) -> Callable[[str], tuple[object, ...]]:
    """The flags of a tiny detector training on a backbone."""
    return lambda name: (*TINY_DETECTOR, "--backbone", name, "--weights", weights[name], "--data", sample)


@pytest.fixture(scope="session")
def detectors(
    detector_flags: Callable[[str], tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Finished detector runs by backbone; r18's is made by a process, which the killed ones must equal to the bit."""
    made = {}
    for name in ("r18", "plain18"):
        made[name] = tmp_path_factory.mktemp("detectors") / name
        start = run_process if name == "r18" else run
        start("train_det", *detector_flags(name), "--output", made[name])
    return made
