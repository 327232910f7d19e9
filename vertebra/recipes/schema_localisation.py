"""What can be set of a localisation: the per-class RPN of He et al. 2015, appendix C, its views and its test.

Plain data as `vertebra.recipes.schema` is: nothing here imports torch or another room.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vertebra.recipes.schema import (
    PIPELINE,
    Count,
    Pipeline,
    Ratio,
    Recipe,
    RunRecipe,
    Solver,
    check_positives,
    protocol_fields,
    refuse_warmup_until_error,
    require_length,
    require_weights,
)


class LocalisationSolver(Solver):
    """Optimisation of a localizer."""

    batch_size: int = Field(256, ge=1, description="Images in one step, over all devices.")
    lr: float = Field(0.001, gt=0, description="Learning rate after the warm-up, for a batch of lr_batch images.")


class LocalisationInput(Recipe):
    """Views of an image in training, and the centre crop of the test."""

    size: int = Field(224, ge=32, description="Side of the square that the network sees, pixels.")
    resize: int = Field(256, ge=32, description="Shorter side before the centre crop at test, pixels.")
    augment: Literal["scale", "crop", "none"] = Field(
        "scale",
        description="scale: shorter side drawn from 1 to 1.875 times resize, and a random crop (the 2015 paper); crop: "
        "random resized crop; none: the centre crop.",
    )
    min_scale: float = Field(0.25, gt=0, le=1, description="Smallest share of the image's area in a resized crop.")
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    colour: Literal["none", "pca"] = Field("none", description="pca: AlexNet's shift along the colours' main axes.")
    albumentations: Pipeline = Field(
        "", description=f"{PIPELINE}, with its boxes; all other settings apply to what it gives."
    )
    min_visible: float = Field(
        0.5, gt=0, le=1, description="Share of a box in the crop below which it is not learnt from."
    )

    def check(self) -> None:
        if self.size > self.resize:
            raise ValueError(
                f"input.size {self.size} is above input.resize {self.resize}, from which it is cropped; set the latter "
                f"to {self.size} or more"
            )


class PerClassRPN(Recipe):
    """The localizer on the cut backbone: a binary classifier and a box regressor a class."""

    cut_stride: int = Field(16, description="Stride of the map on which the RPN stands: 16 (conv4_x) or 32 (conv5_x).")
    freeze_stride: int = Field(4, ge=0, description="Stages up to this stride are not trained; 0: all are.")
    norms: Literal["frozen", "trained"] = Field("frozen", description="Batch norms: constant or trained.")
    anchor_sizes: tuple[Count, ...] = Field(
        (64, 96, 144, 216), min_length=1, description="Roots of the anchors' areas, pixels."
    )
    anchor_ratios: tuple[Ratio, ...] = Field((0.5, 1.0, 2.0), min_length=1, description="Anchors' height over width.")
    rpn_channels: int | None = Field(None, ge=1, description="Width of the 3x3 layer; none: the trunk's.")
    rpn_samples: int = Field(8, ge=1, description="Anchors an image in the loss.")
    rpn_positive: float = Field(0.5, gt=0, lt=1, description="Largest share of positive anchors in the loss.")
    positive_iou: float = Field(0.7, gt=0, le=1, description="Overlap from which on an anchor is positive.")
    negative_iou: float = Field(0.3, gt=0, le=1, description="Overlap below which an anchor is negative.")
    rpn_beta: float = Field(0.111, ge=0, description="Smooth-L1's turning point; 0: L1; 2015: 0.111.")

    def check(self) -> None:
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                f"model.negative_iou {self.negative_iou} is above model.positive_iou {self.positive_iou}: an anchor "
                "would be both; lower it"
            )
        check_positives("rpn_samples", self.rpn_samples, "rpn_positive", self.rpn_positive)


class LocalisationTest(Recipe):
    """Search for boxes at test, and the classifier whose classes they get."""

    view: Literal["centre", "dense"] = Field(
        "centre", description="centre: the centre crop; dense: the whole image, the network applied convolutionally."
    )
    scales: tuple[int, ...] = Field(
        (), description="Shorter sides of the dense view, pixels; several: the best box of all; none: input.resize."
    )
    candidates: int = Field(1, ge=1, description="Best anchors a view; several: the mean box of those that overlap.")
    vote_iou: float = Field(0.5, gt=0, le=1, description="Overlap with the best box that makes a candidate count.")
    classifier_view: Literal["1crop", "10crop", "dense", "multiscale"] = Field(
        "1crop", description="View by which the classifier predicts; see eval_backbone.py."
    )
    batch_size: int = Field(32, ge=1, description="Images at a time; fewer where their views are large.")
    limit: int | None = Field(None, ge=1, description="Evaluate on only N images, evenly spaced (for trials).")

    def check(self) -> None:
        if self.scales and self.view != "dense":
            raise ValueError("test.scales are those of the dense view: add --test.view dense")
        if any(side < 32 for side in self.scales):
            raise ValueError(f"test.scales {self.scales}: shorter sides are 32 pixels or more")


class LocalisationRecipe(RunRecipe):
    """Train a per-class RPN to localise each image's object, and score it."""

    weights: str = Field("", description="Backbone weights: a file, hf:USER/NAME, torchvision, or none (random).")
    classifier: Path | None = Field(
        None, description="Weights of train_backbone.py that predict the classes at test; none: the true class alone."
    )
    train_split: str = Field("train", description="What is trained on.")
    test_split: str = Field("val", description="What is evaluated on.")
    limit: int | None = Field(None, ge=1, description="Use only N training images, evenly spaced (for trials).")
    input: LocalisationInput = LocalisationInput()
    model: PerClassRPN = PerClassRPN()
    solver: LocalisationSolver = LocalisationSolver()
    test: LocalisationTest = LocalisationTest()

    def check(self) -> None:
        refuse_warmup_until_error(self.solver)

    def require_inputs(self) -> None:
        require_weights(self.weights, self.model)
        super().require_inputs()
        require_length(self.solver, self.eval_period)

    def protocol(self) -> dict[str, Any]:
        """Return the fields that make two runs comparable; the path of the classifier is not one of them."""
        return {name: value for name, value in protocol_fields(self).items() if name != "classifier"}
