"""Evaluate a trained segmenter again: on other images, at several sizes, mirrored, or by sliding windows.

python tools/eval_seg.py RUN_DIR --scales 0.5 0.75 1 1.25 1.5 1.75 --flip --output OTHER_DIR

python tools/eval_seg.py RUN_DIR --test-source maps:DIR/val --data DIR --output OTHER_DIR

python tools/eval_seg.py --weights model.safetensors --data VOCdevkit --window 512 512 --output OTHER_DIR

python tools/eval_seg.py RUN_DIR --test-source voc2012/test --data VOCdevkit --submission voc --output OTHER_DIR

python tools/eval_seg.py --weights model.onnx --data VOCdevkit --output OTHER_DIR

The last evaluates a file that export.py has written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from pydantic import Field

from vertebra.build.export_formats import format_of
from vertebra.cli.common import Switch, as_exported, in_processes, one_network, place_of, with_changes
from vertebra.ground.formats import counted
from vertebra.recipes.command_line import load_recipe, parse_recipe, validated
from vertebra.recipes.schema import OfTest, protocol_fields, refuse
from vertebra.recipes.schema_segmentation import SegmentationRecipe

if TYPE_CHECKING:
    from vertebra.engine.distributed import World


FIXED_IN_FILE = ("scales", "flip", "window")  # what an exported file was made with


class Settings(OfTest):
    """Which segmenter, on which images, and how it looks at them."""

    run: tyro.conf.Positional[Path | None] = Field(None, description="A run directory of train_seg.py.")
    weights: Path | None = Field(
        None, description="A segmenter's weights, instead of a run directory: a file, export.py's too."
    )
    dataset: str | None = Field(None, description="Another data set than in training.")
    test_source: str | None = Field(None, description="Another test set: voc2012/val, maps:DIR/val.")
    data: Path | None = Field(None, description="Directory of the data set; default: the run's.")
    output: Path | None = Field(None, description="Where the results go; default: RUN_DIR.")
    scales: tuple[float, ...] = Field((), description="Factors on the image's size, whose answers are averaged.")
    flip: Switch = Field(False, description="Mean over the image and its mirror image.")
    submission: Literal["voc", "cityscapes"] | None = Field(
        None, description="Write the maps as that evaluation server takes them too, below OUTPUT/results."
    )
    window: tuple[int, int] | None = Field(None, description="Height and width of windows that slide over the image.")

    def check(self) -> None:
        refuse(one_network(self), place_of("maps/ and evaluation.json", self), as_exported(self, FIXED_IN_FILE))


def main(arguments: list[str]) -> int:
    from vertebra.build.results import weights_file
    from vertebra.ground.files import require_weights

    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    require_weights(settings.weights or weights_file(settings.run or Path(), tool="train_seg.py"))
    if settings.weights is not None and format_of(settings.weights):
        return in_processes(1, "cpu", lambda world: evaluate(settings, world))
    return in_processes(settings.gpus, settings.device, lambda world: evaluate(settings, world))


def evaluate(settings: Settings, world: World) -> int:
    """Predict, score, write, and print the figures."""
    from vertebra.build import segmenter
    from vertebra.build.artifact import artifact_recipe, evaluate_artifact, open_artifact
    from vertebra.build.results import require_same_protocol, results_directory, weights_file
    from vertebra.build.segmenter_run import evaluate_segmenter, read_segmenter
    from vertebra.build.submissions import check_submission, write_submission
    from vertebra.build.training import check_classes
    from vertebra.engine.logs import setup_logging, short_number

    setup_logging(is_main=world.is_main)
    path = settings.weights or weights_file(settings.run or Path(), tool="train_seg.py")
    artifact = open_artifact(path, "segmenter") if format_of(path) else None
    state, facts = read_segmenter(path) if artifact is None else ({}, artifact.facts)
    if artifact is not None:
        trained = artifact_recipe(artifact, SegmentationRecipe)
    elif settings.run is not None:
        trained = load_recipe(SegmentationRecipe, settings.run / "config.yaml")
    else:
        trained = validated(SegmentationRecipe, facts["recipe"], str(path))
    recipe = changed(trained, settings, world)
    output = settings.output or settings.run
    assert output is not None
    test_set = segmenter.open_test(recipe)
    if output == settings.run:
        require_same_protocol(protocol_fields(trained), protocol_fields(recipe), facts, test_set.fingerprint())
    if settings.submission is not None:
        check_submission(settings.submission, test_set)
    check_classes(facts["class_names"], path, test_set.class_names, test_set.source)
    run = results_directory(output, world)
    if artifact is not None:
        figures = evaluate_artifact(recipe, artifact, test_set, world, run)
    else:
        model = segmenter.trained_segmenter(recipe, state, facts, path).to(world.device).eval()
        figures = evaluate_segmenter(recipe, model, test_set, world, run)
    if world.is_main:
        print(
            "  ".join(f"{name}: {short_number(value)}" for name, value in figures.items())
            or "no truth to score against"
        )
        print(f"maps and figures: {output}")
        if settings.submission is not None:
            home = write_submission(settings.submission, test_set, output)
            print(f"{counted(len(test_set), 'map')} in {home}; send: tar czf results.tgz -C {output} results")
    return 0


def changed(trained: SegmentationRecipe, settings: Settings, world: World) -> SegmentationRecipe:
    """Return the recipe with what the command line changes."""
    changes = settings.given("data", "dataset", "test_source")
    if "dataset" in changes:
        changes = {"test_source": None, **changes}
    return with_changes(trained, settings, settings.given(*FIXED_IN_FILE), changes, world)
