"""Processes and accumulated parts share a global batch: they learn what one process learns from the whole of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BACKBONE, TINY_DETECTOR, run

STEPS = 3
CLASSES = (*TINY_BACKBONE, "--backbone", "r18", "--device", "cpu", "--workers", 0, "--log-period", 1)
BOXES = (*TINY_DETECTOR, "--backbone", "r18", "--model.norms", "frozen")
KINDS: dict[str, tuple[object, ...]] = {
    "classes": CLASSES,
    "boxes": BOXES,
    "masks": ("--config", "sample/mask_fpn.yaml", *BOXES[2:]),
}


def work(rank: int, size: int, port: int, tool: str, arguments: tuple[object, ...]) -> None:
    """One process of a group, as torchrun starts it."""
    if size > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run(tool, *arguments)


def losses(kind: str, processes: int, parts: int, flags: tuple[object, ...], output: Path) -> list[dict[str, float]]:
    """Those of each step, of a training in that many processes of that many accumulated parts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (*flags, "--solver.accumulate", parts, "--solver.iterations", STEPS, "--output", output)
    tool = "train_backbone" if kind == "classes" else "train_det"
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.cli.test_processes", "vertebra.build.detector_run"])  # torch is read once
    group = [server.Process(target=work, args=(rank, processes, port, tool, arguments)) for rank in range(processes)]
    for process in group:
        process.start()
    for process in group:
        process.join(timeout=400)
        assert process.exitcode == 0
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if name.startswith("loss_")} for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def alone(sample, weights, tmp_path_factory):
    """The losses of one process by kind and parts, made when they are first asked for."""
    made: dict[tuple[str, int], list[dict[str, float]]] = {}

    def of(kind: str, parts: int, flags: tuple[object, ...]) -> list[dict[str, float]]:
        if (kind, parts) not in made:
            made[kind, parts] = losses(kind, 1, parts, flags, tmp_path_factory.mktemp("alone") / "run")
        return made[kind, parts]

    return of


@pytest.mark.parametrize(
    ("kind", "processes", "parts"),
    [
        ("classes", 2, 2),
        ("boxes", 2, 1),
        ("masks", 2, 2),
        *(
            pytest.param(kind, *way, marks=pytest.mark.slow)
            for kind in KINDS
            for way in ((2, 1), (4, 1), (1, 2), (2, 2))
            if (kind, *way) not in (("classes", 2, 2), ("boxes", 2, 1), ("masks", 2, 2), ("classes", 1, 2))
        ),
    ],
)
def test_the_losses_are_those_of_one_process(kind, processes, parts, alone, sample, weights, tmp_path):
    """A classifier's norms see what a process has at once, so that it is compared with as many parts of one process.

    The number of regions with a mask, by which their loss is divided, is that of each part and not of the batch.
    """
    start = ("--data", sample / "objects") if kind == "classes" else ("--data", sample, "--weights", weights["r18"])
    batch = 8 if kind == "classes" else 4
    flags = (*KINDS[kind], *start, "--solver.batch-size", batch)
    expected = alone(kind, processes * parts if kind == "classes" else 1, flags)
    found = losses(kind, processes, parts, flags, tmp_path / "run")
    compared = 1 if kind == "masks" and parts > 1 else STEPS
    assert len(found) == len(expected) == STEPS and len(found[0]) == {"classes": 1, "boxes": 4, "masks": 5}[kind]
    for one, several in zip(expected[:compared], found):
        if compared == 1:
            del several["loss_mask"]
        assert several == {name: pytest.approx(one[name], rel=1e-4, abs=1e-6) for name in several}
