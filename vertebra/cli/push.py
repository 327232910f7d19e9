"""Publish a finished run on the Hugging Face Hub: its weights, recipe, provenance, figures, and a model card of them.

vertebra push runs/det_r50_coco_0 hf:USER/NAME --licence apache-2.0

hf auth login (or HF_TOKEN) says who you are; HF_ENDPOINT names another server. The recipe and the provenance name the
paths of your data as you typed them. Weights that are there are used as --weights hf:USER/NAME in any command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import Recipe

FILES = ("model.safetensors", "config.yaml", "provenance.json", "evaluation.json")


class Settings(Recipe):
    """Which run, and where it goes."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]] = Field(
        description="A finished run directory."
    )
    repository: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="hf:USER/NAME")]] = Field(
        description="Its repository, made where there is none."
    )
    private: bool = Field(False, description="Make it a private one.")
    revision: str | None = Field(None, description="A branch of it, made where there is none; none: main.")
    licence: str | None = Field(
        None, description="Of the weights, as the Hub writes it: apache-2.0, cc-by-4.0, other; none: not stated."
    )


def main(arguments: list[str]) -> int:
    settings = parse_recipe(Settings, arguments, description=__doc__ or "")
    from vertebra.build import hub
    from vertebra.build.model_card import model_card
    from vertebra.evaluation.report.reading import read_json, read_provenance

    repository, branch = hub.parse(settings.repository)
    if branch and settings.revision:
        raise RecipeError(f"{settings.repository} and --revision name two revisions: give one")
    place = "@".join(filter(None, (repository, settings.revision or branch)))
    facts = read_provenance(settings.run)
    lost = "it is one of the run's results: evaluate it again with its eval command, or restore it"
    evaluation = read_json(settings.run / "evaluation.json", lost)
    for name in FILES:
        if not (settings.run / name).is_file():
            raise RecipeError(settings.run / name, "is missing", lost)
    card = model_card(facts, evaluation, place, settings.licence)
    print(f"{', '.join(FILES)} and README.md go to {place}", flush=True)
    files: dict[str, Path | str] = {**{name: settings.run / name for name in FILES}, "README.md": card}
    message = f"{settings.run.resolve().name}, protocol {facts['protocol_hash'][:12]}"
    address = hub.push(files, f"{hub.PREFIX}{place}", private=settings.private, message=message)
    print(f"{address}\nuse it in any command: --weights {hub.PREFIX}{place}")
    return 0
