"""Recipes: defaults < YAML < flags, and a sentence for what is wrong."""

import pytest
import yaml

from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import (
    load_recipe,
    parse_recipe,
    take_flag,
    validated,
)
from vertebra.recipes.installed import find_recipe, installed_recipes
from vertebra.recipes.schema import BackboneRecipe, Recipe, flatten, may_differ, protocol_fields
from vertebra.recipes.schema_compare import CompareRecipe
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_localisation import LocalisationRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

KINDS = {
    "imagenet": BackboneRecipe,
    "imagenette": BackboneRecipe,
    "cifar10": BackboneRecipe,
    "detection": DetectionRecipe,
    "localisation": LocalisationRecipe,
    "segmentation": SegmentationRecipe,
}
SAMPLE_KINDS = {
    "objects": BackboneRecipe,
    "located": BackboneRecipe,
    "detection": DetectionRecipe,
    "mask_fpn": DetectionRecipe,
    "fpn": DetectionRecipe,
    "segmentation": SegmentationRecipe,
    "demo": CompareRecipe,
    "demo_objects": BackboneRecipe,
    "demo_detection": DetectionRecipe,
}


RECIPES = installed_recipes()


def kind_of(path):
    return SAMPLE_KINDS[path.stem] if path.parent.name == "sample" else KINDS[path.parent.name]


def parse(kind, *arguments, default=None):
    return parse_recipe(kind, list(arguments), description="A test.", default=default)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_installed_recipe_is_valid_and_says_how_to_run_it(path):
    load_recipe(kind_of(path), path)
    assert path.read_text().startswith("# ")


def test_flags_beat_the_file_and_the_file_beats_the_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("solver: {lr: 0.5, batch_size: 8}\n")
    recipe = parse(BackboneRecipe, "--config", str(file), "--solver.lr", "0.25")
    assert (recipe.solver.lr, recipe.solver.batch_size, recipe.solver.momentum) == (0.25, 8, 0.9)


def test_a_resolved_recipe_is_itself_a_recipe(tmp_path):
    recipe = parse(DetectionRecipe, "--input.canvases", "64", "96", default="detection/voc07_c4.yaml")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(DetectionRecipe, file) == recipe


def test_a_flag_gives_an_effect_to_what_a_file_alone_would_not_have(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {fpn_channels: 64}\n")
    assert parse(DetectionRecipe, "--config", str(file), "--model.body", "fpn").model.fpn_channels == 64
    assert parse(DetectionRecipe, "--config", str(file)).model.fpn_channels == 256


@pytest.mark.parametrize(
    ("kind", "text", "flags", "sentence"),
    [
        (BackboneRecipe, "solver: [1, 2", (), r"mine\.yaml: is not YAML .*; correct it$"),
        (
            BackboneRecipe,
            "solver: {weight_decai: 1}",
            (),
            r"mine\.yaml.*solver\.weight_decai, did you mean weight_decay",
        ),
        (BackboneRecipe, "lr: 3", (), r"there is no field lr, did you mean solver\.lr\?"),
        (
            *(BackboneRecipe, "solver: {warmup_iterations: 100, warmup_epochs: 1}", ()),
            r"solver\.warmup_iterations and solver\.warmup_epochs are two lengths",
        ),
        (
            *(BackboneRecipe, None, ("--solver.epochs", "2", "--solver.iterations", "100")),
            r"--solver\.iterations and --solver\.epochs are two lengths: give one",
        ),
        (
            *(BackboneRecipe, None, ("--solver.milestones", "60000")),
            r"^solver\.milestones are fractions .* write 60k of 90k iterations as 0.666667",
        ),
        (
            *(DetectionRecipe, None, ("--model.rois", "0", "--solver.lr", "-1")),
            r"^model\.rois: Input should be greater .*; solver\.lr: .* greater than 0, not -1.0$",
        ),
    ],
)
def test_a_wrong_recipe_names_the_field_and_what_it_takes(tmp_path, kind, text, flags, sentence):
    """The recipe is a file, mine.yaml, or flags alone."""
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text + "\n")
        flags = ("--config", str(tmp_path / "mine.yaml"), *flags)
    with pytest.raises(RecipeError, match=sentence):
        parse(kind, *flags)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match=r"did you mean detection/voc07_c4\.yaml"):
        find_recipe("detection/voc07_c5.yaml")


def test_an_unknown_flag_names_the_nearest_and_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(BackboneRecipe, "--solver.epocs", "3")
    assert stop.value.code == 2
    assert "--solver.epochs" in capsys.readouterr().err


def test_epochs_as_a_flag_replace_the_files_iterations(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("solver: {iterations: 100}\n")
    recipe = parse(BackboneRecipe, "--config", str(file), "--solver.epochs", "2")
    assert recipe.solver.iterations is None and recipe.solver.epochs == 2


def test_a_warm_up_as_a_flag_replaces_the_files_in_another_unit():
    flags = ("--config", "imagenet/standard.yaml", "--solver.warmup_iterations=0")
    solver = parse(BackboneRecipe, *flags).solver
    assert (solver.warmup_iterations, solver.warmup_epochs) == (0, None)
    solver = parse(BackboneRecipe, *flags[:2], "--solver.warmup-until-error", "80").solver
    assert (solver.warmup_epochs, solver.warmup_until_error) == (None, 80)


def test_the_protocol_leaves_out_what_a_comparison_varies():
    one = parse(DetectionRecipe, "--backbone", "r18", "--seed", "1", "--weights", "a", "--workers", "0")
    two = parse(DetectionRecipe, "--backbone", "vgg16", "--seed", "2", "--weights", "b", "--data", "there")
    assert protocol_fields(one) == protocol_fields(two)
    assert protocol_fields(one) != protocol_fields(parse(DetectionRecipe, "--test.nms", "0.3"))
    assert "solver.lr" in flatten(one)


def test_json_data_needs_the_sources_that_are_used():
    recipe = parse(DetectionRecipe, "--dataset", "json")
    with pytest.raises(ValueError, match=r"needs --train-source json:train.json and --test-source json:val.json$"):
        recipe.source("train")
    with pytest.raises(ValueError, match=r"--dataset json needs --test-source json:val.json$"):
        recipe.source("test")
    with pytest.raises(ValueError, match=r"needs --train-source json:train.json$"):
        recipe.model_copy(update={"validation": 0.1}).source("train")
    assert parse(DetectionRecipe, "--dataset", "json", "--test-source", "json:B.json").source("test") == "json:B.json"


def test_take_flag_reads_both_spellings():
    assert take_flag(["a", "--config", "x", "b"], "--config") == ("x", ["a", "b"])
    assert take_flag(["--config=x"], "--config") == ("x", [])
    with pytest.raises(RecipeError, match="needs a value"):
        take_flag(["--config"], "--config")


def test_the_place_of_a_json_is_no_part_of_the_protocol():
    one = parse(DetectionRecipe, "--train-source", "json:/here/A.json+json:B.json")
    two = parse(DetectionRecipe, "--train-source", "json:there/A.json+json:B.json")
    assert protocol_fields(one) == protocol_fields(two)
    assert protocol_fields(one) != protocol_fields(parse(DetectionRecipe, "--train-source", "json:C.json"))


def test_evaluations_that_steer_the_rate_belong_to_the_protocol():
    steps, plateau = ((parse(BackboneRecipe, "--solver.schedule", kind)) for kind in ("steps", "plateau"))
    assert "eval_period" in may_differ(steps) and "eval_period" not in protocol_fields(steps)
    assert "eval_period" not in may_differ(plateau) and "eval_period" in protocol_fields(plateau)


def test_a_detection_recipe_that_says_little_of_the_solver_keeps_the_detectors_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("solver: {epochs: 12}\n")
    solver = parse(DetectionRecipe, "--config", str(file)).solver
    assert (solver.batch_size, solver.lr, solver.epochs) == (16, 0.02, 12)


def test_values_that_make_no_recipe_are_said_with_their_origin():
    with pytest.raises(RecipeError, match=r"the command line: dataset 'voc7' is not one of voc07"):
        validated(DetectionRecipe, {"dataset": "voc7"}, "the command line")


@pytest.mark.parametrize("kind", [DetectionRecipe, BackboneRecipe])
def test_help_has_every_part_with_its_title_and_every_field_with_its_default(kind, capsys):
    with pytest.raises(SystemExit):
        parse(kind, "--help")
    help_text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part, field in kind.model_fields.items():
        if isinstance(field.default, Recipe):
            assert field.annotation.__doc__ in help_text and f"{part} options" in help_text
            assert all(f"--{part}.{name.replace('_', '-')}" in help_text for name in field.annotation.model_fields)
    assert "(default: 256)" in help_text and "(default: r50)" in help_text
