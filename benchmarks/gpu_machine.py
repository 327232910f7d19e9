"""Parts of `gpu.py`: the machine's ceilings, the tests that need it, its loader, and the commands from end to end."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from common import ROOT, alternate, draw_epoch, forked, typed  # first: it makes the rooms importable

import cv2  # isort: skip
import input_pipeline
import numpy as np
import torch
from gpu_figures import Figure, Setting
from gpu_trainings import R50_STEP

from vertebra.cli import prepare_data, train_backbone, train_det  # noqa: F401 (imported once, for all forks)

SHEETS = {"H200": (989, 4.8), "H100": (989, 3.35)}  # dense bf16 TFLOP/s and TB/s of the SXM cards' data sheets


def ceilings(setting: Setting) -> Iterator[Figure]:
    """What this machine can do: against it all other figures are read."""
    device, side = setting.device, setting.pick(8192, 128)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    sheet = next((figures for name, figures in SHEETS.items() if name in gpu), None)
    formats = {"bf16": (torch.bfloat16, 1.0, "highest"), "TF32": (torch.float32, 0.5, "high")}
    for name, (dtype, share, products) in formats.items():
        torch.set_float32_matmul_precision(products)
        a, b = torch.randn(2, side, side, device=device).to(dtype)
        rate = 2 * side**3 / setting.median_s(lambda a=a, b=b: a @ b) / 1e12
        target = 0.7 * share * sheet[0] if sheet else None
        yield Figure(
            f"matrix product in {name}, {side} a side", rate, "TFLOP/s", target, source="70 % of the data sheet"
        )
    full = torch.ones(setting.pick(2**30, 2**20), dtype=torch.uint8, device=device)
    other = torch.empty_like(full)
    rate = 2 * len(full) / setting.median_s(lambda: other.copy_(full)) / 1e12
    hope = {"at_least": 0.8 * sheet[1], "source": "80 % of the data sheet"} if sheet else {}
    yield Figure("copy, read and written", rate, "TB/s", **hope)
    one = torch.zeros(1, device=device)
    launches = setting.median_s(lambda: [one.add_(1) for _ in range(1000)])
    yield Figure("a launch, one after the other", launches * 1e3, "us")


def tests(setting: Setting) -> Iterator[Figure]:
    """The tests that only a GPU can run."""
    import pytest

    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    report = setting.work / "tests.xml"
    flags = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--durations=5", f"--junitxml={report}"]
    flags += ["-n", "4"] if not setting.tiny and find_spec("xdist") else []
    pytest.main([*flags, *map(str, setting.pick(files, files[:1]))])
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    of = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    yield Figure("passed", of["tests"] - of["failures"] - of["errors"] - of["skipped"], "tests")
    yield Figure("failed", of["failures"] + of["errors"], "tests", at_most=0, source="log.txt names them")
    yield Figure("skipped", of["skipped"], "tests", at_most=setting.pick(0, None))


def loader(setting: Setting) -> Iterator[Figure]:
    """Images a second that this machine's cores decode: whether they feed the step of `classifiers`."""
    cores = len(os.sched_getaffinity(0))
    many = setting.pick(max(1, min(16, cores - 1)), 1)
    wanted = setting.found.get(R50_STEP)
    options = Namespace(size=setting.pick(224, 32), batch=setting.pick(64, 4))
    for workers in dict.fromkeys((1, many)):
        count = setting.pick(640 * workers, 8)
        root = setting.work / f"jpegs_{workers}"
        write_jpegs(root, count, distinct=setting.pick(96, 8))
        makers = {"ours": input_pipeline.ours}
        if workers == many:
            makers["torchvision"] = lambda *given: input_pipeline.torchvision(*given, tensors=True)
        epochs = {
            name: draw_epoch(lambda make=make, root=root, workers=workers: make(root, options, workers))
            for name, make in makers.items()
        }
        for name, seconds in alternate(epochs, rounds=setting.pick(2, 1), warmup=0).items():
            target = {"at_least": wanted, "source": R50_STEP} if name == "ours" and workers == many and wanted else {}
            what = f"{name}, {workers} workers, random crops of JPEGs of 500x375"
            yield Figure(what, count / min(seconds), "images/s", **target)


def write_jpegs(root: Path, count: int, distinct: int) -> None:
    """Smooth scenes with grain, about 100 kB as ImageNet's; ROOT/train/a/ has `count` links to `distinct` of them."""
    folder = root / "train" / "a"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:06}.jpg"
        if number >= distinct:
            path.symlink_to(folder / f"{number % distinct:06}.jpg")
            continue
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        picture = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 13, (375, 500, 3))
        cv2.imwrite(str(path), picture.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])


def end_to_end(setting: Setting) -> Iterator[Figure]:
    """The commands that users type, on the sample set; this process leaves the GPU to those that it forks for them."""
    place, tiny = setting.work, ("--width", "0.25", "--solver.iterations", "2", "--workers", "0", "--log-period", "1")
    data, run, device = ("--data", f"{place}/set"), ("--output", f"{place}/det"), ("--device", setting.device.type)
    yield from _typed("prepare-data", setting, "sample", *data, small=("--scenes", "8", "4", "--objects", "20", "10"))
    yield from _typed(
        *("train-backbone", setting, "--backbone", "r18", "--config", "sample/objects.yaml", *device),
        *("--data", f"{place}/set/objects", "--output", f"{place}/pre"),
        small=(*tiny, "--recompute-norms", "8", "--input.size", "32", "--input.resize", "32"),
    )
    yield from _typed(
        *("train-det", setting, "--config", "sample/detection.yaml", *data, *run, *device),
        *("--weights", f"{place}/pre/model.safetensors", "--eval-period", "1400"),
        small=(*tiny, "--model.rois", "8", "--input.shorter-side", "64", "--input.test-shorter-side", "64"),
    )
    top1 = json.loads((place / "pre" / "evaluation.json").read_text())["top1"]
    yield Figure("classifier", top1, "% top-1", at_least=setting.pick(94, None), source="on CPUs 95")
    figures = json.loads((place / "det" / "evaluation.json").read_text())["coco"]
    yield Figure("detector", figures["AP"], "AP", at_least=setting.pick(61, None), source="on CPUs 61.5 to 64.0")
    lines = [json.loads(line) for line in (place / "det" / "metrics.jsonl").read_text().splitlines()]
    *_, last = (line for line in lines if "data_s" in line)
    yield Figure("detector: a step waits for data", 100 * last["data_s"] / last["time_s"], "% of it", at_most=20)


def _typed(command: str, setting: Setting, *flags: str, small: tuple[str, ...]) -> Iterator[Figure]:
    """What a user types, with `small` where all is tiny: seconds. Raises RuntimeError where it fails."""
    flags = (*flags, *setting.pick((), small))
    began = time.perf_counter()
    process = forked(lambda: typed(command, flags, setting.work / "console.txt") or 0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code:
        console = (setting.work / "console.txt").read_text()[-2000:]
        raise RuntimeError(f"{command} ended with {code}:\n{console}")
    yield Figure(f"vertebra {command}", time.perf_counter() - began, "s")
