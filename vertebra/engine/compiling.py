"""Compiling the forward and the backward of a step of fixed shapes; on a GPU each becomes one CUDA graph.

A small net's step is hundreds of kernels that each take less time than the host needs to launch it. A graph launches
all of them at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from vertebra.ground.errors import UserError, first_line

logger = logging.getLogger(__name__)


def compile_forward(model: nn.Module, device: torch.device, *, accumulate: int = 1) -> Callable[[], None]:
    """Compile calls of `model`, in place: names, state dict and calls of its parts stay as they are.

    Return a function to be called as each step begins: from then on the last step's results are overwritten.
    Graphs are for steps of one batch: gradients that add up over several live in a graph's memory, and would be lost.
    Raises UserError where a trial fails, for want of a C++ compiler most often.
    """
    _try_compiler(device)
    if device.type == "cuda" and accumulate == 1:
        model.compile(dynamic=False, mode="reduce-overhead")
        return torch.compiler.cudagraph_mark_step_begin
    if device.type == "cpu":
        logger.info("Compiling takes minutes on a CPU, and gains little there; it is meant for GPUs.")
    model.compile(dynamic=False)
    return lambda: None


def _try_compiler(device: torch.device) -> None:
    try:
        torch.compile(lambda x: (x * 2 + 1).sum())(torch.ones(8, device=device))
    except Exception as error:  # whatever is missing on this machine says so in its own way
        raise UserError(
            f"--compile: torch.compile does not work on this machine ({first_line(error)}); install a C++ compiler "
            "(g++), and on a GPU Triton, or leave --compile out."
        ) from error
