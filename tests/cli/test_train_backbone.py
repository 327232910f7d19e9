"""Training a classifier: every recipe of ours, what a run leaves behind, and that a seed says it all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import norms
from tests.data.writers import write_folders
from vertebra.build import classifier_run
from vertebra.build import run as training
from vertebra.build.classifier_run import ClassifierTraining
from vertebra.engine.distributed import World
from vertebra.engine.weights import load_weights
from vertebra.ground.errors import UserError
from vertebra.recipes.command_line import load_recipe, read_yaml
from vertebra.recipes.installed import INSTALLED, installed_recipes
from vertebra.recipes.schema import BackboneRecipe

RECIPES = [
    path
    for path in installed_recipes()
    if "backbone" in (values := read_yaml(path)) and "model" not in values  # that of a detector or localizer
]


def train(recipe: BackboneRecipe) -> int:
    """What train_backbone.py does with a recipe, so that a dozen short runs need not start a dozen processes."""
    return training.train(ClassifierTraining(recipe, World()))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    write_folders(root, {"ant": 10, "bee": 10, "cow": 10}, "train", (40, 48))
    return write_folders(root, {"ant": 3, "bee": 3, "cow": 3}, "val", (40, 48))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(recipe: BackboneRecipe, data: Path, output: Path, **changes: Any) -> BackboneRecipe:
    """The recipe on a narrow network and tiny images, two steps long; `solver` and `input` take dicts."""
    here = {"data": data, "output": output, "workers": 0, "device": "cpu", "precision": "fp32", "width": 0.125}
    sizes = {"size": 32, "resize": 32, "test_size": None} | changes.pop("input", {})
    steps = {"iterations": 2, "epochs": None, "batch_size": 6} | changes.pop("solver", {})
    values = recipe.model_dump() | here | {"log_period": 1, "checkpoint_period": 100} | changes
    values["input"] = recipe.input.model_dump() | sizes
    values["solver"] = recipe.solver.model_dump() | steps
    return BackboneRecipe.model_validate(values)


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses_of(run: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run) if "loss" in line]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_trains(folders, tmp_path, path):
    recipe = load_recipe(BackboneRecipe, path)
    size = {"size": 32, "resize": 40, "test_size": 40 if recipe.input.test_size else None}
    size |= {"start_size": 16 if recipe.input.start_size else None}
    shallower = {"r50": "r18", "cifar_r110": "cifar_r8", "vgg16": "vgg11"}
    changes = {"backbone": shallower.get(recipe.backbone, recipe.backbone), "input": size}
    assert train(small(recipe, folders, tmp_path / "run", **changes)) == 0
    assert len(losses_of(tmp_path / "run")) == 2
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert facts["finished"] and 0 <= facts["figures"]["top1"] <= 100


def test_a_recipe_file_says_its_command_its_expected_figure_and_its_cost():
    for path in RECIPES:
        head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
        assert "python tools/train_backbone.py" in head or "python tools/depth_study.py" in head, path
        assert re.search(r"Expected\b.*:", head) or path.parent.name == "sample", path
        assert re.search(r"Cost\b.*:| minute| hour", head), path


def test_two_runs_of_a_seed_have_the_same_losses_and_another_seed_has_others(folders, tmp_path):
    recipe = load_recipe(BackboneRecipe, INSTALLED / "imagenet" / "modern.yaml")
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        train(small(recipe, folders, tmp_path / name, backbone="r18", seed=seed, solver={"iterations": 4}))
    one, two, other = (losses_of(tmp_path / name) for name in ("one", "two", "other"))
    assert len(one) == 4 and one == two and one != other
    same = [load_weights(tmp_path / name / "model.safetensors")[0] for name in ("one", "two")]
    assert all(torch.equal(tensor, same[1][name]) for name, tensor in same[0].items())


def test_a_bad_training_image_costs_a_run_neither_its_steps_nor_its_end(folders, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(folders, data)
    bad = next((data / "train" / "bee").iterdir())
    bad.write_bytes(bad.read_bytes()[:-20])
    recipe = load_recipe(BackboneRecipe, INSTALLED / "imagenet" / "standard.yaml")
    assert train(small(recipe, data, tmp_path / "run", backbone="r18", solver={"iterations": 6})) == 0
    assert caplog.text.count(f"skipped {bad}: truncated") >= 1
    assert "norm statistics recomputed over 30 training images" in caplog.text


def test_a_run_that_goes_on_with_other_images_says_so_and_with_other_classes_does_not(
    folders, tmp_path, caplog, capsys
):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(folders, data)
    recipe = load_recipe(BackboneRecipe, INSTALLED / "imagenet" / "standard.yaml")
    recipe = small(recipe, data, run, backbone="r18", resume=True)
    assert train(recipe) == 0
    assert train(recipe) == 0
    assert "other images" not in capsys.readouterr().out
    next((data / "train" / "bee").iterdir()).unlink()
    assert train(recipe) == 0
    assert "other images" in capsys.readouterr().out
    (run / "provenance.json").unlink()
    assert train(recipe) == 0
    assert "not those that this run began with" in caplog.text
    for split in ("train", "val"):
        (data / split / "bee").rename(data / split / "wasp")
    with pytest.raises(UserError, match="holds a run on other classes"):
        train(recipe)


def test_the_average_is_saved_as_the_model_and_the_raw_weights_beside_it(folders, tmp_path, monkeypatch):
    kept, evaluate = [], classifier_run.evaluate_classifier

    def counted(*parts: Any) -> dict[str, float]:
        figures = evaluate(*parts)
        kept.append(len(norms._KEPT))
        return figures

    monkeypatch.setattr(classifier_run, "evaluate_classifier", counted)
    recipe = load_recipe(BackboneRecipe, INSTALLED / "imagenet" / "standard.yaml")
    run = tmp_path / "run"
    changes = {"backbone": "cifar_r8", "ema": 0.5, "eval_period": 2, "recompute_norms": 0}
    solver = {"iterations": 4, "lr_batch": None, "warmup_epochs": None}
    train(small(recipe, folders, run, **changes, solver=solver))
    assert kept == [0] * 6, "no folded weights beside those that are trained"
    averaged, facts = load_weights(run / "model.safetensors")
    raw, raw_facts = load_weights(run / "model_raw.safetensors")
    assert facts["weights"] == "moving average, decay 0.5 a step" and raw_facts["weights"] == "last step"
    state = torch.load(run / "checkpoints" / "0000004.pt", weights_only=True)
    for name, tensor in raw.items():
        assert torch.equal(tensor, state["model"][f"backbone.{name}"])
        if tensor.is_floating_point():
            assert torch.equal(averaged[name], state["average"][f"backbone.{name}"])
            assert not torch.equal(averaged[name], tensor), name
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["top1"] == facts["figures"]["top1"]
    last = [line for line in lines_of(run) if "ema_top1" in line][-1]
    assert (last["iteration"], last["ema_top1"], last["top1"]) == (
        4, facts["figures"]["top1"], raw_facts["figures"]["top1"],
    )  # fmt: skip


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_best_evaluated_weights_are_kept_beside_the_last(folders, tmp_path, monkeypatch, caplog, ema):
    figures = iter([20.0, 60.0, 40.0] if ema == 0 else [0.0, 20.0, 99.0, 60.0, 0.0, 40.0])  # raw, averaged, raw, ...
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(recipe, model, test_set, world):
        seen.append({name: tensor.clone() for name, tensor in model.backbone.state_dict().items()})
        return {"top1": next(figures, 40.0), "top5": 100.0}

    monkeypatch.setattr(classifier_run, "evaluate_classifier", evaluate)
    recipe = load_recipe(BackboneRecipe, INSTALLED / "imagenet" / "standard.yaml")
    run = tmp_path / "run"
    changes = {"backbone": "cifar_r8", "ema": ema, "eval_period": 2}
    with caplog.at_level("INFO"):
        train(small(recipe, folders, run, **changes, solver={"iterations": 6}))
    best, facts = load_weights(run / "model_best.safetensors")
    wanted = seen[1 if ema == 0 else 3]  # as evaluated at iteration 4
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in best.items() if tensor.is_floating_point())
    name = "ema_top1" if ema else "top1"
    assert facts["weights"] == f"best of the evaluations, by {name} on val"
    assert facts["iterations"] == 4 and facts["figures"] == {"top1": 60.0}
    assert f"the best evaluation was at iteration 4 ({name} 60.00, at the end 40.00)" in caplog.text
    provenance = json.loads((run / "provenance.json").read_text())
    assert (
        provenance["best"]["iterations"] == 4
        and provenance["iterations"] == 6
        and provenance["figures"]["top1"] == 40.0
    )


def test_another_batch_is_told_with_both_rates(folders, tmp_path):
    recipe = load_recipe(BackboneRecipe, INSTALLED / "imagenet" / "standard.yaml")
    changes = {
        "backbone": "cifar_r8",
        "solver": {"batch_size": 4, "iterations": 1, "warmup_epochs": None, "milestones": ()},
    }
    train(small(recipe, folders, tmp_path / "run", **changes))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "batch 4 instead of 256: learning rate 0.1 x 4/256 = 0.0015625" in log
    assert lines_of(tmp_path / "run")[0]["lr"] == pytest.approx(0.0015625)


def test_fine_tuning_says_that_the_classifier_starts_anew(folders, tmp_path):
    recipe = load_recipe(BackboneRecipe, INSTALLED / "cifar10" / "cpu.yaml")
    changes = {"backbone": "cifar_r8", "solver": {"iterations": 1}}
    train(small(recipe, folders, tmp_path / "three", **changes))
    two = tmp_path / "two_classes"
    write_folders(two, {"ant": 6, "bee": 6}, "train", (40, 48))
    write_folders(two, {"ant": 2, "bee": 2}, "val", (40, 48))
    weights = str(tmp_path / "three" / "model.safetensors")
    train(small(recipe, two, tmp_path / "run", **changes, weights=weights))
    assert "the classifier starts anew: 2 classes instead of 3" in (tmp_path / "run" / "log.txt").read_text()


def test_a_part_of_the_training_folder_can_be_held_out_to_choose_by(folders, tmp_path):
    recipe = load_recipe(BackboneRecipe, INSTALLED / "cifar10" / "paper.yaml")
    changes = {"backbone": "cifar_r8", "train_split": "train45k", "test_split": "val5k", "solver": {"iterations": 1}}
    train(small(recipe, folders, tmp_path / "run", **changes))
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert facts["training_data"]["images"] == 27 and facts["best"]["split"] == "val5k"
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["images"] == 3


def test_a_training_on_smaller_crops_is_tested_at_its_own_size(folders, tmp_path):
    from vertebra.build.views import load_net

    recipe = load_recipe(BackboneRecipe, INSTALLED / "cifar10" / "cpu.yaml")
    changes = {"backbone": "cifar_r8", "input": {"augment": "crop", "size": 24, "test_size": 32}}
    train(small(recipe, folders, tmp_path, **changes, solver={"iterations": 1}))
    net = load_net(tmp_path / "model.safetensors", torch.device("cpu"), size=None, resize=None, precision="fp32")
    assert (net.size, net.resize) == (32, 32)
