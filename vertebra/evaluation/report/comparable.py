"""Runs that are to be compared, with files of predictions beside them, or why they cannot be.

Two runs are comparable when both are finished, their protocols are equal field by field, and they were scored on the
same truth. Each head (the protocol's `model.body` or `model.head`, and the engine if it is not ours) is a comparison of
its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from vertebra.evaluation.metrics.files import read_predictions, read_truth
from vertebra.evaluation.report.reading import differing
from vertebra.evaluation.report.runs import DetectorRun, SegmenterRun, read_run
from vertebra.evaluation.report.task import DETECTION, SEGMENTATION, Task
from vertebra.evaluation.why.explain import require_same_truth
from vertebra.ground.errors import UserError

EACH_SEED = "give one for each seed"


@dataclass(frozen=True)
class HeadRuns:
    """Runs of one task and head, of one protocol, scored on one truth; head: None where it is not known."""

    task: Task
    head: str | None
    runs: list[Any]


def read(
    directories: Sequence[Path],
    predictions: Mapping[str, Path | Sequence[Path]] | None = None,
    truth: Path | None = None,
    maps: Sequence[SegmenterRun] = (),
) -> list[HeadRuns]:
    """Return the runs by head, in the order of each head's first run, with the files of predictions beside them.

    predictions: file or files (one a seed) by the side's name. truth: what the files were made for; None: the runs'.
    maps: folders of these, beside segmenters.
    Raises UserError where there is nothing, or runs of one head cannot be compared.
    """
    paths = [Path(directory) for directory in directories]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("the same run directory was given twice", hint="name each run once")
    runs: list[Any] = []
    for path in paths:
        runs.append(read_run(path, runs))
    first, *others = [*runs, *maps] or [None]
    for run in others:
        if type(run) is not type(first):
            tasks = {SegmenterRun: "a segmenter, whose figure is mIoU", DetectorRun: "a detector, whose figure is AP"}
            reason = f"one is {tasks[type(first)]}, the other {tasks[type(run)]}: these cannot be compared"
            raise UserError(f"{first.path} and {run.path}", reason, "report on each kind by itself")
    task = SEGMENTATION if isinstance(first, SegmenterRun) else DETECTION
    if task is SEGMENTATION and (predictions or truth):
        hint = "predictions of segmenters are folders of maps, with --task seg"
        raise UserError(first.path, "COCO's predictions and truth are of detectors, it is a segmenter's", hint)
    by_head: dict[str | None, list[Any]] = {}
    for run in runs:
        for of_head in by_head.values():
            _check_data(task, of_head[0], run)
        same = by_head.setdefault(_head(task, run.protocol), [])
        if same:
            check_comparable(task, same[0], run)
        same.append(run)
    if not by_head:
        by_head[None] = []
    if task is SEGMENTATION:
        check_distinct(maps)
        for folder in maps:
            _check_truth(task, first, folder)
        return [HeadRuns(task, head, [*same, *maps]) for head, same in by_head.items()]
    return [_of_head(head, same, predictions or {}, truth) for head, same in by_head.items()]


def _head(task: Task, protocol: Mapping[str, Any]) -> str | None:
    head, engine = protocol.get(task.head), str(protocol.get("engine", "")).partition(" ")[0]
    return None if head is None else f"{head} {engine}".strip()


def _of_head(
    head: str | None, runs: list[DetectorRun], predictions: Mapping[str, Path | Sequence[Path]], truth: Path | None
) -> HeadRuns:
    if not runs and not predictions:
        raise UserError("there is nothing to report on", hint="give the directories of finished runs, or predictions")
    if not runs and truth is None:
        raise UserError("predictions alone cannot be scored", hint="give the truth as well: COCO JSON")
    annotations = runs[0].truth if runs else read_truth(Path(str(truth)))
    if runs and truth is not None:
        require_same_truth(annotations, read_truth(truth), (str(runs[0].path / "truth.json"), str(truth)))
    files = [
        DetectorRun(path=path, predictions=read_predictions(path, annotations), truth=annotations, name=name)
        for name, given in predictions.items()
        for path in ([Path(given)] if isinstance(given, (str, Path)) else given)
    ]
    check_distinct(files)
    return HeadRuns(DETECTION, head, [*runs, *files])


def check_distinct(files: Sequence[Any]) -> None:
    """Raise UserError where two of a side's files, one for each seed, are the same file or have the same content."""
    for one, other in combinations(files, 2):
        if one.name == other.name and one.path.resolve() == other.path.resolve():
            raise UserError(other.path, f"it is given twice as {one.name}", EACH_SEED)
        if one.name == other.name and one.has_content_of(other):
            raise UserError(f"{one.path} and {other.path}", f"both have the same content as {one.name}", EACH_SEED)


def check_comparable(task: Task, first: Any, other: Any) -> None:
    """Raise UserError for two runs whose protocols, truths or sample sets differ, naming what differs."""
    where = f"{first.path} and {other.path} cannot be compared"
    if fields := differing(first.protocol, other.protocol):
        listed = "; ".join(f"{name}: {a!r} against {b!r}" for name, a, b in fields)
        raise UserError(where, f"their protocols differ in {listed}", "train both under one protocol")
    hashes = [run.provenance.get("protocol_hash") for run in (first, other)]
    if hashes[0] != hashes[1]:
        reason = f"their protocol hashes differ ({hashes[0]} against {hashes[1]}) although the listed fields are equal"
        raise UserError(where, reason, "train both with one version of the code")
    samples = [run.provenance.get("sample_hash") for run in (first, other)]
    if samples[0] != samples[1]:
        reason = f"their sample sets come from different generators ({samples[0]} against {samples[1]})"
        raise UserError(where, reason, "make the sample set anew and train both on it")
    _check_truth(task, first, other)


def _check_truth(task: Task, first: Any, other: Any) -> None:
    if not first.has_truth_of(other):
        reason = "their truth.json differ" if task is DETECTION else "their pixels' true classes differ"
        reason += ", so they were scored on different annotations"
        hint = f"score both on one data set with tools/eval_{task.tool}.py"
        raise UserError(f"{first.path} and {other.path} cannot be compared", reason, hint)


def _check_data(task: Task, first: Any, other: Any) -> None:
    """Raise UserError for runs of different heads that do not share their data: they would stand side by side."""
    heads = [_head(task, run.protocol) for run in (first, other)]
    fingerprints = [run.protocol.get("train_fingerprint") for run in (first, other)]
    if heads[0] != heads[1] and (not first.has_truth_of(other) or fingerprints[0] != fingerprints[1]):
        reason = f"they have different heads ({heads[0]}, {heads[1]}) and different data"
        raise UserError(f"{first.path} and {other.path}", reason, "report on each data set by itself")
