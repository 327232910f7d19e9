"""The training of what stands on a pre-trained backbone: what detectors, localizers and segmenters have in common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

from torch import nn

from backbones import Backbone
from vertebra.build.backbone import pretrained_backbone
from vertebra.build.detector import save_detector
from vertebra.build.run import AnySet, TrainingJob
from vertebra.engine.rundir import RunDirectory
from vertebra.engine.session import Record
from vertebra.recipes.schema import protocol_fields
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_localisation import LocalisationRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

logger = logging.getLogger(__name__)

HeadRecipe = TypeVar("HeadRecipe", DetectionRecipe, LocalisationRecipe, SegmentationRecipe)


class HeadTraining(TrainingJob[HeadRecipe, AnySet]):
    """Trains what stands on a pre-trained backbone; see `TrainingJob`. results: beside its figures and weights."""

    results: ClassVar[str]
    model: Any
    backbone: Backbone
    origin: dict[str, Any]  # of the weights that it starts from

    def make_model(self) -> nn.Module:
        self.backbone, self.origin = pretrained_backbone(self.recipe)
        return self.begin_with(self.assemble(self.backbone))

    def begin_with(self, model: nn.Module) -> nn.Module:
        """Put the model on the world's device; it is the one that is trained."""
        self.model = model.to(self.world.device)
        return model

    @abstractmethod
    def assemble(self, backbone: Backbone) -> nn.Module:
        """Return the head on the backbone, in train mode."""

    @abstractmethod
    def own_facts(self) -> dict[str, Any]:
        """Return the facts beside those of all heads, what it is first."""

    def facts(self, iterations: int) -> dict[str, Any]:
        return {
            **self.own_facts(),
            "backbone": self.backbone.identity(),
            "training_data": {"name": self.train_set.source, "images": len(self.train_set)},
            "weights": self.origin,
            "recipe": self.recipe.model_dump(mode="json"),
            "iterations": iterations,
        }

    def protocol(self) -> dict[str, Any]:
        return {**protocol_fields(self.recipe), "test_fingerprint": self.test_set.fingerprint()}

    def finish(self, run: RunDirectory, record: Record, facts: dict[str, Any]) -> None:
        save_detector(run, self.model, record, facts, best=self.best)
        run.finish(facts)
        logger.info("%s, figures and weights: %s", self.results, run.path)
