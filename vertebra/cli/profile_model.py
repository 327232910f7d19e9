"""The cost of a network: parameters, FLOPs (multiply-adds, as the papers count), time and memory.

python tools/profile_model.py --backbone r18 r34 r50 r101 r152 --stride-in 1x1

python tools/profile_model.py --backbone r50 --detector --body fpn --masks --classes 80 --size 800 1056

Memory is that of the weights, and what calls need on top of it.
"""

from __future__ import annotations

import statistics
from typing import Any, Literal

from pydantic import Field

from vertebra.cli.common import JsonFile, make_room
from vertebra.ground.table import Row, Table
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import Body, Count, Device, Recipe
from vertebra.recipes.schema_detection import DetectionRecipe, Detector


class Settings(Recipe):
    """Which networks, at which size."""

    backbone: tuple[str, ...] = Field(min_length=1, description="One or more names, as in train_backbone.py.")
    width: float = Field(1.0, gt=0, allow_inf_nan=False, description="Factor on all channel counts.")
    shortcut: Literal["A", "B", "C"] = Field("B", description="The ResNets' shortcuts.")
    stride_in: Literal["1x1", "3x3"] = Field("3x3", description="1x1: the paper; 3x3: torchvision.")
    size: tuple[Count, Count] = Field((224, 224), description="Height and width of the image, pixels.")
    detector: bool = Field(False, description="The whole detector instead of the classifier.")
    body: Body = Field("c4", description="The detector's body.")
    masks: bool = Field(False, description="Mask R-CNN instead of Faster R-CNN.")
    classes: int = Field(1000, ge=1, description="Classes of the classifier or detector.")
    batch_size: int = Field(1, ge=1, description="Images at a time in the timing.")
    repeats: int = Field(5, ge=0, description="Timed runs; 0: count only.")
    device: Device = "auto"
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where it is fast.")
    json_file: JsonFile = Field(None, description="Write the figures to this file too.")

    def check(self) -> None:
        if not self.detector and (self.masks or self.body != "c4"):
            raise ValueError("--body and --masks are of a detector: add --detector")


def main(arguments: list[str]) -> int:
    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    make_room("--json", settings.json_file)
    rows = [profile(settings, name) for name in settings.backbone]
    height, width = settings.size
    title = f"{height}x{width} px, batch {settings.batch_size}, {rows[0]['precision']} on {rows[0]['device']}"
    columns = ["parameters", "FLOPs", *(["ms/image", "spread", "MB"] if settings.repeats else [])]
    print(Table(title, columns, [Row(row["name"], _cells(row)) for row in rows]).text())
    if settings.json_file is not None:
        from vertebra.engine import provenance
        from vertebra.ground.files import write_json

        write_json(settings.json_file, {"rows": rows, **provenance.describe()})
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    cells = [f"{row['parameters']:,}", f"{row['flops'] / 1e9:.2f}G"]
    if "ms" in row:
        cells += [f"{row['ms']:.2f}", f"{row['ms_min']:.2f}-{row['ms_max']:.2f}", f"{row['memory_mb']:.0f}"]
    return cells


def profile(settings: Settings, name: str) -> dict[str, Any]:
    """Count and time one network."""
    import torch

    from backbones.cost import count_flops, count_parameters
    from backbones.norms import forget_folded
    from detectors.structures import ImageBatch
    from vertebra.build.backbone import build_backbone, make_detector_backbone
    from vertebra.build.detector import make_detector
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
        backbone = make_detector_backbone(recipe)
        model, method = make_detector(recipe, backbone, settings.classes), "detect"
        sizes = (settings.size,) * settings.batch_size
        inputs = ImageBatch(pixels, torch.tensor(sizes, device=device), sizes)
    else:
        model = build_backbone(recipe, settings.classes)
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
        forget_folded()  # so that what a call keeps counts
        row |= {"n": settings.repeats, "memory_mb": weights_mb(model) + memory_growth(call, device)}
    return row
