"""Find objects in pictures and videos with weights of train_det.py, or the class of each pixel with train_seg.py's.

python tools/predict.py photos/ --weights runs/det_r101_coco_0

python tools/predict.py 'photos/**/*.jpg' clip.mp4 --weights model.safetensors --score 0.7 --output found

python tools/predict.py a.jpg b.png --weights torchvision:maskrcnn_resnet50_fpn --classes person dog --json-only

python tools/predict.py photos/ --weights runs/seg_r101_voc12aug_0 --flip

In the output directory are the drawn pictures and videos under their own names, and images.json, with the file of each
image_id. Of detectors predictions.json has COCO results of all that was found (pycocotools reads the two together). Of
segmenters maps/ has a PNG for each picture, indexed by class and of its size, and images.json each class's share of it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from vertebra.cli.common import Switch, in_processes
from vertebra.cli.predict_networks import Network, open_network
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import Device, Recipe, TestPrecision, Workers
from vertebra.recipes.schema_detection import Side

if TYPE_CHECKING:
    from vertebra.data.datasets.pictures import Inputs
    from vertebra.engine.distributed import World
    from vertebra.evaluation.predict.pictures import PictureResults

logger = logging.getLogger("vertebra.cli.predict")


class Settings(Recipe):
    """Which network, on which pictures."""

    inputs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="PICTURES")]] = Field(
        description="Images, videos, folders of them, patterns in quotes."
    )
    weights: str = Field(
        description="A run directory of train_det.py or train_seg.py, its weights, hf:USER/NAME, or "
        "torchvision:NAME[=FILE]."
    )
    output: Path = Field(Path("runs/predict"), description="Where the drawings and the JSON files go.")
    score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Lowest score of a detection that is drawn [0.5]; predictions.json goes down to the recipe's, or "
        "to this if lower.",
    )
    classes: tuple[str, ...] = Field((), description="Only these classes, drawn and in the JSON [all].")
    scales: tuple[float, ...] = Field((), description="Factors on the size at which a segmenter sees pictures.")
    flip: Switch = Field(False, description="Of a segmenter, the mean over picture and mirror image.")
    window: tuple[Side, Side] | None = Field(
        None, description="Height and width of windows that slide over a segmenter's picture."
    )
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
    require_detector(settings.weights, tool="train_det.py or train_seg.py")
    return in_processes(1, settings.device, lambda world: predict(settings, inputs, world))


def predict(settings: Settings, inputs: Inputs, world: World) -> int:
    """Look at all pictures, draw, write, and print what was left out."""
    from vertebra.engine.logs import setup_logging
    from vertebra.evaluation.predict.pictures import PictureResults, drawing_names
    from vertebra.ground.files import write_json
    from vertebra.ground.formats import counted

    setup_logging()
    network = open_network(settings, world)
    names = drawing_names(inputs.images, inputs.videos, beside=(".png",) if network.keep else ())
    settings.output.mkdir(parents=True, exist_ok=True)
    targets = [settings.output / name for name in names]
    results, is_drawn = PictureResults(), not settings.json_only
    try:
        predict_images(network, inputs.images, targets, results, is_drawn=is_drawn)
        next_id = len(inputs.images) + 1
        for path, target in zip(inputs.videos, targets[len(inputs.images) :]):
            next_id += predict_video(network, path, target, results, next_id, is_drawn=is_drawn)
    finally:  # interrupted, what was found so far is kept
        if network.keep is None:
            write_json(settings.output / "predictions.json", results.entries, compact=True)
        write_json(settings.output / "images.json", results.index(network.names), compact=True)
    found = "maps" if network.keep else f"{len(results.entries)} detections"
    if is_drawn:
        found += f", {network.painter.summary()}"
    print(f"{counted(len(results.images), 'image')}, {found}: {settings.output}")
    if results.skipped:
        print(f"error: not read ({len(results.skipped)}):", *results.skipped, sep="\n  ", file=sys.stderr)
    return 1 if results.skipped else 0


def check_output(output: Path, inputs: Inputs) -> None:
    """Raises RecipeError where files that are not an earlier prediction's would be overwritten."""
    if output.exists() and not output.is_dir():
        raise RecipeError(f"--output {output} is a file; name a directory")
    written = (output.resolve(), output.resolve() / "maps")
    here = [path for path in (*inputs.images, *inputs.videos) if path.resolve().parent in written]
    if here:
        raise RecipeError(f"--output {output} is where {here[0].name} lies, which would be drawn over; name another")
    index = output / "images.json"
    is_earlier = index.is_file() and index.read_text("utf-8").startswith("{")  # that of an evaluation is a list
    if output.exists() and any(output.iterdir()) and not is_earlier:
        raise RecipeError(f"--output {output} holds other files; name a new directory, or one of an earlier prediction")


def predict_images(
    network: Network, paths: Sequence[Path], targets: Sequence[Path], results: PictureResults, *, is_drawn: bool
) -> None:
    """Add the results of all image files, whose ids count from 1, and draw each."""
    from vertebra.data.loading.pictures import picture_loader
    from vertebra.engine.device import loader_workers
    from vertebra.evaluation.predict.pictures import encode_picture
    from vertebra.ground.files import write_atomically

    if not paths:
        return
    loader = picture_loader(
        paths,
        network.view,
        batch_size=network.recipe.test.batch_size,
        workers=min(loader_workers(network.recipe.workers), len(paths)),
        originals=is_drawn,
    )
    for found in network.look(loader, "images", len(paths)):
        if isinstance(found, str):
            results.skipped.append(found)
            continue
        path, target = paths[found.image_id - 1], targets[found.image_id - 1]
        facts = network.keep(found, target.stem) if network.keep else {}
        if is_drawn:
            content = encode_picture(network.painter.draw(found), target.suffix)
            write_atomically(target, methodcaller("write", content))
            facts["drawn"] = target.name
        results.add(found, path, **facts)


def predict_video(
    network: Network, path: Path, target: Path, results: PictureResults, first_id: int, *, is_drawn: bool
) -> int:
    """The results of a video's frames, whose ids count from first_id, and the drawn video; the number of frames."""
    from vertebra.data.loading.pictures import open_video, video_batches
    from vertebra.evaluation.predict.draw import drawn_size
    from vertebra.evaluation.predict.pictures import VideoFile
    from vertebra.ground.errors import BadSample

    try:
        video = open_video(path)
    except BadSample as error:
        results.skipped.append(str(error))
        return 0
    batches = video_batches(video, network.view, batch_size=network.recipe.test.batch_size, first_id=first_id)
    frames = 0
    with VideoFile(target, drawn_size(video.size_hw), video.frames_per_s) if is_drawn else nullcontext() as file:
        for found in network.look(batches, path.name, video.frames or None):
            assert not isinstance(found, str)  # frames that do not decode end a video
            facts = {"frame": frames, **(network.keep(found, f"{target.stem}/{frames:06}") if network.keep else {})}
            if file:
                file.add(network.painter.draw(found))
                facts["drawn"] = file.path.name
            results.add(found, path, **facts)
            frames += 1
    if frames < video.frames:
        logger.warning("%s: its header announces %d frames, but only %d could be read", path, video.frames, frames)
    return frames
