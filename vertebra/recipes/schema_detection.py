"""What can be set of a detector: its images, its parts, its training and its test.

Plain data as `vertebra.recipes.schema` is: nothing here imports torch or another room.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vertebra.recipes.schema import (
    DETECTION_SETS,
    PIPELINE,
    Body,
    CellRecipe,
    Count,
    Pipeline,
    Ratio,
    Recipe,
    Solver,
    check_positives,
    refuse,
    refuse_warmup_until_error,
    require_length,
    require_weights,
    source_of,
)

FPN_LEVELS = 5  # strides 4 to 64
# Fields of Detector that have an effect with these bodies only, and those that have one with masks only.
BODIES_WITH: dict[str, tuple[str, ...]] = {
    "cut_stride": ("c4",),
    "fpn_channels": ("fpn",),
    "head_width": ("dc5", "fpn"),
    "head_convs": ("dc5", "fpn"),
    "mask_convs": ("dc5", "fpn"),
}
MASK_FIELDS = ("mask_convs", "mask_channels")

Side = Annotated[int, Field(ge=16)]  # of an image, pixels


class DetectionSolver(Solver):
    """Optimisation of a detector."""

    batch_size: int = Field(16, ge=1, description="Images in one step, over all devices.")
    lr: float = Field(0.02, gt=0, description="Learning rate after the warm-up, for a batch of lr_batch images.")
    warmup_iterations: int = Field(100, ge=0, description="Steps of linear warm-up.")


class DetectionInput(Recipe):
    """Sizes and augmentation of detection images, in pixels."""

    shorter_side: tuple[Side, ...] = Field(
        (600,), min_length=1, description="Shorter side; several: one is drawn, see sides."
    )
    test_shorter_side: int = Field(600, ge=16, description="Shorter side at test.")
    longer_side: int = Field(1000, ge=16, description="Upper bound of the longer side.")
    canvases: tuple[tuple[Side, Side], ...] = Field(
        (), description="Height and width of the canvases in training; none: chosen from the sizes."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    crowd: Literal["drop", "ignore"] = Field("ignore", description="Crowd regions in training.")
    difficult: Literal["train", "drop", "ignore"] = Field("train", description="VOC's difficult objects in training.")
    keep_empty: bool = Field(True, description="Keep images without objects as negatives.")
    sides: Literal["choice", "range", "batch"] = Field(
        "choice",
        description="choice: one of shorter_side is drawn for each image; range: any from its least to its greatest; "
        "batch: one of them for a whole batch, which pads a twentieth of its pixels instead of a fifth.",
    )
    photometric: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Strength of SSD's changes of brightness, contrast, saturation and hue; 1: as there.",
    )
    crop: Literal["none", "iou", "range"] = Field(
        "none",
        description="iou: SSD's parts that overlap an object by a drawn IoU, whose objects are those with their centre "
        "in it; range: any part with sides of crop_min to 1 of the image's.",
    )
    crop_min: float = Field(0.3, gt=0, le=1, description="Least share of the image's side that a crop takes.")
    crop_chance: float = Field(1.0, ge=0, le=1, description="Probability that an image is cropped; DETR: 0.5.")
    jitter: tuple[float, float] | None = Field(
        None,
        description="Least and greatest factor on the image's size, which is then cut or padded to the canvas; "
        "Ghiasi et al. 2021: 0.1 2.0 at a shorter_side and longer_side of 1024.",
    )
    albumentations: Pipeline = Field(
        "",
        description=f"{PIPELINE}, with boxes and masks; what it gives is resized and mirrored as set here. It takes "
        "the place of photometric, crop and jitter.",
    )
    repeat_threshold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Images of a class in a smaller share of them than this come more often, by the root of how much "
        "smaller (Gupta et al. 2019: 0.001); 0: all equally often.",
    )

    def idle(self) -> dict[str, str]:
        return dict.fromkeys(("crop_min", "crop_chance"), "without crop") if self.crop == "none" else {}

    def check(self) -> None:
        replaced = [name for name in ("photometric", "crop", "jitter") if getattr(self, name) not in (0, "none", None)]
        if self.albumentations and replaced:
            fields = " and ".join(f"input.{name}" for name in replaced)
            raise ValueError(f"input.albumentations takes the place of {fields}: leave out one or the other")
        if self.sides == "range" and len(set(self.shorter_side)) < 2:
            raise ValueError(
                f"input.sides range needs the least and the greatest input.shorter_side, not {self.shorter_side}; "
                "e.g. 640 800"
            )
        if self.sides == "batch" and self.canvases:
            raise ValueError("input.sides batch chooses canvases by the drawn side: leave input.canvases out")
        if self.jitter is not None and not 0 < self.jitter[0] <= self.jitter[1]:
            raise ValueError(
                f"input.jitter is the least and the greatest factor, both above 0, not {self.jitter}; e.g. 0.1 2.0"
            )


class Detector(Recipe):
    """Faster R-CNN, or Mask R-CNN, on one of three bodies."""

    body: Body = Field(
        "c4",
        description="c4: a cut backbone, the rest of it once a region (He et al. 2015, appendix A); dc5: all of it "
        "once an image, its last stage dilated; fpn: a feature pyramid (Lin et al. 2017).",
    )
    cut_stride: int = Field(
        16, description="c4: stride at which the backbone is cut: below once an image, above per RoI."
    )
    roi_size: int | None = Field(
        None, ge=1, description="Pooled cells a side; none: what the net above the cut asks for, 7 with dc5 and fpn."
    )
    pooling: Literal["align", "pool"] = Field(
        "align", description="RoIAlign, or the 2015 paper's RoIPool (not with fpn)."
    )
    conventions: Literal["vertebra", "detectron2", "torchvision"] = Field(
        "vertebra",
        description="For weights trained elsewhere. vertebra: anchors centred on cells, none on padding. detectron2: "
        "centred on cells' corners, on padding too, as many samples of a region as it has cells, masks' truth 0 or 1. "
        "torchvision: its anchors, those in whole pixels, and RoIAlign half a cell off.",
    )
    fpn_channels: int = Field(256, ge=1, description="fpn: channels of every level.")
    head_width: int = Field(1024, ge=1, description="dc5, fpn: width of the box head's hidden linear layers.")
    head_convs: int = Field(
        0, ge=0, description="dc5, fpn: 3x3 layers before one hidden linear layer; 0: two linear layers."
    )
    head_norms: Literal["none", "group", "batch", "sync"] = Field(
        "none",
        description="Norms in fpn, box and mask head, for training from scratch (Wu & He 2018); c4: one after the last "
        "stage (MoCo's protocol). sync: batch statistics over all GPUs.",
    )
    freeze_stride: int = Field(4, ge=0, description="Stages up to this stride are not trained; 0: all are.")
    norms: Literal["frozen", "trained", "sync"] = Field(
        "frozen", description="The backbone's batch norms: constant (paper), trained, or trained over all GPUs' images."
    )
    anchor_sizes: tuple[Count, ...] = Field(
        (32, 64, 128, 256, 512),
        min_length=1,
        description="Roots of the anchors' areas, pixels; fpn: one for each level, finest first.",
    )
    anchor_ratios: tuple[Ratio, ...] = Field((0.5, 1.0, 2.0), min_length=1, description="Anchors' height over width.")
    rpn_cross_border: bool = Field(
        True, description="Learn from anchors that cross the image's border; the 2015 papers do not."
    )
    rpn_channels: int | None = Field(None, ge=1, description="Width of the RPN's 3x3 layer; none: the body's.")
    rpn_samples: int = Field(256, ge=2, description="Anchors an image in the RPN's loss, up to half positive.")
    rpn_nms: float = Field(0.7, gt=0, le=1, description="IoU of the proposals' NMS.")
    rpn_beta: float = Field(0.0, ge=0, description="Smooth-L1's turning point in the RPN; 0: L1; 2015: 0.111.")
    proposals_before_nms: tuple[Count, Count] = Field((12000, 6000), description="Of each level, in training, at test.")
    proposals: tuple[Count, Count] = Field((2000, 1000), description="After NMS, of all levels, in training, at test.")
    rois: int = Field(512, ge=1, description="Regions an image in the head's loss.")
    roi_positive: float = Field(0.25, gt=0, lt=1, description="Largest share of positive regions.")
    roi_background_from: float = Field(0.0, ge=0, lt=0.5, description="Lowest IoU of background regions; 2015: 0.1.")
    box_beta: float = Field(0.0, ge=0, description="Smooth-L1's turning point in the head; 0: L1; 2015: 1.0.")
    class_agnostic: bool = Field(False, description="One box for all classes instead of one a class.")
    context: bool = Field(
        False, description="The whole image's features beside each region's (He et al. 2015, appendix B)."
    )
    masks: bool = Field(False, description="Mask R-CNN: a mask for each object as well.")
    mask_convs: int = Field(4, ge=0, description="dc5, fpn: 3x3 layers of the mask head.")
    mask_channels: int = Field(256, ge=1, description="Channels of the mask head.")

    @property
    def title(self) -> str:
        """Return its name: Mask R-CNN (fpn)."""
        return f"{'Mask' if self.masks else 'Faster'} R-CNN ({self.body})"

    def check(self) -> None:
        faults = []  # both at once, as a recipe of c4 that gets the body fpn may have them
        if self.body == "fpn" and self.pooling == "pool":
            faults.append("model.pooling pool has no form for a pyramid: use align with model.body fpn")
        if self.body == "fpn" and len(self.anchor_sizes) != FPN_LEVELS:
            faults.append(
                f"model.anchor_sizes has {len(self.anchor_sizes)} sizes, and a pyramid {FPN_LEVELS} levels (strides 4 "
                "to 64) with one each: give as many, such as 32 64 128 256 512"
            )
        refuse((faults, "; ".join(faults)))
        check_positives("rois", self.rois, "roi_positive", self.roi_positive)

    def idle(self) -> dict[str, str]:
        of_bodies = {name: f"with body {self.body}" for name, bodies in BODIES_WITH.items() if self.body not in bodies}
        of_masks = {} if self.masks else dict.fromkeys(MASK_FIELDS, "without masks")
        return of_bodies | of_masks


class DetectionTest(Recipe):
    """Treatment of a detector's boxes at test, and the figures that are made of them."""

    score: float = Field(0.05, ge=0, lt=1, description="Lowest score.")
    nms: float = Field(0.5, gt=0, le=1, description="IoU of the per-class NMS; VOC 2015: 0.3.")
    detections: int = Field(100, ge=1, description="Most detections an image.")
    voc_metric: Literal["voc07", "voc10"] = Field("voc07", description="11 points, or area under the curve.")
    batch_size: int = Field(1, ge=1, description="Images at a time.")
    limit: int | None = Field(None, ge=1, description="Evaluate on only N images, evenly spaced (for trials).")
    # Improvements of He et al. 2015, appendix B, and mirrored images.
    refine: bool = Field(False, description="Read each region again from its regressed box; NMS, then box voting.")
    refine_nms: float = Field(0.3, gt=0, le=1, description="IoU of the NMS with refine, instead of nms.")
    multi_scale: tuple[int, ...] = Field(
        (),
        description="Shorter sides, each region read at the two nearest to its ideal: 200 400 600 800 1000; the "
        "test size is one of them.",
    )
    multi_scale_region: int = Field(
        224, ge=1, description="Root of a region's area at its ideal size, pixels: the pre-training's view."
    )
    flip: bool = Field(False, description="Mean over the image and its mirror image.")

    def idle(self) -> dict[str, str]:
        needs = {"refine_nms": "refine", "multi_scale_region": "multi_scale"}
        return {name: f"without {needed}" for name, needed in needs.items() if not getattr(self, needed)}


class DetectionRecipe(CellRecipe):
    """Train Faster R-CNN or Mask R-CNN on any backbone, and evaluate it."""

    dataset: str = Field("voc07", description=f"One of {', '.join(DETECTION_SETS)}.")
    train_source: str | None = Field(
        None, description="Instead of the data set's: e.g. voc2012/trainval, json:A.json, yolo:data.yaml/train."
    )
    test_source: str | None = Field(
        None, description="Instead of the data set's: e.g. voc2007/test, json:B.json, yolo:data.yaml/val."
    )
    weights: str = Field(
        "",
        description="A backbone's weights or a detector's: a file, hf:USER/NAME[@REVISION] (the Hugging Face Hub), "
        "torchvision, or none (random).",
    )
    engine: Literal["vertebra", "detectron2"] = Field(
        "vertebra",
        description="Whose detector is built around the backbone: ours, or detectron2's, with its conventions.",
    )
    write_proposals: bool = Field(
        False, description="Write the RPN's proposals for the test set too, at the end: proposals.json, which is long."
    )
    input: DetectionInput = DetectionInput()
    model: Detector = Detector()
    solver: DetectionSolver = DetectionSolver()
    test: DetectionTest = DetectionTest()

    def check(self) -> None:
        super().check()
        refuse_warmup_until_error(self.solver)
        lacking = {  # detectron2
            "input.crowd ignore (set --input.crowd drop)": self.input.crowd == "ignore",
            "input.difficult ignore (set --input.difficult drop)": self.input.difficult == "ignore",
            "model.conventions torchvision": self.model.conventions == "torchvision",
            "model.context": self.model.context,
            f"model.head_norms {self.model.head_norms} with c4": self.model.head_norms != "none"
            and self.model.body == "c4",
            "write_proposals": self.write_proposals,
            "test.refine": self.test.refine,
            "test.multi_scale": bool(self.test.multi_scale),
            "test.flip": self.test.flip,
        }
        asked = ", no ".join(name for name, is_asked in lacking.items() if is_asked)
        sides, own = self.test.multi_scale, self.input.test_shorter_side
        refuse(
            (
                self.engine == "detectron2" and asked,
                f"engine detectron2 has no {asked}; leave that out, or use our engine",
            ),
            (self.dataset not in DETECTION_SETS, f"dataset {self.dataset!r} is not one of {', '.join(DETECTION_SETS)}"),
            (
                sides and (own not in sides or len(set(sides)) < 2 or min(sides) < 16),
                f"test.multi_scale needs two sizes or more of at least 16, and among them {own}, which is "
                f"input.test_shorter_side: not {' '.join(map(str, sides))}",
            ),
        )

    def source(self, part: Literal["train", "test"]) -> str:
        """Return the training or the test source as `data.open_detection` takes it. Raises RecipeError."""
        return source_of(self, part, DETECTION_SETS)

    def require_inputs(self) -> None:
        require_weights(self.weights, self.model)
        self.source("train")
        super().require_inputs()
        require_length(self.solver, self.eval_period)
