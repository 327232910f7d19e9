"""Train a per-class RPN to localise each image's object (He et al. 2015, appendix C), and score it as ILSVRC does.

python tools/train_loc.py --backbone r101 --data ILSVRC --weights FILE --classifier FILE --gpus 8

python tools/train_loc.py --config localisation/sample.yaml --data LOC --weights FILE --classifier FILE

--data holds ILSVRC's Data, Annotations and ImageSets, or {train,val}/<class>/ with an XML file beside each image.
--weights is what the localizer starts from, --classifier what predicts the classes at test (both of train_backbone.py);
without the latter, boxes are scored with the true class alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from vertebra.cli.common import in_processes
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema_localisation import LocalisationRecipe

if TYPE_CHECKING:
    from vertebra.data.datasets.localisation import LocalisationDataset
    from vertebra.engine.distributed import World

logger = logging.getLogger("vertebra.cli.train_loc")

DEFAULT_RECIPE = "localisation/imagenet_loc.yaml"

Settings = LocalisationRecipe


def main(arguments: list[str]) -> int:
    recipe = parse_recipe(LocalisationRecipe, arguments, description=__doc__ or "", default=DEFAULT_RECIPE)
    recipe.require_inputs()
    return in_processes(recipe.gpus, recipe.device, lambda world: train(recipe, world))


def train(recipe: LocalisationRecipe, world: World) -> int:
    """One run from its data and weights to its figures."""
    from vertebra.build import build, build_detection, build_localisation
    from vertebra.build.detector import file_state
    from vertebra.build.wiring_loc import Classified, evaluate_localizer, figures_of
    from vertebra.build.wiring_run import is_finished, open_run, settled, take_up
    from vertebra.engine import loop, rng
    from vertebra.engine.weights import save_weights
    from vertebra.evaluation.metrics.location_results import sentence
    from vertebra.evaluation.predict.localisation import mean_share

    train_set, test_set = build_localisation.open_train(recipe), build_localisation.open_test(recipe)
    places = (train_set.objects.source, test_set.objects.source)
    build.check_classes(train_set.class_names, places[0], test_set.class_names, places[1])
    iterations = build.iterations_of(recipe, len(train_set))
    recipe = settled(recipe, world, job="loc", data=recipe.data_directory().resolve().name)
    schedule = build.build_schedule(recipe.solver, iterations, figure="located", images=len(train_set))
    build.share_of_batch(recipe.solver, world)
    if is_finished(recipe, world, train_set):
        return 0
    classified = Classified(recipe, test_set, world)
    rng.seed_all(recipe.seed)
    backbone, origin = build_detection.build_pretrained(recipe)
    model = build_localisation.build_localizer(recipe, backbone, len(train_set.class_names)).to(world.device)
    run = open_run(recipe, world, train_set, (*train_set.notes, *test_set.notes))
    if run is None:
        return 0
    logger.info(
        "Per-class RPN on %s (weights: %s), %d classes, %d training and %d test images, %d iterations of %d images, "
        "%s on %s -> %s",
        recipe.backbone, origin["source"], len(train_set.class_names), len(train_set), len(test_set), iterations,
        recipe.solver.batch_size, recipe.precision, world.device, run.path,
    )  # fmt: skip
    if told := build.describe_rate(recipe.solver):
        logger.info(told)
    # Now, not at the end: the code and the machine that the run starts with.
    facts = {
        **describe(recipe, train_set, test_set, origin, iterations),
        "backbone": backbone.identity(),
        "classifier": classified.describe(),
    }
    state, start = take_up(recipe, run, world)
    usual_share_hw = mean_share(build_localisation.truth_of(train_set))
    last: dict[str, Any] = {}

    def evaluate(_: int) -> dict[str, float]:
        summary, _guesses = evaluate_localizer(
            recipe, model, test_set, world, run, usual_share_hw=usual_share_hw, classes=classified.predictions
        )
        last["summary"] = summary
        return figures_of(summary)

    record = loop.train(
        model=model,
        optimizer=build.build_optimizer(recipe.solver, model),
        schedule=schedule,
        loader=build_localisation.location_train_loader(recipe, train_set, world, start=start, iterations=iterations),
        run=run,
        iterations=iterations,
        world=world,
        evaluate=evaluate,
        state=state,
        **build.loop_settings(recipe),
    )
    facts |= {"figures": record.figures, "training_s": round(record.seconds, 1)}
    if world.is_main:
        save_weights(run.weights, file_state(model), facts)
    run.finish(facts)
    if world.is_main and last:
        print(sentence(last["summary"]))
    logger.info("boxes, figures and weights: %s", run.path)
    return 0


def describe(
    recipe: LocalisationRecipe,
    train_set: LocalisationDataset,
    test_set: LocalisationDataset,
    origin: dict[str, Any],
    iterations: int,
) -> dict[str, Any]:
    """What is to be known of the run: its protocol, its data, where its weights came from, on what it ran."""
    from vertebra.build.build_localisation import truth_of
    from vertebra.engine import provenance
    from vertebra.evaluation.predict.localisation import mean_share

    fingerprints = {"train_fingerprint": train_set.fingerprint(), "test_fingerprint": test_set.fingerprint()}
    protocol = {**recipe.protocol(), **fingerprints}
    return {
        "detector": "per-class RPN on a cut backbone",
        "class_names": list(train_set.class_names),
        "training_data": {"name": train_set.objects.source, "images": len(train_set)},
        "training_share_hw": list(mean_share(truth_of(train_set))),
        "weights": origin,
        "protocol": protocol,
        "protocol_hash": provenance.protocol_hash(protocol),
        "recipe": recipe.model_dump(mode="json"),
        "iterations": iterations,
        "seed": recipe.seed,
        **provenance.describe(),
    }
