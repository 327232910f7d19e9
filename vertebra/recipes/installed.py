"""The files that are installed beside the package, found by their names: recipes, and pipelines of augmentation."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from vertebra.ground.errors import RecipeError

_ROOM = Path(__file__).resolve().parent.parent
# In a clone they lie beside the rooms; a wheel carries them inside.
INSTALLED = next(folder for folder in (_ROOM / "configs", _ROOM.parent / "configs") if folder.is_dir())
PIPELINES = INSTALLED / "augmentations"
_NO_RECIPES = ("published", PIPELINES.name)


def installed_recipes() -> list[Path]:
    """Return the files of all recipes."""
    return [file for file in sorted(INSTALLED.rglob("*.yaml")) if file.parent.name not in _NO_RECIPES]


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe: a path, or a name below `configs/`. Raises RecipeError with the nearest name."""
    return _find(name, "recipe", installed_recipes())


def find_pipeline(name: str | Path) -> Path:
    """Return the file of a pipeline of augmentation, as `find_recipe` does."""
    return _find(name, "pipeline", sorted(PIPELINES.glob("*.yaml")))


def _find(name: str | Path, kind: str, installed: Sequence[Path]) -> Path:
    path = Path(name)
    inside = INSTALLED / (path.relative_to("configs") if path.parts[:1] == ("configs",) else path)
    for candidate in (path, inside, inside.with_suffix(".yaml")):
        if candidate.is_file():
            return candidate
    known = [str(file.relative_to(INSTALLED)) for file in installed]
    # Names are compared without .yaml, which would make all of them alike; the folder may be left out.
    names = {stem: file for file in known for stem in (Path(file).stem, file.removesuffix(".yaml"))}
    near = difflib.get_close_matches(str(path).removesuffix(".yaml"), names, n=1)
    hint = f"did you mean {names[near[0]]}?" if near else f"known {kind}s: {', '.join(known)}"
    raise RecipeError(f"no {kind} {name}", hint=hint)
