"""A signal is answered within five seconds, wherever it comes, with all saved and an exit code that says so."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cli.conftest import run, run_until

LONG_EVALUATION = ("--input.test-shorter-side", 800, "--input.longer-side", 1000)


def within_s() -> float:
    """Five seconds, and as much longer as other programs keep this one waiting for a core."""
    return 5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.parametrize(("sent", "processes", "code"), [(signal.SIGTERM, 1, 143), (signal.SIGUSR1, 2, 138)])
def test_a_training_saves_and_says_how_to_go_on(detector_flags, tmp_path, sent, processes, code):
    output = tmp_path / "stopped"
    long = ("--solver.iterations", 500, "--checkpoint-period", 500, "--gpus", processes)
    flags = (*detector_flags("r18"), "--output", output, *long)
    done = run_until("train_det", *flags, when=(output / "metrics.jsonl").exists, send=sent)
    assert done.code == code and done.took_s < within_s(), (done.took_s, done.err)
    assert f"{sent.name}: stopped at iteration" in done.err and "--resume" in done.err and "Traceback" not in done.err
    assert len(list((output / "checkpoints").glob("0*.pt"))) == 1


def test_in_an_evaluation_the_last_checkpoint_stays_and_it_is_done_again(detector_flags, tmp_path):
    output = tmp_path / "stopped"
    flags = (*detector_flags("r18"), "--output", output, "--solver.iterations", 2, *LONG_EVALUATION, "--resume")
    saved = output / "checkpoints" / "0000002.pt"
    done = run_until("train_det", *flags, when=saved.exists, send=signal.SIGTERM)
    assert done.code == 143 and done.took_s < within_s(), (done.took_s, done.err)
    assert "SIGTERM: stopped in the evaluation at iteration 2, state saved; continue with --resume." in done.err
    assert "Traceback" not in done.err and not (output / "evaluation.json").exists()
    run("train_det", *flags, "--workers", 0)
    assert (output / "evaluation.json").exists() and "Continuing at iteration 2" in (output / "log.txt").read_text()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_eval_det_ends_and_leaves_nothing_half_written(detectors, tmp_path, sent):
    flags = (detectors["r18"], "--output", tmp_path, "--multi-scale", 96, 800, 1000, "--workers", 0)
    done = run_until("eval_det", *flags, when=(tmp_path / "truth.json").exists, send=sent)
    assert done.code == -sent and done.took_s < within_s()  # 128 + its number, to a shell
    assert [path.name for path in tmp_path.iterdir()] == ["truth.json"]
