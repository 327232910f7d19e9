"""Each reader of other people's files for some minutes on damaged ones: a value or a sentence, in bounded memory.

python benchmarks/fuzz.py --minutes 10
python benchmarks/fuzz.py --minutes 1 --readers "COCO JSON" "VOC XML" --engine hypothesis

atheris (coverage-guided, libFuzzer's) where it is installed, else hypothesis, which draws edits of a good file blindly.
Each reader runs in a process of its own, whose address space may grow by --memory-mb: a file that asks for more ends it
as an error does. Exit status 1 if any reader did anything but return or raise UserError; its input is kept and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import RESULTS, write_result  # first: it makes the rooms importable


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of each reader")
    parser.add_argument("--readers", nargs="*", help="names [all]")
    parser.add_argument("--engine", choices=("atheris", "hypothesis"), help="[atheris where it is installed]")
    parser.add_argument("--at-once", type=int, default=1, help="readers at a time")
    parser.add_argument("--memory-mb", type=int, default=1024, help="that a reader may take beyond its start")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "fuzz.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # in the process of one reader
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    has_atheris = importlib.util.find_spec("atheris") is not None
    settings.engine = settings.engine or ("atheris" if has_atheris else "hypothesis")
    if settings.engine == "atheris" and not has_atheris:
        parser.error("atheris is not installed: pip install atheris, or --engine hypothesis")
    if settings.one is not None:
        return (_with_atheris if settings.engine == "atheris" else _with_hypothesis)(settings)
    from tests.readers import READERS

    unknown = set(settings.readers or ()) - READERS.keys()
    if unknown or settings.minutes <= 0:
        parser.error(f"--minutes above 0, and --readers of {', '.join(READERS)}; not {', '.join(unknown)}")
    setting = {name: getattr(settings, name) for name in ("engine", "minutes", "seed", "at_once", "memory_mb")}
    results: dict[str, dict[str, Any]] = {}
    names = settings.readers or list(READERS)
    with ThreadPoolExecutor(settings.at_once) as pool:
        for name, result in zip(names, pool.map(lambda name: _run(name, settings), names)):
            results[name] = result
            write_result(settings.output, {"setting": setting, "readers": results})  # what is done is not lost
    return int(any(result["failed"] for result in results.values()))


def _run(name: str, settings: argparse.Namespace) -> dict[str, Any]:
    """Fuzz one reader in a process of its own, and print and return how it went."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz_")) / "in" / "most"  # a description may name the folders above
    folder.mkdir(parents=True)
    flags = ["--one", name, "--folder", folder, "--minutes", settings.minutes, "--seed", settings.seed]
    flags += ["--engine", settings.engine, "--memory-mb", settings.memory_mb]
    command = [sys.executable, __file__, *map(str, flags)]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    runs = [line for line in done.stdout.splitlines() if line.startswith("RUNS ")]
    tries, grown_mb = (int(word) for word in runs[-1].split()[1:]) if runs else (0, -1)
    failed, seconds = done.returncode != 0 or not runs, round(time.perf_counter() - begun)
    print(f"{name}: {tries} files in {seconds} s, {grown_mb} MB more", end="")
    print(f"; FAILED, see {folder}\n{done.stdout[-1500:]}{done.stderr[-3000:]}" if failed else "", flush=True)
    return {"files": tries, "seconds": seconds, "grown_mb": grown_mb, "failed": failed}


class _Attempt:
    """Reads the file with other content, again and again."""

    def __init__(self, settings: argparse.Namespace) -> None:
        from tests.readers import READERS
        from vertebra.ground.errors import UserError

        self.reader, self.expected, self.tries = READERS[settings.one], UserError, 0
        self.path, self.good = self.reader.prepare(settings.folder)
        self(self.good)
        self.start_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + (settings.memory_mb << 20),) * 2)

    def __call__(self, content: bytes) -> None:
        self.tries += 1
        self.path.write_bytes(content)
        with suppress(self.expected):
            self.reader.read(self.path)

    def report(self) -> None:
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.start_kb) // 1024
        print(f"RUNS {self.tries} {grown_mb}", flush=True)


def _with_hypothesis(settings: argparse.Namespace) -> int:
    """Edits as in tests/test_fuzz.py, of another seed each round."""
    from hypothesis import HealthCheck, given, seed
    from hypothesis import settings as options

    from tests.readers import mutated
    from tests.test_fuzz import EDITS

    attempt, number = _Attempt(settings), settings.seed
    deadline = time.monotonic() + 60 * settings.minutes
    while time.monotonic() < deadline:

        @seed(number)
        @options(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(EDITS, EDITS)
        def round_of_edits(words: Any, edits: Any) -> None:
            attempt(mutated(attempt.good, words, edits))

        round_of_edits()
        number += 1
    attempt.report()
    return 0


def _with_atheris(settings: argparse.Namespace) -> int:
    """Half of the inputs are libFuzzer's own, the others have words replaced as well."""
    import random

    import atheris

    with atheris.instrument_imports(include=["vertebra", "json", "xml", "yaml", "csv"]):
        from tests.readers import ODD, WORD, mutated
    attempt = _Attempt(settings)
    corpus = settings.folder / "corpus"
    corpus.mkdir()
    (corpus / "good").write_bytes(attempt.good)
    (settings.folder / "odd").write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in odd) + '"\n' for odd in ODD if 0 < len(odd) < 60)
    )

    def mutate(content: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if draw.random() < 0.5 and WORD.search(content):
            content = mutated(content, [(draw.randrange(5000), draw.randrange(9), draw.choice(ODD))], [])
        else:
            content = atheris.Mutate(content, min(most, len(content) + 64))
        return bytes(content[:most])

    deadline = time.monotonic() + 60 * settings.minutes

    def once(content: bytes) -> None:
        attempt(content)
        if time.monotonic() > deadline:
            attempt.report()
            os._exit(0)  # libFuzzer's own end takes no report

    options = [f"-seed={settings.seed}", f"-dict={settings.folder / 'odd'}", "-max_len=20000", "-rss_limit_mb=0"]
    options += [f"-artifact_prefix={settings.folder}/", f"-max_total_time={int(60 * settings.minutes) + 60}"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], once, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
