"""From a command line to a recipe: defaults < YAML < flags.

`--config FILE` names a recipe, on disk or among those that are installed (`configs/detection/voc07_c4.yaml` or
`detection/voc07_c4`); all other flags are the recipe's own fields.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import tyro
from pydantic import BaseModel, ValidationError
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from vertebra.ground.errors import RecipeError
from vertebra.ground.parse import parse_yaml
from vertebra.recipes.installed import find_recipe
from vertebra.recipes.schema import ONE_LENGTH, Recipe, flag_of

_Recipe = TypeVar("_Recipe", bound=Recipe)


def program() -> str:
    """Return what was typed to start this process: `train_det.py`, `vertebra train-det`."""
    script = Path(sys.argv[0])
    is_tool = script.suffix == ".py" and script.name != "__main__.py"
    return script.name if is_tool else " ".join(["vertebra", *sys.argv[1:2]])


def split_at_dashes(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Split a command's own arguments from those after a lone `--`, which go to the trainings that it starts."""
    if "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], tuple(arguments[at + 1 :])


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file. Raises RecipeError with the file's name when it is something else."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(path, f"is not YAML ({error})", "correct it") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(path, f"holds a {type(values).__name__}", "write `field: value` lines")
    return values


def load_recipe(kind: type[_Recipe], path: Path) -> _Recipe:
    """Read the recipe in a file. Raises RecipeError as `validated` does."""
    return validated(kind, read_yaml(path), str(path))


def validated(kind: type[_Recipe], values: dict[str, Any], origin: str = "", *, is_part: bool = False) -> _Recipe:
    """Return the recipe of those values. Raises RecipeError: `origin`, then each field with what is wrong in it.

    is_part: flags will complete it, so that it is not checked yet that its fields go together.
    """
    try:
        return kind.model_validate(values, context={"is_part": is_part})
    except ValidationError as error:
        sentences = "; ".join(_sentences(kind, error))
        raise RecipeError(origin, sentences) from None


def _sentences(kind: type[BaseModel], error: ValidationError) -> list[str]:
    sentences, faults = [], error.errors()
    for fault in faults:
        place = [str(part) for part in fault["loc"]]
        if fault["type"] == "too_short" and any(place == [*map(str, one["loc"][:-1])] for one in faults):
            continue  # a list without its faulty items
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place[-1], _fields_at(kind, place[:-1]), n=1) or _fields_below(kind, place)
            hint = f", did you mean {near[0]}?" if near else ""
            sentences.append(f"there is no field {'.'.join(place)}{hint}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "too_short":
                message = f"give {fault['ctx']['min_length']} or more"
            elif fault["type"].startswith(("greater_than", "less_than")):
                message += f", not {fault['input']}"
            has_place = not place or message.startswith(f"{'.'.join(place)}.")
            sentences.append(message if has_place else f"{'.'.join(place)}: {message}")
    return sentences


def _fields_at(kind: type[BaseModel], place: list[str]) -> list[str]:
    for part in place:
        inner = kind.model_fields[part].annotation if part in kind.model_fields else None
        if get_origin(inner) is not None or not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)


def _fields_below(kind: type[BaseModel], place: list[str]) -> list[str]:
    """Fields of that name inside the recipe's parts (lr: solver.lr)."""
    return [
        f"{part}.{place[-1]}" for part in kind.model_fields if len(place) == 1 and place[0] in _fields_at(kind, [part])
    ]


def take_flag(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """Return the value of `--flag VALUE` or `--flag=VALUE`, and the arguments without it."""
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
    kind: type[_Recipe], arguments: list[str], *, description: str = "", default: str | None = None
) -> _Recipe:
    """Return the recipe of a command line.

    default: the recipe when there is no --config. Raises RecipeError naming the field; `--help`, unknown flags and
    values of another type exit by themselves (0 and 2), with the nearest known flag.
    """
    name, origin = default, ""
    if "config" not in kind.model_fields:  # else --config is the recipe's own field
        config, arguments = take_flag(arguments, "--config")
        name = config or default
        origin = "\n\n--config FILE reads these settings from a recipe (YAML); flags win."
    base = kind.model_construct()
    if name:
        file = find_recipe(name)
        base = validated(kind, read_yaml(file), str(file), is_part=True)
        origin = f"\n\nDefaults below are those of {name}; --config FILE loads another recipe."
    with _WHOLE:
        read: Any = tyro.cli(
            kind,
            prog=program(),
            default=drop_other_lengths(base, arguments),
            args=arguments,
            description=description + origin,
        )
    return validated(kind, read.model_dump(warnings=False))


_WHOLE = ConstructorRegistry()


@_WHOLE.struct_rule
def _unchecked(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Let tyro put recipes together unchecked: `validated` checks the whole, and names all that is wrong at once."""
    # For Python 3.10 tuple[int, ...] is a class as well.
    if get_origin(info.type) is not None or not (isinstance(info.type, type) and issubclass(info.type, Recipe)):
        return None
    hints = get_type_hints(info.type, include_extras=True)
    fields = tuple(
        StructFieldSpec(name, hints[name], getattr(info.default, name, tyro.MISSING), helptext=field.description)
        for name, field in info.type.model_fields.items()
    )

    def construct(**values: Any) -> Recipe:
        return info.type.model_construct(**values)

    construct.__doc__ = info.type.__doc__  # the part's title in --help
    return StructConstructorSpec(instantiate=construct, fields=fields)


def drop_other_lengths(recipe: _Recipe, arguments: list[str]) -> _Recipe:
    """Return the recipe without those lengths that flags give in another unit: epochs replace the file's iterations.

    Raises RecipeError where the flags themselves give one length twice.
    """
    solver = getattr(recipe, "solver", None)
    if solver is None:
        return recipe
    flags = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    changes: dict[str, Any] = {}
    for lengths in ONE_LENGTH:
        given = [name for name in lengths if flag_of(f"solver.{name}") in flags]
        if len(given) > 1:
            raise RecipeError(f"{' and '.join(flag_of(f'solver.{name}') for name in given)} are two lengths: give one")
        if given:
            changes |= {name: none for name, none in lengths.items() if name not in given}
    return recipe.model_copy(update={"solver": solver.model_copy(update=changes)})
