"""What train_loc.py and eval_loc.py both do at the end: boxes, with the class told and with a classifier's classes."""

from __future__ import annotations

import functools
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detectors.localizer import Localizer
    from vertebra.data.datasets.localisation import LocalisationDataset
    from vertebra.engine.distributed import World
    from vertebra.engine.rundir import RunDirectory
    from vertebra.evaluation.predict.classes import ClassPredictions
    from vertebra.evaluation.predict.localisation import Guesses
    from vertebra.recipes.schema_localisation import LocalisationRecipe


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
    """Localise on all processes; writes evaluation.json, oracle.json and, with `classes`, predictions.json on rank 0.

    usual_share_hw: the mean training box, for the trivial guess. classes: what a classifier predicts of the test set.
    Returns all figures, and the boxes of the predicted classes.
    """
    import numpy as np

    from vertebra.build import build, build_localisation
    from vertebra.engine.logs import progress
    from vertebra.evaluation.metrics.location_results import coco_rows, summarise
    from vertebra.evaluation.predict.localisation import predict_boxes

    truth = build_localisation.truth_of(test_set)
    own_I1 = truth.labels_I[:, None]
    asked_IQ = own_I1 if classes is None else np.concatenate([own_I1, classes.best_NK], axis=1)
    times_s: list[float] = []
    found = predict_boxes(
        model,
        progress(build_localisation.location_test_loader(recipe, test_set, world), description="localise"),
        asked_IQ,
        device=world.device,
        autocast=build.autocast_of(world.device, recipe.precision),
        times_s=times_s,
    )
    oracle, predicted = _part(found, slice(0, 1)), None if classes is None else _part(found, slice(1, None))
    summary = summarise(oracle, predicted, truth, test_set.class_names, usual_share_hw=usual_share_hw)
    summary["view"] = build_localisation.describe_view(recipe)
    summary["time_per_image_s"] = statistics.median(times_s) if times_s else None
    image_ids = test_set.objects.image_ids_I.tolist()
    run.write_json(run.truth, test_set.objects.coco_truth())
    run.write_json(run.path / "oracle.json", coco_rows(oracle, image_ids))
    if predicted is not None and classes is not None:
        run.write_json(run.predictions, coco_rows(predicted, image_ids, classes.probabilities_NK))
    run.write_json(run.evaluation, summary)
    return summary, predicted


def _part(guesses: Guesses, columns: slice) -> Guesses:
    from vertebra.evaluation.predict.localisation import Guesses

    return Guesses(guesses.classes_IQ[:, columns], guesses.boxes_IQ4[:, columns], guesses.scores_IQ[:, columns])


def figures_of(summary: dict[str, Any]) -> dict[str, float]:
    """The few figures of a log line. located: per cent of the images whose box is right with the class told."""
    figures = {"located": 100 - summary["oracle"]["error"], "oracle_error": summary["oracle"]["error"]}
    for name, of_count in summary.get("predicted", {}).items():
        short = name.replace("top-", "")
        figures |= {f"error{short}": of_count["error"], f"class_error{short}": of_count["class_error"]}
    return figures


class Classified:
    """The classifier's predictions of the test set: made when first asked for, and once."""

    def __init__(self, recipe: LocalisationRecipe, test_set: LocalisationDataset, world: World) -> None:
        from vertebra.build import build_localisation

        self._test_set, self._world, self._recipe = test_set, world, recipe
        self._loaded = build_localisation.build_classifier(recipe, test_set, world.device)

    @functools.cached_property
    def predictions(self) -> ClassPredictions | None:
        """None where the recipe names no classifier."""
        from vertebra.data.loading.sampling import Share
        from vertebra.data.loading.views import view_loader
        from vertebra.engine.logs import progress
        from vertebra.evaluation.predict.classes import predict_scores
        from vertebra.evaluation.predict.ensembles import scorer

        if self._loaded is None:
            return None
        plan = self._loaded[1]
        world = self._world
        share = Share(batch=64, rank=world.rank, world_size=world.size, workers=self._recipe.workers)
        loader = view_loader(self._test_set.images, plan.sources, share)
        return predict_scores(
            scorer(plan.results),
            len(plan.results),
            plan.networks,
            progress(loader, description="classify"),
            device=self._world.device,
            image_order=range(len(self._test_set)),
        )[0]

    def describe(self) -> dict[str, Any] | None:
        """Which network it is and how it looks, for the run's provenance."""
        if self._loaded is None:
            return None
        net, plan = self._loaded
        from vertebra.engine.weights import load_weights

        _, origin = load_weights(net.path)
        return {**plan.facts[0], "protocol_hash": origin.get("protocol_hash"), "figures": origin.get("figures")}
