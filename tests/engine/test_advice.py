"""What is said once: a loss that never falls, a device that waits for data, a machine that is too busy."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from vertebra.engine.advice import LOOK_S, CoreUse, CoreWatch, LoaderWatch, LossWatch, core_use
from vertebra.engine.schedule import Constant, Warmup


def warnings(losses: list[float], *, iterations: int = 4000, period: int = 20, warmup: int = 0) -> list[int]:
    """The iterations at which a watch speaks that sees `losses`, one a period; the first is the first iteration's."""
    watch = LossWatch(iterations, first=losses[0])
    looks = range(period, period * len(losses), period)
    return [
        at
        for at, loss in zip(looks, losses[1:])
        if watch.observe(at, loss, lr=0.1, warming_up=at <= warmup) is not None
    ]


def test_a_loss_above_its_start_for_a_twentieth_of_the_training_is_said_once():
    assert warnings([2.3] + [2.5] * 50) == [200]
    assert warnings([2.3] + [2.303] * 50) == [200], "a net that answers by chance has learnt nothing either"


def test_a_loss_that_has_fallen_is_not_complained_of():
    assert warnings([2.3] + [2.3 - 0.06 * n for n in range(30)]) == []
    assert warnings([2.3] + ([2.5] * 9 + [2.0]) * 5) == [], "it comes below again and again"


def test_a_loss_that_rises_late_is_said_too():
    assert warnings([2.3] + [1.5] * 20 + [3.0] * 30) == [600]


def test_the_warmup_does_not_count_and_a_short_training_has_its_hundred_iterations():
    assert warnings([2.3] + [2.5] * 50, warmup=400) == [600]
    assert warnings([2.3] + [2.5] * 50, iterations=400) == [100]


@pytest.mark.parametrize("schedule", [Constant(), Warmup(Constant(), 20)])
def test_a_rate_that_is_too_high_is_said_in_the_log(train_toy, caplog, schedule):
    with caplog.at_level("WARNING", logger="vertebra.engine"):
        train_toy(iterations=160, lr=1.0, schedule=schedule, log_period=10, grad_clip=1.0)
    messages = [record.getMessage() for record in caplog.records if "learning rate" in record.getMessage()]
    assert len(messages) == 1 and "try a third of it (--solver.lr)" in messages[0]


def test_a_rate_that_is_right_is_not_complained_of(train_toy, caplog):
    from tests.engine.toy import batches

    same_batch = [next(iter(batches(0, 1)))] * 160
    with caplog.at_level("WARNING", logger="vertebra.engine"):
        train_toy(iterations=160, lr=0.05, loader=iter(same_batch), log_period=10)
    assert "learning rate" not in caplog.text


@pytest.mark.parametrize(
    ("workers", "most", "periods", "said"),
    [
        (2, 16, [(0.5, 0.3)] * 4, "0.3 of 0.5 s a step. --workers 5 instead of 2 would do."),
        (0, 16, [(0.5, 0.3)] * 4, "0.3 of 0.5 s a step. --workers 2 instead of 0 would do."),
        (2, 3, [(0.5, 0.3)] * 4, "It would take --workers 5 instead of 2, and the machine has cores for 3"),
        (2, 16, [(0.5, 0.3), (0.5, 0.05)] * 4, None),
        (2, 16, [(0.5, 0.09)] * 8, None),
        (None, 16, [(0.5, 0.3)] * 4, None),
    ],
)
def test_a_device_that_waits_for_data_over_two_periods_is_said_once(workers, most, periods, said):
    watch = LoaderWatch(workers, most)
    found = [sentence for seconds in periods if (sentence := watch.observe(*seconds))]
    assert len(found) == (said is not None) and all(said in sentence for sentence in found)


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([(30, 10, 20)], "for 33% of the last 30 s the training was ready and had no core, as other"),
        ([(30, 10, 20)] * 3, "it got 0.7 of 2."),
        ([(30, 10, 20)], "move the training, or start it with OMP_NUM_THREADS=1, as"),
        ([(30, 1, 55), (30, 12, 12)], "for 40% of the last 30 s"),
        ([(15, 5, 10)], None),
        ([(15, 5, 10)] * 2, "for 33% of the last 30 s"),
        ([(30, 5, 20)] * 3, None),
        ([(30, 10, 50)] * 3, None),
    ],
    ids=[
        "busy",
        "once",
        "fewer threads",
        "later",
        "too soon to say",
        "long enough",
        "hardly waits",
        "waits for itself",
    ],
)
def test_a_machine_whose_cores_others_use_is_said_once(looks, said):
    total, found = CoreUse(100, 3, 50), []
    watch = CoreWatch(2, total)
    for look in looks:
        total = CoreUse(*(sum(both) for both in zip(total, look)))
        found += [sentence for sentence in [watch.observe(total)] if sentence]
    assert len(found) == (said is not None) and all(said in sentence for sentence in found)


def test_a_system_that_does_not_tell_is_not_complained_of(tmp_path):
    assert core_use(tmp_path) is None
    assert CoreWatch(2, None).observe(CoreUse(100, 90, 1)) is None
    assert CoreWatch(2, CoreUse(0, 0, 0)).observe(None) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's accounts")
def test_a_thread_that_shares_its_core_with_a_busy_process_has_waited_for_it():
    usable = os.sched_getaffinity(0)
    core = {min(usable)}
    spin = f"import os\nos.sched_setaffinity(0, {core})\nprint(flush=True)\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE)
    try:
        os.sched_setaffinity(0, core)  # of this thread alone
        busy.stdout.readline()
        before = core_use()
        while time.monotonic() < before.clock_s + 1:
            pass
        after = core_use()
    finally:
        os.sched_setaffinity(0, usable)
        busy.kill()
        busy.wait()
        busy.stdout.close()
    assert after.waited_s - before.waited_s > 0.2, "half of the time, or more where the core has others as well"
    assert after.used_s - before.used_s < 0.9


def test_a_busy_machine_is_said_in_the_log(train_toy, caplog, monkeypatch):
    uses = (CoreUse(LOOK_S * look, LOOK_S / 2 * look, LOOK_S / 4 * look) for look in range(100))
    monkeypatch.setattr("vertebra.engine.session.core_use", lambda: next(uses))
    monkeypatch.setattr("vertebra.engine.session.CoreWatch", lambda cores: CoreWatch(cores, next(uses)))
    with caplog.at_level("WARNING", logger="vertebra.engine"):
        train_toy(iterations=6, log_period=1)
    assert [message.split(":")[0] for message in caplog.messages] == ["The machine is busy"]
