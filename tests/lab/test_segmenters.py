"""A matrix of segmenters: the same planner, with the segmenters' recipes, heads, figure and cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vertebra.engine.rundir import RunDirectory
from vertebra.ground.errors import RecipeError
from vertebra.lab import matrix
from vertebra.lab.estimate import cost_of
from vertebra.recipes.command_line import parse_recipe
from vertebra.recipes.schema import protocol_fields
from vertebra.recipes.schema_compare import TASKS, CompareRecipe
from vertebra.recipes.schema_segmentation import SEGMENTATION_SETS, SegmentationRecipe

TINY = ("--width", "0.125", "--solver.iterations", "8")


def compare(tmp_path: Path, **fields: object) -> CompareRecipe:
    both = {"task": "seg", "backbones": ["vgg11", "r18"], "weights": ["vgg11=none", "r18=none"]}
    return CompareRecipe.model_validate({**both, "data": tmp_path, "output": tmp_path / "out", **fields})


def test_cells_are_trained_by_the_segmenters_command(tmp_path: Path) -> None:
    planned = matrix.plan(compare(tmp_path, heads=["fcn", "pyramid"], seeds=2), TINY)
    assert [cell.name for cell in planned.trainings()] == [
        *("vgg11_fcn_seed0", "r18_fcn_seed0", "vgg11_pyramid_seed0", "r18_pyramid_seed0"),
        *("vgg11_fcn_seed1", "r18_fcn_seed1", "vgg11_pyramid_seed1", "r18_pyramid_seed1"),
    ]
    for cell in planned.cells:
        again = parse_recipe(SegmentationRecipe, list(cell.flags))
        assert again == cell.recipe, "the command line means the recipe"
        assert (again.seed, again.model.head, again.output) == (cell.seed, cell.head, cell.output)
        assert cell.command_name == "train-seg" and again.width == 0.125 and cell.iterations == 8


@pytest.mark.parametrize("dataset", SEGMENTATION_SETS)
def test_every_head_builds_on_every_data_set(tmp_path: Path, dataset: str) -> None:
    heads = TASKS["seg"].heads
    cells = matrix.plan(compare(tmp_path, dataset=dataset, heads=heads), TINY).cells
    assert [cell.recipe.model.head for cell in cells[::2]] == list(heads)
    own = matrix.plan(compare(tmp_path, dataset=dataset), TINY).cells[0].recipe
    written = {cell.recipe.model.head: protocol_fields(cell.recipe) for cell in cells}
    assert protocol_fields(own) == written[own.model.head], "without --heads it is the data set's own recipe"


@pytest.mark.parametrize(
    ("fields", "overrides", "sentence"),
    [
        (
            {"heads": ["fpn"]},
            (),
            "there is no head 'fpn': it is one of fcn, deeplabv3, deeplabv3plus, pyramid, or",
        ),
        ({"dataset": "voc07"}, (), "dataset 'voc07' is not one of voc12, voc12aug, ade20k"),
        ({"heads": ["fcn", "mine=segmentation/voc12_fcn.yaml"]}, (), "the heads fcn and mine have one head, fcn"),
        ({"recipe": "sample/detection.yaml"}, (), "there is no field input.shorter_side"),
        ({}, ("--model.head", "fcn"), "--model.head is the matrix's own flag; give --heads"),
        ({}, ("--model.norms", "frozen"), "segmenter on vgg11: --weights none trains everything"),
        ({"sweep": ["model.rois", "1", "2"]}, (), "a segmenter's recipe has no such field that can be swept"),
        ({"sweep": ["lr", "1", "2"]}, (), "did you mean solver.lr?"),
        ({"backbones": ["r18", "cifar_r20"], "weights": ["r18=none", "cifar_r20=none"]}, (), "cifar_r20"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_run(tmp_path: Path, fields, overrides, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:  # a RecipeError is one
        matrix.plan(compare(tmp_path, **fields), overrides)
    assert sentence in str(refused.value)


def test_a_backbone_without_weights_is_pre_trained_first(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "classes" / split / "disc").mkdir(parents=True)
        (tmp_path / "classes" / split / "disc" / "1.jpg").touch()
    given = {"weights": ["vgg11=none"], "pretrain": "sample/objects.yaml", "pretrain_data": tmp_path / "classes"}
    planned = matrix.plan(compare(tmp_path, **given), TINY)
    assert {one.name: planned.needs(one) for one in planned.trainings()} == {
        "r18_backbone": (),
        "vgg11_seed0": (),
        "r18_seed0": ("r18_backbone",),
    }
    assert planned.cells[1].recipe.weights == str(tmp_path / "out" / "r18_backbone" / "model.safetensors")


def test_a_detectors_head_is_none_of_a_segmenters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no head 'fcn': it is one of c4, dc5, fpn"):
        compare(tmp_path, task="det", heads=["fcn"])


@pytest.mark.parametrize("name", ["recipe", "detection"])
def test_the_recipe_of_the_cells_has_an_older_name(tmp_path: Path, name: str) -> None:
    flags = ["--task", "seg", "--backbones", "r18", "r34", f"--{name}", "segmentation/voc12_fcn.yaml"]
    assert parse_recipe(CompareRecipe, flags).recipe == "segmentation/voc12_fcn.yaml"
    file = tmp_path / "a.yaml"
    file.write_text(f"{name}: segmentation/voc12_fcn.yaml\n")
    assert parse_recipe(CompareRecipe, ["--config", str(file)]).recipe == "segmentation/voc12_fcn.yaml"


def test_a_sweep_chooses_by_mean_iou_on_held_out_images(tmp_path: Path) -> None:
    recipe = compare(tmp_path, sweep=["solver.lr", "0.01", "0.02"], sweep_share=0.2)
    planned = matrix.plan(recipe, TINY)
    trials = planned.trials["r18", ""]
    assert [(one.recipe.validation, one.recipe.solver.lr) for one in trials] == [(0.2, 0.01), (0.2, 0.02)]
    for trial, figure in zip(trials, (20.0, 30.0)):
        run = RunDirectory.open(trial.output, trial.recipe.model_dump(mode="json"), tensorboard=False)
        run.write_json(run.evaluation, {"segmentation": {"mIoU": figure}})
        run.finish({})
    decided = planned.decided(recipe, planned.cells[1])
    assert decided.recipe.solver.lr == 0.02 and decided.recipe.validation == 0
    assert decided.recipe.sweep == "solver.lr: 0.01 0.02, best mIoU on 0.2 of the training images, seed 0"
    assert "solver.lr" not in protocol_fields(decided.recipe)
    (trials[0].output / "evaluation.json").write_text(json.dumps({"segmentation": {"mIoU": None}}))
    with pytest.raises(ValueError, match="or no labelled pixel; give a greater --sweep-share"):
        planned.decided(recipe, planned.cells[1])


def test_the_estimate_counts_a_segmenters_layers() -> None:
    """By hand, what the auxiliary head adds to a step, and what a second size and a mirrored look add to a test."""

    def recipe(*flags: str) -> SegmentationRecipe:
        tiny = ("--backbone", "r18", "--input.crop", "64", "96", "--solver.batch-size", "3", "--model.head", "fcn")
        return parse_recipe(SegmentationRecipe, [*tiny, "--model.output-stride", "32", *flags])

    plain, helped = (cost_of(recipe("--model.auxiliary", weight)) for weight in ("0", "0.4"))
    channels, inner, cells = 256, 256 // 4, (64 // 16) * (96 // 16)  # r18's c4, at stride 16
    auxiliary = cells * (channels * inner * 9 + inner * 20)
    assert helped.step - plain.step == 3 * 3 * auxiliary and helped.test == plain.test
    both = cost_of(recipe("--model.auxiliary", "0", "--test.scales", "1", "0.5", "--test.flip"))
    assert both.test == 2 * 1.25 * plain.test


def test_a_recipe_of_segmentation_keeps_its_protocol(tmp_path: Path) -> None:
    """Fields that came with the matrix are not in it, nor is the place of one's own maps."""
    fields = protocol_fields(SegmentationRecipe(dataset="maps", train_source="maps:/a/b/train"))
    assert not {"validation", "sweep"} & fields.keys() and fields["train_source"] == "maps:train"
    with pytest.raises(RecipeError, match=r"sweep names solver\.lrr, which is no field"):
        parse_recipe(SegmentationRecipe, ["--sweep", "solver.lrr: 1 2"])
