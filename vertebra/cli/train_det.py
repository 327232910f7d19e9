"""Train Faster R-CNN or Mask R-CNN on any backbone, and evaluate it.

python tools/train_det.py --backbone r101 --dataset voc0712 --data VOCdevkit --weights FILE --gpus 8

python tools/train_det.py --backbone r50 --dataset coco --data COCO --weights torchvision

python tools/train_det.py --config detection/coco_mask_fpn_1x.yaml --backbone r50 --data COCO --weights torchvision

python tools/train_det.py --dataset json --train-source json:A.json --test-source json:B.json --data IMAGES ...

The data set chooses the recipe unless --config does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vertebra.cli.common import in_processes
from vertebra.recipes.command_line import parse_recipe, take_flag
from vertebra.recipes.schema import DEFAULT_RECIPES
from vertebra.recipes.schema_detection import DetectionRecipe

if TYPE_CHECKING:
    from vertebra.data.datasets.records import DetectionDataset
    from vertebra.engine.distributed import World

logger = logging.getLogger("vertebra.cli.train_det")

Settings = DetectionRecipe


def main(arguments: list[str]) -> int:
    dataset, _ = take_flag(arguments, "--dataset")
    default = DEFAULT_RECIPES.get(dataset or "voc07", DEFAULT_RECIPES["voc07"])
    recipe = parse_recipe(DetectionRecipe, arguments, description=__doc__ or "", default=default)
    recipe.require_inputs()
    return in_processes(recipe.gpus, recipe.device, lambda world: train(recipe, world))


def train(recipe: DetectionRecipe, world: World) -> int:
    """One run from its data and weights to its figures."""
    from vertebra.build import build, build_detection
    from vertebra.build.detector import file_state, make_detector
    from vertebra.build.wiring import evaluate_detector, write_proposals
    from vertebra.build.wiring_run import is_finished, open_run, settled, take_up
    from vertebra.engine import loop, rng
    from vertebra.engine.weights import save_weights

    train_set, test_set = build_detection.open_train(recipe), build_detection.open_test(recipe)
    build.check_classes(train_set.class_names, train_set.source, test_set.class_names, test_set.source)
    iterations = build.iterations_of(recipe, len(train_set))
    recipe = settled(recipe, world, job="det", data=recipe.dataset)
    schedule = build.build_schedule(recipe.solver, iterations, figure="AP", images=len(train_set))
    build.share_of_batch(recipe.solver, world)
    if is_finished(recipe, world, train_set):
        return 0
    rng.seed_all(recipe.seed)
    backbone, origin = build_detection.build_pretrained(recipe)
    model = make_detector(recipe, backbone, len(train_set.class_names)).to(world.device)
    run = open_run(recipe, world, train_set, (*train_set.notes, *test_set.notes))
    if run is None:
        return 0
    logger.info(
        "%s on %s (weights: %s), %d classes, %d training images (%s), %d test images (%s), "
        "%d iterations of %d images, %s on %s -> %s",
        recipe.model.title, recipe.backbone, origin["source"], len(train_set.class_names), len(train_set),
        train_set.source, len(test_set), test_set.source, iterations, recipe.solver.batch_size, recipe.precision,
        world.device, run.path,
    )  # fmt: skip
    if sentence := build.describe_rate(recipe.solver):
        logger.info(sentence)
    run.write_json(run.truth, test_set.coco_truth())
    # Now, not at the end: the code and the machine that the run starts with.
    facts = {
        **describe(recipe, train_set, test_set, origin, iterations),
        "backbone": backbone.identity(),
    }
    state, start = take_up(recipe, run, world)

    def evaluate(_: int) -> dict[str, float]:
        return evaluate_detector(recipe, model, test_set, world, run)

    record = loop.train(
        model=model,
        optimizer=build.build_optimizer(recipe.solver, model),
        schedule=schedule,
        loader=build_detection.detection_train_loader(recipe, train_set, world, start=start, iterations=iterations),
        run=run,
        iterations=iterations,
        world=world,
        evaluate=evaluate,
        state=state,
        **build.loop_settings(recipe),
    )
    if recipe.write_proposals:
        write_proposals(recipe, model, test_set, world, run.path / "proposals.json")
    facts |= {"figures": record.figures, "training_s": round(record.seconds, 1)}
    if world.is_main:
        save_weights(run.weights, file_state(model), facts)
    run.finish(facts)
    logger.info("predictions, figures and weights: %s", run.path)
    return 0


def describe(
    recipe: DetectionRecipe,
    train_set: DetectionDataset,
    test_set: DetectionDataset,
    origin: dict[str, Any],
    iterations: int,
) -> dict[str, Any]:
    """What is to be known of the run: its protocol, its data, where its weights came from, on what it ran."""
    from vertebra.build.wiring import sample_hash
    from vertebra.engine import provenance
    from vertebra.recipes.schema import protocol_fields

    fingerprints = {"train_fingerprint": train_set.fingerprint(), "test_fingerprint": test_set.fingerprint()}
    protocol = {**protocol_fields(recipe), **fingerprints}
    return {
        "detector": recipe.model.title,
        "class_names": list(train_set.class_names),
        "category_ids": list(train_set.category_ids),
        "training_data": {"name": train_set.source, "images": len(train_set)},
        "weights": origin,
        "protocol": protocol,
        "protocol_hash": provenance.protocol_hash(protocol),
        "recipe": recipe.model_dump(mode="json"),
        "sample_hash": sample_hash(recipe),
        "iterations": iterations,
        "seed": recipe.seed,
        **provenance.describe(),
    }
