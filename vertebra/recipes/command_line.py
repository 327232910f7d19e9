"""From a command line to a recipe: defaults < YAML < flags.

`--config FILE` names a recipe, on disk or among those that are installed (`configs/detection/voc07_c4.yaml` or
`detection/voc07_c4`); all other flags are the recipe's own fields.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro
import yaml
from pydantic import BaseModel, ValidationError
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from vertebra.ground.errors import RecipeError
from vertebra.recipes.schema import ONE_LENGTH, Recipe, flag_of

_ROOM = Path(__file__).resolve().parent.parent
# In a clone they lie beside the rooms; a wheel carries them inside.
INSTALLED = next(folder for folder in (_ROOM / "configs", _ROOM.parent / "configs") if folder.is_dir())

_Recipe = TypeVar("_Recipe", bound=Recipe)


def program() -> str:
    """Return what was typed to start this process: `train_det.py`, `vertebra train-det`."""
    script = Path(sys.argv[0])
    is_tool = script.suffix == ".py" and script.name != "__main__.py"
    return script.name if is_tool else " ".join(["vertebra", *sys.argv[1:2]])


def split_at_dashes(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """A tool's own arguments, and those after a lone `--`, which are those of the trainings that it starts."""
    if "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], tuple(arguments[at + 1 :])


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, or a name below `configs/`. Raises RecipeError with the known names."""
    path = Path(name)
    inside = INSTALLED / (path.relative_to("configs") if path.parts[:1] == ("configs",) else path)
    for candidate in (path, inside, inside.with_suffix(".yaml")):
        if candidate.is_file():
            return candidate
    known = sorted(
        str(file.relative_to(INSTALLED)) for file in INSTALLED.rglob("*.yaml") if file.parent.name != "published"
    )
    near = difflib.get_close_matches(str(path), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"known recipes: {', '.join(known)}"
    raise RecipeError(f"no recipe {name}; {hint}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; RecipeError names the file when it is something else."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds a {type(values).__name__}, not `field: value` lines")
    return values


def load_recipe(kind: type[_Recipe], path: Path) -> _Recipe:
    """The recipe in `path`. Raises RecipeError naming the file, the field and the nearest known field."""
    return validated(kind, read_yaml(path), str(path))


def validated(kind: type[_Recipe], values: dict[str, Any], origin: str) -> _Recipe:
    """The recipe of those values. Raises RecipeError naming `origin`, the field and the nearest known field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {'; '.join(_faults(kind, error))}") from None


def _faults(kind: type[BaseModel], error: ValidationError) -> list[str]:
    sentences, faults = [], error.errors()
    for fault in faults:
        place = [str(part) for part in fault["loc"]]
        if fault["type"] == "too_short" and any(place == [*map(str, one["loc"][:-1])] for one in faults):
            continue  # a list without its faulty items
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place[-1], _fields_at(kind, place[:-1]), n=1) or _fields_below(kind, place)
            mend = f", did you mean {near[0]}?" if near else ""
            sentences.append(f"there is no field {'.'.join(place)}{mend}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "too_short":
                message = f"give {fault['ctx']['min_length']} or more"
            said = not place or message.startswith(f"{'.'.join(place)}.")
            sentences.append(message if said else f"{'.'.join(place)}: {message}")
    return sentences


def _fields_at(kind: type[BaseModel], place: list[str]) -> list[str]:
    for part in place:
        inner = kind.model_fields[part].annotation if part in kind.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)


def _fields_below(kind: type[BaseModel], place: list[str]) -> list[str]:
    """Fields of that name inside the recipe's parts (lr: solver.lr)."""
    return [
        f"{part}.{place[-1]}" for part in kind.model_fields if len(place) == 1 and place[0] in _fields_at(kind, [part])
    ]


def take_flag(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of `--flag VALUE` or `--flag=VALUE`, and the arguments without it."""
    value, rest, position = None, [], 0
    while position < len(arguments):
        argument = arguments[position]
        if argument == flag:
            if position + 1 == len(arguments) or arguments[position + 1].startswith("--"):
                raise RecipeError(f"{flag} needs a value")
            value, position = arguments[position + 1], position + 2
        elif argument.startswith(flag + "="):
            value, position = argument.split("=", 1)[1], position + 1
        else:
            rest.append(argument)
            position += 1
    return value, rest


def parse_recipe(
    kind: type[_Recipe], arguments: list[str] | None = None, *, description: str, default: str | None = None
) -> _Recipe:
    """The recipe of a command line.

    default: the recipe when there is no --config. Raises RecipeError naming the field; `--help`, unknown flags and
    values of another type exit by themselves (0 and 2), with the nearest known flag.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    names_another = "config" in kind.model_fields  # then --config is the recipe's own field
    config, arguments = (None, arguments) if names_another else take_flag(arguments, "--config")
    name = config or default
    base = load_recipe(kind, find_recipe(name)) if name else kind()
    base = lengths_by_flag_win(base, arguments)
    origin = f"\n\nDefaults below are those of {name}; --config FILE loads another recipe." if name else ""
    with UNCHECKED:
        read = tyro.cli(kind, prog=program(), default=base, args=arguments, description=description + origin)
    try:
        return kind.model_validate(_what_flags_left_idle_rests(read, arguments).model_dump(warnings=False))
    except ValidationError as error:
        raise RecipeError("; ".join(_faults(kind, error))) from None


# Recipes as they are typed: the whole is checked at once, under its fields' own names.
UNCHECKED = ConstructorRegistry()


@UNCHECKED.struct_rule
def _unchecked(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not (isinstance(info.type, type) and issubclass(info.type, Recipe)):
        return None
    hints = get_type_hints(info.type, include_extras=True)
    fields = tuple(
        StructFieldSpec(name=name, type=hints[name], default=getattr(info.default, name), helptext=field.description)
        for name, field in info.type.model_fields.items()
    )

    def construct(**values: Any) -> Recipe:
        return info.type.model_construct(**values)

    construct.__doc__ = info.type.__doc__  # the part's title in --help
    return StructConstructorSpec(instantiate=construct, fields=fields)


def _flags_in(arguments: list[str]) -> set[str]:
    return {argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")}


def _what_flags_left_idle_rests(recipe: _Recipe, arguments: list[str]) -> _Recipe:
    """What the file sets and a flag has made idle (another body's fields) is as if it had not been set."""
    flags, changes = _flags_in(arguments), {}
    for part, value in recipe:
        if isinstance(value, Recipe):
            idle = {name for name in value.idle() if flag_of(f"{part}.{name}") not in flags}
            changes[part] = value.model_copy(update={name: type(value).model_fields[name].default for name in idle})
    return recipe.model_copy(update=changes)


def lengths_by_flag_win(recipe: _Recipe, arguments: list[str]) -> _Recipe:
    """One length of a kind is in force: a flag's replaces what the file has in another unit."""
    solver = getattr(recipe, "solver", None)
    if solver is None:
        return recipe
    flags = _flags_in(arguments)
    changes: dict[str, Any] = {}
    for lengths in ONE_LENGTH:
        given = [name for name in lengths if flag_of(f"solver.{name}") in flags]
        if len(given) > 1:
            raise RecipeError(f"{' and '.join(flag_of(f'solver.{name}') for name in given)} are two lengths: give one")
        if given:
            changes |= {name: none for name, none in lengths.items() if name not in given}
    return recipe.model_copy(update={"solver": solver.model_copy(update=changes)}) if changes else recipe
