"""No silent NaN: a step whose loss or gradient is not finite is never taken, and the run stops and says why.

The check waits for the device only when asked to (`read`). Until then a fused optimiser skips its steps by a flag
on the device, the mechanism made for GradScaler, so the weights stay those from before the first bad step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from vertebra.engine.distributed import World

SMALLEST_SCALE = 2.0**-14  # below it fp16's loss scaling has given up


class NonFiniteLoss(ArithmeticError, ValueError):
    """A loss or a gradient was NaN or infinite. `iteration`, `image_ids` and `names` say where and what."""

    def __init__(self, message: str, *, iteration: int, image_ids: tuple[int, ...], names: tuple[str, ...]):
        super().__init__(message)
        self.iteration = iteration
        self.image_ids = image_ids
        self.names = names


def spoiling(loss: Tensor, values: Tensor) -> Tensor:
    """Return `loss` itself where all `values` are finite, else one whose gradient is NaN, which reaches all processes.

    A value can be infinite with a finite gradient, on one process alone; all are to skip the step.
    """
    return loss * (1 + _not_finite(values).sum())


def _not_finite(values: Tensor) -> Tensor:
    """Return 0 for each that is finite, else NaN: one kernel on a GPU, of which `isfinite` takes four."""
    return values - values


class FiniteGuard:
    """Watches each iteration's losses and gradient; the optimiser steps only while all were finite.

    buffers: running statistics, which a bad forward spoils before it is noticed. They get the values back that were
    last known to be good.
    """

    def __init__(
        self, optimizer: Optimizer, scaler: torch.amp.GradScaler, world: World, buffers: Sequence[Tensor] = ()
    ):
        self._optimizer = optimizer
        self._scaler = scaler
        self._world = world
        self._buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._good_buffers = [buffer.clone() for buffer in self._buffers]
        # float, as found_inf is: 1 from the first bad iteration on.
        self._tripped = torch.zeros((), device=world.device)
        self._iteration = torch.zeros((), device=world.device, dtype=torch.int64)
        self._values = torch.zeros((), device=world.device)
        self._recent: deque[tuple[int, tuple[int, ...]]] = deque()
        # A GradScaler skips steps with infinite gradients by itself, and that is no failure.
        self._on_device = getattr(optimizer, "_step_supports_amp_scaling", False) and world.device.type != "cpu"

    def watch(self, iteration: int, image_ids: tuple[int, ...], values: Tensor, norm: Tensor) -> None:
        """Note whether all `values` (losses) and the gradient's `norm` are finite. No host wait.

        The norm is of the gradient that all processes share, so it speaks for all of them, and for their losses if
        these were `spoiling`. With loss scaling it may be infinite, and they ask each other.
        """
        self._recent.append((iteration, image_ids))
        if self._scaler.is_enabled():
            bad = self._world.all_reduce_max((~torch.isfinite(values).all()).float())
        else:
            bad = (_not_finite(norm) != 0).float()
        fine = self._tripped == 0  # so far: this iteration may be the first bad one
        self._iteration = torch.where(fine, iteration, self._iteration)
        self._values = torch.where(fine, values, self._values)
        self._tripped = torch.maximum(self._tripped, bad)

    def step(self) -> None:
        """Take the optimiser's step, unless an iteration was bad."""
        if self._scaler.is_enabled():
            if self._on_device or not self._is_tripped():
                self._scaler.step(self._optimizer)
            self._scaler.update()
        elif self._on_device:
            self._optimizer.grad_scale = None  # type: ignore[attr-defined]
            self._optimizer.found_inf = self._tripped  # type: ignore[attr-defined]
            self._optimizer.step()
            del self._optimizer.grad_scale, self._optimizer.found_inf  # type: ignore[attr-defined]
        elif not self._is_tripped():
            self._optimizer.step()

    def read(self, names: tuple[str, ...]) -> None:
        """Wait for the device and raise NonFiniteLoss, on all processes, where an iteration was bad."""
        if self._is_tripped():
            self._raise(int(self._iteration.item()), names)
        if self._scaler.is_enabled() and self._scaler.get_scale() < SMALLEST_SCALE:
            self._raise(self._recent[-1][0], names)
        self._recent.clear()
        if self._buffers:
            torch._foreach_copy_(self._good_buffers, self._buffers)

    def _is_tripped(self) -> bool:
        return bool(self._tripped.item())

    def _raise(self, iteration: int, names: tuple[str, ...]) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._good_buffers)
        here = next((ids for at, ids in self._recent if at == iteration), ())
        bad_here = [n for n, ok in zip(names, torch.isfinite(self._values).flatten().tolist()) if not ok]
        gathered = self._world.gather_objects((here, bad_here))
        image_ids = tuple(image_id for ids, _ in gathered for image_id in ids)
        bad = tuple(dict.fromkeys(name for _, bad_names in gathered for name in bad_names)) or ("gradient",)
        shown = ", ".join(map(str, image_ids[:32])) + (", ..." if len(image_ids) > 32 else "")
        raise NonFiniteLoss(
            f"Not finite at iteration {iteration}: {', '.join(bad)} (image ids {shown}).",
            iteration=iteration,
            image_ids=image_ids,
            names=bad,
        )
