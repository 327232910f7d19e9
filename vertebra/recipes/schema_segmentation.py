"""What can be set of a semantic segmenter: its images, its head, its training and its test.

Plain data as `vertebra.recipes.schema` is: nothing here imports torch or another room.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vertebra.recipes.schema import (
    PIPELINE,
    CellRecipe,
    Pipeline,
    Recipe,
    Solver,
    refuse,
    refuse_warmup_until_error,
    require_length,
    require_weights,
    source_of,
)
from vertebra.recipes.schema_detection import Side

# A data set's name -> (training images, test images), each a `+`-joined list of sources of `open_semantic`.
SEGMENTATION_SETS: dict[str, tuple[str, str]] = {
    "voc12": ("voc2012/train", "voc2012/val"),
    "voc12aug": ("voc2012aug/train", "voc2012/val"),
    "ade20k": ("ade20k/training", "ade20k/validation"),
    "cityscapes": ("cityscapes/train", "cityscapes/val"),
    "coco_panoptic": ("coco_panoptic/train2017", "coco_panoptic/val2017"),
    "coco_stuff": ("coco_stuff/train2017", "coco_stuff/val2017"),
    "sample": ("sample/train", "sample/val"),
    "maps": ("", ""),  # one's own: both sources are to be given
}

# The recipe that a data set gets when no --config names another.
SEGMENTATION_RECIPES: dict[str, str] = {
    **dict.fromkeys(SEGMENTATION_SETS, "segmentation/voc12_deeplabv3.yaml"),
    "ade20k": "segmentation/ade20k_pyramid.yaml",
    "cityscapes": "segmentation/cityscapes_deeplabv3plus.yaml",
    "sample": "sample/segmentation.yaml",
}
SegmenterHead = Literal["fcn", "deeplabv3", "deeplabv3plus", "pyramid"]


class SegmentationSolver(Solver):
    """Optimisation of a segmenter."""

    batch_size: int = Field(16, ge=1, description="Images in one step, over all devices.")
    lr: float = Field(0.01, gt=0, description="Learning rate after the warm-up, for a batch of lr_batch images.")


class SegmentationInput(Recipe):
    """Sizes and augmentation of images, in pixels."""

    crop: tuple[Side, Side] = Field((512, 512), description="Height and width of the crop in training.")
    base_side: int | None = Field(
        None, ge=16, description="Shorter side to which images are brought before scale; none: their own."
    )
    scale: tuple[float, float] = Field((0.5, 2.0), description="Least and greatest factor on the image's size.")
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    photometric: float = Field(0.0, ge=0, le=1, description="Strength of SSD's changes of colour.")
    max_share: float = Field(
        1.0, gt=0, le=1, description="A crop of which one class takes more is drawn again, up to ten times; 1: never."
    )
    albumentations: Pipeline = Field(
        "",
        description=f"{PIPELINE}, with its labels; all other settings apply to what it gives. What it fills in is not "
        "learnt from.",
    )
    test_side: int | None = Field(None, ge=16, description="Shorter side at test; none: as the images are.")

    def check(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"input.scale is the least and the greatest factor, both above 0, not {self.scale}; e.g. 0.5 2.0"
            )


class SegmenterModel(Recipe):
    """The head on the backbone, and what of the backbone is trained."""

    head: SegmenterHead = Field(
        "deeplabv3",
        description="fcn: Long et al. 2015; deeplabv3, deeplabv3plus: Chen et al. 2017, 2018; pyramid: Kirillov et al. "
        "2019, on a feature pyramid.",
    )
    output_stride: Literal[8, 16, 32] = Field(
        16, description="Pixels that a step on the last map spans; stages beyond it are dilated."
    )
    auxiliary: float = Field(
        0.4, ge=0, description="Weight of a second head's loss, on the map before the last, in training; 0: none."
    )
    freeze_stride: int = Field(0, ge=0, description="Stages up to this stride are not trained; 0: all are.")
    norms: Literal["frozen", "trained", "sync"] = Field(
        "trained", description="The backbone's batch norms: constant, trained, or trained over all GPUs' images."
    )

    @property
    def last_stride(self) -> int:
        """Return the stride of the backbone's last map; a pyramid stands on one that is not dilated."""
        return 32 if self.head == "pyramid" else self.output_stride

    def idle(self) -> dict[str, str]:
        return (
            {"auxiliary": "with head pyramid", "output_stride": "with head pyramid"} if self.head == "pyramid" else {}
        )


class SegmentationTest(Recipe):
    """How images are seen at test."""

    scales: tuple[float, ...] = Field((1.0,), min_length=1, description="Factors on the image's size, averaged.")
    flip: bool = Field(False, description="Mean over the image and its mirror image.")
    window: tuple[Side, Side] | None = Field(
        None, description="Height and width of windows that slide over the image; none: the whole image at once."
    )
    batch_size: int = Field(1, ge=1, description="Images at a time.")
    limit: int | None = Field(None, ge=1, description="Evaluate on only N images, evenly spaced (for trials).")

    def check(self) -> None:
        refuse((any(scale <= 0 for scale in self.scales), f"test.scales {self.scales}: factors are above 0"))

    @property
    def is_plain(self) -> bool:
        """True where one look at the whole image is all."""
        return self.scales == (1.0,) and not self.flip and self.window is None


class SegmentationRecipe(CellRecipe):
    """Train a semantic segmenter on any backbone, and evaluate it."""

    dataset: str = Field("voc12aug", description=f"One of {', '.join(SEGMENTATION_SETS)}.")
    train_source: str | None = Field(None, description="Instead of the data set's: e.g. voc2012/train, maps:DIR/train.")
    test_source: str | None = Field(None, description="Instead of the data set's: e.g. voc2012/val, maps:DIR/val.")
    weights: str = Field("", description="Backbone weights: a file, torchvision, or none (random).")
    input: SegmentationInput = SegmentationInput()
    model: SegmenterModel = SegmenterModel()
    solver: SegmentationSolver = SegmentationSolver()
    test: SegmentationTest = SegmentationTest()

    def check(self) -> None:
        super().check()
        refuse_warmup_until_error(self.solver)
        refuse(
            (
                self.dataset not in SEGMENTATION_SETS,
                f"dataset {self.dataset!r} is not one of {', '.join(SEGMENTATION_SETS)}",
            ),
            (
                self.model.head.startswith("deeplab")
                and self.solver.batch_size < 2 * self.gpus * self.solver.accumulate,
                f"solver.batch_size {self.solver.batch_size} leaves a process one image at a time, over which the norm "
                f"of {self.model.head}'s pooled branch is undefined: give {2 * self.gpus * self.solver.accumulate}, "
                "or another --model.head",
            ),
        )

    def source(self, part: Literal["train", "test"]) -> str:
        """Return the training or the test source as `data.open_semantic` takes it. Raises RecipeError."""
        return source_of(self, part, SEGMENTATION_SETS)

    def require_inputs(self) -> None:
        require_weights(self.weights, self.model)
        super().require_inputs()
        require_length(self.solver, self.eval_period)
        self.source("train")
        if not self.validation:
            self.source("test")
