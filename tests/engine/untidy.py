"""In a process with an untidy past: MB that calls hold at once, and what was measured of them, a line each."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from vertebra.engine.malloc import keep_freed_memory
from vertebra.engine.measure import memory_growth


def hold(size_mb: int) -> None:
    for _ in range(3):  # freed in between, so not added up
        half, another = torch.ones(size_mb << 17), torch.ones(size_mb << 17)
        del half, another


def main() -> None:
    if sys.argv[1] == "keeping":
        keep_freed_memory()
    past = [torch.ones(size << 14) for size in range(1, 60)]  # of 64 kB to 4 MB, every other freed
    del past[::2]
    with ThreadPoolExecutor(4) as threads:  # as those that read images; their memory goes to later threads
        list(threads.map(lambda _: [torch.ones(75 << 10) for _ in range(4)], range(40)))
    for size_mb in (128, 1, 24, 24, 3):
        hold(size_mb)  # in this thread too, before
        print(size_mb, memory_growth(partial(hold, size_mb), torch.device("cpu")))


if __name__ == "__main__":
    main()
