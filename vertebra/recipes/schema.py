"""What can be set: the recipes of backbone training and comparison, and what all recipes share, as plain data.

A recipe is a frozen pydantic model. Every field is a flag of its tool (`--solver.lr 0.02`), a key of its YAML file,
and a line of the resolved `config.yaml` in the run directory. Nothing here imports torch or another room, so that
`--help` answers at once; `vertebra.build` turns a recipe into parts.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from vertebra.ground import parse
from vertebra.ground.errors import RecipeError
from vertebra.ground.formats import did_you_mean
from vertebra.recipes.pipelines import read_pipeline


class Recipe(BaseModel):
    """Base of all recipes: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def given(self, *names: str) -> dict[str, Any]:
        """Return those of the fields that are not at their defaults, with their values."""
        fields = type(self).model_fields
        return {name: value for name in names if (value := getattr(self, name)) != fields[name].default}

    def idle(self) -> dict[str, str]:
        """Return the fields that have no effect as the others are set, each with the reason."""
        return {}

    def check(self) -> None:
        """Raise ValueError with a sentence for fields that do not go together."""

    @model_validator(mode="after")
    def _check_whole(self, info: ValidationInfo) -> Recipe:
        """Check the fields together, and reset idle ones: recipes that differ in those alone are one recipe.

        A file that flags will complete is only a part (`vertebra.recipes.command_line.validated`).
        """
        if (info.context or {}).get("is_part"):
            return self
        self.check()
        for name, reason in self.idle().items():
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value != default:
                _note(f"note: {name} {value} has no effect {reason}")
                self.__dict__[name] = default
        return self


@functools.cache
def _note(sentence: str) -> None:
    """Log a sentence once, and by one of a training's processes."""
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("vertebra.recipes").warning(sentence)


def refuse(*faults: tuple[object, str]) -> None:
    """Raise ValueError with the sentence of the first fault that is there: (is it there, sentence)."""
    for is_there, sentence in faults:
        if is_there:
            raise ValueError(sentence)


def _not_negative(workers: int | str) -> int | str:
    if isinstance(workers, int) and workers < 0:
        raise ValueError(f"give 0 or more, or auto, not {workers}")
    return workers


# Trackers of experiments (`vertebra.engine.trackers`), and the modules that each needs.
TRACKERS = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy"), "trackio": ("trackio",)}


def _known_trackers(track: tuple[str, ...]) -> tuple[str, ...]:
    for name in track:
        kind = name.partition(":")[0]
        if kind not in TRACKERS:
            raise ValueError(f"there is no tracker {kind}; {did_you_mean(kind, TRACKERS, 'the trackers are')}")
        if track.count(name) > 1:
            raise ValueError(f"{name} is there twice: leave one out")
    return track


def require_trackers(track: tuple[str, ...]) -> None:
    """Raise RecipeError where a tracker's package is not installed."""
    for name in track:
        kind, _, place = name.partition(":")
        is_directory = bool(place) and "://" not in place  # only MLflow's needs a database
        modules = TRACKERS[kind] if is_directory else TRACKERS[kind][:1]
        # A folder that a tracker left in the working directory has a spec as well, but no origin.
        if not all((spec := find_spec(module)) and spec.origin for module in modules):
            raise RecipeError(f"--track {name}", f"{kind} is not installed here", f"run: pip install {kind}")


Count = Annotated[int, Field(ge=1)]  # in tuples
Ratio = Annotated[float, Field(gt=0)]
Body = Literal["c4", "dc5", "fpn"]
Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: the GPU if there is one.")]
Gpus = Annotated[int, Field(ge=1, description="Processes to start on this machine (as torchrun does).")]
Workers = Annotated[
    int | Literal["auto"],  # a bound on the int alone would be spelt out in the command line's message
    AfterValidator(_not_negative),
    Field(description="Loader processes for each process; auto: 2 to 16, as many as it has cores to spare."),
]
Track = Annotated[
    tuple[str, ...],
    AfterValidator(_known_trackers),
    Field(
        description="Trackers that follow the training, beside the files in its directory: wandb[:PROJECT], "
        "mlflow:DIR or mlflow:URI, trackio[:PROJECT]."
    ),
]
Pipeline = Annotated[str, BeforeValidator(read_pipeline)]
PIPELINE = (
    "A pipeline of albumentations: a file (by albumentations.save, or a list), or a list of {Name: {argument: value}}. "
    "It sees the whole image, decoded in full"
)
# Of a test: the precision of the training, or another.
TestPrecision = Annotated[
    Literal["recipe", "auto", "fp32", "bf16", "fp16"], Field(description="recipe: as in training.")
]

# What cannot change a result: paths, workers, memory, logging, the device count at equal global batch.
NO_EFFECT = frozenset(
    {
        *("data", "output", "resume", "device", "gpus", "workers", "input.cache_mb"),
        *("compile", "checkpoint_activations", "write_proposals"),
        *("log_period", "checkpoint_period", "eval_period", "keep_checkpoints", "keep_best"),
        "track",
    }
)
# Fields that came later than the first runs, and the value with which all is as before.
ADDED: dict[str, Any] = {"validation": 0.0, "sweep": "", "model.rpn_cross_border": True, "input.albumentations": ""}
ADDED |= {"drop_path": None, "solver.layer_decay": 1.0, "engine": "vertebra"}

# What a comparison varies.
COMPARED = frozenset({"backbone", "width", "shortcut", "stride_in", "weights", "seed"})

# A data set's name -> (training images, test images), each a `+`-joined list of sources of `data.open_detection`.
DETECTION_SETS: dict[str, tuple[str, str]] = {
    "voc07": ("voc2007/trainval", "voc2007/test"),
    "voc12": ("voc2012/trainval", "voc2007/test"),
    "voc0712": ("voc2007/trainval+voc2012/trainval", "voc2007/test"),
    "voc0712pp": ("voc2007/trainval+voc2007/test+voc2012/trainval", "voc2012/test"),
    "coco": ("coco/train2017", "coco/val2017"),
    "coco2014": ("coco/train2014", "coco/val2014"),  # the 2015 papers' 80k and 40k images
    "imagenet_det": ("imagenet_det/train", "imagenet_det/val"),
    "sample": ("sample/train", "sample/val"),
    # One's own: both sources are to be given.
    "json": ("", ""),
    "yolo": ("", ""),
    "vocxml": ("", ""),
}
# How one's own sources are written, after `NAME:`.
OWN_SOURCES = {"json": "{}.json", "yolo": "data.yaml/{}", "vocxml": "DIR/{}", "maps": "DIR/{}"}

# The recipe that a data set gets when no --config names another.
DEFAULT_RECIPES: dict[str, str] = {
    "voc07": "detection/voc07_c4.yaml",
    "voc12": "detection/voc0712_c4.yaml",
    "voc0712": "detection/voc0712_c4.yaml",
    "voc0712pp": "detection/voc0712_c4.yaml",
    "coco": "detection/coco_c4_1x.yaml",
    "coco2014": "detection/coco_c4_1x.yaml",
    "imagenet_det": "detection/coco_c4_1x.yaml",
    "json": "detection/coco_c4_1x.yaml",
    "yolo": "detection/coco_c4_1x.yaml",
    "vocxml": "detection/voc0712_c4.yaml",
    "sample": "sample/detection.yaml",
}


# Lengths of one thing in several units, of which a recipe has one, and the value of a length that is not given.
ONE_LENGTH: tuple[dict[str, Any], ...] = (
    {"iterations": None, "epochs": None},
    {"warmup_iterations": 0, "warmup_epochs": None, "warmup_until_error": None},
)


class Solver(Recipe):
    """Optimisation. Iterations are optimiser steps on the global batch."""

    batch_size: int = Field(256, ge=1, description="Images in one step, over all devices.")
    iterations: int | None = Field(None, ge=1, description="Length of the training in steps; or give epochs.")
    epochs: float | None = Field(None, gt=0, description="Length of the training in passes over the data.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd is the papers'.")
    lr: float = Field(0.1, gt=0, description="Learning rate after the warm-up, for a batch of lr_batch images.")
    lr_batch: int | None = Field(
        None,
        ge=1,
        description="Batch that lr is meant for: another batch_size scales the rate linearly (Goyal et al. 2017, 2.1); "
        "none: lr is taken as it is.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(False, description="Nesterov's momentum instead of the classical one.")
    weight_decay: float = Field(1e-4, ge=0, description="L2 penalty.")
    decay_norms: bool = Field(True, description="Decay norms' scales and all biases too, as the papers do.")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor on the rate of each block of the backbone below the one after it; Li et al. 2022: 0.7.",
    )
    schedule: Literal["constant", "steps", "cosine", "linear", "poly", "plateau"] = Field(
        "steps",
        description="steps: times gamma at each milestone; plateau: times gamma when the error stalls; linear: to 0; "
        "poly: DeepLab's, linear to the power of 0.9.",
    )
    milestones: tuple[float, ...] = Field(
        (), description="Fractions of the training at which the rate drops, e.g. 0.666667 0.888889 (60k, 80k of 90k)."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop.")
    patience: int = Field(5, ge=0, description="Evaluations without improvement that a plateau waits for.")
    warmup_iterations: int = Field(0, ge=0, description="Steps of linear warm-up.")
    warmup_epochs: float | None = Field(
        None, gt=0, description="Linear warm-up in passes over the data, instead of warmup_iterations."
    )
    warmup_factor: float = Field(0.001, ge=0, le=1, description="Share of lr at the first step of the warm-up.")
    warmup_until_error: float | None = Field(
        None,
        gt=0,
        lt=100,
        description="Instead of a warm-up of stated length: warmup_factor of lr until the training error falls below "
        "this, per cent (He et al. 2015, 4.2: 0.1 of it until 80 for 110 layers).",
    )
    accumulate: int = Field(1, ge=1, description="Parts into which a step's batch is cut to save memory.")
    grad_clip: float | None = Field(None, gt=0, description="Largest gradient norm; none: not clipped.")

    def check(self) -> None:
        if any(not 0 < fraction < 1 for fraction in self.milestones):
            raise ValueError(
                f"solver.milestones are fractions of the training between 0 and 1, not {self.milestones}; "
                "write 60k of 90k iterations as 0.666667"
            )
        for lengths in ONE_LENGTH:
            given = [f"solver.{name}" for name, none in lengths.items() if getattr(self, name) != none]
            refuse((len(given) > 1, f"{' and '.join(given)} are two lengths: leave one of them out"))

    def rate(self) -> float:
        """Return the learning rate for this batch size."""
        return self.lr * self.batch_size / self.lr_batch if self.lr_batch else self.lr


class OnDevices(Recipe):
    """Where a command's work runs."""

    device: Device = "auto"
    gpus: Gpus = 1
    workers: Workers = "auto"


class OfTest(OnDevices):
    """Where a trained network is tested, and in which precision."""

    precision: TestPrecision = "recipe"


class RunRecipe(Recipe):
    """Settings of every training: the network, where it runs, where it writes."""

    backbone: str = Field(
        "r50", description="r18..r152, plain18/34, vgg11..19[_bn], cifar_*, torchvision:N, timm:N, FILE.py:FUNCTION."
    )
    width: float = Field(1.0, gt=0, description="Factor on all channel counts.")
    shortcut: Literal["A", "B", "C"] = Field("B", description="A zero-padded, B projections where needed, C all.")
    stride_in: Literal["1x1", "3x3"] = Field("3x3", description="Where a bottleneck strides: paper, torchvision.")
    drop_path: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Probability that an outside network leaves out its last block in training, and earlier ones less "
        "often (stochastic depth); none: the network's own.",
    )
    data: Path | None = Field(None, description="Directory of the data set.")
    output: Path | None = Field(None, description="Run directory; default runs/JOB_BACKBONE_DATA_SEED.")
    resume: bool = Field(False, description="Continue the run in --output; does nothing if it is finished.")
    device: Device = "auto"
    gpus: Gpus = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 where the device is fast at it, fp16 on Volta and Turing, else fp32. fp32 leaves "
        "convolutions in TF32 on GPUs that have it.",
    )
    seed: int = Field(0, ge=0, description="Seed of initialisation, order and augmentation.")
    workers: Workers = "auto"
    track: Track = ()
    log_period: int = Field(20, ge=1, description="Steps between log lines.")
    checkpoint_period: int = Field(1000, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints that stay on disk.")
    keep_best: bool = Field(
        True,
        description="Keep what was best by the evaluations that eval_period asks for (top-1, AP, located): its "
        "checkpoint as best.pt, its weights as model_best.safetensors.",
    )
    eval_period: int | None = Field(None, ge=1, description="Steps between evaluations; none: at the end.")

    def data_directory(self) -> Path:
        """Return the data set's directory. Raises RecipeError where none was given."""
        if self.data is None:
            raise RecipeError("--data is missing: the directory of the data set")
        return self.data

    def require_inputs(self) -> None:
        """Raise RecipeError where a training lacks what has no default, or a tracker its package."""
        self.data_directory()
        require_trackers(self.track)


class CellRecipe(RunRecipe):
    """Settings of what a matrix trains in its cells: detectors and segmenters."""

    limit: int | None = Field(None, ge=1, description="Use only N training images, evenly spaced (for trials).")
    validation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the training images that is set aside, by a hash of their ids, and tested on instead of "
        "the test set.",
    )
    sweep: str = Field(
        "",
        description="What compare.py --sweep chose a field's value by, FIELD: VALUES, RULE; a record, changes nothing.",
    )

    def check(self) -> None:
        name = self.sweep.partition(":")[0]
        refuse((name and name not in flatten(self), f"sweep names {name}, which is no field of this recipe"))


class ClassificationInput(Recipe):
    """Views of an image in training and at test (1 centre crop)."""

    size: int = Field(224, ge=8, description="Side of the square that the network sees, pixels.")
    resize: int = Field(256, ge=8, description="Shorter side before the centre crop at test, pixels.")
    test_size: int | None = Field(None, ge=8, description="Side of the square at test, pixels; none: size.")
    augment: Literal["crop", "scale", "pad", "none"] = Field(
        "crop",
        description="crop: random resized crop; scale: shorter side drawn from 1 to 1.875 times resize, and a random "
        "crop (the 2015 paper); pad: an eighth of padding and a random crop (CIFAR).",
    )
    min_scale: float = Field(0.08, gt=0, le=1, description="Smallest share of the image's area in a random crop.")
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    colour: Literal["none", "pca"] = Field("none", description="pca: AlexNet's shift along the colours' main axes.")
    policy: Literal["none", "trivial", "rand"] = Field(
        "none", description="trivial: TrivialAugment (wide); rand: RandAugment, two operations of policy_magnitude."
    )
    policy_magnitude: int = Field(9, ge=0, le=30, description="Strength of RandAugment's operations.")
    erase: float = Field(0.0, ge=0, le=1, description="Probability that a random rectangle is erased.")
    albumentations: Pipeline = Field(
        "",
        description=f"{PIPELINE}; all other settings apply to what it gives. With a crop of its own set augment to "
        "none, which then resizes its images to size.",
    )
    repeats: int = Field(1, ge=1, description="Views of each drawn image in an epoch (repeated augmentation).")
    start_size: int | None = Field(
        None, ge=8, description="Side at the start of the training, growing to size (progressive size); none: size."
    )
    grow_until: float = Field(0.8, gt=0, le=1, description="Fraction of the training at which size is reached.")
    resident: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Keep the whole data set on the device and augment it there; auto: small sets of small images.",
    )
    cache_mb: int = Field(2048, ge=0, description="Memory for decoded images, MB; 0: decode every time.")

    def beyond_device(self) -> list[str]:
        """Return the settings that only loader processes can carry out, not the device."""
        settings = {
            "augment": self.augment not in ("pad", "none"),
            "colour": self.colour != "none",
            "policy": self.policy != "none",
            "erase": self.erase > 0,
            "repeats": self.repeats > 1,
            "start_size": self.start_size is not None,
        }
        beyond = [f"input.{name} {getattr(self, name)}" for name, is_beyond in settings.items() if is_beyond]
        return beyond + ["input.albumentations"] * bool(self.albumentations)

    def check(self) -> None:
        beyond = self.beyond_device()
        name, side = ("size", self.size) if self.test_size is None else ("test_size", self.test_size)
        refuse(
            (
                self.resident == "yes" and beyond,
                f"input.resident yes pads, crops and mirrors on the device, and cannot do {', '.join(beyond)}; "
                "leave that out, or give --input.resident no",
            ),
            (
                side > self.resize,
                f"input.{name} {side} is above input.resize {self.resize}, from which it is cropped at test; "
                f"set the latter to {side} or more",
            ),
            (
                self.start_size is not None and self.start_size > self.size,
                f"input.start_size {self.start_size} is above input.size {self.size}, to which pictures grow; "
                f"set it to {self.size} or less",
            ),
        )


class BackboneRecipe(RunRecipe):
    """Train a backbone as a classifier on a folder of classes."""

    weights: str | None = Field(
        None,
        description="Start from these weights: a file, hf:USER/NAME[@REVISION], torchvision; the classifier is new.",
    )
    shallow_weights: Path | None = Field(
        None, description="Start from a shallower VGG's first four and fully connected layers (its paper, 3.1)."
    )
    train_split: str = Field("train", description="What is trained on; train45k: nine tenths of it.")
    test_split: str = Field("val", description="What is evaluated on; val5k: the tenth beside train45k.")
    limit: int | None = Field(None, ge=1, description="Use only N training images, evenly spaced (for trials).")
    input: ClassificationInput = ClassificationInput()
    zero_init_residual: bool = Field(False, description="Each block's last norm starts at 0 (Goyal et al., 5.1).")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Probability mass that all classes share alike.")
    mixup: float = Field(0.0, ge=0, description="Alpha of mixup; 0: none. With cutmix each batch draws one of them.")
    cutmix: float = Field(0.0, ge=0, description="Alpha of CutMix; 0: none.")
    ema: float = Field(0.0, ge=0, lt=1, description="Decay a step of the weights' moving average; 0: none is kept.")
    compile: bool = Field(False, description="Compile the step (CUDA graphs): pays for small nets on a GPU.")
    checkpoint_activations: bool = Field(
        False, description="Compute blocks' activations again in the backward pass: slower, and far less memory."
    )
    recompute_norms: int = Field(
        50_000, ge=0, description="Training images over which norm statistics are computed exactly at the end."
    )
    solver: Solver = Solver()

    def check(self) -> None:
        refuse(
            (
                self.weights is not None and self.shallow_weights is not None,
                "--weights and --shallow-weights both set the first weights: give one of them",
            ),
            (
                self.compile and self.checkpoint_activations,
                "--compile and --checkpoint-activations do not go together: leave one of them out",
            ),
        )

    def require_inputs(self) -> None:
        super().require_inputs()
        require_length(self.solver, self.eval_period)


def require_weights(weights: str, model: Any) -> None:
    """Raise RecipeError where what stands on a backbone has no weights to start from.

    model: its settings. Random layers that never learn are no baseline.
    """
    is_frozen = model.norms == "frozen" or model.freeze_stride > 0
    if not weights:
        raise RecipeError("--weights is missing: a file of the backbone's weights, torchvision, or none")
    if weights == "none" and is_frozen:
        raise RecipeError(
            "--weights none trains everything: add --model.norms trained --model.freeze-stride 0 "
            "(and use the same for the backbone that it is compared with)"
        )


def require_length(solver: Solver, eval_period: int | None) -> None:
    """Raise RecipeError where a training has no length, or its rate would wait for evaluations that never come."""
    if solver.schedule == "plateau" and eval_period is None:
        raise RecipeError("--solver.schedule plateau follows the evaluations: give --eval-period as well")
    if solver.iterations is None and solver.epochs is None:
        raise RecipeError("the length of the training is missing: give --solver.iterations or --solver.epochs")


def refuse_warmup_until_error(solver: Solver) -> None:
    """Raise ValueError for a warm-up that follows figures which a detector's or a localizer's training lacks."""
    if solver.warmup_until_error is not None:
        raise ValueError("solver.warmup_until_error follows a classifier's error, which no other training measures")


def source_of(recipe: Any, part: Literal["train", "test"], sets: Mapping[str, tuple[str, str]]) -> str:
    """Return a recipe's training or test source, its own or that of its data set among `sets`.

    Raises RecipeError when the data set is one's own and the source is missing; of a training, all that it lacks.
    """
    own = zip(("train", "test"), (recipe.train_source, recipe.test_source), sets[recipe.dataset])
    sources = {name: given or default for name, given, default in own}
    if sources[part]:
        return sources[part]
    also = ("test",) if part == "train" and not recipe.validation else ()
    form = f"{recipe.dataset}:{OWN_SOURCES[recipe.dataset]}"
    splits = {"train": "train", "test": "val"}
    lacking = [f"--{name}-source {form.format(splits[name])}" for name in (part, *also) if not sources[name]]
    raise RecipeError(f"--dataset {recipe.dataset} needs {' and '.join(lacking)}")


def check_positives(name: str, samples: int, share_name: str, share: float) -> None:
    """Raises ValueError where a detector's loss samples no positive box: then none is ever learnt."""
    if int(samples * share) < 1:
        raise ValueError(
            f"model.{name} {samples} leaves no place to a positive at model.{share_name} {share:g}, so that no box "
            f"would ever be learnt: set it to {ceil(1 / share)} or more"
        )


def path_part(name: str) -> str:
    """Write a backbone's name as a part of a path (torchvision:resnet50 -> torchvision-resnet50)."""
    return name.replace(":", "-").replace("/", "-")


def flag_of(field: str) -> str:
    """Write a field as a flag of the command line (solver.batch_size -> --solver.batch-size)."""
    return "--" + field.replace("_", "-")


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as one level of JSON-able values with dotted names: {"solver.lr": 0.02, ...}."""
    return parse.flatten(recipe.model_dump(mode="json"))


def protocol_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that make two runs comparable: all that can change a result and is not what is compared.

    Of a source `json:PATH` (`yolo:`, `vocxml:`, `maps:`) the name alone is kept; the fingerprint stands for its
    content. Where a sweep has chosen a field's value, the sweep is protocol and the value is not. Fields of ADDED are
    left out at their neutral values.
    """
    left_out = may_differ(recipe) | COMPARED | {getattr(recipe, "sweep", "").partition(":")[0]}
    flat = flatten(recipe)
    left_out |= {name for name, neutral in ADDED.items() if flat.get(name) == neutral}
    fields = {name: value for name, value in flat.items() if name not in left_out}
    for name in ("train_source", "test_source"):
        if fields.get(name):
            fields[name] = "+".join(_without_directory(part) for part in fields[name].split("+"))
    return fields


def may_differ(recipe: Recipe) -> frozenset[str]:
    """Return the fields that cannot change this recipe's result: a resumed run may have other values of them."""
    solver = getattr(recipe, "solver", None)
    is_steered = solver is not None and solver.schedule == "plateau"  # by the figures of its evaluations
    return NO_EFFECT - {"eval_period"} if is_steered else NO_EFFECT


def _without_directory(source: str) -> str:
    kind, colon, path = source.partition(":")
    is_own = colon and kind.removesuffix("0") in OWN_SOURCES
    return f"{kind}:{Path(path).name}" if is_own else source
