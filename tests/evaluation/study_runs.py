"""Made-up run directories of classifiers, for tests of the study's report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

ITERATIONS = 1600


def make_run(
    root: Path,
    backbone: str,
    seed: int = 0,
    *,
    train_error: float,
    test_error: float,
    shortcut: str | None = None,
    views: dict[str, float] | None = None,
    iterations: int = ITERATIONS,
    batch: int = 128,
    data: str = "cifar",
    **protocol: Any,
) -> Path:
    """A finished run whose training error falls to `train_error` at half time and stays, with a log line every 100."""
    directory = root / f"{backbone.replace(':', '-')}_{shortcut}_{len(protocol)}_s{seed}"
    directory.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for at in range(100, iterations + 1, 100):
        error = train_error if at > iterations / 2 else 90.0
        lines.append({"iteration": at, "loss": 1.0, "loss_cls": 1.0, "top1": 100 - error, "time_s": 0.1})
        if at % 400 == 0:
            lines.append({"iteration": at, "top1": 100 - test_error, "top5": 99.0})
    (directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    figures = {"top1": 100 - test_error, "top5": 99.0, "images": 10_000, "view": "1 centre crop"}
    (directory / "evaluation.json").write_text(json.dumps(figures))
    for view, error in (views or {}).items():
        entry = {"weights": "model.safetensors", "view": view, "top1": 100 - error, "top5": 98.0}
        (directory / f"evaluation_{view}.json").write_text(json.dumps([entry]))
    (directory / "provenance.json").write_text(
        json.dumps(
            {
                "finished": True,
                "backbone": {"name": backbone, "width": 1.0, "shortcut": shortcut},
                "class_names": [f"class <{index}>" for index in range(10)],
                "training_data": {"name": data, "images": 50_000},
                "iterations": iterations,
                "seed": seed,
                "protocol": {"solver.batch_size": batch, "solver.lr": 0.1, "mixup": 0.0, **protocol},
                "training_s": 61.0,
                "commit": "0123456789abcdef",
                "command": "python tools/train_backbone.py",
                "machine": {"cpu": "a <fast> one"},
            }
        )
    )
    save_file(
        {"conv1.weight": torch.zeros(16, 3, 3, 3), "bn1.running_mean": torch.zeros(16)},
        str(directory / "model.safetensors"),
    )
    return directory


def make_study(root: Path, errors: dict[str, list[float]], *, gap: float = 5.0) -> list[Path]:
    """CIFAR runs by net and seed: training errors as given, test errors `gap` above them."""
    runs = []
    for net, values in errors.items():
        shortcut = "A" if net.startswith("cifar_r") else None
        for seed, error in enumerate(values):
            runs.append(make_run(root, net, seed, train_error=error, test_error=error + gap, shortcut=shortcut))
    return runs
