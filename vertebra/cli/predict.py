"""Detect objects in pictures and videos with weights of train_det.py: drawn copies, and COCO results.

python tools/predict.py photos/ --weights runs/det_r101_coco_0

python tools/predict.py 'photos/**/*.jpg' clip.mp4 --weights model.safetensors --score 0.7 --output found

python tools/predict.py a.jpg b.png --weights torchvision:maskrcnn_resnet50_fpn --classes person dog --json-only

In the output directory are the drawn pictures and videos under their own names; predictions.json, COCO results of all
that was found; and images.json, with the file of each image_id (pycocotools reads the two together).
"""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from vertebra.cli.common import in_processes
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import parse_recipe, validated
from vertebra.recipes.schema import Device, Recipe, TestPrecision, Workers
from vertebra.recipes.schema_detection import DetectionRecipe

if TYPE_CHECKING:
    import torch

    from vertebra.data.datasets.pictures import Inputs
    from vertebra.engine.distributed import World
    from vertebra.evaluation.predict.pictures import Painter, PictureDetections, PictureResults

logger = logging.getLogger("vertebra.cli.predict")


class Settings(Recipe):
    """Which detector, on which pictures."""

    inputs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="PICTURES")]] = Field(
        description="Images, videos, folders of them, patterns in quotes."
    )
    weights: str = Field(
        description="A run directory of train_det.py, a detector's file, hf:USER/NAME, or torchvision:NAME[=FILE]."
    )
    output: Path = Field(Path("runs/predict"), description="Where the drawings and the JSON files go.")
    score: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Lowest score that is drawn; predictions.json goes down to the recipe's, or to this if lower.",
    )
    classes: tuple[str, ...] = Field((), description="Only these classes, drawn and in the JSON [all].")
    json_only: bool = Field(False, description="Draw nothing.")
    batch_size: int | None = Field(None, ge=1, description="Images at a time, instead of the recipe's at test.")
    workers: Workers = "auto"
    device: Device = "auto"
    precision: TestPrecision = "recipe"


def main(arguments: list[str]) -> int:
    from vertebra.build.results import require_detector
    from vertebra.data.datasets.pictures import find_pictures

    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    if not settings.inputs:
        raise RecipeError("name images, videos or folders; see --help")
    inputs = find_pictures(settings.inputs)
    check_output(settings.output, inputs)
    require_detector(settings.weights)
    return in_processes(1, settings.device, lambda world: predict(settings, inputs, world))


@dataclass(frozen=True)
class Detector:
    """A model and the names of its labels. kept: the category ids that are asked for."""

    model: Any
    recipe: DetectionRecipe
    device: torch.device
    names: Mapping[int, str]
    kept: frozenset[int]

    def detect(self, batches: Iterable[Any], description: str, total: int | None) -> Iterator[PictureDetections | str]:
        """Yield the detections in each picture, with a progress bar."""
        from vertebra.build.training import autocast_of
        from vertebra.engine.logs import progress
        from vertebra.evaluation.predict.pictures import detect_pictures

        autocast = autocast_of(self.device, self.recipe.precision)
        ids = list(self.names)
        found = detect_pictures(self.model, batches, ids, kept=self.kept, device=self.device, autocast=autocast)
        return progress(found, description=description, total=total)


def predict(settings: Settings, inputs: Inputs, world: World) -> int:
    """Detect in all pictures, draw, write, and print what was left out."""
    from vertebra.engine.logs import setup_logging
    from vertebra.evaluation.predict.pictures import Painter, PictureResults, drawing_names
    from vertebra.ground.files import write_json

    setup_logging()
    names = drawing_names(inputs.images, inputs.videos)
    detector = open_detector(settings, world)
    settings.output.mkdir(parents=True, exist_ok=True)
    targets = [settings.output / name for name in names]
    painter = None if settings.json_only else Painter(detector.names, settings.score)
    results = PictureResults()
    try:
        predict_images(detector, painter, inputs.images, targets, results)
        next_id = len(inputs.images) + 1
        for path, target in zip(inputs.videos, targets[len(inputs.images) :]):
            next_id += predict_video(detector, painter, path, target, results, next_id)
    finally:  # interrupted, what was found so far is kept
        write_json(settings.output / "predictions.json", results.entries, compact=True)
        write_json(settings.output / "images.json", results.index(detector.names), compact=True)
    drawn = f", {painter.drawn} drawn (score {settings.score:g} or more)" if painter else ""
    images = "1 image" if len(results.images) == 1 else f"{len(results.images)} images"
    print(f"{images}, {len(results.entries)} detections{drawn}: {settings.output}")
    if results.skipped:
        print(f"error: not read ({len(results.skipped)}):", *results.skipped, sep="\n  ", file=sys.stderr)
    return 1 if results.skipped else 0


def check_output(output: Path, inputs: Inputs) -> None:
    """Raises RecipeError where files that are not an earlier prediction's would be overwritten."""
    if output.exists() and not output.is_dir():
        raise RecipeError(f"--output {output} is a file; name a directory")
    here = [path for path in (*inputs.images, *inputs.videos) if path.resolve().parent == output.resolve()]
    if here:
        raise RecipeError(f"--output {output} is where {here[0].name} lies, which would be drawn over; name another")
    if output.exists() and any(output.iterdir()) and not (output / "images.json").is_file():
        raise RecipeError(f"--output {output} holds other files; name a new directory, or one of an earlier prediction")


def open_detector(settings: Settings, world: World) -> Detector:
    """Return the detector of the weights, with what the command line changes."""
    from vertebra.build.detector import make_tested
    from vertebra.build.trained_detector import read_detector
    from vertebra.engine import precision

    trained = read_detector(settings.weights)
    recipe, names = changed(trained.recipe, settings), trained.names
    recipe = recipe.model_copy(update={"precision": precision.resolve(recipe.precision, world.device)})
    kept = chosen_classes(settings.classes, names)
    model = trained.restore(recipe).to(world.device)
    return Detector(make_tested(recipe, [model]), recipe, world.device, names, kept)


def changed(recipe: DetectionRecipe, settings: Settings) -> DetectionRecipe:
    """Return the recipe with what the command line changes."""
    test = {
        "score": min(recipe.test.score, settings.score),
        "batch_size": recipe.test.batch_size if settings.batch_size is None else settings.batch_size,
    }
    one_size = recipe.test.model_dump(exclude={"multi_scale", "multi_scale_region"})  # at which pictures are read
    changes: dict[str, Any] = {"workers": settings.workers, "test": {**one_size, **test}}
    if settings.precision != "recipe":
        changes["precision"] = settings.precision
    return validated(DetectionRecipe, {**recipe.model_dump(), **changes}, "the command line")


def chosen_classes(wanted: tuple[str, ...], names: Mapping[int, str]) -> frozenset[int]:
    """Return the ids of the named classes; of all where none is named."""
    for name in wanted:
        if name not in names.values():
            near = difflib.get_close_matches(name, names.values(), n=1)
            hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(names.values())}"
            raise RecipeError(f"--classes {name}: the detector has no such class; {hint}")
    return frozenset(category_id for category_id, name in names.items() if not wanted or name in wanted)


def predict_images(
    detector: Detector, painter: Painter | None, paths: Sequence[Path], targets: Sequence[Path], results: PictureResults
) -> None:
    """Add the results of all image files, whose ids count from 1, and draw each."""
    from vertebra.build import detection_data
    from vertebra.data.loading.pictures import picture_loader
    from vertebra.engine.device import loader_workers
    from vertebra.evaluation.predict.pictures import encode_picture
    from vertebra.ground.files import write_atomically

    if not paths:
        return
    loader = picture_loader(
        paths,
        detection_data.picture_view(detector.recipe),
        batch_size=detector.recipe.test.batch_size,
        workers=min(loader_workers(detector.recipe.workers), len(paths)),
        originals=painter is not None,
    )
    for found in detector.detect(loader, "images", len(paths)):
        if isinstance(found, str):
            results.skipped.append(found)
            continue
        path, target = paths[found.image_id - 1], targets[found.image_id - 1]
        if painter is None:
            results.add(found, path)
            continue
        content = encode_picture(painter.draw(found), target.suffix)
        write_atomically(target, methodcaller("write", content))
        results.add(found, path, drawn=target.name)


def predict_video(
    detector: Detector, painter: Painter | None, path: Path, target: Path, results: PictureResults, first_id: int
) -> int:
    """The results of a video's frames, whose ids count from first_id, and the drawn video; the number of frames."""
    from vertebra.build import detection_data
    from vertebra.data.loading.pictures import open_video, video_batches
    from vertebra.evaluation.predict.draw import drawn_size
    from vertebra.evaluation.predict.pictures import VideoFile
    from vertebra.ground.errors import BadSample

    try:
        video = open_video(path)
    except BadSample as error:
        results.skipped.append(str(error))
        return 0
    view, size = detection_data.picture_view(detector.recipe), detector.recipe.test.batch_size
    batches = video_batches(video, view, batch_size=size, first_id=first_id)
    frames = 0
    with VideoFile(target, drawn_size(video.size_hw), video.frames_per_s) if painter else nullcontext() as file:
        for found in detector.detect(batches, path.name, video.frames or None):
            assert not isinstance(found, str)  # frames that do not decode end a video
            facts: dict[str, Any] = {"frame": frames}
            if painter and file:
                file.add(painter.draw(found))
                facts["drawn"] = file.path.name
            results.add(found, path, **facts)
            frames += 1
    if frames < video.frames:
        logger.warning("%s: its header announces %d frames, but only %d could be read", path, video.frames, frames)
    return frames
