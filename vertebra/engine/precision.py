"""The number format of convolutions and linear layers."""

from __future__ import annotations

from pathlib import Path

import torch

NAMES = ("auto", "fp32", "bf16", "fp16")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(name: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16. auto: bf16 where the hardware multiplies it natively, else fp32.

    Raises ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"There is no precision {name!r}; choose one of {', '.join(NAMES)}.")
    if name != "auto":
        return name
    return "bf16" if has_fast_bf16(device) else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a forward runs; with fp32 it changes nothing."""
    dtype = _DTYPES.get(precision, torch.bfloat16)
    return torch.autocast(device.type, dtype=dtype, enabled=precision in _DTYPES)


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Keep fp16's small gradients from vanishing; do nothing for the other formats."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether `device` multiplies bf16 natively: NVIDIA from Ampere on, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # bf16 alone is no reason: where a CPU lacks the instructions, it is emulated and several times slower than fp32.
    return bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the processor's features; empty where the system has no such file."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
