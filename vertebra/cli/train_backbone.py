"""Train a backbone as a classifier, on a folder of classes (ImageNet's layout), CIFAR-10 or the sample set.

python tools/train_backbone.py --backbone r50 --data IMAGENET --gpus 8

python tools/train_backbone.py --backbone r18 --config configs/sample/objects.yaml --data SAMPLE/objects

The run directory ends with model.safetensors, which train_det.py takes as --weights: the weights of the last step, or
with --ema their moving average (model_raw.safetensors then holds the former). With --eval-period the best evaluated
ones lie beside them as model_best.safetensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.cli.common import in_processes
from vertebra.recipes.command_line import parse_recipe, take_flag
from vertebra.recipes.schema import BackboneRecipe

if TYPE_CHECKING:
    from torch import Tensor

    from backbones.classifier import Classifier
    from vertebra.data.datasets.records import ClassificationDataset
    from vertebra.engine.average import WeightAverage
    from vertebra.engine.distributed import World
    from vertebra.engine.rundir import RunDirectory
    from vertebra.engine.session import Record

logger = logging.getLogger("vertebra.cli.train_backbone")


# The recipe of a family of networks when no --config names another: by the beginning of the name.
DEFAULT_RECIPES = {"cifar_": "cifar10/paper.yaml", "vgg": "imagenet/vgg.yaml", "": "imagenet/standard.yaml"}

Settings = BackboneRecipe


def main(arguments: list[str]) -> int:
    backbone, _ = take_flag(arguments, "--backbone")
    default = next(name for family, name in DEFAULT_RECIPES.items() if (backbone or "").startswith(family))
    recipe = parse_recipe(BackboneRecipe, arguments, description=__doc__ or "", default=default)
    recipe.require_inputs()
    return in_processes(recipe.gpus, recipe.device, lambda world: train(recipe, world))


def train(recipe: BackboneRecipe, world: World) -> int:
    """One run from its data to its weights."""
    from backbones.dense import map_side
    from vertebra.build import build
    from vertebra.build.wiring_run import is_finished, open_run, settled, take_up
    from vertebra.engine import loop, provenance, rng
    from vertebra.engine.average import WeightAverage

    build.check_fast_path(recipe)
    train_set, test_set = build.open_classes(recipe, "train"), build.open_classes(recipe, "val")
    places = [f"{one.split} of {one.root}" for one in (train_set, test_set)]
    build.check_classes(train_set.class_names, places[0], test_set.class_names, places[1])
    iterations = build.iterations_of(recipe, len(train_set))
    recipe = settled(recipe, world, job="backbone", data=recipe.data_directory().resolve().name)
    schedule = build.build_schedule(recipe.solver, iterations, figure="top1", images=len(train_set))
    build.share_of_batch(recipe.solver, world)
    if is_finished(recipe, world, train_set):
        return 0
    rng.seed_all(recipe.seed)
    model, origin = build.build_classifier(recipe, len(train_set.class_names))
    view = recipe.input
    map_side(model.backbone, min(side for side in (view.size, view.start_size, view.test_size) if side))  # or says so
    model.to(world.device)
    run = open_run(recipe, world, train_set, (*train_set.notes, *test_set.notes))
    if run is None:
        return 0
    logger.info(
        "%s, %d classes, %d training and %d test images, %d iterations of %d images, %s on %s -> %s",
        recipe.backbone, len(train_set.class_names), len(train_set), len(test_set), iterations,
        recipe.solver.batch_size, recipe.precision, world.device, run.path,
    )  # fmt: skip
    if sentence := build.describe_rate(recipe.solver):
        logger.info(sentence)
    made = {"started_from": origin, **provenance.describe()}  # now: code and machine that the run starts with
    state, start = take_up(recipe, run, world)
    average = WeightAverage(model, recipe.ema) if recipe.ema else None
    record = loop.train(
        model=model,
        optimizer=build.build_optimizer(recipe.solver, model),
        schedule=schedule,
        loader=build.class_train_loader(
            recipe,
            train_set,
            world,
            start=start,
            iterations=iterations,
            mean_rgb=model.backbone.pixel_norm.mean_values,
        ),
        run=run,
        iterations=iterations,
        world=world,
        evaluate=(lambda _: evaluate(recipe, model, test_set, world)) if recipe.eval_period else None,
        best=("ema_top1" if recipe.ema else "top1") if recipe.eval_period else None,
        average=average,
        state=state,
        compile=recipe.compile,
        **build.loop_settings(recipe),
    )
    facts = {
        "backbone": model.backbone.identity(),
        "class_names": list(train_set.class_names),
        "training_data": {"name": train_set.root.name, "images": len(train_set)},
        "epochs": round(iterations * recipe.solver.batch_size / len(train_set), 2),
        "seed": recipe.seed,
        "training_s": round(record.seconds, 1),
        **protocol_facts(recipe, train_set),
        **made,
    }
    finish(recipe, model, average, train_set, test_set, world, run, record, facts)
    return 0


def protocol_facts(recipe: BackboneRecipe, train_set: ClassificationDataset) -> dict[str, Any]:
    """Under which protocol the run was made, and its hash."""
    from vertebra.engine import provenance
    from vertebra.recipes.schema import protocol_fields

    protocol = {**protocol_fields(recipe), "train_fingerprint": train_set.fingerprint()}
    return {"protocol": protocol, "protocol_hash": provenance.protocol_hash(protocol)}


def finish(
    recipe: BackboneRecipe,
    model: Classifier,
    average: WeightAverage | None,
    train_set: ClassificationDataset,
    test_set: ClassificationDataset,
    world: World,
    run: RunDirectory,
    record: Record,
    facts: dict[str, Any],
) -> None:
    """Exact norm statistics, the final figures, and the weights with all that is to be known of them."""
    from vertebra.engine.logs import figures_line
    from vertebra.engine.weights import save_weights

    said = {"weights": "last step", "iterations": record.iteration}
    files: list[tuple[Path, dict[str, Any], Callable[[], AbstractContextManager[None]]]]
    files = [(run.weights, said, nullcontext)]
    if average is not None:
        averaged = {**said, "weights": f"moving average, decay {recipe.ema} a step"}
        files = [(run.raw_weights, said, nullcontext), (run.weights, averaged, average.lent)]
    figures: dict[str, float] = {}
    for path, what, put_in_place in files:  # the last one is that of model.safetensors
        with put_in_place():
            settle_norms(recipe, model, train_set, world)
            figures = evaluate(recipe, model, test_set, world)
            state = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
        logger.info("%s: %s", path.name, figures_line(record.iteration, figures))
        facts |= {**what, "figures": figures}
        if world.is_main:
            save_weights(path, state, facts)
    run.metrics.write(record.iteration, figures, section="evaluation")
    run.write_json(run.evaluation, {**figures, "images": len(test_set), "view": "1 centre crop"})
    if record.best is not None:
        facts["best"] = save_best(recipe, world, run, record, facts)
    run.finish(facts)
    logger.info("weights: %s", run.weights)


def settle_norms(recipe: BackboneRecipe, model: Classifier, train_set: ClassificationDataset, world: World) -> None:
    """The norms' statistics as they are to be saved: exact ones over training images, or one process's own."""
    from backbones.norms import recompute_statistics
    from vertebra.build import build
    from vertebra.engine.logs import progress

    if not recipe.recompute_norms:
        world.broadcast_buffers(model)  # each process has gathered statistics of its own
        return
    # The paper's appendix A: statistics over the training set, as the network will see it at test.
    # A bad image, which training has done without, must not cost the run its end.
    loader = build.class_test_loader(recipe, train_set, world, limit=recipe.recompute_norms, replace_bad=True)
    skipped: list[str] = []

    def pixels() -> Iterator[Tensor]:
        for batch in progress(loader, description="norm statistics"):
            skipped.extend(batch.skipped)
            yield batch.inputs[0]

    with build.autocast_of(world.device, recipe.precision)():
        images = recompute_statistics(model.backbone, pixels())
    for name in [name for names in world.gather_objects(skipped) for name in names]:
        logger.warning("skipped %s", name)
    logger.info("norm statistics recomputed over %d training images", images)


def save_best(
    recipe: BackboneRecipe, world: World, run: RunDirectory, record: Record, facts: dict[str, Any]
) -> dict[str, Any]:
    """The weights of the best evaluation, as they were evaluated, in model_best.safetensors; what they are."""
    from vertebra.engine.weights import save_weights

    name = "ema_top1" if recipe.ema else "top1"
    said = {"iterations": record.best_iteration, "figures": {"top1": record.best}, "split": recipe.test_split}
    if world.is_main:
        best = run.checkpoints.best()
        assert best is not None, "an evaluation marks its checkpoint"
        state = {**best["model"], **best["average"]}  # the average, where there is one, is of all but the counters
        state = {key.removeprefix("backbone."): tensor for key, tensor in state.items()}
        kind = f"best of the evaluations, by {name} on {recipe.test_split}"
        save_weights(run.best_weights, state, {**facts, **said, "weights": kind})
    if record.best_iteration != record.iteration:
        logger.info(
            "the best evaluation was at iteration %d (%s %.2f, at the end %.2f): its weights are %s",
            record.best_iteration, name, record.best, record.figures[name], run.best_weights,
        )  # fmt: skip
    return said


def evaluate(
    recipe: BackboneRecipe, model: Classifier, test_set: ClassificationDataset, world: World
) -> dict[str, float]:
    """Top-1 and top-5 in per cent, one centre crop, every image once over all processes."""
    from vertebra.build import build
    from vertebra.engine.logs import progress
    from vertebra.evaluation.metrics.topk import evaluate_topk

    loader = progress(build.class_test_loader(recipe, test_set, world), description="evaluate")
    topk = evaluate_topk(
        model.backbone,
        loader,
        device=world.device,
        autocast=build.autocast_of(world.device, recipe.precision),
        image_order=range(len(test_set)),
    )
    return {"top1": topk.top1, "top5": topk.top5}
