"""From the word a user gives to the device that work runs on."""

from __future__ import annotations

import os
import resource
import sys

import torch

from vertebra.ground.errors import UserError

NAMES = ("auto", "cpu", "cuda")


class DeviceError(UserError):
    """The device that was asked for is not there."""


def resolve(name: str = "auto", *, local_rank: int = 0) -> torch.device:
    """The device of process `local_rank` on this machine. auto: CUDA where there is one, else the CPU.

    Raises DeviceError for an unknown name, for `cuda` on a machine without one, and where there are more processes
    than GPUs.
    """
    if name not in NAMES:
        raise DeviceError(f"There is no device {name!r}; choose one of {', '.join(NAMES)}.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            "--device cuda was asked for, but torch sees no CUDA device on this machine; "
            "use --device cpu, or install a torch build and a driver that match."
        )
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise DeviceError(
            f"{local_rank + 1} processes were asked for, but this machine has {count} GPU(s); "
            f"use --gpus {count}, or --device cpu."
        )
    return torch.device("cuda", local_rank)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory in use so far, MB: allocated on a GPU, resident for the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kilobytes on Linux


def visible_gpus(name: str = "auto") -> list[str]:
    """This process's GPUs as CUDA_VISIBLE_DEVICES names them; none where the work goes to the CPU."""
    if resolve(name).type == "cpu":
        return []
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return told.split(",") if told else [str(index) for index in range(torch.cuda.device_count())]


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
