"""Segmentation as a user types it: from drawn images to mean IoU, resumed, evaluated again, and with faults."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import run, run_process, run_until
from tests.cli.test_predict import write_clip
from vertebra.build import segmenter
from vertebra.build.export_formats import FORMATS
from vertebra.build.results import results_directory
from vertebra.build.segmenter_run import evaluate_tested, read_segmenter
from vertebra.engine.distributed import World
from vertebra.engine.weights import load_weights
from vertebra.recipes.command_line import load_recipe
from vertebra.recipes.schema_segmentation import SegmentationRecipe

TINY = (
    *("--config", "sample/segmentation.yaml", "--width", "0.25", "--workers", "0", "--device", "cpu"),
    *("--input.crop", "64", "64", "--input.base-side", "64", "--input.test-side", "64", "--weights", "none"),
    *("--solver.iterations", "6", "--solver.batch-size", "4", "--solver.warmup-iterations", "0"),
    *("--log-period", "1", "--checkpoint-period", "2", "--precision", "fp32"),
)


@pytest.fixture(scope="module")
def finished(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("segmenter") / "run"
    assert "mIoU" in run("train_seg", *TINY, "--data", sample, "--output", output).out
    return output


def losses_of(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def figures_of(run_dir: Path) -> dict[str, float]:
    return json.loads((run_dir / "evaluation.json").read_text())["segmentation"]


def test_a_run_directory_holds_maps_figures_and_weights(finished: Path) -> None:
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert evaluation["images"] == 9 and len(evaluation["classes"]) == len(evaluation["confusion"])
    maps = sorted((finished / "maps").iterdir())
    assert len(maps) == 9 and all(Image.open(path).mode == "P" for path in maps)
    counts = np.load(finished / "pixel_counts.npz")
    assert (counts["given_IC"].sum(axis=1) == counts["true_IC"].sum(axis=1)).all()
    given_C = np.bincount(np.asarray(Image.open(maps[0])).ravel(), minlength=len(evaluation["classes"]))
    assert (given_C == counts["given_IC"][0]).all()
    pictures = json.loads((finished / "images.json").read_text())
    assert [one["id"] for one in pictures] == counts["image_ids"].tolist()
    for one, true_C in zip(pictures, counts["true_IC"]):
        truth_HW = np.asarray(Image.open(finished / "truth" / one["map"]))
        assert Image.open(Path(evaluation["image_root"]) / one["picture"]).size == truth_HW.shape[::-1]
        assert (np.bincount(truth_HW.ravel(), minlength=256)[: len(true_C)] == true_C).all()
    state, facts = load_weights(finished / "model.safetensors")
    assert "backbone.layer4.0.conv1.weight" in state and "head.context.whole.0.weight" in state
    assert facts["segmenter"] == "deeplabv3" and facts["protocol"]["test_fingerprint"]


def test_an_evaluation_tells_what_a_segmenter_costs(finished: Path) -> None:
    cost = json.loads((finished / "evaluation.json").read_text())["cost"]
    assert cost["parameters"] == sum(
        value.numel() for name, value in load_weights(finished / "model.safetensors")[0].items() if is_learnt(name)
    )
    assert all(cost[name] > 0 for name in ("flops", "latency_s", "latency_n", "time_per_image_s", "peak_memory_mb"))
    assert min(cost["input_hw"]) == 64 and cost["precision"] == "fp32" and "proposals" not in cost
    assert cost["classifier"]["parameters"] < cost["parameters"]


def test_a_report_is_made_of_it(finished: Path, tmp_path: Path) -> None:
    assert "The report:" in run("compare", finished, "--report", tmp_path).out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["task"] == "segmentation" and report["head"] == "deeplabv3"
    assert report["sides"][0]["figures"]["mIoU"]["mean"] == pytest.approx(figures_of(finished)["mIoU"])
    cost = json.loads((finished / "evaluation.json").read_text())["cost"]
    assert report["sides"][0]["cost"]["latency_s"]["mean"] == cost["latency_s"]


def is_learnt(name: str) -> bool:
    return name.rpartition(".")[2] in ("weight", "bias")


def test_its_maps_alone_are_compared_on_the_data_sets_truth(finished: Path, sample: Path, tmp_path: Path) -> None:
    truth = ("--truth", "sample/val", "--data", sample, "--report", tmp_path)
    run("compare", "--task", "seg", "--predictions", f"theirs={finished / 'maps'}", *truth)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["sides"][0]["figures"]["mIoU"]["mean"] == pytest.approx(figures_of(finished)["mIoU"])
    assert report["gallery"]["images_not_found"] == 0


def test_commands_for_other_networks_say_that_it_is_a_segmenter(finished: Path) -> None:
    assert "weights of train_det.py do" in run("eval_det", finished, expect=1).err


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(finished: Path, sample: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    again = (*TINY, "--data", sample, "--output", output, "--resume")

    def has_saved() -> bool:
        return len(losses_of(output)) >= 3 if (output / "metrics.jsonl").exists() else False

    assert run_until("train_seg", *again, when=has_saved, send=signal.SIGKILL).code == -signal.SIGKILL
    run("train_seg", *again)
    assert losses_of(output) == losses_of(finished)
    one, other = (load_weights(place / "model.safetensors")[0] for place in (output, finished))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_evaluating_again_gives_the_same_and_other_views_need_a_place_of_their_own(finished: Path, tmp_path) -> None:
    run_process("eval_seg", finished, "--output", tmp_path / "same", "--gpus", 2, "--workers", 0, "--device", "cpu")
    assert figures_of(tmp_path / "same") == figures_of(finished)
    views = ("--scales", 0.75, 1, "--flip", "--window", 48, 64, "--workers", 0)
    assert "test.flip" in run("eval_seg", finished, *views, expect=2).err
    run("eval_seg", "--weights", finished / "model.safetensors", *views, "--output", tmp_path / "views")
    assert figures_of(tmp_path / "views") != figures_of(finished)
    sent = ("--submission", "voc", "--output", tmp_path / "sent", "--workers", 0)
    assert "its classes are not the 21 of voc" in run("eval_seg", finished, *sent, expect=1).err


def figures_on(finished: Path, output: Path, canvas_hw: tuple[int, int]) -> dict[str, float]:
    """The figures of a run's network where each picture lies on that canvas, as in an exported file."""
    path = finished / "model.safetensors"
    recipe, world = load_recipe(SegmentationRecipe, finished / "config.yaml"), World()
    test_set = segmenter.open_test(recipe)
    network = segmenter.trained_segmenter(recipe, *read_segmenter(path), path)
    loader = segmenter.test_loader(recipe, test_set, world, canvas_hw)
    results = results_directory(output, world)
    return evaluate_tested(recipe, network, loader, test_set, world, results, cost_of=lambda times_s: {})


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("onnx", "dynamic"),
        ("torch-export", "2"),
        *(pytest.param(name, "1", marks=pytest.mark.slow) for name in ("torchscript", "openvino")),
    ],
)
def test_an_exported_segmenter_finds_the_same(finished: Path, tmp_path: Path, name: str, batch: str) -> None:
    form = FORMATS[name]
    for package in (*form.writes_with, *form.opens_with):
        pytest.importorskip(package)
    file = tmp_path / f"model{form.suffix}"
    size = ("--size", 96, 96, "--checks", 3, "--rounds", 1)
    done = run("export", finished, "--format", name, "--batch", batch, *size, "--output", file)
    facts = json.loads(file.with_name(f"{file.name}.json").read_text())
    assert "share of pixels" in done.out and facts["check"]["images"] == 3
    assert facts["check"]["largest_differences"]["score"] < 1e-4
    assert facts["outputs"]["logits"]["shape"][1:] == [len(facts["class_names"]), 96, 96]
    run("eval_seg", "--weights", file, "--output", tmp_path / "file", "--workers", 0)
    wanted = figures_on(finished, tmp_path / "network", (96, 96))
    assert figures_of(tmp_path / "file") == pytest.approx(wanted, abs=0.01)
    assert json.loads((tmp_path / "file" / "evaluation.json").read_text())["cost"]["images_per_s"] > 0
    error = run("eval_seg", "--weights", file, "--flip", "--output", tmp_path / "flip", expect=2).err
    assert "--flip cannot be changed" in error and not (tmp_path / "flip").exists()
    assert "eval_seg.py tests it" in run("eval_det", "--weights", file, "--output", tmp_path / "det", expect=1).err


def test_two_processes_equal_one_at_the_same_global_batch(sample: Path, tmp_path: Path) -> None:
    # without dropout, whose draws differ between processes, and without batch norms, which see other images
    fixed = (*TINY, "--data", sample, "--model.head", "pyramid", "--backbone", "vgg11", "--solver.iterations", 3)
    run("train_seg", *fixed, "--output", tmp_path / "one")
    run_process("train_seg", *fixed, "--output", tmp_path / "two", "--gpus", 2)
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), rel=1e-4)
    assert figures_of(tmp_path / "two") == pytest.approx(figures_of(tmp_path / "one"), rel=1e-2)


def test_pictures_get_the_maps_of_the_evaluation_and_drawings_of_their_size(finished: Path, sample: Path, tmp_path):
    pictures = sorted((sample / "scenes" / "images" / "val").iterdir())
    done = run("predict", *pictures, "--weights", finished, "--output", tmp_path, "--workers", 0)
    assert done.out.startswith(f"{len(pictures)} images, maps, drawn: ")
    index = json.loads((tmp_path / "images.json").read_text())
    names = {one["id"]: one["name"] for one in index["categories"]}
    for picture, one in zip(pictures, index["images"], strict=True):
        ours, theirs = map(Image.open, (tmp_path / one["map"], finished / "maps" / f"{picture.stem}.png"))
        assert (ours.size, ours.getpalette()) == ((one["width"], one["height"]), theirs.getpalette())
        assert np.array_equal(np.array(ours), np.array(theirs))
        labels = np.array(ours).ravel().tolist()
        assert one["shares"] == {names[n]: round(labels.count(n) / len(labels), 6) for n in set(labels)}
        drawn = Image.open(tmp_path / one["drawn"]).size
        assert drawn[0] % one["width"] == 0 and drawn[0] * one["height"] == drawn[1] * one["width"]


def test_odd_pictures_have_maps_as_they_are_seen(finished: Path, sample: Path, tmp_path: Path) -> None:
    picture = Image.open(next((sample / "scenes" / "images" / "val").iterdir())).resize((100, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn to the right
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "a.jpg", exif=exif)
    picture.convert("L").save(tmp_path / "in" / "a.png")
    picture.save(tmp_path / "in" / "cut.jpg")
    (tmp_path / "in" / "cut.jpg").write_bytes((tmp_path / "in" / "cut.jpg").read_bytes()[:-500])
    flags = ("--weights", finished / "model.safetensors", "--workers", 0, "--classes", "background", "--json-only")
    done = run("predict", tmp_path / "in", *flags, "--output", tmp_path / "out", expect=1)
    assert "cut.jpg: truncated" in done.err and "not read (1)" in done.err
    index = json.loads((tmp_path / "out" / "images.json").read_text())
    sizes = {one["map"]: Image.open(tmp_path / "out" / one["map"]).size for one in index["images"]}
    assert sizes == {"maps/a.png": (60, 100), "maps/a_2.png": (100, 60)}
    assert all({*one["shares"]} <= {"background"} for one in index["images"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images.json", "maps"]
    again = run("predict", tmp_path / "out" / "maps", *flags, "--output", tmp_path / "out", expect=2)
    assert "would be drawn over" in again.err
    maps = sorted((path, path.read_bytes()) for path in (finished / "maps").iterdir())
    assert "holds other files" in run("predict", tmp_path / "in", *flags, "--output", finished, expect=2).err
    assert sorted((path, path.read_bytes()) for path in (finished / "maps").iterdir()) == maps
    assert run("predict", tmp_path / "in", *flags, "--output", tmp_path / "out", expect=1).out == done.out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--score", 0.5), "--score: is of a detector, and"),
        (("--score", 0), "--score: is of a detector, and"),
        (("--classes", "discs"), "did you mean disc?"),
        (("--scales", 0), "factors are above 0"),
    ],
)
def test_flags_that_do_not_go_with_a_segmenter_get_a_sentence(finished: Path, sample: Path, tmp_path, flags, sentence):
    given = (sample / "scenes" / "images" / "val", "--weights", finished, "--output", tmp_path / "out")
    assert sentence in run("predict", *given, *flags, expect=2).err and not (tmp_path / "out").exists()


def test_a_video_has_a_map_a_frame_and_other_views_other_maps(finished: Path, sample: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.avi", frames=3)
    inputs = (tmp_path / "clip.avi", *sorted((sample / "scenes" / "images" / "val").iterdir())[:4])
    maps = []
    for n, views in enumerate(((), ("--scales", 0.5, 1.5, "--flip", "--window", 64, 64))):
        out = tmp_path / f"out{n}"
        run("predict", *inputs, "--weights", finished, *views, "--output", out)
        images = json.loads((out / "images.json").read_text())["images"]
        assert [one["map"] for one in images[4:]] == [f"maps/clip/{frame:06}.png" for frame in range(3)]
        assert (out / images[4]["drawn"]).is_file() and np.array(Image.open(out / images[4]["map"])).shape == (120, 160)
        maps.append([np.array(Image.open(out / one["map"])) for one in images[:4]])
    assert any((one != other).any() for one, other in zip(*maps))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--weights", ""), "--weights is missing"),
        (("--dataset", "maps"), "--dataset maps needs --train-source maps:DIR/train and --test-source maps:DIR/val"),
        (("--dataset", "pets"), "dataset 'pets' is not one of voc12, voc12aug"),
        (("--input.scale", 2, 1), "input.scale is the least and the greatest factor"),
        (("--model.norms", "frozen"), "--weights none"),
        (("--solver.batch-size", 1), "batch_size 1 leaves a process one image at a time"),
        (("--backbone", "cifar_r20", "--width", 1), "cifar_r20 cannot be built with a dilated last stage"),
    ],
)
def test_faults_are_said_in_a_sentence(sample: Path, tmp_path: Path, change, sentence: str) -> None:
    done = run("train_seg", *TINY, "--data", sample, "--output", tmp_path / "run", *change, expect=2)
    assert sentence in done.err and not (tmp_path / "run").exists()


def test_a_map_that_cannot_be_scored_is_named_before_the_first_step(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind, pixels in (("images", np.zeros((40, 48, 3), np.uint8)), ("masks", np.ones((40, 48), np.uint8))):
            folder = tmp_path / kind / split
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / "a.png")
    (tmp_path / "classes.txt").write_text("ground\nthing\n")
    own = (*TINY, "--dataset", "maps", "--train-source", f"maps:{tmp_path}/train", "--data", tmp_path)
    own = (*own, "--test-source", f"maps:{tmp_path}/val", "--output", tmp_path / "run")
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(tmp_path / "masks" / "val" / "a.png")
    done = run("train_seg", *own, expect=1)
    assert "val/a.png" in done.err and "7" in done.err and not (tmp_path / "run").exists()
    Image.fromarray(np.ones((40, 47), np.uint8)).save(tmp_path / "masks" / "val" / "a.png")
    assert "is 47 x 40 pixels, its image a.png 48 x 40" in run("train_seg", *own, expect=1).err
    Image.fromarray(np.ones((40, 48), np.uint8)).save(tmp_path / "masks" / "val" / "a.png")
    run("train_seg", *own, "--solver.iterations", 2, "--solver.batch-size", 2)
    assert figures_of(tmp_path / "run")["pixel_accuracy"] >= 0
