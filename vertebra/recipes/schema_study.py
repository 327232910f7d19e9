"""What can be set in a study of depth: which nets, how often, and where the runs and their report go.

Plain data as `vertebra.recipes.schema` is: nothing here imports torch or another room.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from pydantic import Field

from vertebra.recipes.schema import path_part
from vertebra.recipes.schema_jobs import Jobs

# The nets of the paper's section 4.2 and of its tables 2 and 3.
STUDIES: dict[str, tuple[str, ...]] = {
    "cifar10": (
        *("cifar_plain20", "cifar_plain32", "cifar_plain44", "cifar_plain56"),
        *("cifar_r20", "cifar_r32", "cifar_r44", "cifar_r56", "cifar_r110"),
    ),
    "imagenet": (
        *("plain18", "plain34", "r18", "r34:shortcut=A", "r34:shortcut=B", "r34:shortcut=C"),
        *("r50", "r101", "r152", "vgg16:config=imagenet/vgg.yaml"),
    ),
}
# Options after a net's name: parts of its architecture, and a recipe of its own.
NET_OPTIONS = ("shortcut", "width", "stride_in", "config")
# Flags that the study itself gives to every training.
SET_BY_STUDY = ("--config", "--backbone", "--data", "--seed", "--output", "--resume", "--device", "--gpus", "--workers")

# He et al. 2015, section 4.2: a rate of 0.1 is too large a start for 110 layers, so 0.01 until the error is below 80 %.
WARM_DEPTH = 110
WARM_START = {"solver.warmup_until_error": "80", "solver.warmup_factor": "0.1"}


@dataclass(frozen=True)
class Net:
    """One net of a study: `r34`, `r34:shortcut=A`, `cifar_r20:width=2`."""

    backbone: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Net:
        """Read `NAME` or `NAME:option=value,...`. Raises ValueError naming the known options."""
        name, colon, tail = text.rpartition(":")
        if not colon or "=" not in tail:  # the colon of torchvision:resnet50 belongs to the name
            return cls(text)
        options = []
        for entry in tail.split(","):
            option, _, value = entry.partition("=")
            if option not in NET_OPTIONS or not value:
                raise ValueError(
                    f"{text}: after the colon stand option=value with one of {', '.join(NET_OPTIONS)}, not {entry}"
                )
            options.append((option, value))
        return cls(name, tuple(options))

    @property
    def directory(self) -> str:
        """Return the name as a part of a path: r34_shortcutA, torchvision-resnet50."""
        return "_".join(
            [path_part(self.backbone), *(f"{option}{value}" for option, value in self.options if option != "config")]
        )


class DepthRecipe(Jobs):
    """Finished runs to report on, or the nets of a study of depth under one recipe."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = Field((), description="Finished run directories to report on.")
    nets: tuple[str, ...] = Field(
        (), description=f"NAME or NAME:option=value,... with options {', '.join(NET_OPTIONS)}: r34:shortcut=A."
    )
    study: Literal["cifar10", "imagenet"] | None = Field(None, description="All nets of the paper's study.")
    config: str | None = Field(
        None, description="Recipe of the trainings; none: cifar10/paper.yaml for CIFAR nets, else imagenet/paper.yaml."
    )
    data: Path | None = Field(None, description="Directory of the data set.")
    seeds: int = Field(1, ge=1, description="Runs of each net: seeds 0 to N-1.")
    output: Path = Field(Path("runs/depth"), description="Where the runs NET_sSEED and the report go.")
    views: tuple[Literal["10crop", "dense", "multiscale"], ...] = Field(
        (), description="Test views beside the centre crop, for the paper's tables 2 to 4; see eval_backbone.py."
    )
    responses: int = Field(
        1000, ge=0, description="Test images over which the layers' responses are measured (figure 7); 0: not measured."
    )
    dry_run: bool = Field(False, description="Print the plan and stop.")
    report: Path | None = Field(None, description="Where the report goes; none: OUTPUT/report.")

    def check(self) -> None:
        self.check_place()
        directories = [net.directory for net in self.all_nets()]
        twice = sorted({name for name in directories if directories.count(name) > 1})
        if twice:
            raise ValueError(f"the net {', '.join(twice)} is named twice; name each once, --seeds repeats them")

    def all_nets(self) -> list[Net]:
        """Return the nets of --study and --nets. Raises ValueError where an option is unknown."""
        return [Net.parse(text) for text in (*(STUDIES[self.study] if self.study else ()), *self.nets)]
