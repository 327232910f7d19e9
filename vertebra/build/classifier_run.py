"""The training of a classifier, which ends with exact norm statistics and with the weights' average or the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.classifier import Classifier
from backbones.dense import map_side
from backbones.norms import forget_folded, recompute_statistics
from vertebra.build.backbone import build_classifier
from vertebra.build.classification_data import class_test_loader, class_train_loader, open_classes
from vertebra.build.run import TrainingJob
from vertebra.build.training import autocast_of
from vertebra.data.datasets.records import ClassificationDataset
from vertebra.engine.average import WeightAverage
from vertebra.engine.distributed import World
from vertebra.engine.logs import figures_line, progress
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.session import Record
from vertebra.engine.weights import save_weights
from vertebra.evaluation.metrics.topk import evaluate_topk
from vertebra.recipes.schema import BackboneRecipe, protocol_fields

logger = logging.getLogger(__name__)


class ClassifierTraining(TrainingJob[BackboneRecipe, ClassificationDataset]):
    """Trains a backbone with its classifier; see `TrainingJob`."""

    kind = "backbone"
    figure = "top1"
    model: Classifier

    def open_data(self) -> tuple[ClassificationDataset, ClassificationDataset]:
        return open_classes(self.recipe, "train"), open_classes(self.recipe, "val")

    def make_model(self) -> Classifier:
        recipe = self.recipe
        self.model, self._origin = build_classifier(recipe, len(self.train_set.class_names))
        sides = (recipe.input.size, recipe.input.start_size, recipe.input.test_size)
        map_side(self.model.backbone, min(side for side in sides if side))  # raises where images are too small
        self.model.to(self.world.device)
        self.average = WeightAverage(self.model, recipe.ema) if recipe.ema else None
        self.evaluates = recipe.eval_period is not None
        if recipe.ema and self.best:
            self.best = "ema_top1"
        return self.model

    def title(self) -> str:
        return self.recipe.backbone

    def facts(self, iterations: int) -> dict[str, Any]:
        return {
            "backbone": self.model.backbone.identity(),
            "training_data": {"name": self.train_set.root.name, "images": len(self.train_set)},
            "epochs": round(iterations * self.recipe.solver.batch_size / len(self.train_set), 2),
            "started_from": self._origin,
        }

    def protocol(self) -> dict[str, Any]:
        return protocol_fields(self.recipe)

    def train_loader(self, *, start: int, iterations: int) -> Any:
        return class_train_loader(
            self.recipe,
            self.train_set,
            self.world,
            start=start,
            iterations=iterations,
            mean_rgb=self.model.backbone.pixel_norm.mean_values,
        )

    def test_loader(self) -> Any:
        return class_test_loader(self.recipe, self.test_set, self.world)

    def evaluate(self, run: RunDirectory) -> dict[str, float]:
        return evaluate_classifier(self.recipe, self.model, self.test_set, self.world)

    def finish(self, run: RunDirectory, record: Record, facts: dict[str, Any]) -> None:
        """Write the weights of the last step, of their average and of the best evaluation, as far as there are such."""
        last = {"weights": "last step", "iterations": record.iteration}
        files: list[tuple[Path, dict[str, Any], Callable[[], AbstractContextManager[None]]]]
        files = [(run.weights, last, nullcontext)]
        if self.average is not None:
            averaged = {**last, "weights": f"moving average, decay {self.recipe.ema} a step"}
            files = [(run.raw_weights, last, nullcontext), (run.weights, averaged, self.average.lent)]
        figures: dict[str, float] = {}
        for path, origin, put_in_place in files:  # the last one is that of model.safetensors
            with put_in_place():
                finish_norms(self.recipe, self.model, self.train_set, self.world)
                figures = self.evaluate(run)
                state = {name: tensor.clone() for name, tensor in self.model.backbone.state_dict().items()}
            logger.info("%s: %s", path.name, figures_line(record.iteration, figures))
            facts |= {**origin, "figures": figures}
            if self.world.is_main:
                save_weights(path, state, facts)
        run.metrics.write(record.iteration, figures, section="evaluation")
        run.write_json(run.evaluation, {**figures, "images": len(self.test_set), "view": "1 centre crop"})
        if record.best is not None:
            facts["best"] = self._save_best(run, record, facts)
        run.finish(facts)
        logger.info("weights: %s", run.weights)

    def _save_best(self, run: RunDirectory, record: Record, facts: dict[str, Any]) -> dict[str, Any]:
        """Write the weights of the best evaluation, as they were evaluated; return their facts."""
        split = self.recipe.test_split
        best = {"iterations": record.best_iteration, "figures": {"top1": record.best}, "split": split}
        if self.world.is_main:
            checkpoint = run.checkpoints.best()
            assert checkpoint is not None, "an evaluation marks its checkpoint"
            # The average, where there is one, is of all but the counters.
            state = {**checkpoint["model"], **checkpoint["average"]}
            state = {key.removeprefix("backbone."): tensor for key, tensor in state.items()}
            kind = f"best of the evaluations, by {self.best} on {split}"
            save_weights(run.best_weights, state, {**facts, **best, "weights": kind})
        assert self.best is not None
        record.say_best(self.best, run.best_weights)
        return best


def finish_norms(recipe: BackboneRecipe, model: Classifier, train_set: ClassificationDataset, world: World) -> None:
    """Put the norms' final statistics in place: exact ones over training images, or rank 0's running ones."""
    if not recipe.recompute_norms:
        world.broadcast_buffers(model)  # each process has gathered statistics of its own
        return
    # The paper's appendix A: statistics over the training set, as the network will see it at test.
    # A bad image, which training has done without, must not cost the run its end.
    loader = class_test_loader(recipe, train_set, world, limit=recipe.recompute_norms, replace_bad=True)
    skipped: list[str] = []

    def pixels() -> Iterator[Tensor]:
        for batch in progress(loader, description="norm statistics"):
            skipped.extend(batch.skipped)
            yield batch.inputs[0]

    with autocast_of(world.device, recipe.precision)():
        images = recompute_statistics(model.backbone, pixels())
    for name in [name for names in world.gather_objects(skipped) for name in names]:
        logger.warning("skipped %s", name)
    logger.info("norm statistics recomputed over %d training images", images)


def evaluate_classifier(
    recipe: BackboneRecipe, model: Classifier, test_set: ClassificationDataset, world: World
) -> dict[str, float]:
    """Return top-1 and top-5 in per cent, of one centre crop of every image, each once over all processes."""
    loader = progress(class_test_loader(recipe, test_set, world), description="evaluate")
    topk = evaluate_topk(
        model.backbone,
        loader,
        device=world.device,
        autocast=autocast_of(world.device, recipe.precision),
        image_order=range(len(test_set)),
    )
    forget_folded()  # training has no use for them, but for their memory
    return {"top1": topk.top1, "top5": topk.top5}
