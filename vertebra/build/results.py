"""Evaluations of finished runs: where the weights are, and where the results may go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.build import hub
from vertebra.ground.errors import RecipeError
from vertebra.ground.files import require_weights

if TYPE_CHECKING:  # wrong paths are said before torch is imported
    from vertebra.engine.distributed import World
    from vertebra.engine.rundir import RunDirectory


def weights_file(run: Path, *, tool: str) -> Path:
    """Return a run directory's file of weights. tool: what makes such runs. Raises ValueError where it is missing."""
    if not run.is_dir():
        raise ValueError(f"{run} is not a directory; name a run directory of {tool}")
    path = run / "model.safetensors"
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: the run is not finished; run its {tool} command with --resume, or name a file of "
            "weights"
        )
    return path


def named_backbone(weights: str) -> tuple[str, str]:
    """Split BACKBONE=VALUE into the two, the former "" where it is not given. A file's own name may have a "=", too."""
    name, equals, value = weights.partition("=")
    is_name = equals and not Path(weights).exists() and (":" in name or "/" not in name)
    return (name, value) if is_name else ("", weights)


def require_detector(weights: str, *, tool: str = "train_det.py") -> None:
    """Raise ValueError where a detector's weights (see `read_detector`), or those of another tool, are not there."""
    name = weights.partition("=")[2] if weights.startswith("torchvision:") else weights.removeprefix("detectron2:")
    if name and Path(name).is_dir():
        weights_file(Path(name), tool=tool)
    elif name:
        require_weights(hub.local(name))


def require_same_protocol(
    trained: Mapping[str, Any], tested: Mapping[str, Any], facts: Mapping[str, Any], fingerprint: str
) -> None:
    """Raise RecipeError where results would not be of the protocol that the run directory names.

    trained, tested: protocols. facts: the weights' provenance. fingerprint: of the test set.
    """
    differing = [name for name in {**tested, **trained} if tested.get(name) != trained.get(name)]
    if facts.get("protocol", {}).get("test_fingerprint") not in (None, fingerprint):
        differing.append("the test images or their annotations")
    if differing:
        raise RecipeError(
            f"--output is missing: {', '.join(differing)} would not be as in the run's own protocol, "
            "so the results need a directory of their own"
        )


def results_directory(output: Path, world: World) -> RunDirectory:
    """Return where an evaluation's files go; made if it is not there."""
    from vertebra.engine.rundir import RunDirectory

    if world.is_main:
        output.mkdir(parents=True, exist_ok=True)
    return RunDirectory(output, world=world, tensorboard=False)
