"""Exported files: what they find against the network as it is here, how they are used, and what cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from backbones import create_backbone
from detectors.nms import nms_batch
from detectors.structures import Detections
from tests.build.test_detector import built, recipe_of
from tests.cli.conftest import run
from tests.detectors.nms_cases import STYLES, assert_kept_is_expected, candidates
from tests.detectors.tiny import make_images
from vertebra.build.artifact import open_artifact
from vertebra.build.backbone import make_detector_backbone
from vertebra.build.detector import file_state
from vertebra.build.export_formats import FORMATS
from vertebra.build.export_onnx import onnx_program
from vertebra.build.parity import Parity
from vertebra.engine.weights import save_weights
from vertebra.ground.errors import UserError

SIZE = ("--size", 64, 96)


def classifier(directory: Path) -> Path:
    """A classifier's file, of random weights that tell pictures apart."""
    torch.manual_seed(0)
    net = create_backbone("r18", num_classes=5, width=0.125)
    nn.init.normal_(net.get_submodule(net.classifier_name).weight, std=0.5)
    protocol = {"input.size": 64, "input.resize": 72}
    facts = {"backbone": net.identity(), "class_names": list("abcde"), "protocol": protocol, "protocol_hash": "f00"}
    save_weights(directory / "model.safetensors", net.state_dict(), facts)
    return directory / "model.safetensors"


def detector(directory: Path, body: str, **model: Any) -> Path:
    """A detector's file, of random weights that report something."""
    recipe = recipe_of("r18", body, **model)
    view = recipe.input.model_copy(update={"test_shorter_side": 64, "longer_side": 96})
    test = recipe.test.model_copy(update={"score": 0.01})
    recipe = recipe.model_copy(update={"input": view, "test": test})
    net = built(recipe)
    scores = net.box_head.predictor.scores
    nn.init.normal_(scores.weight)
    seen: list[torch.Tensor] = []
    scores.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    net.eval().detect(make_images(images, ((64, 96),)))
    scores.weight.data /= seen[0].std()  # or all scores are 1, and of equals anyone may be the best
    facts = {
        "detector": recipe.model.title,
        "category_ids": [2, 3, 7],
        "class_names": ["cat", "dog", "cow"],
        "recipe": recipe.model_dump(mode="json"),
        "backbone": make_detector_backbone(recipe).identity(),
        "protocol_hash": "f00",
    }
    save_weights(directory / "model.safetensors", file_state(net), facts)
    return directory / "model.safetensors"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of different shapes, one a class."""
    directory = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name, shape in zip("abcde", [(80, 110, 3), (110, 70, 3), (64, 64, 3), (90, 70, 3), (200, 300, 3)]):
        blurred = cv2.GaussianBlur(random.integers(0, 256, shape, dtype=np.uint8), (0, 0), 4)
        (directory / "val" / name).mkdir(parents=True)
        cv2.imwrite(str(directory / "val" / name / "1.png"), cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX))
    return directory


SLOW = pytest.mark.slow
CASES = [
    pytest.param("torch-export", "fpn", {"masks": True}, "1"),
    pytest.param("onnx", "fpn", {"masks": True}, "2"),
    pytest.param("onnx", "c4", {}, "1"),
    *(
        pytest.param(name, body, {"masks": True, **model}, batch if FORMATS[name].any_batch else "2", marks=SLOW)
        for name in FORMATS
        for body, model, batch in (
            ("fpn", {}, "dynamic"),
            ("c4", {"context": True}, "dynamic"),
            ("c4", {"pooling": "pool", "conventions": "detectron2"}, "2"),
            ("dc5", {"conventions": "torchvision"}, "2"),
        )
    ),
]


@pytest.mark.parametrize(("name", "body", "model", "batch"), CASES)
def test_an_exported_detector_finds_the_same(name, body, model, batch, tmp_path, pictures) -> None:
    form = FORMATS[name]
    for package in (*form.writes_with, *form.opens_with):
        pytest.importorskip(package)
    weights = detector(tmp_path, body, **model)
    flags = ("--format", name, "--images", f"{pictures}/val/*/*", "--batch", batch, "--rounds", 1, *SIZE)
    done = run("export", "--weights", weights, *flags)
    facts = json.loads((tmp_path / f"model{form.suffix}.json").read_text())
    assert "beyond that" in done.out and facts["check"]["images"] == 5
    assert facts["check"]["outputs"] >= 5, "some detections were compared"
    assert set(facts["check"]["largest_differences"]) == {"box_px", "score", *(["mask"] if "masks" in model else [])}
    assert facts["class_names"] == ["cat", "dog", "cow"] and facts["category_ids"] == [2, 3, 7]
    assert facts["protocol_hash"] == "f00" and facts["view"]["canvas_hw"] == [64, 96]
    artifact = open_artifact(tmp_path / f"model{form.suffix}", "detector")
    images = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)  # of any number, whatever its batch
    outputs = artifact.outputs(images, torch.tensor([[64, 96]] * 3))
    for tensor, (_, fact) in zip(outputs, facts["outputs"].items(), strict=True):
        assert list(tensor.shape) == [3, *fact["shape"][1:]] and str(tensor.dtype) == f"torch.{fact['dtype']}"


@pytest.mark.parametrize(
    ("name", "batch"), [("onnx", "dynamic"), ("torch-export", "2"), pytest.param("openvino", "3", marks=SLOW)]
)
def test_an_exported_classifier_gives_the_same_probabilities(name, batch, tmp_path, pictures) -> None:
    form = FORMATS[name]
    for package in (*form.writes_with, *form.opens_with):
        pytest.importorskip(package)
    weights = classifier(tmp_path)
    images = ("--images", f"{pictures}/val/*/*")
    run("export", "--weights", weights, "--format", name, *images, "--batch", batch, "--rounds", 1)
    path = tmp_path / f"model{form.suffix}"
    assert json.loads(path.with_name(f"{path.name}.json").read_text())["view"] == {"size": 64, "resize": 72}
    rows = []
    for one in (weights, path):
        found = tmp_path / f"{one.name}.jsonl"
        flags = ("--data", pictures, "--views", "10crop", "--precision", "fp32", "--workers", 0)
        run("eval_backbone", "--weights", one, *flags, "--predictions", found)
        rows.append([json.loads(line) for line in found.read_text().splitlines()])
    assert len(rows[0]) == 5
    for wanted, found in zip(*rows, strict=True):
        assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-4)
        assert {**found, "probabilities": 0} == {**wanted, "probabilities": 0}


def test_a_file_takes_pictures_of_its_own_size_alone(tmp_path, pictures) -> None:
    run("export", "--weights", classifier(tmp_path), "--format", "torch-export", "--images", f"{pictures}/val/*/*")
    artifact = open_artifact(tmp_path / "model.pt2", "classifier")
    with pytest.raises(UserError, match=r"model.pt2: it takes images of 3x64x64, not 3x96x64"):
        artifact(torch.zeros(1, 3, 96, 64, dtype=torch.uint8))


class Suppression(nn.Module):
    def forward(self, boxes, scores, groups=None):
        return nms_batch(boxes, scores, 0.5, 40, groups)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("count", [30, 60])
def test_suppression_in_onnx_keeps_what_torchvision_keeps(grouped, count, tmp_path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")

    def inputs(style: str) -> list[torch.Tensor]:
        return list(candidates(style, 2, count, seed=3)[: 3 if grouped else 2])

    names = ["boxes", "scores", "groups"][: 3 if grouped else 2]
    program = torch.export.export(Suppression(), tuple(inputs("spread")))
    onnx_program(program, names, ["index", "valid"]).save(tmp_path / "nms.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "nms.onnx")
    for style in STYLES:
        given = inputs(style)
        found = session.run(None, dict(zip(names, (one.numpy() for one in given))))
        groups_NK = given[2] if grouped else None
        assert_kept_is_expected(tuple(map(torch.from_numpy, found)), *given[:2], groups_NK, 0.5)


def found_in(image: list[tuple[float, float, int]], places: int = 4) -> Detections:
    """Detections of one picture: 10 px boxes at x, with score and label."""
    rows = torch.tensor([*image, *[(0.0, 0.0, 0)] * (places - len(image))])
    x, scores, labels = rows.unbind(1)
    boxes = torch.stack([x, x * 0, x + 10, x * 0 + 10], dim=1)
    return Detections(boxes[None], scores[None], labels[None].long(), labels[None] > 0)


@pytest.mark.parametrize(
    ("image", "unlike"),
    [
        ([(0, 0.9, 1), (50, 0.5, 2)], []),
        ([(50, 0.50005, 2), (0.005, 0.9, 1)], []),  # another order
        ([(0.02, 0.9, 1), (50, 0.5, 2)], ["box_px differs by 0.02"]),
        ([(0, 0.9002, 1), (50, 0.5, 2)], ["score differs by 0.0002"]),
        ([(0, 0.9, 2), (50, 0.5, 2)], ["only the network finds class 1", "only the file finds class 2"]),
        ([(0, 0.9, 1)], ["only the network finds class 2 at 50.0"]),
        ([(0, 0.9, 1), (50, 0.5, 2), (90, 0.2, 3)], ["only the file finds class 3"]),
        ([(0, 0.9, 1), (50, 0.5, 2), (90, 0.10005, 3)], []),  # at the threshold, 0.1
        ([(float("nan"), 0.9, 1), (50, 0.5, 2)], ["only the network finds class 1", "only the file finds class 1"]),
    ],
)
def test_detections_are_paired_by_class_and_place(image, unlike) -> None:
    parity = Parity()
    parity.add_detections(found_in([(0, 0.9, 1), (50, 0.5, 2)]), found_in(image), ["a.jpg"], threshold=0.1)
    assert len(parity.unlike) == len(unlike)
    for sentence, start in zip(parity.unlike, unlike):
        assert sentence.startswith("a.jpg: ") and start in sentence


def test_the_weakest_of_a_full_list_may_be_others() -> None:
    strong = [(0, 0.9, 1), (50, 0.5, 2), (90, 0.4, 3)]
    parity = Parity()
    parity.add_detections(
        found_in([*strong, (120, 0.30000, 1)]), found_in([*strong, (160, 0.30002, 1)]), ["a.jpg"], threshold=0.1
    )
    assert not parity.unlike and parity.outputs == 3
