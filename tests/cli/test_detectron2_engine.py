"""detectron2's detectors behind our loop, loader, run directory and report: train_det.py --engine detectron2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import run
from tests.detectors import detectron2_peer as peer
from tests.detectors.tiny import make_images
from vertebra.build.trained_detector import read_detector
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema_detection import DetectionRecipe

OLD = Path(__file__).resolve().parents[1] / "old_runs"
Flags = Callable[[str], tuple[object, ...]]
ENGINE = ("--engine", "detectron2", "--input.crowd", "drop", "--input.difficult", "drop")
FPN = ("--model.body", "fpn", "--model.anchor-sizes", "16", "32", "64", "128", "256", "--model.fpn-channels", "16")
MASKS = ("--model.masks", "--model.mask-channels", "8", "--test.detections", "10")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def losses(path: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in line.items() if name.startswith("loss")} for line in lines]


@peer.needed
@pytest.mark.parametrize("body", [(), (*FPN, *MASKS), ("--model.body", "dc5", "--precision", "bf16")])
def test_it_trains_tests_and_is_evaluated_again(body: tuple[str, ...], detector_flags: Flags, tmp_path: Path) -> None:
    flags = (*detector_flags("r18"), *ENGINE, *body, "--test.score", "0.001")
    first, second = tmp_path / "first", tmp_path / "second"
    run("train_det", *flags, "--output", first)
    facts, figures = read(first / "provenance.json"), read(first / "evaluation.json")
    assert facts["protocol"]["engine"].startswith("detectron2 0.") and facts["finished"]
    assert figures["cost"]["parameters"] > 0 and figures["cost"]["proposals"] == 100
    predictions = read(first / "predictions.json")
    assert predictions and ("segmentation" in predictions[0]) == ("--model.masks" in body)
    trained = losses(first)
    names = {"loss_rpn_cls", "loss_rpn_box", "loss_box_cls", "loss_box_reg"} | (
        {"loss_mask"} if "--model.masks" in body else set()
    )
    assert names <= set(trained[0])
    run("eval_det", first, "--workers", 0, "--device", "cpu", "--output", tmp_path / "again")
    assert read(tmp_path / "again" / "evaluation.json")["coco"] == pytest.approx(figures["coco"])
    if "fpn" in body:  # its detector, exported, is ours too
        run("export", first, "--format", "detectron2", "--output", tmp_path / "theirs.pth")
        ours = read_detector(f"detectron2:{tmp_path / 'theirs.pth'}").restore()
        theirs = read_detector(str(first)).restore()
        images = make_images(torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8), ((96, 128),))
        torch.testing.assert_close(ours.detect(images).boxes_ND4, theirs.detect(images).boxes_ND4, rtol=0, atol=1e-3)
    run("train_det", *flags, "--output", second)  # draws follow seed, iteration and image
    assert losses(second) == trained
    done = run("eval_det", first, "--flip", "--output", tmp_path / "flip", expect=2)
    assert "engine detectron2 has no test.flip" in done.err


@peer.needed
def test_their_detector_is_one_more_head_of_a_report(detector_flags: Flags, tmp_path: Path) -> None:
    dropped = ENGINE[2:]
    for name in ("r18", "plain18"):
        for engine, flags in (("ours", dropped), ("theirs", ENGINE)):
            run("train_det", *detector_flags(name), *flags, "--output", tmp_path / f"{engine}_{name}")
    run("compare", *(tmp_path / f"{engine}_{name}" for engine in ("ours", "theirs") for name in ("r18", "plain18")),
        "--report", tmp_path / "report")  # fmt: skip
    for head in ("c4", "c4-detectron2"):
        assert {side["label"] for side in read(tmp_path / "report" / head / "report.json")["sides"]} == {
            "r18",
            "plain18",
        }
    hashes = [read(tmp_path / f"{engine}_r18" / "provenance.json")["protocol_hash"] for engine in ("ours", "theirs")]
    assert hashes[0] != hashes[1]


def test_a_run_is_exported_and_read_again(detector_flags: Flags, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    flags = (*detector_flags("r18"), *FPN, "--backbone", "r50", "--width", "0.125", "--weights", "none")
    run("train_det", *flags, "--test.score", "0.001", "--test.batch-size", 1, "--output", folder)
    done = run("export", folder, "--format", "detectron2", "--output", tmp_path / "theirs.pth")
    assert f"configuration: {tmp_path / 'theirs.yaml'}" in done.out
    data = ("--dataset", "sample", "--data", flags[flags.index("--data") + 1], "--workers", 0, "--device", "cpu")
    run("eval_det", "--weights", f"detectron2:{tmp_path / 'theirs.pth'}", *data, "--output", tmp_path / "again",
        "--precision", "fp32")  # fmt: skip
    found, wanted = (read(one / "predictions.json") for one in (tmp_path / "again", folder))
    assert len(found) == len(wanted) > 20
    for entry, other in zip(found, wanted):
        assert entry["bbox"] == pytest.approx(other["bbox"], abs=0.01)
        assert entry["score"] == pytest.approx(other["score"], abs=1e-5)
    if peer.IS_THERE:
        require_equal_in_detectron2(tmp_path / "theirs.pth", folder)


def require_equal_in_detectron2(weights: Path, folder: Path) -> None:
    """detectron2's own checkpointer reads the file, its configuration makes the detector, and that finds the same."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    config.merge_from_file(str(weights.with_suffix(".yaml")))
    config.MODEL.DEVICE = "cpu"
    model = build_model(config).eval()
    DetectionCheckpointer(model).load(str(weights))
    content = torch.load(weights, weights_only=True)["model"]
    assert {name: tensor.tolist() for name, tensor in model.state_dict().items() if "num_batches" not in name} == {
        name: tensor.tolist() for name, tensor in content.items() if "num_batches" not in name
    }
    pixels = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.inference([{"image": pixels[0]}], do_postprocess=False)[0]
    found = read_detector(str(folder)).restore().detect(make_images(pixels, ((96, 128),)))
    valid = found.valid_ND[0]
    assert len(expected) > 20
    torch.testing.assert_close(found.boxes_ND4[0][valid], expected.pred_boxes.tensor, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores_ND[0][valid], expected.scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((OLD / "det_0",), "detectron2 has no Faster R-CNN (c4) on r18"),
        ((OLD / "det_0", "--size", 96, 128), "--size has no effect with --format detectron2"),
        ((OLD / "det_0", "--output", "x.pt"), "--output x.pt is to end in .pth"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(flags: tuple[object, ...], sentence: str, tmp_path: Path) -> None:
    done = run("export", *flags, "--format", "detectron2", expect=2 if len(flags) > 1 else 1)
    assert sentence in done.err and not (OLD / "det_0" / "model.pth").exists()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, r"no input\.crowd ignore \(set --input\.crowd drop\); leave that out"),
        ({"input": {"crowd": "drop", "difficult": "ignore"}}, r"no input\.difficult ignore"),
        ({"input": {"crowd": "drop"}, "model": {"context": True}}, r"no model\.context"),
        ({"input": {"crowd": "drop"}, "model": {"conventions": "torchvision"}}, r"no model\.conventions torchvision"),
        ({"input": {"crowd": "drop"}, "model": {"head_norms": "batch"}}, r"no model\.head_norms batch with c4"),
        (
            {"input": {"crowd": "drop"}, "test": {"flip": True}, "write_proposals": True},
            "no write_proposals, no test.flip",
        ),
    ],
)
def test_what_it_has_not_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        validated(DetectionRecipe, {"engine": "detectron2", **fields})


@pytest.mark.skipif(peer.IS_THERE, reason="detectron2 is there")
def test_without_detectron2_a_sentence_says_how_to_install_it(detector_flags: Flags, tmp_path: Path) -> None:
    done = run("train_det", *detector_flags("r18"), *ENGINE, "--output", tmp_path / "run", expect=1)
    assert "detectron2: cannot be imported" in done.err and "pip install" in done.err
    assert not (tmp_path / "run").exists()
