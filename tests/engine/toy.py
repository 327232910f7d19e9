"""A job small enough to be trained hundreds of times, and as a program of its own, to be killed or run by torchrun.

The data are a function of the iteration, as our loaders' are.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.engine import distributed, rng
from vertebra.engine.distributed import World
from vertebra.engine.loop import train
from vertebra.engine.optim import adamw, sgd
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.schedule import Cosine, Warmup
from vertebra.engine.session import Record
from vertebra.engine.stop import Interrupted

ITERATIONS = 12
BATCH = 4


@dataclass(frozen=True)
class Batch:
    inputs: tuple[Tensor, ...]
    image_ids: tuple[int, ...]
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        inputs = tuple(tensor.to(device, non_blocking=True) for tensor in self.inputs)
        return Batch(inputs, self.image_ids, self.skipped)

    def to_pinned(self) -> Batch:
        return Batch(tuple(tensor.pin_memory() for tensor in self.inputs), self.image_ids, self.skipped)


class ToyNet(nn.Module):
    """A 3x3 and a 1x1 convolution in channels_last, with dropout and a norm where asked for."""

    def __init__(self, *, norm: bool = True, dropout: float = 0.5):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.squeeze = nn.Conv2d(8, 6, 1)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(6, 2)
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.norm(self.conv(pixels.contiguous(memory_format=torch.channels_last))))
        logits = self.fc(self.drop(self.squeeze(x).mean((2, 3))))
        accuracy = (logits.argmax(1) == labels).float().mean() * 100
        return {"loss_cls": F.cross_entropy(logits, labels), "loss_size": logits.square().mean(), "top1": accuracy}


def batches(
    start: int = 0, end: int = ITERATIONS, *, size: int = BATCH, world: World | None = None, spoil: int | None = None
) -> Iterator[Batch]:
    """This process's share of each iteration's batch; `spoil`: the iteration whose pixels hold a NaN."""
    world = world or World()
    for iteration in range(start, end):
        draw = torch.Generator().manual_seed(iteration)
        pixels = torch.randn(size, 3, 6, 6, generator=draw)
        labels = torch.randint(0, 2, (size,), generator=draw)
        if iteration == spoil:
            pixels[0, 0, 0, 0] = float("nan")
        share = slice(world.rank * size // world.size, (world.rank + 1) * size // world.size)
        ids = tuple(range(iteration * size, (iteration + 1) * size))[share]
        yield Batch((pixels[share], labels[share]), ids)


def draw_figure(iteration: int) -> dict[str, float]:
    """An evaluation that draws: it must leave no trace."""
    return {"AP": float(torch.rand(()))}


def job(
    output: Path,
    *,
    resume: bool = False,
    plain: bool = False,
    compile: bool = False,
    signal_at: int | None = None,
    signal_name: str = "SIGTERM",
    from_rank: int = 0,
    evaluate: Callable[[int], dict[str, float]] = draw_figure,
    world: World | None = None,
) -> Record:
    """A whole run in `output`. plain: no norm, no dropout, SGD, so that the batch may be split.

    signal_at: the iteration during which process `from_rank` sends itself `signal_name`.
    """
    world = world or World()
    rng.seed_all(0)
    model = ToyNet(norm=not plain, dropout=0.0 if plain else 0.5)
    optimizer = sgd(model, lr=0.1) if plain else adamw(model, lr=0.01)
    rng.seed_all(0, rank=world.rank)
    resume = resume or distributed.may_restart()
    run = RunDirectory.open(output, {"plain": plain}, resume=resume, world=world, tensorboard=False)
    state = run.latest_state()
    start = state["iteration"] if state else 0

    def loader() -> Iterator[Batch]:
        for iteration, batch in enumerate(batches(start, world=world), start=start + 1):
            is_first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
            if iteration == signal_at and world.rank == from_rank and is_first:
                if signal_name == "STUCK":
                    time.sleep(60)
                os.kill(os.getpid(), getattr(signal, signal_name))
            yield batch

    record = train(
        model=model,
        optimizer=optimizer,
        schedule=Warmup(Cosine(ITERATIONS), 3),
        loader=loader(),
        run=run,
        iterations=ITERATIONS,
        world=world,
        evaluate=evaluate,
        eval_period=6,
        checkpoint_period=4,
        log_period=2,
        best="AP",
        compile=compile,
        state=state,
    )
    run.finish({"training_s": record.seconds})
    return record


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--signal-at", type=int)
    parser.add_argument("--signal-name", default="SIGTERM")
    parser.add_argument("--from-rank", type=int, default=0)
    options = vars(parser.parse_args())
    processes = options.pop("gpus")
    if processes > 1 and not distributed.is_under_launcher():
        return distributed.relaunch(processes, device="cpu")
    code = 0
    with distributed.started("cpu") as world:
        try:
            job(options.pop("output"), world=world, **options)
        except Interrupted as interrupted:
            print(interrupted, file=sys.stderr)
            code = interrupted.exit_code
        sys.stdout.write(f"working: {thread_names()}\n")  # at once: another process writes too
    sys.stdout.write(f"at the end: {thread_names()}\n")
    return code


def thread_names() -> list[str]:
    """Of all threads of this process, C++'s included; none where the system does not tell."""
    names = []
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text().strip())
    return names


if __name__ == "__main__":
    sys.exit(main())
