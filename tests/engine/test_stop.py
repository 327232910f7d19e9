"""The first signal asks, a later second one insists."""

from __future__ import annotations

import os
import signal

import pytest

from vertebra.engine import stop
from vertebra.engine.distributed import World
from vertebra.engine.stop import Interrupted, StopSignals


def test_the_same_signal_twice_in_a_moment_is_one():
    with StopSignals(World()) as signals:
        assert signals.agreed() == 0
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.agreed() == signal.SIGINT


def test_a_second_signal_after_a_while_is_obeyed(monkeypatch):
    monkeypatch.setattr(stop, "PATIENCE_S", 0.0)
    # A shell starts background jobs with Ctrl-C ignored, and then there is nothing to give back.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopSignals(World()):
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("received", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGTERM, 143)])
def test_the_exit_code_is_the_shells(received, code):
    assert Interrupted(5, received).exit_code == code
    assert str(Interrupted(5, received)).startswith(f"{received.name}: stopped at iteration 5")
