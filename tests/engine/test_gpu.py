"""What only a GPU can show: steps called off on the device, and no host wait in between."""

from __future__ import annotations

import pytest
import torch

from tests.engine.toy import ToyNet, batches
from vertebra.engine import distributed
from vertebra.engine.checkpoint import load_checkpoint
from vertebra.engine.guard import NonFiniteLoss
from vertebra.engine.loop import train
from vertebra.engine.optim import adamw, sgd
from vertebra.engine.schedule import Constant

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("make", [sgd, adamw])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_stay_those_from_before_a_nan_that_is_read_later(run, make, precision):
    world = distributed.start("cuda")

    def trained(iterations: int, spoil: int | None = None) -> ToyNet:
        torch.manual_seed(0)
        model = ToyNet(norm=False, dropout=0.0).to(world.device)
        optimizer = make(model, lr=0.01)
        options = {"schedule": Constant(), "run": run, "world": world, "precision": precision, "log_period": 8}
        loader = batches(0, iterations, spoil=spoil)
        train(model=model, optimizer=optimizer, loader=loader, iterations=iterations, **options)
        return model

    good = trained(3).state_dict()
    with pytest.raises(NonFiniteLoss) as stopped:
        trained(8, spoil=3)
    assert stopped.value.iteration == 4 and stopped.value.image_ids == (12, 13, 14, 15)
    state = load_checkpoint(run.path / "checkpoints" / "not_finite_0000003.pt")
    for name, weight in good.items():
        torch.testing.assert_close(state["model"][name], weight.cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_compiled_steps_train_as_others_do_and_wait_for_nothing(run, accumulate):
    world = distributed.start("cuda")
    iterations = 40

    def trained(compile: bool) -> ToyNet:
        torch.manual_seed(0)
        model = ToyNet(dropout=0.0).to(world.device)

        def watched():
            for place, batch in enumerate(batches(0, iterations * accumulate)):
                # Graphs are recorded in the first steps; log lines come every twentieth.
                quiet = compile and 10 <= place // accumulate % 20 < 19
                torch.cuda.set_sync_debug_mode("error" if quiet else "default")
                yield batch.to_pinned()

        options = {"schedule": Constant(), "run": run, "world": world, "log_period": 20, "accumulate": accumulate}
        try:
            train(model=model, optimizer=sgd(model, lr=0.1), loader=watched(), iterations=iterations,
                  compile=compile, **options)  # fmt: skip
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return model

    plain, compiled = trained(False), trained(True)
    for (name, weight), (other_name, other) in zip(plain.state_dict().items(), compiled.state_dict().items()):
        assert name == other_name
        torch.testing.assert_close(other, weight, rtol=1e-3, atol=1e-4)


def test_fp16_with_an_overflowing_first_step_trains(run):
    world = distributed.start("cuda")
    model = ToyNet(dropout=0.0).to(world.device)
    options = {"schedule": Constant(), "run": run, "world": world, "precision": "fp16"}
    train(model=model, optimizer=sgd(model, lr=0.1), loader=batches(0, 30), iterations=30, **options)
    assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())


def test_a_step_between_two_log_lines_does_not_wait_for_the_device(run):
    world = distributed.start("cuda")
    model = ToyNet(dropout=0.0).to(world.device)

    def watched():
        for iteration, batch in enumerate(batches(0, 12)):
            # From the second step on, until the log line of the tenth is due.
            torch.cuda.set_sync_debug_mode("error" if 1 <= iteration < 9 else "default")
            yield batch.to_pinned()

    try:
        options = {"schedule": Constant(), "run": run, "world": world, "precision": "bf16", "log_period": 12}
        train(model=model, optimizer=sgd(model, lr=0.1), loader=watched(), iterations=12, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
