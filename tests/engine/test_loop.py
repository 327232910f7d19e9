"""The loop: accumulation, precision, evaluation, and every reason to stop."""

from __future__ import annotations

import errno
import json
import re
import time
from dataclasses import replace

import pytest
import torch

from tests.engine.toy import Batch, ToyNet, batches
from vertebra.engine import rng
from vertebra.engine.checkpoint import CheckpointError, Checkpoints, load_checkpoint
from vertebra.engine.guard import NonFiniteLoss, spoiling
from vertebra.engine.schedule import Plateau
from vertebra.ground.errors import UserError
from vertebra.ground.files import DiskFull

LOG_LINE = re.compile(
    r"^eta: \d+:\d\d:\d\d  iter: 4/4  loss: [\d.]+  loss_cls: [\d.]+  loss_size: [\d.]+  top1: [\d.]+  "
    r"time: \d+\.\d{3} s  data: \d+\.\d{3} s  lr: 0\.1  mem: \d+ MB$"
)


def split(batch: Batch) -> list[Batch]:
    """A batch as two halves."""
    half = len(batch.image_ids) // 2
    parts = (slice(0, half), slice(half, None))
    return [Batch(tuple(t[part] for t in batch.inputs), batch.image_ids[part]) for part in parts]


def test_accumulated_halves_equal_the_whole_batch(train_toy, tmp_path, run):
    whole, record = train_toy()
    halves, half_record = train_toy(loader=(half for b in batches(0, 4) for half in split(b)), accumulate=2)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(halves.state_dict()[name], weight, rtol=1e-5, atol=1e-7)
    assert record.samples == half_record.samples == 16


def test_the_log_line_is_the_documented_one(train_toy, caplog):
    with caplog.at_level("INFO", logger="vertebra.engine"):
        train_toy()
    lines = [record.getMessage() for record in caplog.records if "iter: 4/4" in record.getMessage()]
    assert len(lines) == 1 and LOG_LINE.match(lines[0]), lines


def test_the_logged_loss_is_the_mean_over_its_period(train_toy, run):
    train_toy(lr=0.0)
    each = []
    line = json.loads(run.metrics_file.read_text().splitlines()[0])
    rng.seed_all(0)
    model = ToyNet(norm=False, dropout=0.0)
    for batch in batches(0, 2):
        values = model(*batch.inputs)
        each.append((values["loss_cls"] + values["loss_size"]).item())
    assert line["loss"] == pytest.approx(sum(each) / 2, rel=1e-6)
    assert line["loss"] == pytest.approx(line["loss_cls"] + line["loss_size"])


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.02), ("fp16", 0.1)])
def test_autocast_stays_near_full_precision(train_toy, precision, tolerance):
    exact, _ = train_toy()
    near, _ = train_toy(precision=precision)  # fp16 skips its first step: the loss scale begins too high
    for name, weight in exact.state_dict().items():
        torch.testing.assert_close(near.state_dict()[name], weight, rtol=0.05, atol=tolerance)
        assert near.state_dict()[name].dtype == torch.float32


def test_clipping_bounds_the_step(train_toy):
    before = ToyNet(norm=False, dropout=0.0)
    start = {name: weight.clone() for name, weight in before.state_dict().items()}
    after, _ = train_toy(model=before, iterations=1, lr=1.0, grad_clip=1e-3)
    moved = torch.cat([(after.state_dict()[n] - start[n]).flatten() for n in start]).norm()
    decay = 1e-4 * torch.cat([w.flatten() for w in start.values()]).norm()
    assert 0 < moved <= 1e-3 + decay + 1e-6


def test_a_loss_that_is_not_finite_spoils_the_gradient_that_all_processes_share():
    """Infinite, with a finite gradient: its process alone would skip the step, and the others would go on."""
    weight = torch.ones(1, requires_grad=True)
    for shift, is_finite in ((0.0, True), (float("inf"), False)):
        loss = (3 * weight).sum()
        (gradient,) = torch.autograd.grad(spoiling(loss, (loss + shift).detach()[None]), weight)
        assert gradient.isfinite().all() == is_finite
    assert torch.autograd.grad(spoiling((3 * weight).sum(), torch.ones(2)), weight)[0] == 3


def test_a_nan_stops_the_run_with_iteration_images_and_the_last_good_state(train_toy, run):
    model = ToyNet(dropout=0.0)
    with pytest.raises(NonFiniteLoss) as stopped:
        train_toy(model=model, loader=batches(0, 4, spoil=2))
    error = stopped.value
    assert error.iteration == 3 and error.image_ids == (8, 9, 10, 11)
    assert error.names == ("loss_cls", "loss_size")
    assert "Not finite at iteration 3: loss_cls, loss_size (image ids 8, 9, 10, 11)." in str(error)
    assert "Lower the learning rate" in str(error)
    state = load_checkpoint(run.path / "checkpoints" / "not_finite_0000002.pt")
    assert all(torch.isfinite(value).all() for value in state["model"].values()), "weights or statistics are NaN"
    assert state["not_finite"] == [3, [8, 9, 10, 11], ["loss_cls", "loss_size"]]


def test_an_infinite_gradient_of_a_finite_loss_leaves_the_weights_alone(train_toy):
    class Cliff(ToyNet):
        def forward(self, pixels, labels):
            zero = self.fc.weight[0, 0] * 0
            return {**super().forward(pixels, labels), "loss_cliff": torch.sqrt(zero.abs())}

    model = Cliff(norm=False, dropout=0.0)
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(NonFiniteLoss, match=r"Not finite at iteration 1: gradient \(image ids 0, 1, 2, 3\)"):
        train_toy(model=model)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in start.items())


def test_skipped_samples_are_counted_and_named(train_toy, caplog, run):
    bad = (replace(b, skipped=("a.jpg: truncated",)) if i < 3 else b for i, b in enumerate(batches(0, 4)))
    with caplog.at_level("INFO", logger="vertebra.engine"):
        _, record = train_toy(loader=bad)
    assert record.skipped == 3
    assert caplog.text.count("Skipped a bad sample: a.jpg: truncated") == 1
    assert json.loads(run.metrics_file.read_text().splitlines()[-1])["skipped"] == 3


def test_more_than_one_percent_of_bad_samples_stops_the_run(train_toy, run):
    bad = (replace(b, skipped=(f"{b.image_ids[0]}.jpg: zero bytes",) * 4) for b in batches(0, 4))
    with pytest.raises(UserError, match="16 of 16 samples could not be used by iteration 4, more than 1%"):
        train_toy(loader=bad)
    assert run.checkpoints.latest()["iteration"] == 4


def test_a_disk_that_fills_up_behind_the_loop_stops_it_at_the_next_step(train_toy, run, monkeypatch):
    def full(self, state, **_):
        raise DiskFull(errno.ENOSPC, "The disk is full: 0000002.pt could not be written")

    monkeypatch.setattr(Checkpoints, "save", full)
    seen = []
    watched = (seen.append(i) or time.sleep(0.1) or batch for i, batch in enumerate(batches(0, 8), start=1))
    with pytest.raises(DiskFull, match=r"0000002\.pt could not be written"):
        train_toy(iterations=8, loader=watched, checkpoint_period=2)
    assert seen == [1, 2, 3]


def test_evaluations_choose_the_best_checkpoint(train_toy, run):
    figures = {2: 10.0, 4: 30.0, 6: 20.0}
    modes = []

    def evaluate(iteration: int) -> dict[str, float]:
        modes.append(model.training)
        return {"AP": figures[iteration]}

    model = ToyNet()
    _, record = train_toy(model=model, iterations=6, evaluate=evaluate, eval_period=2, best="AP")
    assert (record.best, record.best_iteration, record.figures) == (30.0, 4, {"AP": 20.0})
    assert run.checkpoints.best()["iteration"] == 4
    assert modes == [False] * 3 and model.training
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [line["AP"] for line in lines if "AP" in line] == [10.0, 30.0, 20.0]


def test_a_best_figure_that_no_evaluation_gives_is_a_sentence(train_toy):
    with pytest.raises(ValueError, match="chosen by 'AP75', but the evaluation gives AP; name one of these"):
        train_toy(evaluate=lambda _: {"AP": 1.0}, best="AP75")


def test_a_plateau_lowers_the_rate_and_survives_a_checkpoint(train_toy, run):
    plateau = Plateau("AP", patience=0)
    train_toy(iterations=6, schedule=plateau, evaluate=lambda _: {"AP": 1.0}, eval_period=2)
    assert plateau.factor == pytest.approx(0.01)
    assert run.checkpoints.latest()["schedule"]["factor"] == plateau.factor
    rates = [json.loads(line).get("lr") for line in run.metrics_file.read_text().splitlines()]
    assert [rate for rate in rates if rate] == pytest.approx([0.1, 0.1, 0.01])


def test_a_run_that_has_all_its_iterations_takes_no_more_steps(train_toy, run):
    model, record = train_toy(evaluate=lambda _: {"AP": 1.0})
    again, same_record = train_toy(evaluate=lambda _: {"AP": 2.0}, loader=iter(()), state=run.latest_state())
    assert same_record.iteration == record.iteration == 4 and same_record.figures == {"AP": 1.0}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


def test_a_loader_that_ends_too_early_is_a_sentence(train_toy):
    with pytest.raises(ValueError, match="The loader ended before iteration 3"):
        train_toy(loader=batches(0, 2))


def test_a_model_without_losses_is_a_sentence(train_toy):
    class Silent(ToyNet):
        def forward(self, pixels, labels):
            return {"top1": super().forward(pixels, labels)["top1"]}

    with pytest.raises(ValueError, match="returned no loss, only top1"):
        train_toy(model=Silent(norm=False))


def test_a_checkpoint_of_another_architecture_is_a_sentence(train_toy, run):
    train_toy()
    with pytest.raises(CheckpointError, match="of another architecture or optimiser"):
        train_toy(model=ToyNet(), iterations=6, state=run.latest_state())


class TimedLoader:
    """The toy's batches, each after so many seconds."""

    workers = 2

    def __init__(self, iterations: int, seconds: float):
        self.batches, self.seconds = list(batches(0, iterations)), seconds

    def __iter__(self):
        for batch in self.batches:
            time.sleep(self.seconds)
            yield batch


class SlowNet(ToyNet):
    """The toy, for which a step takes a twentieth of a second."""

    def forward(self, *inputs):
        time.sleep(0.05)
        return super().forward(*inputs)


@pytest.mark.parametrize(("seconds", "warned"), [(0.1, 1), (0.0, 0)])
def test_a_loader_that_starves_the_device_is_said_once_with_the_workers_that_would_do(
    train_toy, caplog, monkeypatch, seconds, warned
):
    monkeypatch.setattr("vertebra.engine.session.loader_workers", lambda asked: 1000)
    model = SlowNet(norm=False, dropout=0.0)
    train_toy(loader=TimedLoader(12, seconds), iterations=12, model=model)
    found = [m for m in caplog.messages if "waits for data" in m]
    assert len(found) == warned
    for message in found:
        numbers = re.search(r"([\d.]+) of ([\d.]+) s a step. --workers (\d+) inst", message).groups()
        waited, step, wanted = map(float, numbers)
        assert waited >= 0.03 and wanted == pytest.approx(2 * step / (step - waited), abs=1.5)
