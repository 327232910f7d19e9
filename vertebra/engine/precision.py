"""The number format of convolutions and linear layers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(name: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16. auto: bf16 where the hardware multiplies it natively, fp16 on GPUs that have tensor
    cores for that alone (Volta, Turing), else fp32.

    Products of float32 matrices keep all their digits from now on: a container may have set them to TF32, and what is
    left in float32 under autocast (scores, deltas) is there for its digits.
    """
    torch.set_float32_matmul_precision("highest")
    if name != "auto":
        return name
    if has_fast_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0) else "fp32"


def float32_on(device: torch.device) -> str:
    """Return what float32 means on `device`: a GPU from Ampere on rounds what convolutions read to TF32's 10 bits."""
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if has_tf32 and torch.backends.cudnn.allow_tf32:
        return "convolutions in TF32 (10 bits of mantissa), all else in full"
    return "all in full"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a forward runs; with fp32 it changes nothing."""
    dtype = _DTYPES.get(precision, torch.bfloat16)
    return torch.autocast(device.type, dtype=dtype, enabled=precision in _DTYPES)


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether `device` multiplies bf16 natively: NVIDIA from Ampere on, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # bf16 alone is no reason: where a CPU lacks the instructions, it is emulated and several times slower than fp32.
    return bool({"avx512_bf16", "amx_bf16"} & set(cpu_fact("flags").split()))


def cpu_fact(name: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what the system says of the processor, such as its "flags" or "model name"; "" where it says nothing."""
    with suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    return ""
