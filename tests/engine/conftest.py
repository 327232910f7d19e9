"""What the engine's tests share: a fresh run directory, a short training, and the toy job as a program."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.toy import ToyNet, batches
from vertebra.engine import rng
from vertebra.engine.loop import train
from vertebra.engine.optim import sgd
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.schedule import Constant

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Sums come out the same to the bit only where they are split alike, here as in `toy_program`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.open(tmp_path / "run", {"lr": 0.1}, tensorboard=False)


@pytest.fixture
def train_toy(run: RunDirectory) -> Callable[..., tuple[ToyNet, Any]]:
    """Trains the toy for a few iterations; options go to `train`. Returns the model and the record."""

    def train_it(*, iterations: int = 4, model: ToyNet | None = None, lr: float = 0.1, **options: Any) -> Any:
        rng.seed_all(0)
        model = model or ToyNet(norm=False, dropout=0.0)
        options = {"loader": batches(0, iterations), "schedule": Constant(), "run": run, "log_period": 2, **options}
        record = train(model=model, optimizer=sgd(model, lr=lr), iterations=iterations, **options)
        return model, record

    return train_it


@pytest.fixture
def toy_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the toy job as a process of its own."""

    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(ROOT / "tests" / "engine" / "toy.py"), *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)

    return start


@pytest.fixture
def toy_ranks() -> Callable[..., list[tuple[int, str]]]:
    """Runs the toy job as processes of one group, each in a folder of its own; their exit codes and stderr."""

    def start(folders: list[Path], *arguments: object, **settings: str) -> list[tuple[int, str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(folders))}
        environment |= settings
        command = [sys.executable, str(ROOT / "tests" / "engine" / "toy.py"), *map(str, arguments)]
        started = [
            subprocess.Popen(
                command, cwd=folder, env={**environment, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True
            )
            for rank, folder in enumerate(folders)
        ]
        try:
            said = [process.communicate(timeout=400)[1] for process in started]
        finally:
            for process in started:
                process.kill()
        return [(process.returncode, text) for process, text in zip(started, said)]

    return start


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return bool(a == b)
