"""prepare_data.py check: everything about data sets that can be known before they cost a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vertebra.cli.common import bar, counting, make_room
from vertebra.ground.formats import counted

if TYPE_CHECKING:
    from vertebra.data.datasets.faults import Fault
    from vertebra.data.prepare.anchor_fit import Anchors
    from vertebra.data.prepare.check import Checked

ALIKE_SHOWN = 10  # faults of one kind
TRAINING = ("train",)  # how names of splits to train on begin
_VOC = {"voc2007": "voc07", "voc2012": "voc12"}


def check(
    data: Annotated[Path, tyro.conf.arg(help="Directory of the data set.")],
    source: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="voc2007/trainval, coco/val2017, sample/train, imagenet_det/val, json:FILE, yolo:data.yaml/train, "
            "vocxml:DIR; train, val, test of class folders; loc/train and loc/val of images with boxes; of semantic "
            "maps seg/voc2012/train, voc2012aug/train, ade20k/training, cityscapes/train, coco_stuff/train2017, "
            "maps:DIR/SPLIT; default: all that are found, without images with boxes and semantic maps. Several: they "
            "are also compared, as train and test."
        ),
    ] = (),
    config: Annotated[
        str | None, tyro.conf.arg(help="Detection recipe whose anchors boxes are compared with [the data set's own].")
    ] = None,
    json: Annotated[Path | None, tyro.conf.arg(help="Write all that was found to this file.")] = None,
    fix: Annotated[
        Path | None, tyro.conf.arg(help="Write the sets anew into this new directory, without what is wrong.")
    ] = None,
    processes: Annotated[int, tyro.conf.arg(help="Processes that decode pictures; 0: as many as cores.")] = 0,
) -> int:
    """Read everything once and list all faults: unreadable images, bad boxes and maps, unknown ids, duplicates.

    Also counts classes, compares boxes with anchors, and finds pictures of the test set in the training set.
    """
    from vertebra.data.datasets.catalog import find_sources
    from vertebra.data.prepare.check import is_semantic
    from vertebra.data.prepare.findings import comparison, comparison_in_words
    from vertebra.ground.errors import RecipeError

    if processes < 0:
        raise RecipeError(f"--processes {processes}: give 1 or more, or 0 for as many as cores")
    make_room("--json", json)
    if fix is not None:
        from vertebra.data.prepare.fix import refuse_in_place

        refuse_in_place(fix, data)
        if maps := next(filter(is_semantic, source), None):
            raise RecipeError(f"--fix writes no semantic maps, as {maps} has; correct the files that are named")
    if config is not None:
        _anchors(config)  # a wrong name is known before the pass
    sources = source or find_sources(data)
    checked: list[Checked] = []
    report: dict[str, Any] = {"data": str(data), "sources": {}, "comparisons": []}
    for one in sources:
        found, numbers = check_one(data, one, config, processes)
        checked.append(found)
        report["sources"][one] = numbers
    for train, test in _pairs(checked, all_named=bool(source)):
        compared = comparison(train, test)
        report["comparisons"].append(compared)
        for sentence in comparison_in_words(compared):
            print(sentence)
    fatal = sum(one.fatal for one in checked)
    if fix is not None:
        fatal = _fix(checked, data, fix, report)
    if json is not None:
        from vertebra.ground.files import write_json

        write_json(json, report)
    return 1 if fatal else 0


def check_one(data: Path, source: str, config: str | None = None, processes: int = 0) -> tuple[Checked, dict[str, Any]]:
    """Check a source and print what there is to say; return it, and its part of the report."""
    from vertebra.data.prepare.check import check, is_detection
    from vertebra.data.prepare.findings import contents, contents_in_words
    from vertebra.recipes.schema import DEFAULT_RECIPES

    with counting(source) as show:
        checked = check(data, source, processes=processes, progress=show)
    _print_faults(source, checked.faults)
    anchors, recipe = None, ""
    if is_detection(source):
        kind = source.partition("/")[0].partition(":")[0].lower()
        recipe = config or DEFAULT_RECIPES.get(_VOC.get(kind, kind), DEFAULT_RECIPES["voc12"])
        anchors = _anchors(recipe)
    found = contents(checked, anchors)
    for sentence in contents_in_words(found, recipe):
        print(f"  {sentence}")
    faults = [{"where": str(f.path), "reason": f.reason, "hint": f.hint, "fatal": f.fatal} for f in checked.faults]
    return checked, {"faults": faults, **({"recipe": recipe} if "anchors" in found else {}), **found}


def _print_faults(source: str, faults: Sequence[Fault]) -> None:
    """Print some of each kind, and how many there are."""
    alike: dict[str, int] = {}
    for fault in faults:
        alike[fault.hint] = alike.get(fault.hint, 0) + 1
        if alike[fault.hint] <= ALIKE_SHOWN:
            print(fault if str(fault.path) in source else f"{source}: {fault}")
    for hint, count in alike.items():
        if count > ALIKE_SHOWN:
            print(f"{source}: {count - ALIKE_SHOWN} more like these ({hint}); --json FILE lists all")
    fatal = sum(fault.fatal for fault in faults)
    notes = f", {counted(len(faults) - fatal, 'note')}" if len(faults) > fatal else ""
    print(f"{source}: {counted(fatal, 'fault') if fatal else 'no faults'}{notes}")


def _anchors(name: str) -> Anchors:
    """Return a detection recipe's anchors. Raises RecipeError."""
    from vertebra.data.prepare.anchor_fit import Anchors
    from vertebra.data.transforms.canvases import FixedView
    from vertebra.recipes.command_line import find_recipe, load_recipe
    from vertebra.recipes.schema_detection import FPN_LEVELS, DetectionRecipe

    recipe = load_recipe(DetectionRecipe, find_recipe(name))
    model = recipe.model
    strides = {"c4": (model.cut_stride,), "dc5": (16,), "fpn": tuple(4 << level for level in range(FPN_LEVELS))}
    return Anchors(
        model.anchor_sizes,
        model.anchor_ratios,
        strides[model.body],
        0.5 if model.conventions == "vertebra" else 0.0,
        FixedView(recipe.input.test_shorter_side, recipe.input.longer_side),
    )


def split_name(source: str) -> str:
    """Return the split that a source names, as a name for its copy: coco/val2017 is val2017, json:a/b.json is b."""
    return Path(source.partition("+")[0].partition(":")[2] or source.partition("+")[0]).stem.removeprefix("instances_")


def _pairs(checked: Sequence[Checked], *, all_named: bool) -> list[tuple[Checked, Checked]]:
    """Sets to train on with those to test on, by their names; of named ones without such names the first with others.

    Sets of classes and sets of objects are not compared with one another.
    """
    looked = [one for one in checked if one.looks is not None]
    train = [one for one in looked if split_name(one.source).startswith(TRAINING)]
    if all_named and not train:
        train = looked[:1]
    return [
        (one, other)
        for one in train
        for other in looked
        if other not in train and type(one.dataset) is type(other.dataset)
    ]


def _fix(checked: Sequence[Checked], data: Path, output: Path, report: dict[str, Any]) -> int:
    """Write all sets anew and check what was written; return how many faults are left."""
    from vertebra.data.prepare.check import check
    from vertebra.data.prepare.fix import write_fixed

    kinds = {one.source: one.source.partition("/")[0].partition(":")[0] for one in checked}
    kinds = {source: "classes" if kind == source else kind for source, kind in kinds.items()}
    left = 0
    for one in checked:
        place = output / kinds[one.source] if len(set(kinds.values())) > 1 else output
        fixed = write_fixed(one, data, place, split_name(one.source), progress=bar(f"writing {one.source}"))
        if fixed is None:
            print(f"{one.source}: nothing in it can be used, so that nothing was written")
            left += one.fatal
            continue
        for change in fixed.sentences[:ALIKE_SHOWN]:
            print(f"{one.source}: {change}")
        if len(fixed.sentences) > ALIKE_SHOWN:
            print(f"{one.source}: {len(fixed.sentences) - ALIKE_SHOWN} more changes; --json FILE lists all")
        again = check(fixed.data, fixed.source)
        for fault in again.faults:
            if fault.fatal:
                print(f"{fixed.source}: still wrong: {fault}")
        left += again.fatal
        pictures = 0 if again.pictures is None else len(again.pictures)
        print(
            f"{one.source}: {counted(pictures, 'image')} written; open them as {fixed.source} with --data {fixed.data}"
        )
        report["sources"][one.source]["fixed"] = {
            "source": fixed.source, "data": str(fixed.data), "changes": fixed.sentences, "images": pictures
        }  # fmt: skip
    return left
