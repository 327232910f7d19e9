"""A run directory holds one run and is never overwritten by another."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import yaml

from vertebra.engine.jobs import lock
from vertebra.engine.rundir import RunDirectory
from vertebra.ground.errors import UserError

RECIPE = {"backbone": "r50", "solver": {"lr": 0.02, "steps": (3, 4)}, "workers": 2, "data": Path("/data")}


def write_lines(run: RunDirectory, *lines: dict) -> None:
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def iterations(run: RunDirectory) -> list[int]:
    return [json.loads(line)["iteration"] for line in run.metrics_file.read_text().splitlines()]


def test_the_recipe_is_written_as_it_can_be_read_again(tmp_path):
    run = RunDirectory.open(tmp_path / "a" / "run", RECIPE)
    expected = {"backbone": "r50", "solver": {"lr": 0.02, "steps": [3, 4]}, "workers": 2, "data": "/data"}
    assert yaml.safe_load(run.config.read_text()) == run.read_config() == expected
    assert list(run.read_config()) == list(RECIPE), "fields stay in their order"


def test_a_run_is_resumed_only_when_asked(tmp_path):
    RunDirectory.open(tmp_path / "run", RECIPE)
    with pytest.raises(UserError, match="an unfinished run of this recipe; add --resume to continue it, or choose"):
        RunDirectory.open(tmp_path / "run", RECIPE)
    assert not RunDirectory.open(tmp_path / "run", RECIPE, resume=True).finished


def test_resuming_what_is_not_there_begins_it(tmp_path):
    run = RunDirectory.open(tmp_path / "run", RECIPE, resume=True)
    assert run.config.exists() and run.latest_state() is None


@pytest.mark.parametrize("resume", [False, True])
def test_another_recipes_run_is_refused_with_the_fields_named(tmp_path, resume):
    RunDirectory.open(tmp_path / "run", RECIPE)
    other = {**RECIPE, "solver": {"lr": 0.01, "steps": (3, 4)}, "seed": 1}
    with pytest.raises(UserError) as refused:
        RunDirectory.open(tmp_path / "run", other, resume=resume)
    assert "holds a run of another recipe" in str(refused.value)
    assert "seed (None there, 1 asked), solver.lr (0.02 there, 0.01 asked)" in str(refused.value)
    assert RunDirectory(tmp_path / "run").read_config()["solver"]["lr"] == 0.02


@pytest.mark.parametrize(("asked", "differs"), [("none", False), ("some", True)])
def test_a_run_from_before_a_field_was_added_has_its_value_from_then(tmp_path, asked, differs):
    added = {"solver.decay": "none", "elsewhere": 1}
    RunDirectory.open(tmp_path / "run", RECIPE)
    later = {**RECIPE, "solver": {**RECIPE["solver"], "decay": asked}}
    sentence = r"solver\.decay \('none' there, 'some' asked\)"
    for use in (RunDirectory.is_finished, partial(RunDirectory.open, resume=True)):
        with pytest.raises(UserError, match=sentence) if differs else nullcontext():
            use(tmp_path / "run", later, added=added)


def test_fields_that_change_no_result_may_differ(tmp_path):
    RunDirectory.open(tmp_path / "run", RECIPE)
    other = {**RECIPE, "workers": 8, "data": "/elsewhere"}
    RunDirectory.open(tmp_path / "run", other, resume=True, may_differ=("workers", "data"))


def test_a_directory_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        RunDirectory.open(tmp_path, RECIPE)
    with pytest.raises(UserError, match="is a file; choose a directory"):
        RunDirectory.open(tmp_path / "thesis.tex", RECIPE)


def test_a_config_that_does_not_parse_is_a_sentence(tmp_path):
    run = RunDirectory.open(tmp_path / "run", RECIPE)
    run.config.write_text("a: [")
    with pytest.raises(UserError, match="is not valid YAML"):
        RunDirectory.open(tmp_path / "run", RECIPE, resume=True)


def test_a_finished_run_says_so(tmp_path):
    run = RunDirectory.open(tmp_path / "run", RECIPE)
    run.finish({"commit": "abc", "training_s": 1.5})
    assert RunDirectory.open(tmp_path / "run", RECIPE, resume=True).finished
    assert json.loads(run.provenance.read_text()) == {"commit": "abc", "training_s": 1.5, "finished": True}
    with pytest.raises(UserError, match="already holds a finished run of this recipe"):
        RunDirectory.open(tmp_path / "run", RECIPE)


def test_what_a_run_trains_on_is_written_down_once_and_compared_after_that(tmp_path):
    run = RunDirectory.open(tmp_path / "run", {"lr": 0.1}, tensorboard=False)
    assert run.record_data({"classes": ["ant", "bee"], "fingerprint": "a"}) == []
    again = RunDirectory(tmp_path / "run", tensorboard=False)
    assert again.record_data({"classes": ["ant", "bee"], "fingerprint": "b"}) == ["fingerprint"]
    assert again.record_data({"classes": ["bee", "ant"], "fingerprint": "a"}) == ["classes"]
    run.data.unlink()
    run.finish({})
    assert again.record_data({"classes": ["bee"], "fingerprint": "c"}) == [] and not run.data.exists()


def test_metrics_beyond_the_resumed_iteration_are_cut_off(tmp_path):
    run = RunDirectory.open(tmp_path / "run", RECIPE)
    train = [{"iteration": i, "loss": 1.0} for i in (10, 20, 30)]
    write_lines(run, *train, {"iteration": 10, "AP": 1.0}, {"iteration": 20, "AP": 2.0})
    with run.metrics_file.open("a") as file:
        file.write('{"iteration": 40, "lo')  # killed while it wrote
    run.checkpoints.save({"iteration": 20, "record": {"evaluated": 10, "best_iteration": 0}})
    assert run.latest_state()["iteration"] == 20
    assert iterations(run) == [10, 20, 10], "the evaluation at 20 was not in the checkpoint: it comes again"


def test_without_a_checkpoint_metrics_begin_anew(tmp_path):
    run = RunDirectory.open(tmp_path / "run", RECIPE)
    write_lines(run, {"iteration": 10, "loss": 1.0})
    assert run.latest_state() is None and iterations(run) == []


HOLDS = """
import os, sys, time
from pathlib import Path
from vertebra.engine.jobs import lock
lock.take(Path(sys.argv[1]))
if not os.fork():
    time.sleep(4)  # a loader that takes its time to notice has no part in the lock
    os._exit(0)
print("holds", flush=True)
time.sleep(60)
"""


def test_a_run_directory_has_one_process_for_as_long_as_that_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_S", 0.2)
    output = tmp_path / "run"
    output.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(output)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "holds\n"
    with pytest.raises(UserError, match=rf"run is in use: process {holder.pid} trains in it. Wait for its end"):
        RunDirectory.open(output, {"lr": 1}, resume=True)
    assert not RunDirectory.is_finished(output, {"lr": 1}), "looking needs no lock"
    holder.kill()
    holder.wait()
    run = RunDirectory.open(output, {"lr": 1}, resume=True)
    RunDirectory.open(output, {"lr": 1}, resume=True)  # this process has it already
    run.finish({})
    assert output.resolve() not in lock._held


@pytest.mark.parametrize("content", ["[]", "3", '{"finished": false}', '{"fin', ""])
def test_a_provenance_that_does_not_say_so_is_of_no_finished_run(tmp_path, content):
    run = RunDirectory.open(tmp_path / "run", RECIPE)
    run.provenance.write_text(content)
    assert not run.finished


def test_looking_for_a_finished_run_refuses_another_recipes(tmp_path):
    assert not RunDirectory.is_finished(tmp_path / "nowhere", RECIPE)
    RunDirectory.open(tmp_path / "run", RECIPE).finish({})
    assert RunDirectory.is_finished(tmp_path / "run", {**RECIPE, "workers": 9}, may_differ=("workers",))
    with pytest.raises(UserError, match="run holds a run of another recipe; it differs in backbone"):
        RunDirectory.is_finished(tmp_path / "run", {**RECIPE, "backbone": "r18"})
