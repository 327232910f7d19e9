"""Score a trained localizer again: with another view, a classifier's classes, or on other images.

python tools/eval_loc.py runs/loc_r101_ILSVRC_0 --view dense --scales 224 256 384 480 640 --output OTHER_DIR

python tools/eval_loc.py --weights model.safetensors --data ILSVRC --classifier FILE --output OTHER_DIR
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from pydantic import Field

from vertebra.cli.common import in_processes, one_network, place_of, with_changes
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import load_recipe, parse_recipe, validated
from vertebra.recipes.schema import OfTest, refuse
from vertebra.recipes.schema_localisation import LocalisationRecipe

if TYPE_CHECKING:
    from vertebra.engine.distributed import World


class Settings(OfTest):
    """Which localizer, on which images, and how it looks at them."""

    run: tyro.conf.Positional[Path | None] = Field(None, description="A run directory of train_loc.py.")
    weights: Path | None = Field(None, description="A localizer's file or hf:USER/NAME, instead of a run.")
    data: Path | None = Field(None, description="Directory of the data set; default: the run's.")
    split: str | None = Field(None, description="Instead of the run's test split: train, val.")
    classifier: Path | None = Field(
        None, description="Weights that predict the classes, instead of the run's classifier."
    )
    classifier_view: Literal["1crop", "10crop", "dense", "multiscale"] | None = Field(
        None, description="How the classifier looks."
    )
    view: Literal["centre", "dense"] | None = Field(None, description="Where boxes are looked for.")
    scales: tuple[int, ...] = Field((), description="Shorter sides of the dense view, pixels.")
    candidates: int | None = Field(None, description="Anchors a view whose boxes are averaged; 1: none are.")
    output: Path | None = Field(None, description="Where the results go; default: RUN_DIR.")
    ilsvrc: Path | None = Field(
        None, description="Write ILSVRC's submission: a line an image by name, `id xmin ymin xmax ymax` a guess."
    )
    synsets: Path | None = Field(
        None, description="Ids for --ilsvrc, lines `n02119789 1`; none: 1-based places in the sorted class names."
    )

    def check(self) -> None:
        refuse(
            one_network(self),
            place_of("oracle.json, predictions.json and evaluation.json", self),
            (self.synsets and not self.ilsvrc, "--synsets gives the ids of --ilsvrc: name that file, too"),
        )


def main(arguments: list[str]) -> int:
    from vertebra.build import hub
    from vertebra.build.results import weights_file
    from vertebra.ground.files import require_weights

    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    require_weights(hub.local(settings.weights or weights_file(settings.run or Path(), tool="train_loc.py")))
    return in_processes(settings.gpus, settings.device, lambda world: evaluate(settings, world))


def evaluate(settings: Settings, world: World) -> int:
    """Localise, score, write, and print the figures."""
    from vertebra.build import build_localisation
    from vertebra.build.backbone import build_backbone
    from vertebra.build.detector import load_file_state
    from vertebra.build.localizer_run import PredictedClasses, evaluate_localizer
    from vertebra.build.results import require_same_protocol, results_directory, weights_file
    from vertebra.build.training import check_classes
    from vertebra.build.weights import adopt_identity, local_file
    from vertebra.engine.logs import setup_logging
    from vertebra.engine.weights import load_weights
    from vertebra.evaluation.metrics.class_results import read_synsets
    from vertebra.evaluation.metrics.location_results import ilsvrc_lines, sentence
    from vertebra.ground.files import write_text

    setup_logging(is_main=world.is_main)
    path = local_file(settings.weights or weights_file(settings.run or Path(), tool="train_loc.py"))
    state, facts = load_weights(path)
    trained = recipe_of_training(settings, facts, path)
    recipe = changed(trained, settings, world)
    output = settings.output or settings.run
    assert output is not None
    test_set = build_localisation.open_test(recipe)
    if output == settings.run:
        before, now = ({**one.protocol(), "classifier": one.classifier} for one in (trained, recipe))
        require_same_protocol(before, now, facts, test_set.fingerprint())
    known = tuple(facts["class_names"])
    check_classes(known, path, test_set.class_names, test_set.source)
    classified = PredictedClasses(recipe, test_set, world)
    if settings.ilsvrc and recipe.classifier is None:
        raise RecipeError("--ilsvrc holds guesses of classes: name what predicts them with --classifier FILE")
    ids = read_synsets(settings.synsets, known)
    backbone = build_backbone(recipe, 1000)
    adopt_identity(facts, backbone, path)
    model = build_localisation.build_localizer(recipe, backbone, len(known))
    load_file_state(model, state, path)
    model.to(world.device).eval()
    run = results_directory(output, world)
    summary, predicted = evaluate_localizer(
        recipe,
        model,
        test_set,
        world,
        run,
        usual_share_hw=tuple(facts["training_share_hw"]),
        classes=classified.predictions,
    )
    if world.is_main:
        if settings.ilsvrc is not None and predicted is not None:
            write_text(settings.ilsvrc, ilsvrc_lines(predicted, ids, test_set.images.file_names))
        print(sentence(summary))
        print(f"boxes and figures: {output}")
    return 0


def recipe_of_training(settings: Settings, facts: dict[str, Any], path: Path) -> LocalisationRecipe:
    """Return the recipe that the localizer was trained with."""
    if "recipe" not in facts or "training_share_hw" not in facts:
        raise ValueError(f"{path} does not hold a localizer's recipe; weights of train_loc.py do")
    if settings.run is not None:
        return load_recipe(LocalisationRecipe, settings.run / "config.yaml")
    return validated(LocalisationRecipe, facts["recipe"], str(path))


def changed(trained: LocalisationRecipe, settings: Settings, world: World) -> LocalisationRecipe:
    """Return the recipe with what the command line changes."""
    test = settings.given("view", "candidates", "classifier_view", "scales")
    if settings.view == "centre":
        test["scales"] = settings.scales
    changes = settings.given("data", "classifier")
    if settings.split is not None:
        changes["test_split"] = settings.split
    return with_changes(trained, settings, test, changes, world)
