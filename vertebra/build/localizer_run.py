"""The training of a localizer, and its test: boxes with the true class given, and with a classifier's classes."""

from __future__ import annotations

import functools
import statistics
from typing import Any

import numpy as np

from backbones import Backbone
from detectors.localizer import Localizer
from vertebra.build import build_localisation, detection_data
from vertebra.build.head_run import HeadTraining
from vertebra.build.training import autocast_of, own_share
from vertebra.build.views import LoadedNet, ViewPlan, common_classes, load_net, plan_views
from vertebra.build.weights import local_file
from vertebra.data.datasets.localisation import LocalisationDataset
from vertebra.data.loading.views import view_loader
from vertebra.engine.distributed import World
from vertebra.engine.logs import progress
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.session import Record
from vertebra.engine.weights import read_provenance
from vertebra.evaluation.metrics.location_results import coco_rows, sentence, summarise
from vertebra.evaluation.predict.classes import ClassPredictions, predict_scores
from vertebra.evaluation.predict.ensembles import scorer
from vertebra.evaluation.predict.localisation import Guesses, mean_share, predict_boxes
from vertebra.recipes.schema_localisation import LocalisationRecipe


class LocalizerTraining(HeadTraining[LocalisationRecipe, LocalisationDataset]):
    """Trains a per-class RPN on a cut backbone; see `HeadTraining`."""

    kind = "loc"
    figure = "located"
    results = "boxes"
    model: Localizer
    _summary: dict[str, Any] | None = None

    def open_data(self) -> tuple[LocalisationDataset, LocalisationDataset]:
        return build_localisation.open_train(self.recipe), build_localisation.open_test(self.recipe)

    def check_files(self) -> None:
        detection_data.require_files(self.train_set.objects, self.test_set.objects, self.world)

    def prepare(self) -> None:
        self._classifier = PredictedClasses(self.recipe, self.test_set, self.world)
        self._mean_share_hw = mean_share(build_localisation.truth_of(self.train_set))

    def assemble(self, backbone: Backbone) -> Localizer:
        return build_localisation.build_localizer(self.recipe, backbone, len(self.train_set.class_names))

    def title(self) -> str:
        return f"Per-class RPN on {self.recipe.backbone} (weights: {self.origin['source']})"

    def own_facts(self) -> dict[str, Any]:
        return {
            "detector": "per-class RPN on a cut backbone",
            "training_share_hw": list(self._mean_share_hw),
            "classifier": self._classifier.describe(),
        }

    def protocol(self) -> dict[str, Any]:
        return {**self.recipe.protocol(), "test_fingerprint": self.test_set.fingerprint()}

    def train_loader(self, *, start: int, iterations: int) -> Any:
        return build_localisation.location_train_loader(
            self.recipe, self.train_set, self.world, start=start, iterations=iterations
        )

    def test_loader(self) -> Any:
        return build_localisation.location_test_loader(self.recipe, self.test_set, self.world)

    def evaluate(self, run: RunDirectory) -> dict[str, float]:
        self._summary, _ = evaluate_localizer(
            self.recipe,
            self.model,
            self.test_set,
            self.world,
            run,
            usual_share_hw=self._mean_share_hw,
            classes=self._classifier.predictions,
        )
        return figures_of(self._summary)

    def finish(self, run: RunDirectory, record: Record, facts: dict[str, Any]) -> None:
        super().finish(run, record, facts)
        if self.world.is_main and self._summary is not None:
            print(sentence(self._summary))


def evaluate_localizer(
    recipe: LocalisationRecipe,
    model: Localizer,
    test_set: LocalisationDataset,
    world: World,
    run: RunDirectory,
    *,
    usual_share_hw: tuple[float, float],
    classes: ClassPredictions | None,
) -> tuple[dict[str, Any], Guesses | None]:
    """Localise on all processes; write evaluation.json, oracle.json and, with `classes`, predictions.json on rank 0.

    usual_share_hw: the mean training box, for the trivial guess. classes: what a classifier predicts of the test set.
    Return all figures, and the boxes of the predicted classes.
    """
    truth = build_localisation.truth_of(test_set)
    own_I1 = truth.labels_I[:, None]
    asked_IQ = own_I1 if classes is None else np.concatenate([own_I1, classes.best_NK], axis=1)
    times_s: list[float] = []
    found = predict_boxes(
        model,
        progress(build_localisation.location_test_loader(recipe, test_set, world), description="localise"),
        asked_IQ,
        device=world.device,
        autocast=autocast_of(world.device, recipe.precision),
        times_s=times_s,
    )
    oracle, predicted = _part(found, slice(0, 1)), None if classes is None else _part(found, slice(1, None))
    image_ids = test_set.objects.image_ids_I.tolist()
    run.write_json(run.truth, test_set.objects.coco_truth())
    run.write_json(run.path / "oracle.json", coco_rows(oracle, image_ids))
    if predicted is not None and classes is not None:
        run.write_json(run.predictions, coco_rows(predicted, image_ids, classes.probabilities_NK))
    summary = summarise(oracle, predicted, truth, test_set.class_names, usual_share_hw=usual_share_hw)
    summary["view"] = build_localisation.describe_view(recipe)
    summary["time_per_image_s"] = statistics.median(times_s) if times_s else None
    run.write_json(run.evaluation, summary)
    return summary, predicted


def _part(guesses: Guesses, columns: slice) -> Guesses:
    return Guesses(guesses.classes_IQ[:, columns], guesses.boxes_IQ4[:, columns], guesses.scores_IQ[:, columns])


def figures_of(summary: dict[str, Any]) -> dict[str, float]:
    """Return a log line's figures. located: per cent of the images whose box is right with the class given."""
    figures = {"located": 100 - summary["oracle"]["error"], "oracle_error": summary["oracle"]["error"]}
    for name, of_count in summary.get("predicted", {}).items():
        short = name.replace("top-", "")
        figures |= {f"error{short}": of_count["error"], f"class_error{short}": of_count["class_error"]}
    return figures


class PredictedClasses:
    """A classifier's predictions of the test set, made when first asked for.

    Raises ValueError where it knows other classes than the set.
    """

    def __init__(self, recipe: LocalisationRecipe, test_set: LocalisationDataset, world: World) -> None:
        self._test_set, self._world, self._recipe = test_set, world, recipe
        self._loaded: tuple[LoadedNet, ViewPlan] | None = None
        if recipe.classifier is not None:
            net = load_net(recipe.classifier, world.device, size=None, resize=None, precision="auto")
            common_classes([net], test_set.class_names, test_set.source)
            self._loaded = net, plan_views([net], [recipe.test.classifier_view], world.device)

    @functools.cached_property
    def predictions(self) -> ClassPredictions | None:
        """None where the recipe names no classifier."""
        if self._loaded is None:
            return None
        _, plan = self._loaded
        world = self._world
        share = own_share(self._recipe, world, 64)
        loader = view_loader(self._test_set.images, plan.sources, share)
        return predict_scores(
            scorer(plan.results),
            len(plan.results),
            plan.networks,
            progress(loader, description="classify"),
            device=world.device,
            image_order=range(len(self._test_set)),
        )[0]

    def describe(self) -> dict[str, Any] | None:
        """Return the classifier's network and view, for the run's provenance."""
        if self._loaded is None:
            return None
        net, plan = self._loaded
        origin = read_provenance(local_file(net.path))
        return {**plan.facts[0], "protocol_hash": origin.get("protocol_hash"), "figures": origin.get("figures")}
