"""A detection recipe's augmentation and sampling reach the loader, and what cannot be is said at the start."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.writers import write_picture, write_voc
from vertebra.build import detection_data
from vertebra.data.transforms.detection_views import DetectionAugmentation
from vertebra.engine.distributed import World
from vertebra.ground.errors import RecipeError
from vertebra.recipes import schema
from vertebra.recipes.command_line import load_recipe, parse_recipe, read_yaml, validated
from vertebra.recipes.installed import INSTALLED, installed_recipes
from vertebra.recipes.schema_detection import DetectionRecipe

OF_DETECTORS = [path for path in installed_recipes() if "segmentation" not in (path.parent.name, path.stem)]
RECIPES = [path for path in OF_DETECTORS if {"backbone", "dataset"} <= set(read_yaml(path))]


def parse(*arguments: str) -> DetectionRecipe:
    return parse_recipe(DetectionRecipe, list(arguments), description="A test.", default=None)


def loader_of(recipe: DetectionRecipe, dataset) -> Any:
    return detection_data.detection_train_loader(recipe, dataset, World(), start=0, iterations=3)


@pytest.fixture
def json_set(tmp_path: Path) -> Path:
    for name, number in (("train", 4), ("test", 2)):
        images, annotations = [], []
        for n in range(number):
            write_picture(tmp_path / f"{name}{n}.png", 60, 80, n)
            images.append({"id": n, "file_name": f"{name}{n}.png", "width": 80, "height": 60})
            corners = [10, 10, 40, 10, 40, 50 - n]
            annotations.append({"id": n + 1, "image_id": n, "category_id": 1 + (n == 0), "bbox": [10, 10, 30, 40 - n],
                                "area": 600, "iscrowd": 0, "segmentation": [corners]})  # fmt: skip
        categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
        value = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    return tmp_path


def sources(folder: Path) -> list[str]:
    return ["--dataset", "json", "--train-source", "json:train.json", "--test-source", "json:test.json",
            "--data", str(folder), "--workers", "0", "--solver.batch-size", "2",
            "--input.shorter-side", "48", "64", "--input.longer-side", "96"]  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_installed_recipes_augment_as_their_papers_do(path: Path, json_set: Path):
    recipe = load_recipe(DetectionRecipe, path)
    dataset = detection_data.open_train(parse(*sources(json_set)))
    reader = loader_of(recipe, dataset).reader
    jitter = (0.1, 2.0) if path.stem == "coco_fpn_vit" else None  # as ViTDet
    assert reader.views.augmentation == DetectionAugmentation(jitter=jitter) and reader.masks == recipe.model.masks


def test_every_word_of_the_recipe_reaches_the_loader(json_set: Path):
    recipe = parse(
        *sources(json_set), "--input.sides", "range", "--input.crop", "iou", "--input.crop-min", "0.4",
        "--input.crop-chance", "0.6", "--input.jitter", "0.2", "1.5", "--input.photometric", "0.7",
        "--input.repeat-threshold", "1.0", "--model.masks",
    )  # fmt: skip
    dataset = detection_data.open_train(recipe)
    loader = loader_of(recipe, dataset)
    assert loader.reader.views.augmentation == DetectionAugmentation(
        any_side=True, crop="iou", crop_min=0.4, crop_chance=0.6, jitter=(0.2, 1.5), photometric=0.7
    )
    assert loader.reader.plan.repeats_rare
    for batch in loader:
        targets = batch.inputs[1]
        assert len(targets.masks.windows_K4) == int(targets.valid_NG.sum())


def test_masks_are_read_when_the_recipe_asks_for_them(json_set: Path):
    for flags, has_masks in ((["--model.masks"], True), ([], False)):
        recipe = parse(*sources(json_set), *flags)
        train_set, test_set = detection_data.open_train(recipe), detection_data.open_test(recipe)
        assert (train_set.segmentations is not None) == has_masks
        (first, _) = test_set.coco_truth()["annotations"]
        assert first.get("segmentation") == ([[10, 10, 40, 10, 40, 50]] if has_masks else None)
        loader = detection_data.detection_test_loader(recipe, test_set, World())
        assert all(batch.inputs[1].masks is None for batch in loader)  # the metric takes them from the truth
        assert not loader_of(recipe, train_set).reader.plan.repeats_rare


def test_masks_of_a_set_without_them_are_refused(tmp_path: Path):
    write_voc(tmp_path / "VOCdevkit", {"000001": [("dog", 1, 2, 30, 40, 0)]})
    recipe = parse("--data", str(tmp_path), "--model.masks")
    with pytest.raises(
        RecipeError, match=r"voc2007/trainval: its annotations have no segmentations.*leave --model.masks"
    ):
        detection_data.open_train(recipe)


@pytest.mark.parametrize("nothing", [[], {}, None])
def test_masks_of_a_set_in_which_some_objects_have_none_are_refused(json_set: Path, nothing: Any):
    path = json_set / "train.json"
    value = json.loads(path.read_text())
    value["annotations"][0]["segmentation"] = nothing
    path.write_text(json.dumps(value))
    with pytest.raises(
        RecipeError, match=r"no segmentations for 1 of 4 objects, such as one of .*train0.png, which --model"
    ):
        detection_data.open_train(parse(*sources(json_set), "--model.masks"))
    value["annotations"][0]["iscrowd"] = 1  # which no mask head learns
    path.write_text(json.dumps(value))
    assert len(detection_data.open_train(parse(*sources(json_set), "--model.masks"))) > 0


def test_a_mask_detector_is_run_on_images_whose_truth_is_not_published(tmp_path: Path):
    write_picture(tmp_path / "test2017" / "1.png", 60, 80, 1)
    image = {"id": 1, "file_name": "1.png", "width": 80, "height": 60}
    content = {"images": [image], "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(content))
    recipe = parse("--dataset", "coco", "--test-source", "coco/test-dev2017", "--data", str(tmp_path), "--model.masks")
    test_set = detection_data.open_test(recipe)
    assert not test_set.labelled and len(test_set) == 1
    batches = list(detection_data.detection_test_loader(recipe.model_copy(update={"workers": 0}), test_set, World()))
    assert [batch.image_ids for batch in batches] == [(1,)]
    with pytest.raises(ValueError, match="nothing can be learnt from it"):
        detection_data.open_train(recipe.model_copy(update={"train_source": "coco/test-dev2017"}))


def test_masks_are_trained_on_images_of_which_none_has_an_object(tmp_path: Path):
    write_picture(tmp_path / "1.png", 60, 80, 1)
    content = {"images": [{"id": 1, "file_name": "1.png", "width": 80, "height": 60}], "annotations": [],
            "categories": [{"id": 1, "name": "dog"}]}  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(content))
    recipe = parse(*sources(tmp_path), "--model.masks")
    (batch, *_) = loader_of(recipe, detection_data.open_train(recipe))
    assert not len(batch.inputs[1].masks.windows_K4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--input.jitter 2.0 0.1", "input.jitter is the least and the greatest factor, both above 0"),
        ("--input.jitter 0 1", "input.jitter is the least and the greatest factor, both above 0"),
        ("--input.sides range", "input.sides range needs the least and the greatest input.shorter_side, not (600,)"),
    ],
)
def test_words_that_make_no_sense_are_said(arguments: str, sentence: str):
    with pytest.raises(RecipeError) as refused:
        parse(*arguments.split())
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        *(("input", "shorter_side", sides) for sides in ([], [0], [-5])),
        *(("input", "canvases", [canvas]) for canvas in ([0, 0], [-32, 64])),
        *(("model", name, [-1, -1]) for name in ("proposals", "proposals_before_nms")),
        *(("model", name, numbers) for name in ("anchor_sizes", "anchor_ratios") for numbers in ([], [0], [-1])),
        ("model", "rpn_samples", 1),
    ],
)
def test_numbers_that_no_detector_can_have_name_their_field(part: str, field: str, value: Any):
    each = rf"{part}\.{field}[.0-9]*: (give 1 or more|Input should be greater than (or equal to )?\d+, not -?\d+)"
    with pytest.raises(RecipeError, match=rf"^mine\.yaml: {each}(; {each})?$"):
        validated(DetectionRecipe, {part: {field: value}}, "mine.yaml")


FPN = ("--config", "sample/mask_fpn.yaml")  # has widths and a mask head of its own


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model.head-convs", "4"), "head_convs 4 has no effect with body c4"),
        (("--model.head-width", "512"), "head_width 512 has no effect with body c4"),
        (("--model.fpn-channels", "64"), "fpn_channels 64 has no effect with body c4"),
        (("--model.masks", "--model.mask-convs", "2"), "mask_convs 2 has no effect with body c4"),
        (("--model.body", "dc5", "--model.fpn-channels", "64"), "fpn_channels 64 has no effect with body dc5"),
        (("--model.mask-channels", "64"), "mask_channels 64 has no effect without masks"),
        (("--test.refine-nms", "0.4"), "refine_nms 0.4 has no effect without refine"),
        (("--test.multi-scale-region", "112"), "multi_scale_region 112 has no effect without multi_scale"),
        (("--input.crop-min", "0.5"), "crop_min 0.5 has no effect without crop"),
    ],
)
def test_a_setting_without_effect_is_noted_and_changes_nothing(arguments, sentence, caplog):
    schema._note.cache_clear()
    shaped = [argument for argument in arguments if argument in ("--model.masks", "--model.body", "dc5")]
    assert parse(*arguments) == parse(*arguments) == parse(*shaped)
    assert [record.getMessage() for record in caplog.records] == [f"note: {sentence}"]


def test_a_finished_runs_recipe_is_read_without_what_never_had_an_effect():
    recorded = {"backbone": "r18", "model": {"cut_stride": 8, "head_width": 512}, "test": {"refine_nms": 1}}
    recipe = validated(DetectionRecipe, recorded, "model.safetensors")
    assert (recipe.model.cut_stride, recipe.model.head_width, recipe.test.refine_nms) == (8, 1024, 0.3)


def test_a_setting_with_effect_is_taken():
    pyramid = parse(
        *FPN, "--model.mask-convs", "1", "--model.head-convs", "4", "--test.refine", "--test.refine-nms", "0.4"
    )
    assert (pyramid.model.mask_convs, pyramid.model.head_convs, pyramid.test.refine_nms) == (1, 4, 0.4)
    assert parse("--model.cut-stride", "8").model.cut_stride == 8


def test_a_body_by_flag_leaves_out_what_the_file_says_of_another():
    file = load_recipe(DetectionRecipe, INSTALLED / "sample" / "mask_fpn.yaml").model
    assert (file.fpn_channels, file.head_width, file.mask_convs, file.mask_channels) == (64, 256, 2, 64)
    cut = parse(*FPN, "--model.body", "c4").model
    assert (cut.fpn_channels, cut.head_width, cut.mask_convs, cut.mask_channels) == (256, 1024, 4, 64)
    bare = parse(*FPN, "--model.no-masks").model
    assert (bare.fpn_channels, bare.head_width, bare.mask_convs, bare.mask_channels) == (64, 256, 4, 256)
    assert parse(*FPN, "--model.body", "c4", "--model.head-width", "256").model.head_width == 1024
