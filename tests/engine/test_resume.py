"""A run that was stopped, however roughly, ends as the one that was not, to the bit."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.engine.conftest import same
from tests.engine.toy import draw_figure, job
from vertebra.engine.checkpoint import Checkpoints, load_checkpoint
from vertebra.engine.stop import Interrupted


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    job(path)
    return path


def final_state(run: Path) -> dict:
    """The last checkpoint, without the time it took."""
    state = load_checkpoint(run / "checkpoints" / "0000012.pt")
    state["record"].pop("seconds")
    return state


def curve(run: Path) -> list[dict]:
    """The metrics without what the clock has measured."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time_s", "data_s", "memory_mb")} for line in lines]


def test_a_run_killed_in_mid_epoch_ends_as_if_it_had_not_been(uninterrupted, tmp_path, toy_program):
    killed = toy_program(tmp_path / "run", "--signal-at", 11, "--signal-name", "SIGKILL")
    assert killed.returncode == -signal.SIGKILL
    assert curve(tmp_path / "run")[-1]["iteration"] == 10, "it was killed with more logged than saved"
    job(tmp_path / "run", resume=True)
    assert same(final_state(tmp_path / "run"), final_state(uninterrupted))
    assert curve(tmp_path / "run") == curve(uninterrupted)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138)])
def test_a_signal_lets_the_step_finish_saves_and_gives_the_exit_code(uninterrupted, tmp_path, name, code):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="stopped at iteration 7, state saved; continue with --resume") as stopped:
        job(tmp_path / "run", signal_at=7, signal_name=name)
    assert stopped.value.exit_code == code
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    job(tmp_path / "run", resume=True)
    assert same(final_state(tmp_path / "run"), final_state(uninterrupted))
    assert curve(tmp_path / "run") == curve(uninterrupted)


def test_a_run_stopped_before_its_evaluation_makes_up_for_it(uninterrupted, tmp_path):
    with pytest.raises(Interrupted):
        job(tmp_path / "run", signal_at=6)
    assert [line for line in curve(tmp_path / "run") if "AP" in line] == []
    job(tmp_path / "run", resume=True)
    assert curve(tmp_path / "run") == curve(uninterrupted)
    assert same(final_state(tmp_path / "run"), final_state(uninterrupted))


def test_a_signal_ends_an_evaluation_at_once_and_the_resumption_does_it_again(uninterrupted, tmp_path):
    def endless(iteration: int) -> dict[str, float]:
        draw_figure(iteration)
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            time.sleep(1)

    began = time.monotonic()
    with pytest.raises(Interrupted, match="SIGTERM: stopped in the evaluation at iteration 6, state saved") as stopped:
        job(tmp_path / "run", evaluate=endless)
    assert stopped.value.exit_code == 143 and time.monotonic() - began < 5
    assert [line for line in curve(tmp_path / "run") if "AP" in line] == []
    job(tmp_path / "run", resume=True)
    assert curve(tmp_path / "run") == curve(uninterrupted)
    assert same(final_state(tmp_path / "run"), final_state(uninterrupted))


def test_a_signal_in_a_save_waits_for_it_and_saves_the_step_too(uninterrupted, tmp_path, monkeypatch):
    save, saved = Checkpoints.save, []

    def slow(self, state, **options):
        if not saved:
            os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.3)
        saved.append(save(self, state, **options).name)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=r"SIGUSR1: stopped at iteration [45], state"):
        patch.setattr(Checkpoints, "save", slow)
        job(tmp_path / "run")
    assert saved in (["0000004.pt"] * 2, ["0000004.pt", "0000005.pt"])
    job(tmp_path / "run", resume=True)
    assert curve(tmp_path / "run") == curve(uninterrupted)
    assert same(final_state(tmp_path / "run"), final_state(uninterrupted))


def test_a_kill_between_a_checkpoint_and_its_mark_as_the_best_loses_no_best(uninterrupted, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(self, path):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "mark_best", killed)
        job(tmp_path / "run")
    job(tmp_path / "run", resume=True)
    best, expected = (load_checkpoint(run / "checkpoints" / "best.pt") for run in (tmp_path / "run", uninterrupted))
    assert best["iteration"] == best["record"]["best_iteration"] == expected["iteration"]
    assert same(best["model"], expected["model"])


def test_a_damaged_last_checkpoint_costs_a_period_and_not_the_run(uninterrupted, tmp_path, caplog):
    with pytest.raises(Interrupted):
        job(tmp_path / "run", signal_at=7)
    last = tmp_path / "run" / "checkpoints" / "0000007.pt"
    last.write_bytes(last.read_bytes()[:1000])
    job(tmp_path / "run", resume=True)
    assert "0000007.pt is truncated or damaged" in caplog.text
    assert same(final_state(tmp_path / "run"), final_state(uninterrupted))
    assert curve(tmp_path / "run") == curve(uninterrupted)


def test_a_signal_in_the_last_step_leaves_the_last_evaluation_to_the_resumption(uninterrupted, tmp_path):
    with pytest.raises(Interrupted):
        job(tmp_path / "run", signal_at=12)
    record = job(tmp_path / "run", resume=True)
    assert record.evaluated == 12 and curve(tmp_path / "run") == curve(uninterrupted)
