"""Finished classification runs as a study of depth sees them: nets, their errors and their curves.

Errors are in per cent. The training error is the one of the log: on the augmented images of each step, with the weights
of that step. A run's figure is its mean over the last tenth of the training, by images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vertebra.evaluation.report.curves import Point
from vertebra.evaluation.report.reading import is_training, read_json, read_metrics, read_provenance
from vertebra.evaluation.study.nets import Net, describe_net
from vertebra.ground.errors import UserError

LAST_SHARE = 0.1  # of the training, over which its error is taken
NOT_LEARNT = ("running_mean", "running_var", "num_batches_tracked")
# He et al. 2015, §4.2, lets its nets of 110 layers and more begin at a lower rate; this is still the study's protocol.
WARM_DEPTH = 110
WARM_FIELDS = frozenset({"solver.warmup_until_error", "solver.warmup_factor", "solver.warmup_iterations"})


@dataclass(frozen=True)
class StudyRun:
    """One finished run. train_error is None where its images were mixed, so that their class is not one.

    train_curve: (iteration, training error) of each log line; test_curve: of each evaluation. errors: test error by
    view, {"1crop": {"error1": .., "error5": ..}}. responses: deviation of each 3x3 layer, in order, if measured.
    """

    directory: Path
    net: Net
    seed: Any
    provenance: Mapping[str, Any]
    train_error: float | None
    train_curve: list[Point]
    test_curve: list[Point]
    errors: Mapping[str, Mapping[str, float]]
    parameters: int | None
    responses: Mapping[str, Any] | None

    @property
    def protocol(self) -> dict[str, Any]:
        """What was the same for every net: all of the protocol but the warm start of very deep CIFAR nets."""
        fields = self.provenance.get("protocol") or {}
        starts_warm = self.net.cifar and self.net.depth >= WARM_DEPTH
        return {name: value for name, value in fields.items() if not (starts_warm and name in WARM_FIELDS)}

    @property
    def has_warm_start(self) -> bool:
        return (self.provenance.get("protocol") or {}).get("solver.warmup_until_error") is not None

    @property
    def iterations(self) -> int:
        return int(self.provenance["iterations"])

    @property
    def data_name(self) -> str:
        return str((self.provenance.get("training_data") or {}).get("name", "unknown data"))

    def to_dict(self) -> dict[str, Any]:
        """The run's own figures and where they come from, fit for JSON."""
        facts = ("training_s", "commit", "command", "machine", "protocol_hash")
        return {
            "label": self.net.label,
            "seed": self.seed,
            "train_error": self.train_error,
            "errors": self.errors,
            "iterations": self.iterations,
            **{name: self.provenance.get(name) for name in facts},
            "directory": str(self.directory),
        }


def read_study_run(directory: Path) -> StudyRun:
    """Read one run directory. Raises UserError where it is missing, unfinished or no classifier's."""
    provenance = read_provenance(directory)
    evaluation = read_json(directory / "evaluation.json", "it holds the test error; run again")
    if not isinstance(evaluation, dict) or "top1" not in evaluation or "iterations" not in provenance:
        raise UserError(directory, "it is no run of a classifier", "name runs of tools/train_backbone.py")
    metrics, protocol = read_metrics(directory / "metrics.jsonl"), provenance.get("protocol") or {}
    mixed = bool(protocol.get("mixup") or protocol.get("cutmix"))
    train_curve = [] if mixed else error_curve([line for line in metrics if is_training(line)])
    return StudyRun(
        directory=directory,
        net=describe_net(provenance.get("backbone") or {}),
        seed=provenance.get("seed"),
        provenance=provenance,
        train_error=last_error(train_curve, int(provenance["iterations"])),
        train_curve=train_curve,
        test_curve=error_curve([line for line in metrics if not is_training(line)]),
        errors={"1crop": _errors(evaluation), **_other_views(directory)},
        parameters=count_parameters(directory / "model.safetensors"),
        responses=_responses(directory / "responses.json"),
    )


def error_curve(lines: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Return (iteration, top-1 error) of every line with a finite top1: the average's, where the weights have one."""
    figures = [(float(line["iteration"]), line.get("ema_top1", line.get("top1"))) for line in lines]
    return [(at, 100.0 - float(top1)) for at, top1 in figures if isinstance(top1, int | float) and math.isfinite(top1)]


def last_error(curve: Sequence[Point], iterations: int) -> float | None:
    """Return the mean of the last tenth: each point stands for the steps since the one before it."""
    begin = (1 - LAST_SHARE) * iterations
    total = steps = before = 0.0
    for at, error in curve:
        weight = max(0.0, at - max(before, begin))
        total, steps, before = total + weight * error, steps + weight, at
    return total / steps if steps else None


def _errors(figures: Mapping[str, Any]) -> dict[str, float]:
    return {f"error{k}": 100.0 - float(figures[f"top{k}"]) for k in (1, 5) if figures.get(f"top{k}") is not None}


def _other_views(directory: Path) -> dict[str, dict[str, float]]:
    """The errors that tools/eval_backbone.py --json wrote into evaluation_*.json, by the paper's views alone."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted(directory.glob("evaluation_*.json")):
        entries = read_json(path, "evaluate the weights again, or remove it")
        for entry in entries if isinstance(entries, list) else [entries]:
            if _is_view_of_paper(entry):
                found[str(entry["view"])] = _errors(entry)
    return found


def _is_view_of_paper(entry: Any) -> bool:
    """Leave out ensembles, other weights than model.safetensors, views without mirror images, other centre crops."""
    if not isinstance(entry, dict) or not isinstance(entry.get("weights"), str) or entry.get("top1") is None:
        return False
    mirrored = entry.get("view") != "1crop" and entry.get("flip", True)
    return mirrored and Path(entry["weights"]).name == "model.safetensors"


def _responses(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found = read_json(path, "remove it, and it will be measured again")
    if not isinstance(found, dict) or not isinstance(found.get("layers"), list):
        raise UserError(path, "it has no responses of layers", "remove it, and they will be measured again")
    return found


def count_parameters(path: Path) -> int | None:
    """Return how many numbers were learnt, by the header of a safetensors file; None without the file."""
    try:
        with safe_open(path, framework="numpy") as file:
            learnt = [name for name in file.keys() if not name.endswith(NOT_LEARNT)]  # noqa: SIM118
            return sum(math.prod(file.get_slice(name).get_shape()) for name in learnt)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        raise UserError(path, f"it cannot be read as safetensors ({error})", "restore it or run again") from None
