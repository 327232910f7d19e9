"""Parts of `gpu.py`: steps of training and single images, beside torchvision's and in our loop."""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from common import ratio  # first: it makes the rooms importable

import backbone  # isort: skip
import cifar
import detector
import torch
from gpu_figures import Figure, Setting, beside, of_loop
from steps import Stopwatch, train
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from vertebra.build.backbone import build_classifier, make_detector_backbone
from vertebra.build.detector import make_detector
from vertebra.build.training import build_optimizer
from vertebra.data.loading.loaders import Batch
from vertebra.engine import distributed
from vertebra.engine.measure import wait_for
from vertebra.recipes.command_line import find_recipe, load_recipe, validated
from vertebra.recipes.schema import BackboneRecipe
from vertebra.recipes.schema_detection import DetectionRecipe

R50_STEP = "r50, 224 px, the training loop"


def pinned(batch: Batch, setting: Setting) -> Batch:
    return batch.pin_memory() if setting.device.type == "cuda" else batch


def detectors(setting: Setting) -> Iterator[Figure]:
    """Training steps beside torchvision's; then recipes in the loop of `train-det`, the optimiser included."""
    size, images = setting.pick((800, 1088), (64, 64)), setting.pick(2, 1)
    # Measuring convolutions pays where few sizes are seen many times: not in torchvision's heads.
    torch.backends.cudnn.benchmark = False
    for head in setting.pick(("fpn", "mask_fpn", "c4"), ("c4",)):
        calls, _ = detector.candidates(_detector_options(setting, head, size, images, train=True))
        yield from beside(f"{head}, step of {images}", setting.in_turns(calls), images)
        _empty_cache(calls)
    recipes = [
        ("detection/coco_mask_fpn_1x.yaml", "r50", 16, {"at_least": 170, "source": "MLPerf 2.1, a GPU of its H100s"}),
        ("detection/coco_c4_1x.yaml", "r50", 4, {}),
        ("detection/voc0712_c4.yaml", "vgg16", 2, {}),
    ]
    for config, name, images, target in setting.pick(recipes, [(recipes[0][0], "r18", 1, {})]):
        model, optimizer = _recipe_detector(config, name, setting)
        batch = pinned(Batch(detector.batch_of(size, images, torch.device("cpu")), tuple(range(images))), setting)
        watch = Stopwatch(*setting.pick((5, 12), (1, 1)), setting.device)
        train(model, optimizer, repeat(batch), watch, precision=setting.precision)
        yield from of_loop(f"{Path(config).stem} on {name}, steps of {images}", watch, images, **target)


def _detector_options(setting: Setting, head: str, size: tuple[int, int], images: int, *, train: bool) -> Namespace:
    name, regions, proposals = setting.pick(("r50", 512, 1000), ("r18", 8, 8))
    return Namespace(
        device=setting.device.type, head=head, backbone=name, regions=regions, proposals=proposals, size=size,
        batch=images, train=train, only=setting.pick("", "fp32"), detectron2=False,
    )  # fmt: skip


def _recipe_detector(config: str, name: str, setting: Setting) -> tuple[nn.Module, Any]:
    recipe = load_recipe(DetectionRecipe, find_recipe(config))
    small = {"rois": 8, "fpn_channels": 16, "head_width": 32, "mask_channels": 16}
    fields = recipe.model_dump()
    fields["model"] |= setting.pick({}, small)
    recipe = validated(DetectionRecipe, {**fields, "backbone": name, "width": setting.pick(1.0, 0.25)}, config)
    torch.manual_seed(0)
    model = make_detector(recipe, make_detector_backbone(recipe), detector.CLASSES).to(setting.device)
    return model, build_optimizer(recipe.solver.model_copy(update={"lr": 1e-4}), model)  # random weights


def _empty_cache(calls: dict[str, Any]) -> None:
    calls.clear()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def classifiers(setting: Setting) -> Iterator[Figure]:
    """The same for ResNets: forward and backward beside torchvision's, then the loop of `train-backbone`."""
    name, images, side = setting.pick(("r50", 128, 224), ("r18", 2, 32))
    options = Namespace(device=setting.device.type, batch=images, size=side, backbone=name)
    distributed.start(setting.device.type)  # convolutions are measured
    calls = backbone.candidates(Namespace(**vars(options), frozen=False, forward_only=False))
    yield from beside(f"{name}, step of {images}", setting.in_turns(calls), images)
    _empty_cache(calls)
    watch, images = _classifier_loop(setting, compile=False)
    ngc = {"at_least": 3079, "source": "NGC's PyTorch on an H200"}
    yield from of_loop(R50_STEP, watch, images, **ngc)
    yield Figure(R50_STEP, images / watch.step_s, "images/s", at_least=6550, source="MLPerf, MXNet on an H100")


def _classifier_loop(setting: Setting, *, compile: bool) -> tuple[Stopwatch, int]:
    name, images, side = setting.pick(("r50", 256, 224), ("r18", 2, 32))
    distributed.start(setting.device.type)
    recipe = load_recipe(BackboneRecipe, find_recipe("imagenet/standard.yaml"))
    recipe = recipe.model_copy(update={"backbone": name, "width": setting.pick(1.0, 0.125)})
    torch.manual_seed(0)
    model = build_classifier(recipe, 1000)[0].to(setting.device)
    pixels_N3HW = torch.randint(0, 256, (images, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    batch = Batch((pixels_N3HW, torch.randint(0, 1000, (images,))), tuple(range(images)))
    watch = Stopwatch(*setting.pick((8, 20), (1, 1)), setting.device)
    optimizer = build_optimizer(recipe.solver, model)
    train(model, optimizer, repeat(pinned(batch, setting)), watch, precision=setting.precision, compile=compile)
    return watch, images


def cifar_net(setting: Setting) -> Iterator[Figure]:
    """The whole step of cifar10/paper.yaml, whose GPU kernels are shorter than their launches."""
    yield from _cifar(setting, compile=False)


def _cifar(setting: Setting, *, compile: bool) -> Iterator[Figure]:
    warm, steps = setting.pick((50, 300), (1, 1))
    name = setting.pick("cifar_r20", "cifar_r8")
    options = Namespace(device=setting.device.type, backbone=name, warm=warm, steps=steps, cpu_seconds=False)
    options.compile = compile
    watch = cifar.ours(options, cifar.random_images(setting.pick(cifar.IMAGES, 256)), setting.precision)()
    what = f"{name}{', compiled' if compile else ''}"
    yield Figure(
        f"{what}: 64,000 steps of {cifar.BATCH}", 64_000 * watch.step_s, "s", at_most=180, source="three minutes"
    )
    yield from of_loop(what, watch, cifar.BATCH)


def compiled(setting: Setting) -> Iterator[Figure]:
    """CUDA graphs by --compile: what they are worth where the host is slowest, and in ResNet-50."""
    if setting.tiny:  # compiling takes minutes on a CPU
        torch.compiler.set_stance("force_eager")
    yield from _cifar(setting, compile=True)
    watch, images = _classifier_loop(setting, compile=True)
    yield from of_loop(f"{R50_STEP}, compiled", watch, images, at_least=setting.found.get(R50_STEP), source="as it is")


def latency(setting: Setting) -> Iterator[Figure]:
    """One image from pixels to detections, beside torchvision's."""
    size = setting.pick((800, 1088), (32, 32))
    for head in setting.pick(("fpn", "mask_fpn", "c4"), ("fpn",)):
        calls, _ = detector.candidates(_detector_options(setting, head, size, 1, train=False))
        seconds = setting.in_turns(calls)
        ours = [name for name in seconds if name.startswith("ours")][-1]
        yield Figure(f"{head}, one image, {ours}", 1e3 * statistics.median(seconds[ours]), "ms")
        for name in (name for name in seconds if not name.startswith("ours")):
            value = ratio(seconds[ours], seconds[name])["median"]
            yield Figure(f"{head}, one image, {ours} of {name}", value, "of its time", at_most=1.0)
        _empty_cache(calls)


def profile(setting: Setting) -> Iterator[Figure]:
    """Where the time of a step goes: profile.txt; and for how much of it the GPU has work."""
    name, images, side = setting.pick(("r50", 128, 224), ("r18", 2, 32))
    shape = {"device": setting.device.type, "batch": images, "size": side, "backbone": name}
    calls = backbone.candidates(Namespace(**shape, frozen=False, forward_only=False))
    calls = {f"{name}, {what}": call for what, call in calls.items() if "our default" in what}
    if not setting.tiny:
        options = _detector_options(setting, "mask_fpn", (800, 1088), 2, train=True)
        options.only = "our default"
        calls |= {f"mask_fpn, {what}": call for what, call in detector.candidates(options)[0].items()}
    on_gpu = setting.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    for what, call in calls.items():
        seconds = setting.median_s(call)
        with torch.profiler.profile(activities=kinds) as profiler:
            call()
            wait_for(setting.device)
        events = profiler.key_averages()
        column = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        with open(setting.output / "profile.txt", "a") as file:
            file.write(f"{what}\n{events.table(sort_by=column, row_limit=30, max_name_column_width=60)}\n\n")
        # A kernel's time is also that of the operation which has launched it.
        busy = sum(getattr(one, column) for one in events if (one.device_type == DeviceType.CUDA) == on_gpu) / 1e6
        yield Figure(f"{what}: the device works", 100 * busy / seconds, "% of a step", at_least=90)
