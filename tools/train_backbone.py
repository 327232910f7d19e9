"""Train a backbone as a classifier, on a folder of classes (ImageNet's layout), CIFAR-10 or the sample set.

python tools/train_backbone.py --backbone r50 --data IMAGENET --gpus 8

python tools/train_backbone.py --backbone r18 --config configs/sample/objects.yaml --data SAMPLE/objects

The run directory ends with model.safetensors, which train_det.py takes as --weights.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from common import default_output, in_processes, run_tool

from configs.command_line import parse_recipe, take_flag
from configs.schema import BackboneRecipe, may_differ

if TYPE_CHECKING:
    from backbones.classifier import Classifier
    from data.records import ClassificationDataset
    from engine.distributed import World
    from engine.rundir import RunDirectory

logger = logging.getLogger("tools.train_backbone")


def main() -> int:
    backbone, _ = take_flag(sys.argv[1:], "--backbone")
    default = "cifar10/paper.yaml" if (backbone or "").startswith("cifar_") else "imagenet/standard.yaml"
    recipe = parse_recipe(BackboneRecipe, description=__doc__ or "", default=default)

    return in_processes(recipe.gpus, recipe.device, lambda world: train(recipe, world))


def train(recipe: BackboneRecipe, world: World) -> int:
    """One run from its data to its weights."""
    from configs import build
    from engine import loop, precision, provenance, rng
    from engine.logs import setup_logging
    from engine.rundir import RunDirectory

    train_set, test_set = build.open_classes(recipe, "train"), build.open_classes(recipe, "val")
    iterations = build.iterations_of(recipe, len(train_set))
    recipe = recipe.model_copy(
        update={
            "precision": precision.resolve(recipe.precision, world.device),
            "output": recipe.output or default_output("backbone", recipe, build.need_data(recipe).resolve().name),
        }
    )
    assert recipe.output is not None
    run = RunDirectory.open(
        recipe.output,
        recipe.model_dump(mode="json"),
        resume=recipe.resume,
        may_differ=may_differ(recipe),
        world=world,
    )
    if run.finished:
        if world.is_main:
            print(f"{run.path} is finished: its weights are {run.weights}")
        return 0
    setup_logging(run.log, is_main=world.is_main)
    for note in (*train_set.notes, *test_set.notes):
        logger.warning(note)

    rng.seed_all(recipe.seed)
    model, origin = build.build_classifier(recipe, len(train_set.class_names))
    model.to(world.device)
    logger.info(
        "%s, %d classes, %d training and %d test images, %d iterations of %d images, %s on %s -> %s",
        recipe.backbone, len(train_set.class_names), len(train_set), len(test_set), iterations,
        recipe.solver.batch_size, recipe.precision, world.device, run.path,
    )  # fmt: skip
    made = {"started_from": origin, **provenance.describe()}  # now: code and machine that the run starts with
    state = run.latest_state()
    start = int(state["iteration"]) if state else 0
    rng.seed_all(recipe.seed, rank=world.rank)  # dropout differs between processes
    record = loop.train(
        model=model,
        optimizer=build.build_optimizer(recipe.solver, model),
        schedule=build.build_schedule(recipe.solver, iterations, figure="top1"),
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
        precision=recipe.precision,
        accumulate=recipe.solver.accumulate,
        grad_clip=recipe.solver.grad_clip,
        evaluate=(lambda _: evaluate(recipe, model, test_set, world)) if recipe.eval_period else None,
        eval_period=recipe.eval_period,
        checkpoint_period=recipe.checkpoint_period,
        log_period=recipe.log_period,
        state=state,
    )
    finish(recipe, model, train_set, test_set, world, run, iterations, record.seconds, made)
    return 0


def finish(
    recipe: BackboneRecipe,
    model: Classifier,
    train_set: ClassificationDataset,
    test_set: ClassificationDataset,
    world: World,
    run: RunDirectory,
    iterations: int,
    seconds: float,
    made: dict[str, Any],
) -> None:
    """Exact norm statistics, the final figures, and the weights with all that is to be known of them."""
    from backbones.norms import recompute_statistics
    from configs import build
    from configs.schema import protocol_fields
    from engine import provenance, weights
    from engine.logs import figures_line, progress

    if recipe.recompute_norms:
        # The paper's appendix A: statistics over the training set, as the network will see it at test.
        loader = build.class_test_loader(recipe, train_set, world, limit=recipe.recompute_norms)
        pixels = (batch.inputs[0] for batch in progress(loader, description="norm statistics"))
        with build.autocast_of(world.device, recipe.precision)():
            images = recompute_statistics(model.backbone, pixels)
        logger.info("norm statistics recomputed over %d training images", images)
    else:
        world.broadcast_buffers(model)  # each process has gathered statistics of its own
    figures = evaluate(recipe, model, test_set, world)
    logger.info(figures_line(iterations, figures))
    run.metrics.write(iterations, figures, section="evaluation")
    run.write_json(run.evaluation, {**figures, "images": len(test_set), "view": "1 centre crop"})
    protocol = {**protocol_fields(recipe), "train_fingerprint": train_set.fingerprint()}
    facts = {
        "backbone": model.backbone.identity(),
        "class_names": list(train_set.class_names),
        "training_data": {"name": train_set.root.name, "images": len(train_set)},
        "iterations": iterations,
        "epochs": round(iterations * recipe.solver.batch_size / len(train_set), 2),
        "seed": recipe.seed,
        "figures": figures,
        "protocol": protocol,
        "protocol_hash": provenance.protocol_hash(protocol),
        "training_s": round(seconds, 1),
        **made,
    }
    if world.is_main:
        weights.save_weights(run.weights, model.backbone.state_dict(), facts)
    run.finish(facts)
    logger.info("weights: %s", run.weights)


def evaluate(
    recipe: BackboneRecipe, model: Classifier, test_set: ClassificationDataset, world: World
) -> dict[str, float]:
    """Top-1 and top-5 in per cent, one centre crop, every image once over all processes."""
    from configs import build
    from engine.logs import progress
    from evaluation.topk import evaluate_topk

    loader = progress(build.class_test_loader(recipe, test_set, world), description="evaluate")
    topk = evaluate_topk(
        model.backbone,
        loader,
        device=world.device,
        autocast=build.autocast_of(world.device, recipe.precision),
        image_order=range(len(test_set)),
    )
    return {"top1": topk.top1, "top5": topk.top5}


if __name__ == "__main__":
    run_tool(main)
