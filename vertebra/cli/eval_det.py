"""Evaluate a trained detector again: predictions, COCO's and VOC's figures, cost.

python tools/eval_det.py RUN_DIR

python tools/eval_det.py RUN_DIR --test-source voc2007/test --data VOCdevkit --output OTHER_DIR

python tools/eval_det.py --weights model.safetensors --dataset voc07 --data VOCdevkit --output OTHER_DIR

python tools/eval_det.py RUN_DIR --refine --multi-scale 200 400 600 800 1000 --flip --ensemble RUN2 --output OTHER_DIR

python tools/eval_det.py RUN_DIR --proposals RUN_DIR/proposals.json

python tools/eval_det.py --weights torchvision:maskrcnn_resnet50_fpn --data COCO --output OTHER_DIR

python tools/eval_det.py --weights detectron2:model_final_280758.pkl --data COCO --output OTHER_DIR

python tools/eval_det.py --weights model.onnx --output OTHER_DIR

The last three evaluate a detector that torchvision publishes (or torchvision:NAME=FILE, its state dict on disk), one
that detectron2 has trained (Faster or Mask R-CNN on a ResNet, .pkl or .pth, with the config.yaml that lies beside it),
and a file that export.py has written.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from pydantic import Field

from vertebra.build.export_formats import format_of
from vertebra.cli.common import Switch, as_exported, in_processes, one_network, place_of, with_changes
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import OfTest, protocol_fields, refuse
from vertebra.recipes.schema_detection import DetectionRecipe

if TYPE_CHECKING:
    from vertebra.engine.distributed import World

# What an exported file was made with.
FIXED_IN_FILE = ("score", "nms", "refine", "multi_scale", "flip", "ensemble", "proposals")


class Settings(OfTest):
    """Which detector, on which images."""

    run: tyro.conf.Positional[Path | None] = Field(None, description="A run directory of train_det.py.")
    weights: str | None = Field(
        None,
        description="A detector's weights, instead of a run: a file, export.py's too, hf:USER/NAME, "
        "torchvision:NAME[=FILE], detectron2:FILE.",
    )
    dataset: str | None = Field(
        None, description="Another data set than in training; json, yolo and vocxml need --test-source."
    )
    test_source: str | None = Field(None, description="Another test set, the whole of it: voc2007/test, json:B.json.")
    data: Path | None = Field(None, description="Directory of the data set; default: the run's.")
    output: Path | None = Field(None, description="Where the results go; default: RUN_DIR.")
    score: float | None = Field(None, description="Lowest score, instead of the recipe's.")
    nms: float | None = Field(None, description="IoU of the NMS, instead of the recipe's.")
    refine: Switch = Field(False, description="Box refinement and voting (He et al. 2015, appendix B).")
    multi_scale: tuple[int, ...] = Field(
        (), description="Shorter sides at which regions are read, pixels; the recipe's test size is one of them."
    )
    multi_scale_region: int | None = Field(
        None, description="Root of a region's area at its ideal size, pixels, instead of the recipe's."
    )
    flip: Switch = Field(False, description="Mean over the image and its mirror image.")
    ensemble: tuple[str, ...] = Field(
        (), description="Run directories or weights of more detectors, whose answers are averaged."
    )
    proposals: Path | None = Field(
        None,
        description="Write the RPN's proposals to this file too: for explain.py, and as RUN_DIR/proposals.json for the "
        "report.",
    )

    def check(self) -> None:
        refuse(
            one_network(self),
            place_of("predictions.json and evaluation.json", self),
            (
                self.ensemble and self.output in (None, self.run),
                "--output is missing: an ensemble's results are no single run's and need a directory of their own",
            ),
            (
                self.ensemble and self.proposals is not None,
                "--proposals writes what one detector's RPN proposes: leave --ensemble out, and run each detector by "
                "itself",
            ),
            as_exported(self, FIXED_IN_FILE),
        )


def main(arguments: list[str]) -> int:
    from vertebra.build.results import require_detector, weights_file

    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    if settings.run is not None:
        weights_file(settings.run, tool="train_det.py")
    for weights in (*filter(None, [settings.weights]), *settings.ensemble):
        require_detector(weights)
    if settings.weights is not None and format_of(settings.weights):
        return in_processes(1, "cpu", lambda world: evaluate_exported(settings, world))
    return in_processes(settings.gpus, settings.device, lambda world: evaluate(settings, world))


def evaluate(settings: Settings, world: World) -> int:
    """Predict, score, write, and print the figures."""
    from vertebra.build import detection_data
    from vertebra.build.detector_run import evaluate_detector, write_proposals
    from vertebra.build.results import require_same_protocol, results_directory, weights_file
    from vertebra.build.trained_detector import read_detector, read_member
    from vertebra.build.training import check_classes
    from vertebra.engine.logs import figures_line, setup_logging

    setup_logging(is_main=world.is_main)
    trained = read_detector(settings.weights or str(weights_file(settings.run or Path(), tool="train_det.py")))
    recipe = changed(trained.recipe, settings, world)
    output = settings.output or settings.run
    assert output is not None
    if settings.proposals is not None:
        check_proposals(settings, recipe, output)
    test_set = detection_data.open_test(recipe)
    if output == settings.run:
        before, now = protocol_fields(trained.recipe), protocol_fields(recipe)
        require_same_protocol(before, now, trained.facts, test_set.fingerprint())
    if trained.guessed and len(trained.names) == len(test_set.class_names):
        trained = replace(trained, names=dict(zip(test_set.category_ids, test_set.class_names)))
    check_classes(trained.class_names, trained.path, test_set.class_names, test_set.source)
    model = trained.restore(recipe).to(world.device)
    others = [read_member(member, recipe, trained.class_names).to(world.device) for member in settings.ensemble]
    run = results_directory(output, world)
    run.write_json(run.truth, test_set.coco_truth())
    origin = {"tested": tested(settings, recipe)}
    figures = evaluate_detector(recipe, model, test_set, world, run, others=others, origin=origin)
    if settings.proposals is not None:
        write_proposals(recipe, model, test_set, world, settings.proposals)
    if world.is_main:
        logging.getLogger("vertebra.cli.eval_det").info(figures_line(int(trained.facts.get("iterations", 0)), figures))
        print(f"predictions and figures: {output}")
    return 0


def evaluate_exported(settings: Settings, world: World) -> int:
    """The same with a file of export.py."""
    from vertebra.build import detection_data
    from vertebra.build.artifact import artifact_recipe, evaluate_artifact, open_artifact
    from vertebra.build.results import results_directory
    from vertebra.build.training import check_classes
    from vertebra.engine.logs import figures_line, setup_logging

    setup_logging()
    artifact = open_artifact(Path(settings.weights or ""), "detector")
    recipe = changed(artifact_recipe(artifact, DetectionRecipe), settings)
    test_set = detection_data.open_test(recipe)
    check_classes(tuple(artifact.facts["class_names"]), artifact.path, test_set.class_names, test_set.source)
    assert settings.output is not None
    run = results_directory(settings.output, world)
    run.write_json(run.truth, test_set.coco_truth())
    figures = evaluate_artifact(recipe, artifact, test_set, world, run, {"tested": tested(settings, recipe)})
    logging.getLogger("vertebra.cli.eval_det").info(figures_line(0, figures))
    print(f"predictions and figures: {settings.output}")
    return 0


def check_proposals(settings: Settings, recipe: DetectionRecipe, output: Path) -> None:
    """Raise ValueError where proposals cannot be written as asked: before the test, not after it."""
    from vertebra.engine.rundir import RunDirectory

    path = settings.proposals
    assert path is not None
    if recipe.engine != "vertebra":
        raise ValueError(f"--proposals is of our own detectors; this one's engine is {recipe.engine}: leave it out")
    if path.is_dir():
        raise ValueError(f"{path} is a directory; name a file for --proposals, such as {path / 'proposals.json'}")
    if path.resolve() in {own.resolve() for own in vars(RunDirectory(output)).values() if isinstance(own, Path)}:
        raise ValueError(
            f"{path} is a file of the run's own; name another one for --proposals, such as {output / 'proposals.json'}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)


def changed(trained: DetectionRecipe, settings: Settings, world: World | None = None) -> DetectionRecipe:
    """Return the recipe with what the command line changes. world: as of `with_changes`."""
    test = settings.given("score", "nms", "multi_scale_region", "refine", "multi_scale", "flip")
    if settings.nms is not None and (settings.refine or trained.test.refine):
        test["refine_nms"] = settings.nms  # the one that is done then
    changes = settings.given("data", "dataset", "test_source")
    if settings.dataset or settings.test_source:  # what is named is tested on, all of it
        changes["validation"] = 0.0
        test["limit"] = None
    if settings.dataset:
        changes = {"train_source": None, "test_source": None, **changes}
    return with_changes(trained, settings, test, changes, world)


def tested(settings: Settings, recipe: DetectionRecipe) -> dict[str, Any]:
    """Return detectors, data and settings of the test: a part of evaluation.json."""
    detectors = [settings.run or settings.weights, *settings.ensemble]
    if recipe.validation:
        source = f"{recipe.validation:g} held out of {recipe.source('train')}"
    else:
        source = recipe.source("test")
    return {
        "detectors": [str(one) for one in detectors],
        "source": source,
        "data": None if recipe.data is None else str(recipe.data.resolve()),
        "precision": recipe.precision,
        "test": recipe.test.model_dump(mode="json"),
    }
