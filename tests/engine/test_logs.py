"""What a run says, to people and to programs."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys

import pytest

from vertebra.engine import logs
from vertebra.engine.logs import MetricsWriter, progress, setup_logging, short_number, training_line


@pytest.fixture(autouse=True)
def quiet_afterwards():
    yield
    setup_logging(is_main=False)
    for room in logs.ROOMS:
        logging.getLogger(room).setLevel(logging.NOTSET)


def test_the_line_is_the_documented_one():
    line = training_line(
        iteration=379,
        iterations=90000,
        eta_s=2509.4,
        values={"loss": 1.7, "loss_rpn_cls": 0.0712},
        costs={"time_s": 0.2291, "data_s": 0.00312, "lr": 0.0038, "memory_mb": 3782.3},
    )
    assert line == (
        "eta: 0:41:49  iter: 379/90000  loss: 1.70  loss_rpn_cls: 0.0712  time: 0.229 s  data: 0.003 s  "
        "lr: 0.0038  mem: 3782 MB"
    )


def test_numbers_are_short_and_say_what_they_are():
    assert [short_number(v) for v in (1.7, 65.43, 0.03812, 1204.3, 100.0, 0.0)] == [
        "1.70",
        "65.4",
        "0.0381",
        "1204",
        "100",
        "0.00",
    ]
    assert short_number(float("nan")) == "nan"


def test_lines_go_to_the_console_and_to_the_file(tmp_path, capsys):
    setup_logging(tmp_path / "run" / "log.txt")
    logging.getLogger("vertebra.engine.loop").info("iter: 1/2")
    logging.getLogger("vertebra.data.loading.loaders").warning("a.jpg is truncated")
    logging.getLogger("somebody.else").info("chatter")
    setup_logging()  # closes the file
    assert capsys.readouterr().out == "iter: 1/2\nWARNING: a.jpg is truncated\n"
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert len(lines) == 2 and all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING) ", line) for line in lines)


def test_what_is_said_before_there_is_a_file_begins_it(tmp_path, capsys):
    log = logging.getLogger("vertebra.build.backbone")
    setup_logging()
    log.info("of another run")
    setup_logging()
    log.info("weights of a.safetensors")
    setup_logging(tmp_path / "log.txt")
    log.info("iter: 1/2")
    setup_logging(tmp_path / "other.txt")
    assert [line.split(" INFO ")[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == [
        "weights of a.safetensors",
        "iter: 1/2",
    ]
    assert (tmp_path / "other.txt").read_text() == ""
    assert capsys.readouterr().out.splitlines() == ["of another run", "weights of a.safetensors", "iter: 1/2"]


def test_all_but_the_first_process_are_silent(tmp_path, capsys):
    setup_logging(tmp_path / "log.txt", is_main=False)
    logging.getLogger("vertebra.engine").warning("twice would be once too often")
    assert capsys.readouterr().out == "" and not (tmp_path / "log.txt").exists()


def test_a_log_on_a_full_disk_prints_no_traceback(tmp_path, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    (tmp_path / "log.txt").symlink_to("/dev/full")
    setup_logging(tmp_path / "log.txt")
    logging.getLogger("vertebra.engine").info("a line")
    captured = capsys.readouterr()
    assert "a line" in captured.out and captured.err == ""


def test_a_resumed_run_appends_to_its_log(tmp_path):
    for text in ("first", "second"):
        setup_logging(tmp_path / "log.txt")
        logging.getLogger("vertebra.engine").info(text)
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2


def test_progress_in_a_file_is_plain_lines(caplog, monkeypatch):
    monkeypatch.setattr(logs, "PLAIN_LINE_PERIOD_S", 0.0)
    with caplog.at_level("INFO", logger="vertebra.engine"):
        assert list(progress([7, 8], description="reading")) == [7, 8]
    assert [record.getMessage() for record in caplog.records] == [
        "reading: 1/2  eta: 0:00:00",
        "reading: 2/2  eta: 0:00:00",
    ]


def test_progress_on_a_terminal_is_a_bar_that_log_lines_do_not_break(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    setup_logging()
    for _ in progress(range(3), description="train"):
        logging.getLogger("vertebra.engine").info("a line")
    assert "train:" in screen.getvalue()
    for line in screen.getvalue().split("\n")[:-1]:
        assert line.split("\r")[-1] == "a line", "the bar is cleared before a line is written"


def test_metrics_are_one_object_a_line_with_the_iteration_first(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write(10, {"loss": 1.5, "lr": float("inf")}, section="train")
    writer.write(10, {"AP": 30.25}, section="evaluation")
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"iteration": 10, "loss": 1.5, "lr": null}\n{"iteration": 10, "AP": 30.25}\n'


def test_an_evaluation_that_is_made_again_after_a_kill_is_written_once(tmp_path):
    for _ in range(2):
        MetricsWriter(tmp_path, tensorboard=False).write(4, {"top1": 10.0}, section="evaluation")
    MetricsWriter(tmp_path, tensorboard=False).write(4, {"top1": 20.0}, section="evaluation")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["top1"] for line in lines] == [10.0, 20.0]


def test_tensorboard_reads_the_same_numbers(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = MetricsWriter(tmp_path)
    writer.write(10, {"loss": 1.5}, section="train")
    writer.write(20, {"loss": 1.25}, section="train")
    writer.close()
    reader = events.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in reader.Scalars("train/loss")] == [(10, 1.5), (20, 1.25)]


def test_nothing_is_written_by_other_processes(tmp_path):
    MetricsWriter(tmp_path, enabled=False).write(1, {"loss": 1.0}, section="train")
    assert list(tmp_path.iterdir()) == []
