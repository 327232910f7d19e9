"""Exported files against the networks that they were made of: differences in what they find in pictures, and times.

python benchmarks/export.py --images ../shared/data/coco/val2017 --threads 1 --checks 2
python benchmarks/export.py --images photos --networks r18 r50-fpn --formats onnx --rounds 20
python benchmarks/export.py --images photos --networks r50-c4 --weights runs/det_r50_coco_0/model.safetensors

Those of --weights are trained detectors. The others' weights are random, so that nothing has to be fetched: norms
have the statistics of the pictures, and the detectors' class scores are spread, so that some dozens of regions of
each picture are reported. Batch 1, float32, CPU; a file and its network take turns. Written after each file, as
export takes a minute.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, parse_timing, timing_parser, write_result  # first: it makes the rooms importable

import torch  # isort: skip
from torch import nn

from backbones import Backbone
from backbones.blocks import Block
from backbones.norms import evaluating, recompute_statistics
from detectors.structures import ImageBatch
from vertebra.build.artifact import open_artifact
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import file_state, make_detector
from vertebra.build.export import Exportable, export_classifier, export_detector, facts_file
from vertebra.build.export_formats import FORMATS
from vertebra.build.parity import check, latency
from vertebra.build.trained_detector import read_detector
from vertebra.data.datasets.pictures import find_pictures
from vertebra.data.loading.decode import decode_image
from vertebra.data.loading.views import Crops
from vertebra.engine.weights import save_weights
from vertebra.ground.files import write_json
from vertebra.recipes.command_line import find_recipe, load_recipe
from vertebra.recipes.schema_detection import DetectionRecipe

CLASSES = 80
LOGITS = 2.0  # standard deviation of a region's
# Of residual branches: at 1, random layers with norms amplify rounding (Yang et al. 2019), as trained ones do not.
RESIDUAL = 0.2
NETWORKS: dict[str, tuple[str, dict[str, Any] | None]] = {  # backbone, and the detector's settings; None: a classifier
    "r18": ("r18", None),
    "tf_efficientnet_lite0": ("timm:tf_efficientnet_lite0", None),
    "r50-fpn": ("r50", {"body": "fpn"}),
    "mask-r50-fpn": ("r50", {"body": "fpn", "masks": True}),
    "r50-c4": ("r50", {"body": "c4"}),
}


def main() -> None:
    parser = timing_parser(__doc__, rounds=5, threads=1)
    parser.add_argument("--images", required=True, help="folder of pictures")
    parser.add_argument("--checks", type=int, default=4, help="how many of them are compared (default 4)")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="a detector's canvas (default 480 640)")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--weights", nargs="+", default=[], help="trained detectors, as export.py takes them")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    args = parse_timing(parser)
    paths = find_pictures([args.images]).images[: args.checks]
    pictures = {path.name: decode_image(path) for path in paths}
    rows: dict[str, dict[str, Any]] = {}
    for name in (*args.networks, *args.weights):
        for form in args.formats:
            with tempfile.TemporaryDirectory() as place:
                directory = Path(place)
                if name in NETWORKS:
                    graph = network(name, list(pictures.values()), tuple(args.size), directory)
                else:
                    graph = export_detector(read_detector(name), size_hw=tuple(args.size))
                rows[f"{name} {form}"] = row = measured(graph, form, pictures, args.rounds, directory)
            worst = ", ".join(f"{kind} {value:.1e}" for kind, value in row["largest_differences"].items())
            times = f"{row['file_ms']:.0f} ms, network {row['network_ms']:.0f} ms, ratio {row['ratio']:.2f}"
            print(f"{name} {form}: {row['outputs']} outputs, {worst}, {len(row['unlike'])} beyond; {times}", flush=True)
            setting = {"pictures": len(pictures), "size": args.size, "batch": 1, "threads": torch.get_num_threads()}
            write_result(args.output or RESULTS / "export.json", {"setting": setting, "rows": rows})


def measured(graph: Exportable, form: str, pictures: dict[str, Any], rounds: int, directory: Path) -> dict[str, Any]:
    """Export, compare and time."""
    path = directory / f"model{FORMATS[form].suffix}"
    began = time.perf_counter()
    FORMATS[form].write(graph, path)
    export_s = time.perf_counter() - began
    write_json(facts_file(path), graph.facts)
    artifact = open_artifact(path, graph.facts["kind"])
    parity = check(graph, artifact, pictures)
    size_mb = sum(one.stat().st_size for one in directory.glob("model.*") if one.suffix != ".safetensors") / 2**20
    return {
        "images": parity.images,
        "outputs": parity.outputs,
        "largest_differences": parity.worst,
        "unlike": parity.unlike,
        **latency(graph, artifact, pictures, rounds),
        "export_s": export_s,
        "file_mb": size_mb,
    }


def network(name: str, pictures: list[Any], size_hw: tuple[int, int], directory: Path) -> Exportable:
    """A network of random weights that tell pictures apart, by way of a file, as a user's."""
    torch.manual_seed(0)
    backbone_name, settings = NETWORKS[name]
    recipe = load_recipe(DetectionRecipe, find_recipe(f"detection/coco_{'fpn' if settings else 'c4'}_1x.yaml"))
    model = recipe.model.model_copy(update=settings or {})
    recipe = recipe.model_copy(update={"backbone": backbone_name, "model": model, "width": 1.0})
    backbone = make_detector_backbone(recipe)
    crop = Crops(224, 256)
    pixels_N3HW = torch.cat([torch.from_numpy(crop(one)).permute(0, 3, 1, 2) for one in pictures])
    for block in backbone.modules():
        if isinstance(block, Block):
            nn.init.constant_(block.get_submodule(block.last_norm).weight, RESIDUAL)
    recompute_statistics(backbone, [pixels_N3HW])
    path = directory / "model.safetensors"
    if settings is None:
        classifier = backbone.get_submodule(backbone.classifier_name)
        with evaluating(backbone):
            spread(classifier, lambda: backbone(pixels_N3HW))
        save_weights(path, backbone.state_dict(), {"backbone": backbone.identity()})
        return export_classifier(path)
    save_detector(path, recipe, backbone, pixels_N3HW)
    return export_detector(read_detector(str(path)), size_hw=size_hw)


def save_detector(path: Path, recipe: DetectionRecipe, backbone: Backbone, pixels_N3HW: torch.Tensor) -> None:
    detector = make_detector(recipe, backbone, CLASSES)
    sizes = ((224, 224),) * len(pixels_N3HW)
    images = ImageBatch(pixels_N3HW, torch.tensor(sizes), sizes)
    with evaluating(detector):
        spread(detector.box_head.predictor.scores, lambda: detector.detect(images))
    facts = {
        "detector": recipe.model.title,
        "backbone": backbone.identity(),
        "category_ids": list(range(1, CLASSES + 1)),
        "class_names": [f"class {number}" for number in range(1, CLASSES + 1)],
        "recipe": recipe.model_dump(mode="json"),
    }
    save_weights(path, file_state(detector), facts)


def spread(layer: Any, call: Any) -> None:
    """Scale a last layer so that its outputs differ by LOGITS, whatever it reads when `call` runs."""
    seen: list[torch.Tensor] = []
    nn.init.normal_(layer.weight)
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    call()
    hook.remove()
    layer.weight.data.mul_(LOGITS / torch.cat(seen).std(dim=-1).mean())


if __name__ == "__main__":
    main()
