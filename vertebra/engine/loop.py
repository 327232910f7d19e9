"""The training loop, for classification and detection alike.

An iteration is one step of the optimiser. It takes `accumulate` batches from the loader; everything with a period
counts iterations. A batch has `.inputs` (what the model takes), `.image_ids`, `.skipped` and `.to(device)`; the model
returns named scalars, of which those that begin with "loss" are summed and minimised.

The host waits for the device only to log, save or evaluate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vertebra.engine import precision as precisions
from vertebra.engine.average import WeightAverage
from vertebra.engine.compiling import compile_forward
from vertebra.engine.distributed import World, wrap
from vertebra.engine.guard import FiniteGuard, spoiling
from vertebra.engine.logs import progress
from vertebra.engine.meter import losses_in
from vertebra.engine.optim import fill_momentum, set_learning_rate, trained_parameters
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.schedule import Schedule
from vertebra.engine.session import Record, Session
from vertebra.engine.stop import Interrupted, StopSignals


def train(
    *,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    loader: Iterable[Any],
    run: RunDirectory,
    iterations: int,
    world: World | None = None,
    precision: str = "fp32",
    accumulate: int = 1,
    grad_clip: float | None = None,
    evaluate: Callable[[int], dict[str, float]] | None = None,
    eval_period: int | None = None,
    checkpoint_period: int | None = None,
    log_period: int = 20,
    best: str | None = None,
    average: WeightAverage | None = None,
    state: dict[str, Any] | None = None,
    compile: bool = False,
) -> Record:
    """Train `model` in place up to `iterations` and return the run's record.

    model: on `world.device`, not wrapped. loader: gives this process's share of `accumulate` batches for each
        iteration that is left; it begins at iteration `state["iteration"]`, counted from 0. Its
        `workers`, if it has that, are named where the device waits for them.
    precision: "fp32", "bf16" or "fp16". grad_clip: largest norm of the gradient.
    evaluate: called by all processes every `eval_period` iterations and at the end, with the model in eval
        mode; rank 0's figures count. best: name of the figure (higher is better) that chooses best.pt.
    average: of the model's weights; it follows every step, and is evaluated beside them.
    state: `run.latest_state()`, from which to go on to the bit; None to begin.
    compile: the model's forward and backward are compiled, see `compiling`.
    Raises stop.Interrupted after a signal, guard.NonFiniteLoss and UserError, each with the state saved;
    ValueError where the loader ends too early; files.DiskFull in the step after a checkpoint that had no room.
    """
    world = world or World()
    scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")  # its small gradients would vanish
    session = Session(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        scaler=scaler,
        run=run,
        world=world,
        best=best,
        average=average,
        iterations=iterations,
        workers=getattr(loader, "workers", None),
    )
    start = session.restore(state)
    begin_step = compile_forward(model, world.device, accumulate=accumulate) if compile else None
    parallel = wrap(model, world).train()
    parameters = trained_parameters(optimizer)
    fill_momentum(optimizer)
    guard = FiniteGuard(optimizer, scaler, world, [*model.buffers(), *(average.buffers if average else ())])

    with StopSignals(world) as stop, run.checkpoints:
        if evaluate is not None and session.record.evaluated < start and _is_due(start, eval_period, iterations):
            session.evaluate(evaluate, stop)  # the run ended between a checkpoint and its evaluation
            session.settle()  # before loaders fork
        batches = iter(loader) if start < iterations else iter(())
        steps = range(start + 1, iterations + 1)
        for iteration in progress(steps, description="train", total=iterations, initial=start, plain_lines=False):
            lr = set_learning_rate(optimizer, schedule(iteration - 1))
            if begin_step is not None:
                begin_step()
            world.step(iteration)
            seen, image_ids = [], []
            for micro in range(accumulate):
                batch = _next_batch(session.clock.fetch, batches, iteration)
                session.counter.add(batch)
                with _gradients_stay_here(parallel, micro + 1 < accumulate):
                    with precisions.autocast(world.device, precision):
                        values = parallel(*batch.to(world.device).inputs)
                    seen.append(session.add(values))
                    loss = spoiling(total_loss(values), seen[-1])
                    scaler.scale(loss / accumulate).backward()
                image_ids += batch.image_ids

            scaler.unscale_(optimizer)
            norm = clip_gradients(parameters, grad_clip)
            guard.watch(iteration, tuple(image_ids), sum(seen[1:], seen[0]), norm)
            guard.step()
            optimizer.zero_grad(set_to_none=True)
            session.step()

            logs = _is_due(iteration, log_period, iterations)
            evaluates = evaluate is not None and _is_due(iteration, eval_period, iterations)
            saves = evaluates or _is_due(iteration, checkpoint_period, iterations)
            waits = logs or saves or world.device.type == "cpu" or iteration == start + 1
            signal = stop.agreed() if waits or world.size == 1 else 0
            if waits or signal:
                session.require_finite(guard)
            if logs:
                session.log(lr)
                session.require_few_skipped()
            if saves or signal:
                session.save()
            if evaluate is not None and evaluates and not signal:
                session.evaluate(evaluate, stop)
                signal = stop.agreed()
            if signal:
                break
        world.step(None)
        session.settle()
        if signal := stop.agreed():
            raise Interrupted(session.record.iteration, signal)
    run.metrics.flush()
    return session.record


def total_loss(values: dict[str, Tensor]) -> Tensor:
    """Return the sum of all losses. Raises ValueError where there are none."""
    losses = losses_in(values)
    if not losses:
        raise ValueError(f"The model returned no loss, only {', '.join(values) or 'nothing'}.")
    return torch.stack([loss.float() for loss in losses]).sum()


def clip_gradients(parameters: list[nn.Parameter], largest_norm: float | None) -> Tensor:
    """Return the norm of the whole gradient, on the device; scale it down to `largest_norm` where it is larger."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if largest_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, largest_norm, norm)
    return norm


def _is_due(iteration: int, period: int | None, iterations: int) -> bool:
    """Tell whether this is a `period`th iteration (None: there are none) or the last."""
    return iteration == iterations or (period is not None and iteration % period == 0)


def _gradients_stay_here(parallel: nn.Module, stay: bool) -> AbstractContextManager:
    """Keep gradients to this process while they accumulate; they are exchanged with the last micro-batch."""
    no_sync = getattr(parallel, "no_sync", None)
    return no_sync() if stay and no_sync is not None else nullcontext()


def _next_batch(fetch: Callable[[Iterator[Any]], Any], batches: Iterator[Any], iteration: int) -> Any:
    try:
        return fetch(batches)
    except StopIteration:
        raise ValueError(f"The loader ended before iteration {iteration}; it must last to the end.") from None
