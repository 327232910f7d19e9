"""What a network costs: parameters, FLOPs (multiply-adds, as the papers count), time and memory.

python tools/profile_model.py --backbone r18 r34 r50 r101 r152 --stride-in 1x1

python tools/profile_model.py --backbone r50 --detector --body fpn --masks --classes 80 --size 800 1056

Memory is that of the weights, and what calls need on top of it.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vertebra.cli.common import make_room
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import program
from vertebra.recipes.schema_detection import DetectionRecipe, Detector


@dataclass(frozen=True)
class Settings:
    """Which networks, at which size."""

    backbone: Annotated[tuple[str, ...], tyro.conf.arg(help="One or more names, as in train_backbone.py.")]
    width: Annotated[float, tyro.conf.arg(help="Factor on all channel counts.")] = 1.0
    shortcut: Annotated[Literal["A", "B", "C"], tyro.conf.arg(help="The ResNets' shortcuts.")] = "B"
    stride_in: Annotated[Literal["1x1", "3x3"], tyro.conf.arg(help="1x1: the paper; 3x3: torchvision.")] = "3x3"
    size: Annotated[tuple[int, int], tyro.conf.arg(help="Height and width of the image, pixels.")] = (224, 224)
    detector: Annotated[bool, tyro.conf.arg(help="The whole detector instead of the classifier.")] = False
    body: Annotated[Literal["c4", "dc5", "fpn"], tyro.conf.arg(help="The detector's body.")] = "c4"
    masks: Annotated[bool, tyro.conf.arg(help="Mask R-CNN instead of Faster R-CNN.")] = False
    classes: Annotated[int, tyro.conf.arg(help="Classes of the classifier or detector.")] = 1000
    batch_size: Annotated[int, tyro.conf.arg(help="Images at a time in the timing.")] = 1
    repeats: Annotated[int, tyro.conf.arg(help="Timed runs; 0: count only.")] = 5
    device: Annotated[Literal["auto", "cpu", "cuda"], tyro.conf.arg(help="auto: the GPU if there is one.")] = "auto"
    precision: Annotated[Literal["auto", "fp32", "bf16"], tyro.conf.arg(help="auto: bf16 where it is fast.")] = "auto"
    json: Annotated[Path | None, tyro.conf.arg(help="Write the figures to this file too.")] = None


def main(arguments: list[str]) -> int:
    settings = tyro.cli(Settings, prog=program(), description=__doc__, args=arguments)
    check(settings)
    rows = [profile(settings, name) for name in settings.backbone]
    height, width = settings.size
    print(f"{height}x{width} px, batch {settings.batch_size}, {rows[0]['precision']} on {rows[0]['device']}")
    print(
        f"{'':<24}{'parameters':>14}{'FLOPs':>10}"
        + (f"{'ms/image':>10}{'spread':>16}{'MB':>8}" * bool(settings.repeats))
    )
    for row in rows:
        counts = f"{row['name']:<24}{row['parameters']:>14,}{row['flops'] / 1e9:>9.2f}G"
        if settings.repeats:
            spread = f"{row['ms_min']:.2f}-{row['ms_max']:.2f}"
            memory = "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
            counts += f"{row['ms']:>10.2f}{spread:>16}{memory:>8}"
        print(counts)
    if settings.json is not None:
        from vertebra.engine import provenance
        from vertebra.ground.files import write_json

        write_json(settings.json, {"rows": rows, **provenance.describe()})
    return 0


def check(settings: Settings) -> None:
    """Raises RecipeError for numbers that cannot be, before any network is built."""
    least = {"batch-size": settings.batch_size, "classes": settings.classes, "size": min(settings.size)}
    for flag, number in least.items():
        if number < 1:
            raise RecipeError(f"--{flag} is 1 or more, not {number}")
    if settings.repeats < 0:
        raise RecipeError(f"--repeats is 0 (count only) or more, not {settings.repeats}")
    if not 0 < settings.width < math.inf:
        raise RecipeError(f"--width is above 0, not {settings.width:g}")
    if not settings.detector and (settings.masks or settings.body != "c4"):
        raise RecipeError("--body and --masks are of a detector: add --detector")
    make_room("--json", settings.json)


def profile(settings: Settings, name: str) -> dict[str, Any]:
    """Counts and times of one network."""
    import torch

    from backbones.cost import count_flops, count_parameters
    from detectors.structures import ImageBatch
    from vertebra.build import build, build_detector
    from vertebra.engine import device as devices
    from vertebra.engine import precision
    from vertebra.engine.measure import memory_growth, timed_calls, weights_mb

    device = devices.resolve(settings.device)
    kind = precision.resolve(settings.precision, device)
    recipe = DetectionRecipe(
        backbone=name,
        width=settings.width,
        shortcut=settings.shortcut,
        stride_in=settings.stride_in,
        model=Detector(body=settings.body, masks=settings.masks),
    )
    method = "forward"
    pixels = torch.randint(0, 256, (settings.batch_size, 3, *settings.size), dtype=torch.uint8, device=device)
    inputs: Any = pixels
    model: torch.nn.Module
    if settings.detector:
        backbone = build_detector.build_body_backbone(recipe)
        model, method = build_detector.build_detector(recipe, backbone, settings.classes), "detect"
        sizes = (settings.size,) * settings.batch_size
        inputs = ImageBatch(pixels, torch.tensor(sizes, device=device), sizes)
    else:
        model = build.build_backbone(recipe, settings.classes)
    model.to(device).eval()
    row: dict[str, Any] = {
        "name": name,
        "parameters": count_parameters(model),
        "flops": count_flops(model, inputs, method=method) // settings.batch_size,
        "precision": kind,
        "device": str(device),
    }
    if settings.repeats:

        def call() -> None:
            with torch.inference_mode(), precision.autocast(device, kind):
                getattr(model, method)(inputs)

        times_s = timed_calls(call, device, enough=settings.repeats, warmup=2)
        per_image = [1000 * seconds / settings.batch_size for seconds in times_s]
        row |= {"ms": statistics.median(per_image), "ms_min": min(per_image), "ms_max": max(per_image)}
        growth_mb = memory_growth(call, device)
        memory_mb = None if growth_mb is None else weights_mb(model) + growth_mb
        row |= {"n": settings.repeats, "memory_mb": memory_mb}
    return row
