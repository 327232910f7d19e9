"""detectron2's detectors behind our loop, loader, run directory and report: train_det.py --engine detectron2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import run
from tests.detectors import detectron2_peer as peer
from vertebra.ground.errors import RecipeError
from vertebra.recipes.command_line import validated
from vertebra.recipes.schema_detection import DetectionRecipe

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
