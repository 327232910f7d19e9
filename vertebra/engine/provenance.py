"""The origin of a figure: commit, versions, machine, command, and the protocol it was measured under."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from vertebra.engine.precision import cpu_fact, float32_on
from vertebra.ground.cores import usable_cores
from vertebra.ground.parse import flatten

LIBRARIES = (
    *("torch", "torchvision", "numpy", "pycocotools", "opencv-python-headless", "opencv-python"),
    *("albumentations", "timm"),
)


def describe() -> dict[str, Any]:
    """Return commit, versions, machine and command, JSON-able."""
    return {"commit": git_commit(), "versions": versions(), "machine": machine(), "command": command()}


def git_commit(source: Path = Path(__file__)) -> str | None:
    """Return the commit of the source in use, "+dirty" where tracked files differ from it; None outside a clone.

    An installed package may lie inside a repository of something else, which does not track `source`.
    """
    directory = source.parent
    commit = _git(directory, "rev-parse", "HEAD") if _git(directory, "ls-files", "--", source.name) else ""
    if not commit:
        return None
    return commit + ("+dirty" if _git(directory, "status", "--porcelain", "--untracked-files=no") else "")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that figures depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def machine() -> dict[str, Any]:
    """Return processor, cores, GPUs and what float32 means on them; no host name, nothing that identifies a person."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": cpu_fact("model name") or platform.processor() or "unknown",
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "float32": float32_on(torch.device("cuda" if gpus else "cpu")),
        "system": f"{platform.system()} {platform.machine()}",
    }


def command() -> str:
    """Return the command line of this process, ready to be typed again."""
    script = Path(sys.argv[0])
    if script.name == "vertebra" or script.parts[-2:] == ("vertebra", "__main__.py"):  # installed, or `python -m`
        return shlex.join(["vertebra", *sys.argv[1:]])
    with contextlib.suppress(ValueError):
        script = script.resolve().relative_to(Path.cwd())
    return shlex.join(["python", str(script), *sys.argv[1:]])


def plain(value: Any) -> Any:
    """Return `value` as JSON and YAML know it: tuples become lists, paths and other objects their text."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [plain(item) for item in value]
        return sorted(items, key=str) if isinstance(value, (set, frozenset)) else items
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def protocol_hash(fields: Mapping[str, Any]) -> str:
    """Return a sha256 that depends on the fields' names and values and on nothing else, not even their order."""
    text = json.dumps(flatten(plain(fields)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differing_fields(a: Mapping[str, Any], b: Mapping[str, Any], *, ignore: Collection[str] = ()) -> list[str]:
    """Return the dotted names of fields whose values differ or that only one side has, in order.

    ignore: names that may differ, or the beginnings of such names ("data" covers "data.root").
    """
    flat_a, flat_b = flatten(plain(a)), flatten(plain(b))
    missing = object()
    names = sorted(set(flat_a) | set(flat_b))
    differing = [name for name in names if flat_a.get(name, missing) != flat_b.get(name, missing)]
    return [n for n in differing if not any(n == free or n.startswith(f"{free}.") for free in ignore)]


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
