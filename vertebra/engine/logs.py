"""The logs of a run: lines on the console and in log.txt, numbers in metrics.jsonl and TensorBoard, bars."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from datetime import timedelta
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from vertebra.ground.files import append_line, is_full, write_text

if TYPE_CHECKING:
    from vertebra.engine.trackers import Outbox

logger = logging.getLogger(__name__)

ROOMS = ("vertebra", "detectors", "segmenters", "backbones", "__main__")
PLAIN_LINE_PERIOD_S = 30.0

Item = TypeVar("Item")


class _ConsoleHandler(logging.Handler):
    """Prints above a progress bar instead of through it; warnings and errors say what they are."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            prefix = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
            tqdm.write(prefix + self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except Exception:
            self.handleError(record)


class _FileHandler(logging.FileHandler):
    """Leaves a full disk to what is written next to the log (metrics, checkpoints), which stops with a sentence."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not is_full(sys.exc_info()[1]):
            super().handleError(record)

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            if not is_full(error):
                raise


def setup_logging(log_path: Path | None = None, *, is_main: bool = True) -> None:
    """Send our packages' log lines to the console and to the end of `log_path`; all but rank 0 stay silent.

    Calling it again (say, once the run directory is known) replaces what was set up before; lines since a call
    without `log_path` go to the beginning of the file.
    """
    root = logging.getLogger()
    handlers: list[logging.Handler] = [_ConsoleHandler()] if is_main else [logging.NullHandler()]
    if log_path is None and is_main:
        handlers.append(MemoryHandler(1000))  # until there is a file
    if log_path is not None and is_main:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        to_file = _FileHandler(log_path, encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        handlers.append(to_file)
    for handler in [h for h in root.handlers if getattr(h, "is_vertebra", False)]:
        root.removeHandler(handler)
        if isinstance(handler, MemoryHandler) and log_path is not None:
            handler.setTarget(handlers[-1])
        handler.close()
    for handler in handlers:
        handler.is_vertebra = True  # type: ignore[attr-defined]
        root.addHandler(handler)
    for room in ROOMS:
        logging.getLogger(room).setLevel(logging.INFO if is_main else logging.ERROR)


def training_line(
    iteration: int, iterations: int, eta_s: float, values: dict[str, float], costs: dict[str, float]
) -> str:
    """Return `eta: 0:41:49  iter: 379/90000  loss: 1.70  time: 0.229 s  data: 0.003 s  lr: 0.0038  mem: 3782 MB`."""
    parts = [f"eta: {timedelta(seconds=round(eta_s))}", f"iter: {iteration}/{iterations}"]
    parts += [f"{name}: {short_number(value)}" for name, value in values.items()]
    parts += [f"time: {costs['time_s']:.3f} s", f"data: {costs['data_s']:.3f} s"]
    parts += [f"lr: {costs['lr']:.3g}", f"mem: {costs['memory_mb']:.0f} MB"]
    return "  ".join(parts)


def figures_line(iteration: int, figures: dict[str, float]) -> str:
    """Return one line for an evaluation."""
    return "  ".join([f"evaluation at iter: {iteration}", *(f"{k}: {short_number(v)}" for k, v in figures.items())])


def short_number(value: float) -> str:
    """Return three significant digits: 1.70, 0.0381, 65.4, 1204."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def progress(
    items: Iterable[Item], *, description: str, total: int | None = None, initial: int = 0, plain_lines: bool = True
) -> Iterator[Item]:
    """Yield `items`, with a bar on a terminal and otherwise a log line every half minute.

    plain_lines False: the caller writes lines of its own, and a bar is all that is wanted.
    """
    if total is None and isinstance(items, Sized):
        total = initial + len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total, initial=initial, dynamic_ncols=True, leave=False)
    elif plain_lines:
        yield from _with_plain_lines(items, description, total, initial)
    else:
        yield from items


def _with_plain_lines(items: Iterable[Item], description: str, total: int | None, initial: int) -> Iterator[Item]:
    started = written = time.monotonic()
    for done, item in enumerate(items, start=initial + 1):
        yield item
        now = time.monotonic()
        if now - written >= PLAIN_LINE_PERIOD_S:
            written = now
            pace_s = (now - started) / (done - initial)
            left = f"/{total}  eta: {timedelta(seconds=round(pace_s * (total - done)))}" if total else ""
            logger.info("%s: %d%s", description, done, left)


class MetricsWriter:
    """Appends to metrics.jsonl, one object a line with `iteration` first, to TensorBoard's events and to `trackers`."""

    def __init__(self, directory: Path, *, tensorboard: bool = True, enabled: bool = True):
        self._path = directory / "metrics.jsonl"
        self._directory = directory
        self._tensorboard = tensorboard
        self._enabled = enabled
        self._events: Any = None
        self.trackers: list[Outbox] = []

    def write(self, iteration: int, values: dict[str, float], *, section: str) -> None:
        """Write named numbers; non-finite ones become null.

        section: "train" or "evaluation", which group the curves in TensorBoard.
        """
        if not self._enabled:
            return
        finite = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"iteration": iteration, **finite})
        if section == "evaluation" and self._path.exists() and self._path.read_text().endswith(f"{line}\n"):
            return  # a run that was killed after its last evaluation has made that again
        append_line(self._path, line)
        for tracker in self.trackers:
            tracker.write(iteration, finite, section=section)
        if self._tensorboard:
            self._write_events(iteration, values, section)

    def _write_events(self, iteration: int, values: dict[str, float], section: str) -> None:
        if self._events is None:
            try:
                from torch.utils.tensorboard import SummaryWriter  # seconds to import, so only once it is needed
            except ImportError:
                logger.warning("TensorBoard is not installed; curves are in metrics.jsonl alone.")
                self._tensorboard = False
                return
            self._events = SummaryWriter(str(self._directory), purge_step=iteration)
        for name, value in values.items():
            self._events.add_scalar(f"{section}/{name}", value, iteration)

    def flush(self) -> None:
        """Bring all events to the disk."""
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Bring all events to the disk, and close the file."""
        if self._events is not None:
            self._events.close()
            self._events = None


def is_training_line(line: dict[str, Any]) -> bool:
    """Tell training lines, which have losses, from evaluation lines, which have figures."""
    return any(name.startswith("loss") for name in line)


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the lines of a JSONL file and their objects; none of a missing file, nor a last one that was cut off."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(json.JSONDecodeError):
            yield line, json.loads(line)


def keep_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the objects of a JSONL file that `keep` does not want, and a last line that was cut off."""
    if path.exists():
        write_text(path, "".join(f"{line}\n" for line, value in read_lines(path) if keep(value)))
