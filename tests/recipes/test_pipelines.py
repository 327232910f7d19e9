"""Pipelines of albumentations in recipes: every way to write one makes the same recipe, which then needs no file."""

import json

import pytest
import yaml

from vertebra.engine.provenance import protocol_hash
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import load_recipe, parse_recipe
from vertebra.recipes.installed import PIPELINES
from vertebra.recipes.schema import BackboneRecipe, protocol_fields
from vertebra.recipes.schema_detection import DetectionRecipe
from vertebra.recipes.schema_localisation import LocalisationRecipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

STEPS = [{"OneOf": {"transforms": [{"HorizontalFlip": {"p": 0.3}}, {"ToGray": {}}], "p": 0.5}}, {"Blur": {"p": 1e-7}}]
SAVED = {
    "__version__": "1.4.24",
    "transform": {
        "__class_fullname__": "OneOf",
        "p": 0.5,
        "transforms": [
            {"__class_fullname__": "HorizontalFlip", "p": 0.3},
            {"__class_fullname__": "albumentations.augmentations.transforms.ToGray"},
        ],
    },
}


def parse(kind, *flags):
    return parse_recipe(kind, list(flags), description="A test.")


@pytest.mark.parametrize("kind", [BackboneRecipe, DetectionRecipe, LocalisationRecipe, SegmentationRecipe])
def test_a_list_and_files_in_yaml_and_json_are_one_recipe(tmp_path, kind):
    steps = (
        "- OneOf:\n    p: 0.5\n    transforms:\n    - HorizontalFlip: {p: 0.3}\n    - ToGray:\n- Blur: {p: 1.0e-7}\n"
    )
    (tmp_path / "a.yaml").write_text(f"# What it is for.\n{steps}")
    (tmp_path / "b.json").write_text(json.dumps(STEPS))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"input": {"albumentations": STEPS}}))
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({"input": {"albumentations": str(tmp_path / "a.yaml")}}))
    flags = [("--input.albumentations", str(tmp_path / name)) for name in ("a.yaml", "b.json")]
    flags += [("--config", str(tmp_path / name)) for name in ("c.yaml", "d.yaml")]
    flags += [("--input.albumentations", json.dumps(STEPS))]
    recipes = [parse(kind, *one) for one in flags]
    assert all(recipe == recipes[0] for recipe in recipes) and json.loads(recipes[0].input.albumentations) == STEPS
    assert hash(recipes[0]) == hash(recipes[1])


@pytest.mark.parametrize(("suffix", "write"), [("json", json.dumps), ("yaml", yaml.safe_dump)])
def test_what_albumentations_saves_is_the_same_as_a_list(tmp_path, suffix, write):
    (tmp_path / f"saved.{suffix}").write_text(write(SAVED))
    found = parse(DetectionRecipe, "--input.albumentations", str(tmp_path / f"saved.{suffix}")).input.albumentations
    assert json.loads(found) == STEPS[:1]


def test_the_protocol_follows_the_files_content_and_not_its_name(tmp_path):
    def protocol(name: str, steps) -> str:
        (tmp_path / name).write_text(yaml.safe_dump(steps))
        recipe = parse(DetectionRecipe, "--input.albumentations", str(tmp_path / name))
        return protocol_hash(protocol_fields(recipe))

    assert protocol("a.yaml", STEPS) == protocol("b.yaml", STEPS) != protocol("a.yaml", STEPS[:1])
    assert protocol("a.yaml", []) == protocol_hash(protocol_fields(DetectionRecipe()))
    assert "input.albumentations" not in protocol_fields(DetectionRecipe())


def test_a_flag_takes_a_files_pipeline_away(tmp_path):
    for text, flags in (("input: {albumentations: [{Blur: {}}]}", ("--input.albumentations", "")),
                        ("input: {albumentations: }", ())):  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(text)
        assert parse(DetectionRecipe, "--config", str(tmp_path / "recipe.yaml"), *flags) == DetectionRecipe()


def test_a_run_needs_no_file_any_more(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STEPS))
    recipe = parse(DetectionRecipe, "--input.albumentations", str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(DetectionRecipe, tmp_path / "config.yaml") == recipe


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.yaml")), ids=lambda path: path.stem)
def test_installed_pipelines_are_found_by_name_and_say_what_they_are_for(path):
    for name in (f"augmentations/{path.stem}", f"configs/augmentations/{path.name}"):
        assert parse(DetectionRecipe, "--input.albumentations", name).input.albumentations
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("- A: {", r"mine\.yaml: is not YAML \(.*\); correct it"),
        ("transforms: []", r"mine\.yaml: holds a dict; write a list of \{Name"),
        ("7", r"mine\.yaml: holds a int; write a list of \{Name"),
        ("- HorizontalFlip", r"a step is \{Name: \{argument: value\}\}, not 'HorizontalFlip'"),
        ("- HorizontalFlip: 0.5", r"a step is .*, not \{'HorizontalFlip': 0.5\}"),
        ("- {Blur: {}, ToGray: {}}", r"a step is .*, not \{'Blur': \{\}, 'ToGray': \{\}\}"),
        ("- OneOf: {transforms: 3}", r"write .* a list of \{Name: \{argument: value\}\}, not 3"),
        ("- Blur: {1: 2, p: 3}", r"arguments have names"),
        (b"\xff\xfe\x00", r"mine\.yaml: is not text"),
    ],
)
def test_a_wrong_file_is_a_sentence(tmp_path, content, sentence):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=rf"^input\.albumentations: .*{sentence}"):
        parse(DetectionRecipe, "--input.albumentations", str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("kind", "flags", "sentence"),
    [
        (DetectionRecipe, ("detection-robst",), r"no pipeline detection-robst; did you mean augmentations/detection-r"),
        (DetectionRecipe, ("[{",), r"is not JSON"),
        (DetectionRecipe, ('{"Blur": {}}',), r"write a file's name or a list of .*, not \{'Blur': \{\}\}"),
        (
            *(DetectionRecipe, ("[{\"Blur\": {}}]", "--input.crop", "iou", "--input.photometric", "1")),
            r"input\.albumentations takes the place of input\.photometric and input\.crop: leave out one",
        ),
        (
            *(BackboneRecipe, ("[{\"Blur\": {}}]", "--input.augment", "pad", "--input.resident", "yes")),
            r"cannot do input\.albumentations; leave that out, or give --input\.resident no",
        ),
    ],
)  # fmt: skip
def test_wrong_flags_are_a_sentence(kind, flags, sentence):
    with pytest.raises(RecipeError, match=sentence):
        parse(kind, "--input.albumentations", *flags)
