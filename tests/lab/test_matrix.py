"""The plan of a comparison: which trainings, under which commands, and that they can be before anything is run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import make_detector
from vertebra.engine.rundir import RunDirectory
from vertebra.ground.errors import RecipeError
from vertebra.lab import matrix
from vertebra.lab.estimate import cost_of, makespan_s
from vertebra.lab.kinds import CELLS
from vertebra.lab.matrix import exchange_head
from vertebra.lab.run import executor_of
from vertebra.lab.sweep import Undecided, choose, write_choices
from vertebra.recipes.command_line import find_recipe, load_recipe, parse_recipe
from vertebra.recipes.schema import DEFAULT_RECIPES
from vertebra.recipes.schema_compare import BODIES, TASKS, CompareRecipe
from vertebra.recipes.schema_detection import DetectionRecipe

TINY = ("--width", "0.125", "--solver.iterations", "8")


def compare(tmp_path: Path, **fields: object) -> CompareRecipe:
    both = {"backbones": ["plain18", "r18"], "weights": ["plain18=none", "r18=none"]}
    return CompareRecipe.model_validate({**both, "data": tmp_path, "output": tmp_path / "out", **fields})


def names(trainings) -> list[str]:
    return [training.name for training in trainings]


def test_cells_come_seed_by_seed(tmp_path):
    planned = matrix.plan(compare(tmp_path, heads=["c4", "fpn"], seeds=2), TINY)
    assert names(planned.trainings()) == [
        *("plain18_c4_seed0", "r18_c4_seed0", "plain18_fpn_seed0", "r18_fpn_seed0"),
        *("plain18_c4_seed1", "r18_c4_seed1", "plain18_fpn_seed1", "r18_fpn_seed1"),
    ]
    for cell in (planned.cells[0], planned.cells[-1]):
        again = parse_recipe(DetectionRecipe, list(cell.flags), description="")
        assert again == cell.recipe, "the command line means the recipe"
        assert (again.seed, again.model.body, again.output) == (cell.seed, cell.head, cell.output)
        assert again.width == 0.125 and cell.iterations == 8


def test_a_matrix_without_heads_has_the_names_that_it_always_had(tmp_path):
    (tmp_path / "objects").mkdir()
    recipe = load_recipe(CompareRecipe, find_recipe("sample/demo.yaml"))
    recipe = recipe.model_copy(update={"data": tmp_path, "output": tmp_path})
    with pytest.raises(ValueError):  # there are no classes in it
        matrix.plan(recipe)
    for split in ("train", "val"):
        (tmp_path / "objects" / split / "disc").mkdir(parents=True)
        (tmp_path / "objects" / split / "disc" / "1.jpg").touch()
    assert names(matrix.plan(recipe).trainings()) == [
        *("plain18_backbone", "r18_backbone"),
        *("plain18_seed0", "r18_seed0"),
    ]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("dataset", ["voc07", "voc0712", "coco", "sample"])  # all recipes of the tables
def test_every_head_builds_on_every_data_set_with_sensible_numbers(tmp_path, dataset, body):
    """Sensible: as the recipes that were written for that body."""
    (head,) = CompareRecipe(heads=(body,), dataset=dataset).all_heads()
    flags = exchange_head(TASKS["det"], head.recipe, body)
    recipe = parse_recipe(DetectionRecipe, ["--config", head.recipe, "--backbone", "r18", *flags], description="")
    model = recipe.model
    assert model.body == body
    with torch.device("meta"):
        detector = make_detector(recipe, make_detector_backbone(recipe), 20)
    assert detector.rpn.train_limits.before_nms == model.proposals_before_nms[0]
    own = load_recipe(DetectionRecipe, find_recipe(DEFAULT_RECIPES[dataset]))
    assert model.anchor_sizes[-1] == own.model.anchor_sizes[-1]
    if body == "fpn":
        assert [large / small for small, large in zip(model.anchor_sizes, model.anchor_sizes[1:])] == [2] * 4
        assert model.proposals_before_nms[0] <= 2000, "of each level"
    assert (recipe.input, recipe.test, recipe.solver.iterations) == (own.input, own.test, own.solver.iterations)


def test_every_data_set_has_its_heads():
    chosen = {head.recipe for name in DEFAULT_RECIPES for head in CompareRecipe(heads=BODIES, dataset=name).all_heads()}
    tried = ("voc07", "voc0712", "coco", "sample")
    assert chosen == {head.recipe for name in tried for head in CompareRecipe(heads=BODIES, dataset=name).all_heads()}


def test_a_recipe_gets_another_body_with_what_belongs_to_it():
    """The pairs of recipes that were written for both bodies have the same anchors."""
    assert exchange_head(TASKS["det"], "detection/coco_c4_1x.yaml", "c4") == ()
    for c4, fpn in (("detection/voc_cpu", "detection/voc_fpn_cpu"), ("sample/detection", "sample/fpn")):
        flags = exchange_head(TASKS["det"], c4, "fpn")
        exchanged = parse_recipe(DetectionRecipe, ["--config", c4, *flags], description="")
        assert exchanged.model.anchor_sizes == load_recipe(DetectionRecipe, find_recipe(fpn)).model.anchor_sizes
    flags = exchange_head(TASKS["det"], "detection/coco_fpn_1x.yaml", "c4")
    assert flags == ("--model.body", "c4", "--model.proposals-before-nms", "10000", "5000")
    paper = parse_recipe(
        DetectionRecipe,
        ["--config", "detection/coco_c4_paper", *exchange_head(TASKS["det"], "detection/coco_c4_paper", "fpn")],
        description="",
    )
    assert paper.model.pooling == "align", "RoIPool has no form for a pyramid"


@pytest.mark.parametrize(
    ("fields", "overrides", "sentence"),
    [
        ({"heads": ["mine=nowhere.yaml"]}, (), "no recipe nowhere.yaml"),
        ({"heads": ["c4", "mine=sample/detection.yaml"]}, (), "the heads c4 and mine have one body, c4"),
        ({"weights": ["r18=none"]}, (), "plain18 has no weights: give --weights plain18=FILE"),
        ({"weights": ["r18=none", "plain18=nothing.safetensors"]}, (), "plain18=nothing.safetensors: there is no such"),
        ({"weights": ["r18=none", "plain18=torchvision"]}, (), "torchvision has no weights for plain18"),
        (
            {"backbones": ["r19"], "weights": ["r19=none"]},
            (),
            "no backbone 'r19'; the nearest name is 'r18'",
        ),
        (
            {"backbones": ["cifar_r20"], "weights": ["cifar_r20=none"], "heads": ["fpn"]},
            (),
            "fpn on cifar_r20: cifar_r20 has no map",
        ),
        ({}, ("--seed", "3"), "--seed is the matrix's own flag; write it before the --"),
        ({}, ("--model.body", "fpn"), "--model.body is the matrix's own flag; give --heads"),
        (
            {"heads": ["c4", "fpn"]},
            ("--model.anchor-sizes", "64", "128"),
            "fpn: model.anchor_sizes has 2 sizes, and a pyramid 5 levels (strides 4 to 64) with one each: give as "
            "many, such as 32 64 128 256 512 (what follows the -- is for every head; for one of them, write a recipe: "
            "--heads fpn=FILE.yaml)",
        ),
        ({}, ("--input.albumentations", '[{"Blurr": {}}]'), "detector on plain18: input.albumentations: "),
        ({"sweep": ["model.fpn_channels", "64", "128"]}, (), "64 and 128 both mean 256; name one of them"),
        ({}, ("--model.freeze-stride", "4"), "--weights none trains everything"),
        ({"sweep": ["solver.lrr", "1", "2"]}, (), "no such field that can be swept; did you mean solver.lr?"),
        ({"sweep": ["lr", "1", "2"]}, (), "did you mean solver.lr?"),
        ({"sweep": ["backbone", "r18", "r34"]}, (), "--sweep backbone: a detector's recipe has no such field"),
        ({"sweep": ["solver.lr", "0.1", "much"]}, (), "--solver.lr much: solver.lr: Input should be a valid number"),
        (
            {"sweep": ["solver.lr", "0.01", "1e-2"]},
            (),
            "0.01 and 1e-2 both mean 0.01; name one of them",
        ),
        ({"sweep": ["test.flip", "true", "yes"]}, (), "--sweep test.flip: true and yes both mean True"),
        (
            {"sweep": ["test.flip", "true", "maybe"]},
            (),
            "--test.flip maybe: test.flip: Input should be a valid boolean",
        ),
        ({"sweep": ["solver.lr", "0.1", "0.2"]}, ("--solver.lr", "0.1"), "--solver.lr stands after the -- as well"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_run(tmp_path, fields, overrides, sentence):
    with pytest.raises(RecipeError) as refused:
        matrix.plan(compare(tmp_path, **fields), overrides)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"gpus": 6, "gpus_per_job": 4}, "--gpus 6 is not a multiple of --gpus-per-job 4"),
        ({"gpus": 8, "gpus_per_job": 4, "jobs": 3}, "--jobs is for a CPU"),
        ({"jobs": 3, "slurm": ["time=240"]}, "--jobs is for this machine; a cluster's queue decides"),
        ({"sweep_share": 0.2}, "--sweep-share is for a --sweep"),
        ({"weights": ["r18=a", "r18=b"]}, "--weights has r18 twice; name each once"),
        ({"slurm": ["time=240", "time=10"]}, "--slurm has time twice; name each once"),
        ({"weights": ["r50=a"]}, "--weights r50=a: write BACKBONE=FILE with one of the backbones plain18, r18"),
        ({"backbones": ["r18", "r18"], "weights": []}, "--backbones has r18 twice"),
        ({"heads": ["c4", "c4=x.yaml"]}, "--heads has c4 twice"),
        ({"sweep": ["solver.lr", "0.1"]}, "name a field and at least two values"),
        ({"predictions": ["a.json"]}, "--predictions a.json: write NAME=FILE"),
        ({"heads": ["c5"]}, "there is no head 'c5': it is one of c4, dc5, fpn, or NAME=RECIPE.yaml"),
        ({"heads": ["a b=x.yaml"]}, "write NAME=RECIPE.yaml with a NAME of letters"),
        ({"dataset": "voc7"}, "dataset 'voc7' is not one of voc07"),
        ({"slurm": ["gpu"]}, "--slurm gpu: write KEY=VALUE"),
        ({"slurm": ["time=240"], "ray": "auto"}, "--slurm and --ray are two places; give one"),
        ({"ray": "auto", "jobs": 2}, "--jobs is for this machine; a cluster's queue decides"),
        ({"slurm": ["cluster=cloud"]}, "--slurm cluster=cloud: it is slurm or local"),
        ({"slurm": ["partition=gpu"]}, "--slurm lacks time=MINUTES, such as time=240"),
        ({"slurm": ["time=4h"]}, "--slurm time=4h: in whole minutes, such as time=240"),
        ({"slurm": ["cluster=local", "time=0"]}, "--slurm time=0: in whole minutes"),
        ({"slurm": ["cluster=local", "mem=4G"]}, "--slurm mem=4G: cluster=local has no queue that could heed it"),
        ({"slurm": ["time=240", "nodes=2"]}, "--slurm nodes=2: the whole command would run as often"),
        ({"slurm": ["time=240", "ntasks-per-node=2"]}, "--slurm ntasks-per-node=2: the whole command"),
    ],
)
def test_a_faulty_command_line_is_a_sentence(tmp_path, fields, sentence):
    with pytest.raises(ValueError) as refused:
        compare(tmp_path, **fields)
    assert sentence in str(refused.value)


def test_what_only_a_matrix_heeds_is_known():
    """Every field that was set, and no other: a report on runs that exist would ignore it."""
    given = {"seeds": 3, "dataset": "voc07", "data": "x", "pretrain": "x.yaml", "recipe": "y.yaml", "gpus": 8}
    given |= {"gpus_per_job": 4, "workers": 7, "device": "cpu", "heads": ["c4"], "dry_run": True}
    both = {"runs": ["a"], "output": "o", "report": "r", "predictions": ["n=p.json"], "truth": "t.json", "images": "i"}
    recipe = CompareRecipe.model_validate({**given, **both, "expect": "e.yaml"})
    assert set(recipe.matrix_fields()) == {*given}
    assert CompareRecipe(runs=(Path("a"),)).matrix_fields() == []


def test_devices_are_shared_between_jobs():
    recipes = [CompareRecipe(gpus=8, gpus_per_job=4), CompareRecipe(gpus=8), CompareRecipe(jobs=2), CompareRecipe()]
    assert [(one.at_once, one.processes) for one in recipes] == [(2, 4), (1, 8), (2, 1), (1, 1)]


def finish(training, ap: float | None = None, *, diverged: bool = False) -> None:
    """What a training leaves behind."""
    run = RunDirectory.open(training.output, training.recipe.model_dump(mode="json"), tensorboard=False)
    if diverged:
        run.checkpoints.save_aside({"iteration": 3}, "not_finite")
        return
    run.write_json(run.evaluation, {"coco": {"AP": ap}, "voc": {"mAP": 1.0}})
    run.finish({})


def test_a_sweep_chooses_by_the_held_out_images_and_is_written_down(tmp_path):
    recipe = compare(tmp_path, sweep=["solver.lr", "0.01", "0.02", "0.04", "1e9"], seeds=2)
    planned = matrix.plan(recipe, TINY)
    trials = planned.trials["plain18", ""]
    assert names(trials)[0] == "sweep_plain18_0.01" and trials[0].output == tmp_path / "out" / "sweep" / "plain18_0.01"
    assert [(one.recipe.solver.lr, one.recipe.validation, one.recipe.seed) for one in trials][:2] == [
        (0.01, 0.1, 0),
        (0.02, 0.1, 0),
    ]
    cell = planned.cells[0]
    for trial, ap in zip(trials, (20.0, 30.0, 30.0)):
        with pytest.raises(Undecided, match=r"its sweep lacks the trial of 0.0[124] for detector on plain18"):
            planned.decided(recipe, cell)
        finish(trial, ap)
    finish(trials[3], diverged=True)
    assert choose(trials).chosen == "0.02", "the first of equals; what diverged is no candidate"
    for one in (planned.decided(recipe, planned.cells[0]), planned.decided(recipe, planned.cells[2])):
        assert one.recipe.solver.lr == 0.02 and one.recipe.validation == 0
        assert one.recipe.sweep == ("solver.lr: 0.01 0.02 0.04 1e9, best AP on 0.1 of the training images, seed 0")
        assert parse_recipe(DetectionRecipe, list(one.flags), description="") == one.recipe
    write_choices(recipe, list(planned.trials.values()))
    written = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert written["field"] == "solver.lr" and written["rule"].startswith("best AP on 0.1")
    figures = {"0.01": 20.0, "0.02": 30.0, "0.04": 30.0, "1e9": None}
    assert written["choices"] == [{"backbone": "plain18", "head": "", "figures": figures, "chosen": "0.02"}]


def test_a_trial_whose_figure_cannot_be_read_leaves_its_own_cells_undecided(tmp_path):
    recipe = compare(tmp_path, sweep=["solver.lr", "0.01", "0.02"])
    planned = matrix.plan(recipe, TINY)
    for trial in planned.all_trials():
        finish(trial, 20.0)
    broken = planned.trials["plain18", ""][1].output / "evaluation.json"
    broken.write_text("{")
    with pytest.raises(Undecided, match=r"evaluation.json has no coco AP .*; remove the run, and it is tried again"):
        planned.decided(recipe, planned.cells[0])
    broken.write_text('{"coco": {"AP": null}}')
    with pytest.raises(Undecided, match=r"or no labelled pixel; give a greater --sweep-share"):
        planned.decided(recipe, planned.cells[0])
    write_choices(recipe, list(planned.trials.values()))
    written = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [choice["backbone"] for choice in written["choices"]] == ["r18"], "the other backbone's is decided"


def test_a_sweep_over_a_switch_is_typed_as_one(tmp_path):
    recipe = compare(tmp_path, sweep=["test.flip", "true", "false"])
    planned = matrix.plan(recipe, TINY)
    trials = planned.trials["plain18", ""]
    assert [one.flags[-1] for one in trials] == ["--test.flip", "--test.no-flip"]
    for trial, ap in zip(trials, (20.0, 30.0)):
        assert parse_recipe(DetectionRecipe, list(trial.flags), description="") == trial.recipe
        finish(trial, ap)
    decided = planned.decided(recipe, planned.cells[0])
    assert decided.recipe.test.flip is False and decided.flags[-3] == "--test.no-flip"
    assert parse_recipe(DetectionRecipe, list(decided.flags), description="") == decided.recipe


def test_a_sweep_over_the_length_changes_the_length(tmp_path, monkeypatch):
    monkeypatch.setattr("vertebra.lab.training._images_of", lambda recipe: 100)
    for field, lengths in (("solver.iterations", (5, 9)), ("solver.epochs", (50, 90))):
        recipe = compare(tmp_path, sweep=[field, "5", "9"], output=tmp_path / field)
        planned = matrix.plan(recipe, ("--width", "0.125", "--solver.batch-size", "10"))
        trials = planned.trials["plain18", ""]
        assert tuple(one.iterations for one in trials) == lengths
        for trial in trials:
            assert parse_recipe(DetectionRecipe, list(trial.flags), description="") == trial.recipe
            finish(trial, 10.0)
        assert planned.decided(recipe, planned.cells[0]).iterations == lengths[0]
    with pytest.raises(RecipeError, match=r"are two lengths: give one"):
        matrix.plan(compare(tmp_path, sweep=["solver.epochs", "1", "2"]), TINY)


def test_the_length_in_epochs_is_counted_once(tmp_path, monkeypatch):
    opened = []
    own = replace(CELLS[DetectionRecipe], open_train=lambda recipe: opened.append(1) or range(100))
    monkeypatch.setitem(CELLS, DetectionRecipe, own)
    epochs = ("--width", "0.125", "--solver.batch-size", "10", "--solver.epochs", "3")
    planned = matrix.plan(compare(tmp_path, seeds=3), epochs)
    assert [cell.iterations for cell in planned.cells] == [30] * 6
    assert len(opened) <= 2, "a large set takes seconds to open"


@pytest.mark.parametrize(
    ("at_once", "times_s", "needs", "expected_s"),
    [
        (1, {"a": 1, "b": 2, "c": 3}, {}, 6),
        (2, {"a": 1, "b": 2, "c": 3}, {}, 4),  # c after a
        (8, {"a": 10, "b": 10}, {}, 10),  # fewer trainings than places
        (8, {"p": 5, "a": 3, "b": 4}, {"a": ["p"]}, 8),  # a after its pre-training
        (2, {"p": 5, "a": 3, "b": 4}, {"a": ["p", "done before"]}, 8),  # b takes the room of a, which waits
        (1, {}, {}, 0),
    ],
)
def test_the_time_of_a_matrix_is_that_of_its_schedule(at_once, times_s, needs, expected_s):
    assert makespan_s(times_s, {name: needs.get(name, ()) for name in times_s}, at_once) == expected_s


def test_jobs_do_not_share_gpus_by_accident(tmp_path, monkeypatch):
    """--jobs 2 --gpus 4 would give both jobs all four."""
    from vertebra.lab import run

    monkeypatch.setattr("vertebra.engine.device.visible_gpus", lambda device: ["0", "1", "2", "3"])
    with pytest.raises(
        RecipeError, match=r"--jobs is for a CPU; with GPUs give --gpus-per-job, such as --gpus 4 --gpus"
    ):
        run.executor_of(compare(tmp_path, jobs=2, gpus=4))
    assert run.executor_of(compare(tmp_path, gpus=4, gpus_per_job=1)).at_once == 4
    monkeypatch.setattr("vertebra.engine.device.visible_gpus", lambda device: [])
    assert run.executor_of(compare(tmp_path, jobs=2, gpus=4)).at_once == 2


def test_the_plan_says_where_the_jobs_go(tmp_path, monkeypatch):
    from vertebra.lab import forecast

    assert "the cluster's queue" in forecast.devices(compare(tmp_path, slurm=["time=240"]))
    assert "All go to Ray, each with 4 process" in forecast.devices(compare(tmp_path, ray="auto", gpus=4))
    here = compare(tmp_path, slurm=["cluster=local"], gpus=2, gpus_per_job=1)
    assert forecast.devices(here) == "2 jobs at a time, each in 1 process."


def test_what_is_done_of_a_training_is_not_counted_again(tmp_path):
    cell = matrix.plan(compare(tmp_path), TINY).cells[0]
    assert cell.remaining() == 1
    cell.output.mkdir(parents=True)
    (cell.output / "metrics.jsonl").write_text('{"iteration": 6, "loss": 1.0, "time_s": 0.1}\n')
    assert cell.remaining() == 0.25


def test_a_cell_needs_its_pretraining_alone(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "objects" / split / "disc").mkdir(parents=True)
        (tmp_path / "objects" / split / "disc" / "1.jpg").touch()
    recipe = load_recipe(CompareRecipe, find_recipe("sample/demo.yaml"))
    planned = matrix.plan(recipe.model_copy(update={"data": tmp_path, "output": tmp_path}))
    assert {one.name: planned.needs(one) for one in planned.trainings()} == {
        "plain18_backbone": (),
        "r18_backbone": (),
        "plain18_seed0": ("plain18_backbone",),
        "r18_seed0": ("r18_backbone",),
    }


def test_a_sweep_on_voc_is_judged_by_vocs_figure(tmp_path):
    both = {"weights": ["plain18=none", "r18=none"], "dataset": "voc07", "sweep": ["solver.lr", "0.1", "0.2"]}
    recipe = compare(tmp_path, **both)
    planned = matrix.plan(recipe, (*TINY, "--model.norms", "trained", "--model.freeze-stride", "0"))
    trials = planned.trials["r18", ""]
    for trial in trials:
        finish(trial, 5.0)
    assert choose(trials).figures == {"0.1": 1.0, "0.2": 1.0}
    assert "best VOC mAP on" in planned.decided(recipe, planned.cells[1]).recipe.sweep


def test_a_cell_that_holds_another_recipes_run_is_an_error_that_names_it(tmp_path):
    cell = matrix.plan(compare(tmp_path), TINY).cells[0]
    finish(cell, 1.0)
    assert cell.is_finished()
    other = matrix.plan(compare(tmp_path), (*TINY, "--solver.lr", "0.5")).cells[0]
    with pytest.raises(ValueError, match=r"plain18_seed0 holds a run of another recipe; it differs in solver.lr"):
        other.is_finished()


def test_the_estimate_counts_what_the_layers_compute():
    """By hand, of a small pyramid: body, RPN's head and box head, three times that for each image of a step."""
    recipe = load_recipe(DetectionRecipe, find_recipe("sample/fpn.yaml"))
    few = recipe.model.model_copy(update={"rois": 0, "proposals": (1, 0)})
    with_regions, without = (cost_of(recipe.model_copy(update={"model": model})) for model in (recipe.model, few))
    region = 64 * 7 * 7 * 256 + 256 * 256 + 256 * (21 + 80)  # two linear layers, the classes of VOC and their boxes
    assert with_regions.step - without.step == 3 * recipe.solver.batch_size * recipe.model.rois * region
    assert with_regions.test - without.test == recipe.model.proposals[1] * region


@pytest.mark.parametrize(("workers", "cores"), [("auto", 4 * (15 + 1)), (3, 4 * (3 + 1))])
def test_a_queued_job_asks_for_the_cores_of_its_processes_and_their_workers(monkeypatch, tmp_path, workers, cores):
    asked = []
    monkeypatch.setattr("vertebra.engine.device.usable_cores", lambda: 64)
    monkeypatch.setattr("vertebra.engine.jobs.slurm.Cluster", lambda *_, **options: asked.append(options))
    recipe = CompareRecipe(slurm=("time=60",), gpus=4, workers=workers, output=tmp_path)
    executor_of(recipe)
    assert asked[0]["cores"] == cores
