"""What finished classification runs left behind, as a study of depth sees it: nets, their errors and their curves.

Errors are in per cent. The training error is the one that the log gives: on the augmented images of each step, with the
weights of that step. A run's figure is its mean over the last tenth of the training, by images.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.evaluation.report.curves import Point
from vertebra.evaluation.report.formats import TIMES
from vertebra.evaluation.report.reading import ReportError, is_training, read_json, read_metrics, read_provenance
from vertebra.evaluation.study.published import Key

LAST_SHARE = 0.1  # of the training, over which its error is taken
NOT_LEARNT = ("running_mean", "running_var", "num_batches_tracked")
FAMILIES = (  # of names in the catalogue
    (re.compile(r"(?P<cifar>cifar_)?plain(?P<depth>\d+)"), "plain", "plain-{}"),
    (re.compile(r"(?P<cifar>cifar_)?r(?P<depth>\d+)"), "residual", "ResNet-{}"),
    (re.compile(r"(?P<cifar>)vgg(?P<depth>\d+)(?P<norms>_bn)?"), "vgg", "VGG-{}"),
)
# He et al. 2015, §4.2, lets its nets of 110 layers and more begin at a lower rate; this is still the study's protocol.
WARM_DEPTH = 110
BOTTLENECK_DEPTH = 50  # from here on a residual net for ImageNet has bottlenecks, whose stride has two places
WARM_FIELDS = frozenset({"solver.warmup_until_error", "solver.warmup_factor", "solver.warmup_iterations"})


@dataclass(frozen=True)
class Net:
    """A network as tables name it. family: plain, residual, vgg or other; shortcut: of residual nets."""

    label: str
    family: str
    depth: int
    shortcut: str | None
    cifar: bool
    as_published: bool  # of the paper's widths, bottlenecks that stride in their first 1x1, a VGG without norms

    @property
    def key(self) -> Key:
        return self.family, self.depth, self.shortcut


def describe_net(identity: Mapping[str, Any]) -> Net:
    """The network of a run's provenance."""
    name, width = str(identity.get("name")), identity.get("width") or 1.0
    for pattern, family, label in FAMILIES:
        found = pattern.fullmatch(name)
        if found is None:
            continue
        depth, cifar = int(found["depth"]), bool(found["cifar"])
        shortcut = identity.get("shortcut") if family == "residual" else None
        told = label.format(depth)
        if shortcut and not cifar:
            told += f" {shortcut}"
        norms = found.groupdict().get("norms") is not None
        late = shortcut is not None and depth >= BOTTLENECK_DEPTH and not cifar and identity.get("stride_in") == "3x3"
        told += " with norms" * norms + " (stride in 3x3)" * late + (f" {TIMES}{width:g}" if width != 1 else "")
        return Net(told, family, depth, shortcut, cifar, width == 1 and not norms and not late)
    return Net(name, "other", 0, identity.get("shortcut"), False, False)


@dataclass(frozen=True)
class StudyRun:
    """One finished run. train_error is None where its images were mixed, so that their class is not one.

    train_curve: (iteration, training error) of each log line; test_curve: of each evaluation. errors: test error by
    view, {"1crop": {"error1": .., "error5": ..}}. responses: deviation of each 3x3 layer, in order, if measured.
    """

    directory: Path
    net: Net
    seed: Any
    provenance: dict[str, Any]
    train_error: float | None
    train_curve: list[Point]
    test_curve: list[Point]
    errors: dict[str, dict[str, float]]
    parameters: int | None
    responses: dict[str, Any] | None

    @property
    def protocol(self) -> dict[str, Any]:
        """What was the same for every net: all of the protocol but the warm start of very deep CIFAR nets."""
        told = dict(self.provenance.get("protocol") or {})
        if self.net.cifar and self.net.depth >= WARM_DEPTH:
            told = {name: value for name, value in told.items() if name not in WARM_FIELDS}
        return told

    @property
    def has_warm_start(self) -> bool:
        return (self.provenance.get("protocol") or {}).get("solver.warmup_until_error") is not None

    @property
    def iterations(self) -> int:
        return int(self.provenance["iterations"])


def read_study_run(directory: Path) -> StudyRun:
    """Reads one run directory. Raises ReportError where it is missing, unfinished or no classifier's."""
    provenance = read_provenance(directory)
    evaluation = read_json(directory / "evaluation.json", "it holds the test error; run again")
    if not isinstance(evaluation, dict) or "top1" not in evaluation or "iterations" not in provenance:
        raise ReportError(f"{directory} is not the run of a classifier: give those of tools/train_backbone.py.")
    metrics = read_metrics(directory / "metrics.jsonl")
    training = [line for line in metrics if is_training(line)]
    net, protocol = describe_net(provenance.get("backbone") or {}), provenance.get("protocol") or {}
    mixed = bool(protocol.get("mixup") or protocol.get("cutmix"))
    train_curve = [] if mixed else error_curve(training)
    return StudyRun(
        directory=directory,
        net=net,
        seed=provenance.get("seed"),
        provenance=provenance,
        train_error=last_error(train_curve, int(provenance["iterations"])),
        train_curve=train_curve,
        test_curve=error_curve([line for line in metrics if not is_training(line)]),
        errors={"1crop": _errors(evaluation), **_other_views(directory)},
        parameters=count_parameters(directory / "model.safetensors"),
        responses=_responses(directory / "responses.json"),
    )


def error_curve(lines: Sequence[Mapping[str, Any]]) -> list[Point]:
    """(iteration, top-1 error) of every line that has a finite top1: the average's, where the weights have one."""
    told = [(float(line["iteration"]), line.get("ema_top1", line.get("top1"))) for line in lines]
    return [(at, 100.0 - float(top1)) for at, top1 in told if isinstance(top1, int | float) and math.isfinite(top1)]


def last_error(curve: Sequence[Point], iterations: int) -> float | None:
    """The mean of the last tenth: each point stands for the steps since the one before it."""
    begin = (1 - LAST_SHARE) * iterations
    total = steps = before = 0.0
    for at, error in curve:
        weight = at - max(before, begin)
        if weight > 0:
            total, steps = total + weight * error, steps + weight
        before = at
    return total / steps if steps else None


def _errors(figures: Mapping[str, Any]) -> dict[str, float]:
    return {f"error{k}": 100.0 - float(figures[f"top{k}"]) for k in (1, 5) if figures.get(f"top{k}") is not None}


def _other_views(directory: Path) -> dict[str, dict[str, float]]:
    """What tools/eval_backbone.py --json wrote into evaluation_*.json beside the weights, by the paper's views alone:
    left out are ensembles, other weights than model.safetensors, views without mirror images, and another centre crop.
    """
    found: dict[str, dict[str, float]] = {}
    for path in sorted(directory.glob("evaluation_*.json")):
        entries = read_json(path, "evaluate the weights again, or remove it")
        for entry in entries if isinstance(entries, list) else [entries]:
            if _is_papers(entry):
                found[str(entry["view"])] = _errors(entry)
    return found


def _is_papers(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("weights"), str) or entry.get("top1") is None:
        return False
    mirrored = entry.get("view") != "1crop" and entry.get("flip", True)
    return mirrored and Path(entry["weights"]).name == "model.safetensors"


def _responses(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found = read_json(path, "remove it, and it will be measured again")
    if not isinstance(found, dict) or not isinstance(found.get("layers"), list):
        raise ReportError(f"{path} holds no layers' responses: remove it, and they will be measured again.")
    return found


def count_parameters(path: Path) -> int | None:
    """Numbers that were learnt, by the header of a safetensors file; None without the file."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, struct.error) as error:
        raise ReportError(f"{path} cannot be read as safetensors ({error}): restore it or run again.") from None
    return sum(
        math.prod(told["shape"])
        for name, told in header.items()
        if name != "__metadata__" and not name.endswith(NOT_LEARNT)
    )


@dataclass(frozen=True)
class Group:
    """One net's runs under one protocol, which differ in their seeds alone."""

    net: Net
    runs: tuple[StudyRun, ...]

    def test_errors(self, view: str, k: int = 1) -> list[float]:
        """The runs' errors by that view, empty unless every run has it."""
        values = [run.errors.get(view, {}).get(f"error{k}") for run in self.runs]
        return [value for value in values if value is not None] if None not in values else []

    @property
    def train_errors(self) -> list[float]:
        values = [run.train_error for run in self.runs]
        return [value for value in values if value is not None] if None not in values else []


@dataclass(frozen=True)
class Protocol:
    """Nets that may stand in one column: everything but the net and the seed was equal."""

    fields: dict[str, Any]
    groups: tuple[Group, ...]

    @property
    def first(self) -> StudyRun:
        return self.groups[0].runs[0]

    def group(self, family: str, depth: int, shortcut: str | None = None) -> Group | None:
        """The net of that family and depth; without a shortcut's name the first of A, B, C that there is."""
        found = [g for g in self.groups if (g.net.family, g.net.depth) == (family, depth) and g.net.as_published]
        found = [g for g in found if shortcut is None or g.net.shortcut == shortcut]
        return min(found, key=lambda g: g.net.shortcut or "", default=None)

    def depths(self, family: str) -> list[int]:
        return sorted({g.net.depth for g in self.groups if g.net.family == family and g.net.as_published})


def sort_runs(runs: Sequence[StudyRun]) -> list[Protocol]:
    """The runs by protocol, that of most runs first, and in it by net: plain before residual, shallow before deep.

    Raises ReportError where one net has two runs of one seed.
    """
    by_protocol: dict[str, list[StudyRun]] = {}
    for run in runs:
        by_protocol.setdefault(json.dumps(run.protocol, sort_keys=True), []).append(run)
    protocols = []
    for members in sorted(by_protocol.values(), key=len, reverse=True):
        by_net: dict[Net, list[StudyRun]] = {}
        for run in members:
            by_net.setdefault(run.net, []).append(run)
        groups = [Group(net, tuple(sorted(by_net[net], key=_seed_of))) for net in sorted(by_net, key=_order)]
        for group in groups:
            _require_seeds(group)
        protocols.append(Protocol(members[0].protocol, tuple(groups)))
    return protocols


def _order(net: Net) -> tuple[int, int, str]:
    families = [family for _, family, _ in FAMILIES]
    place = families.index(net.family) if net.family in families else len(families)
    return place, net.depth, net.label


def _seed_of(run: StudyRun) -> tuple[bool, Any]:
    return run.seed is None, run.seed


def _require_seeds(group: Group) -> None:
    seen: dict[Any, Path] = {}
    for run in group.runs:
        if run.seed in seen:
            raise ReportError(
                f"{seen[run.seed]} and {run.directory} are both {group.net.label} with seed {run.seed}: the spread "
                "is that of different seeds; leave one of them out."
            )
        seen[run.seed] = run.directory
