"""The processor cores that this process may use, of all that the machine has."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def usable_cores() -> int:
    """Return the processor cores that this process may use: those it may run on, or its cgroups' quota if smaller."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(cgroup_quota())))


def cgroup_quota(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the cores whose time the process's cgroups (v2 or v1) grant it, those above it included.

    Infinite where none is limited.
    """
    quota = 1e9
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = mounted / ("cpu" if controllers else "")
            inner = top / path.strip("/")
            for place in (inner, *inner.parents):
                with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                    quota = min(quota, _granted(place))
                if place == top:
                    break
    return quota


def _granted(place: Path) -> float:
    if (place / "cpu.max").exists():  # v2
        time, period = map(float, (place / "cpu.max").read_text().split())
    else:
        time, period = (float((place / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return time / period if time > 0 and period > 0 else 1e9
