"""A detector's file as --weights: the training goes on from it, with new layers for other classes."""

from __future__ import annotations

import json

import torch

from tests.cli.conftest import TINY_DETECTOR, run
from vertebra.engine.weights import load_weights


def begin(detectors, data, output, *flags):
    """The weights after a training whose rate is next to nothing: those that it began with."""
    start = ("--backbone", "r18", "--weights", detectors["r18"] / "model.safetensors", "--data", data)
    still = ("--solver.lr", 1e-12, "--solver.iterations", 1)
    done = run("train_det", *TINY_DETECTOR, *start, *still, *flags, "--output", output)
    return load_weights(output / "model.safetensors")[0], done.out


def test_it_starts_with_all_of_a_detector_of_the_same_classes(detectors, sample, tmp_path):
    weights, out = begin(detectors, sample, tmp_path / "run")
    given, _ = load_weights(detectors["r18"] / "model.safetensors")
    learnt = [name for name in given if name.endswith(("weight", "bias"))]
    assert all(torch.allclose(weights[name], given[name], atol=1e-6) for name in learnt)
    assert "goes on from the detector" in out and "; new" not in out


def test_other_classes_get_new_layers_and_the_rest_is_kept(detectors, sample, tmp_path):
    truth = json.loads((sample / "scenes" / "annotations" / "instances_train.json").read_text())
    truth["categories"] = [{"id": one["id"], "name": "thing"} for one in truth["categories"][:1]]
    first = truth["categories"][0]["id"]
    truth["annotations"] = [{**one, "category_id": first} for one in truth["annotations"]]
    (tmp_path / "t.json").write_text(json.dumps(truth))
    source = f"json:{tmp_path / 't.json'}"
    images = sample / "scenes" / "images" / "train"
    own = ("--dataset", "json", "--train-source", source, "--test-source", source, "--test.limit", 2)
    weights, out = begin(detectors, images, tmp_path / "run", *own)
    given, _ = load_weights(detectors["r18"] / "model.safetensors")
    assert "; new, for 1 class: box_head.predictor" in out
    assert weights["box_head.predictor.scores.weight"].shape[0] == 2
    kept = [name for name in given if name.endswith("weight") and "predictor" not in name]
    assert all(torch.allclose(weights[name], given[name], atol=1e-6) for name in kept)
