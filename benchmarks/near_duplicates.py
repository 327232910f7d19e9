"""How long it takes to find the pictures of a test set in a training set, and whether all of them are found.

python benchmarks/near_duplicates.py --train 100000 --test 10000

Prints are drawn; a tenth of the test set's are prints of the training set with as many bits changed as count as alike.
"""

from __future__ import annotations

import argparse
import time

from common import RESULTS, write_result  # first: it makes the rooms importable

import numpy as np  # isort: skip

from vertebra.data.prepare.looks import Looks
from vertebra.data.prepare.near_duplicates import BITS, near_duplicates


def drawn(random: np.random.Generator, count: int) -> Looks:
    hashes_I = random.integers(0, 1 << 64, count, np.uint64)
    means_ID, all_I = random.integers(0, 256, (count, 64), np.uint8), np.ones(count, bool)
    return Looks((), all_I, all_I, hashes_I, means_ID)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=100_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    random = np.random.default_rng(settings.seed)
    train, test = drawn(random, settings.train), drawn(random, settings.test)
    copies = random.choice(settings.test, settings.test // 10, replace=False)
    sources = random.choice(settings.train, len(copies), replace=False)
    for copy, source in zip(copies, sources):
        changed = np.bitwise_or.reduce(np.uint64(1) << random.choice(64, BITS, replace=False).astype(np.uint64))
        test.hashes_I[copy] = train.hashes_I[source] ^ changed
        test.means_ID[copy] = train.means_ID[source]
    begun = time.perf_counter()
    pairs = {(test_place, train_place) for test_place, train_place, _ in near_duplicates(train, test)}
    seconds = time.perf_counter() - begun
    missed = len(set(zip(copies.tolist(), sources.tolist())) - pairs)
    print(f"{settings.train} x {settings.test} pictures: {seconds:.2f} s, {len(pairs)} pairs, {missed} missed")
    result = {"setting": vars(settings), "seconds": seconds, "pairs": len(pairs), "missed": missed}
    write_result(RESULTS / "near_duplicates.json", result)


if __name__ == "__main__":
    main()
