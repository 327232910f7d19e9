"""Trackers: what arrives in the real ones, without a network, and what becomes of a training when one fails."""

from __future__ import annotations

import json
import sqlite3
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.writers import write_folders
from vertebra.cli import train_backbone
from vertebra.engine import trackers
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.trackers import Subject, Tracker, begin_tracking
from vertebra.ground.errors import RecipeError, UserError
from vertebra.recipes import schema
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema import BackboneRecipe, protocol_fields, require_trackers

Curves = dict[str, dict[int, float]]


def wandb_records(folder: Path) -> list[Any]:
    """Read .wandb files: LevelDB's log format, whose records are protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    records = []
    for file in sorted(folder.rglob("*.wandb")):
        content, at, parts = file.read_bytes(), 7, b""
        while at + 7 <= len(content):
            if 32768 - at % 32768 < 7:  # the rest of a block is padding
                at += 32768 - at % 32768
                continue
            _, length, kind = struct.unpack("<IHB", content[at : at + 7])
            parts += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # a whole record, or the last part of one
                records.append(Record.FromString(parts))
                parts = b""
    return records


def from_wandb(tmp_path: Path, run_id: str) -> tuple[Curves, dict[str, Any], list[str]]:
    import wandb

    wandb.teardown()  # its writer is done a moment after the run
    curves: Curves = {}
    records = wandb_records(tmp_path / "run" / "wandb")
    for record in records:
        values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for name, value in values.items():
            if "/" in name:
                curves.setdefault(name, {})[values["_step"]] = value
    runs = [record.run for record in records if record.run.run_id]
    assert {run.run_id for run in runs} == {run_id} and runs[0].project == "vertebra"
    config = {item.key: json.loads(item.value_json) for run in runs for item in run.config.update}
    return curves, config, [file.path for record in records for file in record.files.files]


def from_mlflow(tmp_path: Path, run_id: str) -> tuple[Curves, dict[str, Any], list[str]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.tags["backbone"] == "r18"
    curves = {name: client.get_metric_history(run_id, name) for name in run.data.metrics}
    assert all(len({one.step for one in curve}) == len(curve) for curve in curves.values()), "twice at a step"
    files = [file.path for file in client.list_artifacts(run_id)]
    return {name: {one.step: one.value for one in curve} for name, curve in curves.items()}, run.data.params, files


def from_trackio(tmp_path: Path, run_id: str) -> tuple[Curves, dict[str, Any], list[str]]:
    curves: Curves = {}
    with sqlite3.connect(tmp_path / "trackio" / "vertebra.db") as database:
        for step, text in database.execute("select step, metrics from metrics where run_name = ?", (run_id,)):
            for name, value in json.loads(text).items():
                assert step not in curves.setdefault(name, {}), "twice at a step"
                curves[name][step] = value
        ((config,),) = database.execute("select config from configs where run_name = ?", (run_id,))
        files = [name for (name,) in database.execute("select name from artifacts")]
    return curves, json.loads(config), files


READERS: dict[str, tuple[tuple[str, ...], Callable[..., tuple[Curves, dict[str, Any], list[str]]]]] = {
    "wandb": (("wandb",), from_wandb),
    "mlflow:store": (("mlflow", "sqlalchemy", "alembic"), from_mlflow),
    "trackio": (("trackio",), from_trackio),
}


def subject_of(run: RunDirectory) -> Subject:
    return Subject(run.path, {"solver.lr": 0.1, "commit": "abc"}, {"job": "det", "backbone": "r18"})


@pytest.mark.parametrize("asked", READERS)
def test_a_run_and_its_continuation_are_one_in_a_real_tracker(asked, tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio")}.items():
        monkeypatch.setenv(name, value)
    modules, read = READERS[asked]
    for module in modules:
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.open(tmp_path / "run", {"lr": 0.1}, tensorboard=False)
    for steps in (range(1, 5), range(3, 7)):  # killed after 4, and continued from the checkpoint of 2
        run.metrics.trackers = begin_tracking([asked], subject_of(run))
        run_id = json.loads((run.path / "trackers.json").read_text())[asked]
        for step in steps:
            run.metrics.write(step, {"loss": 1 / step, "lr": float("nan")}, section="train")
        if steps.start == 1:
            run.metrics.write(4, {"AP": 12.5}, section="evaluation")
            for outbox in run.metrics.trackers:
                outbox.close()
    run.metrics.write(6, {"AP": 25.0}, section="evaluation")
    run.write_json(run.evaluation, {"AP": 25.0})
    run.finish({"figures": {"AP": 25.0}})
    curves, config, files = read(tmp_path, run_id)
    assert curves["train/loss"] == pytest.approx({step: 1 / step for step in range(1, 7)})
    assert curves["evaluation/AP"] == {4: 12.5, 6: 25.0} and "train/lr" not in curves
    assert float(config["solver.lr"]) == 0.1 and config["commit"] == "abc"
    assert all(any(word in file for file in files) for word in ("provenance", "evaluation"))


class Fake(Tracker):
    """Keeps what it is told; fails at the iterations of `fails`, and is slow where it is told to be."""

    hint = "mend it"
    fails: tuple[int, ...] = ()
    wait_s = 0.0
    told: list[Any]

    def __init__(self, place: str, subject: Subject, run_id: str | None) -> None:
        if place == "broken" or (place == "lost" and run_id):
            raise ConnectionError("no route to host\nmore of it")
        self.id, self.where = run_id or "one", "here"
        type(self).told = []

    def write(self, iteration: int, values: dict[str, float]) -> None:
        time.sleep(self.wait_s)
        if iteration in self.fails:
            raise ConnectionError("no route to host\nmore of it")
        self.told.append((iteration, values))

    def close(self, results: Any) -> None:
        self.told.append([path.name for path in results])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    kind = type("ThisFake", (Fake,), {})
    monkeypatch.setitem(trackers.TRACKERS, "wandb", kind)
    monkeypatch.setattr(schema, "TRACKERS", {**schema.TRACKERS, "wandb": ()})
    return kind


def test_a_tracker_that_fails_costs_one_warning(fake, run, caplog):
    fake.fails = (2, 3)
    run.metrics.trackers = begin_tracking(["wandb"], subject_of(run))
    for step in range(1, 5):
        run.metrics.write(step, {"loss": 1.0}, section="train")
    run.finish({})
    assert fake.told == [(1, {"train/loss": 1.0})]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["--track wandb: no route to host; the training goes on without it"]
    assert len(run.metrics_file.read_text().splitlines()) == 4 and run.finished


def test_a_slow_tracker_is_not_waited_for(fake, run):
    fake.wait_s = 0.5
    run.metrics.trackers = begin_tracking(["wandb"], subject_of(run))
    started = time.perf_counter()
    for step in (1, 2):
        run.metrics.write(step, {"loss": 1.0}, section="train")
    assert time.perf_counter() - started < 0.5
    run.finish({})
    assert [told[0] for told in fake.told] == [1, 2, "provenance.json"]


def test_a_tracker_that_hangs_does_not_keep_the_process(fake, run, monkeypatch, caplog):
    monkeypatch.setattr(trackers, "PATIENCE_S", -4.9)
    fake.wait_s = 3.0
    run.metrics.trackers = begin_tracking(["wandb"], subject_of(run))
    run.metrics.write(1, {"loss": 1.0}, section="train")
    started = time.perf_counter()
    run.finish({})
    assert time.perf_counter() - started < 2 and "has not taken everything" in caplog.text


def test_a_tracker_must_begin_but_need_not_go_on(fake, run, caplog):
    with pytest.raises(UserError, match=r"--track wandb:broken: no route to host; mend it, or leave it out.* --resume"):
        begin_tracking(["wandb:broken"], subject_of(run))
    assert len(begin_tracking(["wandb:lost"], subject_of(run))) == 1
    assert begin_tracking(["wandb:lost"], subject_of(run)) == []
    assert "--track wandb:lost cannot go on: no route to host" in caplog.text


def test_a_training_and_its_results_are_tracked(fake, tmp_path):
    data = write_folders(tmp_path / "data", {"ant": 6, "bee": 6}, "train", (40, 48))
    write_folders(tmp_path / "data", {"ant": 2, "bee": 2}, "val", (40, 48))
    flags = "--backbone r18 --width 0.125 --input.size 32 --input.resize 32 --solver.iterations 2 --solver.batch-size 4"
    flags += f" --workers 0 --device cpu --log-period 1 --eval-period 2 --data {data} --output {tmp_path / 'run'}"
    assert train_backbone.main([*flags.split(), "--track", "wandb"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [told[0] for told in fake.told[:-1]] == [line["iteration"] for line in lines]
    assert fake.told[-2][1]["evaluation/top1"] == lines[-1]["top1"]
    assert fake.told[-1] == ["provenance.json", "evaluation.json"]


@pytest.mark.parametrize(
    "track, sentence",
    [
        (["wandbb"], "there is no tracker wandbb; did you mean wandb?"),
        (["tensorboard"], "there is no tracker tensorboard; the trackers are wandb, mlflow, trackio"),
        (["wandb", "wandb"], "wandb is there twice: leave one out"),
    ],
)
def test_unknown_trackers_are_named_with_the_nearest(track, sentence):
    with pytest.raises(RecipeError) as refusal:
        validated(BackboneRecipe, {"track": track})
    assert str(refusal.value) == f"track: {sentence}"


def test_a_missing_package_is_said_with_its_command(tmp_path, monkeypatch):
    (tmp_path / "no_such_tracker").mkdir()  # as wandb leaves one in the working directory: no package
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("no_such_tracker", "no_such_module"):
        monkeypatch.setattr(schema, "TRACKERS", {"wandb": (module,)})
        with pytest.raises(
            RecipeError, match="--track wandb:mine: wandb is not installed here; run: pip install wandb"
        ):
            require_trackers(("wandb:mine",))


def test_tracking_is_no_part_of_the_protocol():
    plain, tracked = BackboneRecipe(), BackboneRecipe(track=("wandb", "mlflow:here"))
    assert protocol_fields(plain) == protocol_fields(tracked)
