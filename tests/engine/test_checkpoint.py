"""Checkpoints are whole, safe to read, and survive a full disk."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vertebra.engine.checkpoint import CheckpointError, Checkpoints, UnsafeCheckpoint, load_checkpoint
from vertebra.ground import files


def state(iteration: int) -> dict:
    return {"iteration": iteration, "model": {"w": torch.full((1000,), float(iteration))}, "rng": [None, (1, 2)]}


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def test_what_is_saved_comes_back(checkpoints):
    assert checkpoints.latest() is None and checkpoints.best() is None
    checkpoints.save(state(3))
    loaded = checkpoints.latest()
    assert loaded["iteration"] == 3 and torch.equal(loaded["model"]["w"], state(3)["model"]["w"])


def test_the_newest_few_and_the_best_are_kept(checkpoints):
    for iteration in (100, 200, 900, 1000):
        path = checkpoints.save(state(iteration))
        if iteration == 200:
            checkpoints.mark_best(path)
    assert [path.name for path in checkpoints.paths()] == ["0000900.pt", "0001000.pt"]
    assert checkpoints.best()["iteration"] == 200 and checkpoints.latest()["iteration"] == 1000
    checkpoints.mark_best(checkpoints.paths()[-1])
    assert checkpoints.best()["iteration"] == 1000


def test_what_a_killed_process_left_half_written_is_cleared_away(checkpoints):
    checkpoints.directory.mkdir()
    (checkpoints.directory / ".0000001.pt.123.tmp").write_bytes(b"PK")
    assert checkpoints.latest() is None
    checkpoints.save(state(1))
    assert os.listdir(checkpoints.directory) == ["0000001.pt"]


def test_the_best_is_a_copy_where_links_are_not_to_be_had(checkpoints, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    checkpoints.mark_best(checkpoints.save(state(5)))
    assert checkpoints.best()["iteration"] == 5


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_previous_checkpoint_and_says_so(checkpoints, monkeypatch, error):
    checkpoints.save(state(1))

    def full(self, data):
        self.failure = OSError(error, os.strerror(error))
        raise self.failure

    monkeypatch.setattr(files._WatchedFile, "write", full)
    with pytest.raises(files.DiskFull, match=r"The disk is full: .*0000002.pt could not be written .* --resume"):
        checkpoints.save(state(2))
    monkeypatch.undo()
    assert checkpoints.latest()["iteration"] == 1
    assert os.listdir(checkpoints.directory) == ["0000001.pt"], "nothing half-written stays"


def test_a_disk_that_fills_up_in_the_midst_of_a_real_write_is_told_apart(checkpoints, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    real_open = open
    monkeypatch.setattr("builtins.open", lambda path, mode="r", *a, **k: real_open("/dev/full", mode, *a, **k))
    checkpoints.directory.mkdir()
    big = {"iteration": 1, "w": torch.zeros(100_000)}
    with pytest.raises(files.DiskFull):
        files.write_atomically(checkpoints.directory / "x.pt", lambda file: torch.save(big, file))


def test_a_line_that_a_full_disk_cannot_take_is_a_sentence_too():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(files.DiskFull, match=r"The disk is full: /dev/full could not be written"):
        files.append_line(Path("/dev/full"), "{}")


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    files.write_json(path, {"AP": 1})

    def crash(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(RuntimeError):
        files.write_json(path, {"AP": 2})
    assert path.read_text() == '{\n  "AP": 1\n}\n'


def test_a_truncated_checkpoint_is_passed_over_with_a_warning(checkpoints, caplog):
    checkpoints.save(state(1))
    path = checkpoints.save(state(2))
    for content in (b"", b"PK", path.read_bytes()[:500]):
        path.write_bytes(content)
        assert checkpoints.latest()["iteration"] == 1
    assert "0000002.pt" in caplog.text and "Reading the one before it" in caplog.text


@pytest.mark.parametrize(("keep", "left"), [(1, ["0000250.pt"]), (2, ["0000200.pt", "0000250.pt"])])
def test_damaged_checkpoints_take_no_place_of_those_that_the_resumed_run_writes(checkpoints, keep, left):
    for iteration in (200, 300):
        path = checkpoints.save(state(iteration))
    path.write_bytes(b"PK")
    assert checkpoints.latest()["iteration"] == 200
    checkpoints.keep = keep
    checkpoints.save(state(250))
    assert [one.name for one in checkpoints.paths()] == left and checkpoints.latest()["iteration"] == 250


def test_a_write_behind_clears_away_nothing_that_is_being_written_aside(checkpoints, monkeypatch):
    """It ends while the other, of what was not finite, is on its way."""
    aside, write = threading.Event(), files.write_atomically

    def slow(path: Path, fill: Any) -> None:
        if path.name.startswith("not"):
            write(path, lambda file: (fill(file), aside.set(), checkpoints.wait()))
        else:
            write(path, fill)
            aside.wait(1)

    monkeypatch.setattr("vertebra.engine.checkpoint.write_atomically", slow)
    checkpoints.save_in_background(state(1))
    assert checkpoints.save_aside(state(2), "not_finite").exists()


def test_a_flipped_bit_is_noticed_wherever_it_changes_a_value(checkpoints):
    """torch.load itself passes over most of them."""
    checkpoints.save(state(1))
    path = checkpoints.save(state(2))
    content, before = path.read_bytes(), 0
    for place in range(0, len(content), 41):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        found = checkpoints.latest()
        before += found["iteration"] == 1
        assert torch.equal(found["model"]["w"], state(found["iteration"])["model"]["w"]), place
    assert before > len(content) // 41 * 0.8, "all but those in padding and dates"


def test_saving_behind_writes_the_state_of_the_call(checkpoints):
    now = state(7)
    with checkpoints:
        checkpoints.save_in_background(now, best=True)
        now["model"]["w"].zero_()
    for found in (checkpoints.latest(), checkpoints.best()):
        assert found["iteration"] == 7 and torch.equal(found["model"]["w"], state(7)["model"]["w"])


def test_one_write_is_in_flight_at_a_time(checkpoints, monkeypatch):
    running, most = [], []

    def write(state, file):
        running.append(1)
        most.append(len(running))
        time.sleep(0.05)
        running.pop()

    monkeypatch.setattr(torch, "save", write)
    with checkpoints:
        for iteration in (1, 2, 3):
            checkpoints.save_in_background(state(iteration))
    assert most == [1, 1, 1] and len(checkpoints.paths()) == 2


def test_checkpoints_that_are_all_damaged_are_a_sentence(checkpoints):
    checkpoints.save(state(1)).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="None of the 1 checkpoint"):
        checkpoints.latest()


class Attack:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("attacked",))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_an_unsafe_pickle_is_refused_and_not_run(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "0000001.pt"
    save({"iteration": 1, "w": Attack()}, path)
    with pytest.raises(UnsafeCheckpoint, match="reading it could run code; it is refused"):
        load_checkpoint(path)
    with pytest.raises(UnsafeCheckpoint):
        Checkpoints(tmp_path).latest()
    assert not (tmp_path / "attacked").exists()


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing.pt does not exist"):
        load_checkpoint(tmp_path / "nothing.pt")
