"""Processes that train together: started by torchrun, over gloo on CPUs, NCCL on GPUs, and gloo for Python objects."""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vertebra.engine import device as devices
from vertebra.engine.jobs.tied import die_with, tie_forks, tied
from vertebra.engine.watch import LONG_PATIENCE_S, PATIENCE_S, Watch, process_name
from vertebra.ground.cores import usable_cores
from vertebra.ground.errors import UserError

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, with a `device` of its own. Alone, no method does anything.

    Sums and maxima have `watch`'s patience; objects and barriers a long one, as rank 0 may score and write meanwhile.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    watch: Watch | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def name(self) -> str:
        """`rank 3 on node7 (process 812)`."""
        return process_name(self.rank)

    def step(self, iteration: int | None) -> None:
        """Say that an iteration begins, which must come to its end in the watch's patience; None: they are over."""
        if self.watch is not None:
            self.watch.step(f"iteration {iteration}" if iteration else None)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Inside, what is no training step (an evaluation, a checkpoint) takes as long as it takes."""
        with self._waiting("an evaluation or a checkpoint", LONG_PATIENCE_S):
            yield

    def barrier(self) -> None:
        """Return once all processes are here."""
        self.gather_objects(None)

    def gather_objects(self, value: Any) -> list[Any]:
        """Return every process's `value`, in the order of ranks, on every process."""
        gathered: list[Any] = [value] * self.size
        if self.size > 1:
            with self._waiting("gather_objects", LONG_PATIENCE_S):
                dist.all_gather_object(gathered, value)
        return gathered

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's `value` on every process."""
        box = [value]
        if self.size > 1:
            with self._waiting("broadcast_object", LONG_PATIENCE_S):
                dist.broadcast_object_list(box, src=0)
        return box[0]

    def decide(self, decision: Callable[[], Value]) -> Value:
        """Return on every process what `decision` gives on rank 0, where alone it is called.

        An error of a user's or the system's (UserError, OSError, ...) that it raises there is raised on every process.
        """
        made: tuple[Any, Exception | None] = (None, None)
        if self.is_main:
            try:
                made = decision(), None
            except (ValueError, OSError) as error:
                made = None, error
        value, refusal = self.broadcast_object(made)
        if refusal is not None:
            raise refusal
        return value

    def require(self, fault: str | None) -> None:
        """Raise UserError on every process where one has a `fault`: the first's. `name` says whose it is."""
        for sentence in self.gather_objects(fault):
            if sentence:
                raise UserError(sentence)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes, in place."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its maximum over all processes, in place."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def _reduce(self, tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        if self.size > 1:
            with self._waiting("all_reduce"):
                dist.all_reduce(tensor, op=how)
        return tensor

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all processes rank 0's buffers: running statistics that each process gathered on its own share."""
        if self.size > 1:
            with self._waiting("broadcast_buffers"):
                for buffer in model.buffers():
                    dist.broadcast(buffer, src=0)

    def _waiting(self, what: str, patience_s: float | None = None) -> AbstractContextManager[None]:
        return nullcontext() if self.watch is None else self.watch.waiting(what, patience_s)


def is_under_launcher() -> bool:
    """Tell whether torchrun (or `relaunch`) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def start(device: str = "auto") -> World:
    """Join the processes that torchrun started, or stand alone where it did not.

    Raises UserError where the device is not there, or where there are more processes than GPUs.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if is_under_launcher() else 0
    here = devices.resolve(device, local_rank=local_rank)
    devices.fit_threads()
    if here.type == "cuda":
        torch.cuda.set_device(here)
        torch.backends.cudnn.benchmark = True  # a few canvas sizes, each seen many times
    else:
        devices.keep_freed_memory()
    if not is_under_launcher():
        return World(device=here)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size > 1 and not dist.is_initialized():
        # Its functions take the group of the time of their import as a default and would hold it for good; see `stop`.
        importlib.import_module("torch.distributed.nn.functional")
        _join(here)
    if size == 1:
        return World(device=here)
    key = World(rank=rank, size=size).broadcast_object(uuid.uuid4().hex)  # a restart's differs
    watch = Watch(process_name(rank), rank=rank, size=size, key=key).start()
    return World(rank=rank, size=size, local_rank=local_rank, device=here, watch=watch)


def _join(here: torch.device) -> None:
    """Join the group: tensors go over the device's own backend, Python objects over gloo, which waits for long."""
    # A minute more than the watch, which says more. What each GPU was about is written down where NCCL gives up.
    patience = timedelta(seconds=PATIENCE_S + 60)
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "2000")
    os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    store, rank, size = next(dist.rendezvous("env://", timeout=patience))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # torchrun may keep one store over its restarts, with addresses of processes that are gone. On several nodes
        # their counts differ; see README.
        store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    group: dict[str, Any] = {"store": store, "rank": rank, "world_size": size, "timeout": patience}
    if here.type == "cuda":
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=here, **group)
    else:
        dist.init_process_group("gloo", **group)
    assert dist.group.WORLD is not None
    gloo: Any = dist.group.WORLD._get_backend(torch.device("cpu"))
    gloo._set_default_timeout(timedelta(seconds=LONG_PATIENCE_S))


def stop() -> None:
    """Leave the group and wait for its threads to end; what `started` does at its end.

    A thread of gloo's that still holds a tensor when Python shuts down aborts the process, with its work all done.
    They end with the last reference to the group, and wrapped models, which hold it, are in cycles.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


@contextmanager
def started(device: str = "auto") -> Iterator[World]:
    """`start` and, however the work ends, `stop`. What is forked meanwhile (loader workers) dies with this process,
    which dies with torchrun's.

    Raises UserError where the connection to another process is lost, which has ended then, or cannot be reached.
    """
    tie_forks()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with(os.getppid())
    world = start(device)
    leave: Callable[[], Any] = stop
    try:
        yield world
    except (Exception, KeyboardInterrupt) as error:
        if world.size > 1 and world.device.type == "cuda":
            # NCCL's group is left by all together, and the others may wait in it for this process: it ends without,
            # once it has said why.
            code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
            leave = partial(atexit.register, _end, code)
        if not isinstance(error, RuntimeError) or not is_lost_connection(error):
            raise
        raise UserError(
            f"{world.name} has lost another process ({str(error).splitlines()[0][:200]})",
            "that one has ended, and has said why if it could, or its host cannot be reached",
            "what was saved stays: continue with --resume",
        ) from error
    finally:
        if world.watch is not None:
            world.watch.stop()
        leave()


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_lost_connection(error: RuntimeError) -> bool:
    """Tell whether a collective has failed for want of another process."""
    said = str(error)
    lost = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")
    return isinstance(error, dist.DistError) or ("gloo" in said and any(words in said for words in lost))


def may_restart() -> bool:
    """Tell whether torchrun starts the processes again where one or a node is lost, or comes back (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def wrap(model: nn.Module, world: World) -> nn.Module:
    """Return `model` with its gradients averaged over all processes; the model itself in a world of one.

    Buffers are not sent around at each step: frozen norms never change, and trained ones are taken from rank 0
    before an evaluation.
    """
    if world.size == 1:
        return model
    # torch 2.15 renamed the option.
    known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    unsynced: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
    }
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **unsynced,
    )


def relaunch(processes: int, *, device: str = "auto") -> int:
    """Run this very command in `processes` processes under torchrun's own launcher; return the exit status.

    The status is that of the first process that failed (so 2 for a wrong recipe, 143 after SIGTERM), or 0. On a
    machine without GPUs, or with device "cpu", the processes share the CPU's cores over gloo.
    Raises UserError where there are fewer GPUs than `processes`.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from vertebra.engine.loopback import LOOPBACK, stores_on_loopback

    devices.resolve(device, local_rank=processes - 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")  # a step and a checkpoint must fit
    config = LaunchConfig(
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",  # handed on to the processes
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{LOOPBACK}:0",
        local_addr=LOOPBACK,
        max_restarts=0,
        run_id=f"vertebra_{os.getpid()}",
    )
    # The processes speak for themselves, and their status is handed on.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        program, *arguments = tied([sys.executable, "-u", *_this_command()])
        with stores_on_loopback():
            elastic_launch(config, entrypoint=program)(*arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as signal:
        return 128 + int(signal.sigval)
    return 0


def _this_command() -> list[str]:
    """Return this process's command without `python`: a script or a module, and its arguments."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:  # started as `python -m package.module`
        return ["-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
    return list(sys.argv)
