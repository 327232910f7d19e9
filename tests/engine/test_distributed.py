"""Several processes do what one does, and stop together."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from tests.engine.conftest import ROOT
from tests.engine.toy import ToyNet, job
from vertebra.engine import device, distributed
from vertebra.engine.checkpoint import load_checkpoint
from vertebra.engine.distributed import World, wrap
from vertebra.engine.jobs import lock
from vertebra.engine.stop import Interrupted
from vertebra.ground.errors import UserError


def test_two_gloo_processes_equal_one_at_double_batch_and_stop_together(tmp_path, toy_program):
    stopped = toy_program(tmp_path / "two", "--plain", "--gpus", 2, "--signal-at", 7, "--from-rank", 1)
    assert stopped.returncode == 143, stopped.stderr  # relaunch hands on what the processes ended with
    with pytest.raises(Interrupted):
        job(tmp_path / "one", plain=True, signal_at=7)
    one, two = (load_checkpoint(tmp_path / name / "checkpoints" / "0000007.pt") for name in ("one", "two"))
    for name, weight in one["model"].items():
        torch.testing.assert_close(two["model"][name], weight, rtol=1e-5, atol=1e-6)
    assert two["record"]["samples"] == one["record"]["samples"] == 28
    assert len(two["rng"]) == 2
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) == 4
    for alone, together in zip(*(map(json.loads, texts) for texts in lines)):
        for figure in ("iteration", "loss_cls", "top1", "AP", "lr"):
            assert together.get(figure, 0) == pytest.approx(alone.get(figure, 0), rel=1e-5)


def test_a_rank_that_does_not_see_the_run_says_so_and_none_hangs(tmp_path, toy_ranks):
    """A relative --output on two nodes with disks of their own: rank 0 has a run there, rank 1 nothing."""
    nodes = [tmp_path / name for name in ("first", "second")]
    for node in nodes:
        node.mkdir()
    with pytest.raises(Interrupted):
        job(nodes[0] / "run", signal_at=7)
    lock.release(nodes[0] / "run")
    for code, said in toy_ranks(nodes, "run", "--resume"):
        assert code == 1
        assert f"does not see {nodes[1] / 'run'}: --output must be on a shared file system" in said
        assert re.search(r"rank 1 on \S+ \(process \d+\) does not see", said)


def test_a_rank_that_is_stuck_ends_all_with_a_report_of_where_each_was(tmp_path, toy_ranks):
    stuck = ("--plain", "--signal-at", 7, "--signal-name", "STUCK", "--from-rank", 1)
    said = toy_ranks([tmp_path] * 2, tmp_path / "run", *stuck, VERTEBRA_PATIENCE_S="20")
    assert [code for code, _ in said] == [1, 1]
    (report,) = [text for _, text in said if "Where they were:" in text]
    assert re.search(r"rank [01] on \S+ \(process \d+\) has waited 2\d s in iteration 7\. All processes end", report)
    first, second = report.partition("Where they were:")[2].split("\nrank 1 on ")
    assert "rank 0 on " in first and "backward()" in first, "it waits for the other's gradient"
    assert "time.sleep" in second, "where it is stuck"


def test_a_rank_that_is_killed_ends_the_others_with_a_sentence(tmp_path, toy_ranks):
    killed = ("--plain", "--signal-at", 7, "--signal-name", "SIGKILL", "--from-rank", 1)
    (code, said), (killed_code, _) = toy_ranks([tmp_path] * 2, tmp_path / "run", *killed)
    assert (code, killed_code) == (1, -9)
    assert re.search(r"UserError: rank 0 on \S+ \(process \d+\) has lost another process .*--resume$", said.strip())


FAILED_ON_GPUS = """
import sys, torch
from vertebra.cli.common import run_tool
from vertebra.engine import distributed
from vertebra.engine.stop import Interrupted
from vertebra.ground.errors import RecipeError

def left():
    print("LEFT")

distributed.start = lambda device: distributed.World(rank=1, size=2, device=torch.device(device))
distributed.stop = left
error = eval(sys.argv[2])

def main():
    with distributed.started(sys.argv[1]):
        if error:
            raise error

run_tool(main)
"""


@pytest.mark.parametrize(
    ("device", "error", "code", "said"),
    [
        ("cuda:0", "None", 0, "LEFT"),
        ("cuda:0", "RecipeError('bad flag')", 2, "error: bad flag"),
        ("cuda:0", "KeyError('a bug')", 1, "KeyError: 'a bug'"),
        ("cuda:0", "Interrupted(7, 15, evaluating=True)", 143, "stopped in the evaluation"),
        ("cpu", "RecipeError('bad flag')", 2, "LEFT"),
    ],
)
def test_a_process_that_fails_among_gpus_ends_without_the_others_consent(device, error, code, said):
    """NCCL's group is left by all together, and they wait for this process in another collective."""
    command = [sys.executable, "-c", FAILED_ON_GPUS, device, error]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code and said in done.stdout + done.stderr
    assert ("LEFT" in done.stdout) == (device == "cpu" or code == 0)


def test_a_rank_killed_under_torchrun_is_started_again_and_nothing_is_lost(tmp_path):
    """The second start resumes by itself, from iteration 4; it ends as a run that nobody disturbed."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    toy = [str(ROOT / "tests" / "engine" / "toy.py"), str(tmp_path / "killed"), "--plain", "--signal-at", "7"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*torchrun, "--max-restarts", "1", *toy, "--signal-name", "SIGKILL", "--from-rank", "1"],
        env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole = job(tmp_path / "whole", plain=True)
    killed, alone = (load_checkpoint(tmp_path / name / "checkpoints" / "0000012.pt") for name in ("killed", "whole"))
    for name, weight in alone["model"].items():
        torch.testing.assert_close(killed["model"][name], weight, rtol=1e-5, atol=1e-6)
    assert killed["record"]["samples"] == whole.samples


@pytest.mark.parametrize("error", [UserError("a", "b", "c"), PermissionError(13, "Permission denied", "run")])
def test_what_rank_0_may_not_do_is_raised(error):
    def refuse():
        raise error

    with pytest.raises(type(error), match=re.escape(str(error))):
        World().decide(refuse)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names a process's threads")
def test_no_thread_of_the_group_is_left_when_python_shuts_down(tmp_path, toy_program):
    done = toy_program(tmp_path, "--plain", "--gpus", 2)
    assert done.returncode == 0, done.stderr
    working, ended = (
        [line for line in done.stdout.splitlines() if line.startswith(when)] for when in ("working:", "at the end:")
    )
    assert len(working) == len(ended) == 2
    assert all("gloo" in line for line in working) and not any("gloo" in line for line in ended)


def test_a_world_of_one_needs_no_group():
    world, model = World(), ToyNet()
    world.barrier()
    assert world.gather_objects("here") == ["here"]
    assert world.broadcast_object(3) == 3
    assert world.all_reduce_sum(torch.ones(2)).tolist() == [1, 1]
    assert wrap(model, world) is model


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows the sentence of a machine without CUDA")
def test_asking_for_cuda_where_there_is_none_is_a_sentence():
    with pytest.raises(UserError, match="no CUDA device on this machine; use --device cpu"):
        device.resolve("cuda")
    assert device.resolve("auto") == torch.device("cpu")


def test_the_relaunched_command_is_this_one(monkeypatch):
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["tools/train_det.py", "--gpus", "2"])
    main.__spec__ = None
    assert distributed._this_command() == ["tools/train_det.py", "--gpus", "2"]
    main.__spec__ = ModuleSpec("vertebra.cli.train_det", loader=None)
    assert distributed._this_command() == ["-m", "vertebra.cli.train_det", "--gpus", "2"]
