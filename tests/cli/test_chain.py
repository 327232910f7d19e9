"""The whole way through the tools: train a backbone, plug it into a detector, measure it, compare two."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from backbones import create_backbone
from backbones.cost import count_parameters, image_flops
from tests.cli.conftest import TINY_BACKBONE, run, run_process
from vertebra.engine.weights import load_weights


def lines_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def losses_of(run_dir: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run_dir) if "loss" in line]


def test_a_run_directory_holds_all_that_was_promised(detectors):
    names = {path.name for path in detectors["r18"].iterdir()}
    promised = {"config.yaml", "log.txt", "metrics.jsonl", "checkpoints", "predictions.json", "truth.json"}
    promised |= {"evaluation.json", "model.safetensors", "provenance.json"}
    assert promised <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    evaluation = json.loads((detectors["r18"] / "evaluation.json").read_text())
    assert set(evaluation["coco"]) >= {"AP", "AP50", "APs", "AR100"} and evaluation["cost"]["flops"] > 0
    provenance = json.loads((detectors["r18"] / "provenance.json").read_text())
    assert provenance["finished"] and provenance["sample_hash"] and provenance["weights"]["figures"]


def test_files_keep_the_uncut_parameter_names(detectors, weights):
    detector, _ = load_weights(detectors["r18"] / "model.safetensors")
    backbone, _ = load_weights(weights["r18"])
    inside = {name.removeprefix("backbone.") for name in detector if name.startswith("backbone.")}
    assert inside == {name for name in backbone if not name.startswith("fc.")}


def test_the_resolved_recipe_is_a_valid_config(detectors, tmp_path):
    config = yaml.safe_load((detectors["r18"] / "config.yaml").read_text())
    assert config["solver"]["iterations"] == 8
    again = tmp_path / "again"
    flags = ("--config", detectors["r18"] / "config.yaml", "--output", again, "--solver.iterations", 1)
    run("train_det", *flags)
    assert losses_of(again)[0] == losses_of(detectors["r18"])[0]


def test_a_finished_run_says_so(detectors, detector_flags):
    done = run("train_det", *detector_flags("r18"), "--output", detectors["r18"], "--resume")
    assert "finished" in done.out


def test_a_directory_with_another_recipes_run_is_refused(detectors, detector_flags):
    other = (*detector_flags("r18"), "--output", detectors["r18"], "--resume", "--solver.lr", "0.5")
    done = run("train_det", *other, expect=1)
    assert "solver.lr" in done.err and "--output" in done.err


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_evaluation_on_several_processes_gives_the_same_detections(detectors, tmp_path, processes):
    """Two share the nine images unevenly, three evenly."""
    flags = (detectors["r18"], "--score", 0.0, "--workers", 0)
    run("eval_det", *flags, "--output", tmp_path / "one")
    run_process("eval_det", *flags, "--output", tmp_path / "more", "--gpus", processes, "--device", "cpu")
    one, more = (json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("one", "more"))
    assert len(one) > 0
    assert [(row["image_id"], row["category_id"]) for row in one] == [
        (row["image_id"], row["category_id"]) for row in more
    ]
    assert [row["score"] for row in one] == pytest.approx([row["score"] for row in more], abs=1e-5)


def test_eval_det_gives_what_the_training_ended_with(detectors, tmp_path):
    run("eval_det", detectors["r18"], "--output", tmp_path)
    before, after = (json.loads((place / "evaluation.json").read_text()) for place in (detectors["r18"], tmp_path))
    assert before["coco"] == after["coco"] and before["voc"] == after["voc"]
    # To the bit: what an evaluation measures beside must leave trained norms' statistics alone.
    assert (detectors["r18"] / "predictions.json").read_bytes() == (tmp_path / "predictions.json").read_bytes()


def test_an_evaluation_tells_what_a_detector_costs(detectors):
    cost = json.loads((detectors["r18"] / "evaluation.json").read_text())["cost"]
    counted = ("parameters", "flops", "proposals", "latency_n")
    measured = ("latency_s", "time_per_image_s", "images_per_s", "threads")
    assert all(cost[name] > 0 for name in (*counted, *measured)) and cost["device"] and cost["precision"] == "fp32"
    assert cost["proposals"] == 100 and cost["latency_n"] >= 3 and min(cost["input_hw"]) == 96
    assert cost["images_per_s"] == pytest.approx(1 / cost["time_per_image_s"])
    if sys.platform == "linux":  # more than the weights in float32, less than all that a process with torch holds
        assert 4 * cost["parameters"] / 2**20 < cost["peak_memory_mb"] < 200 and cost["peak_memory_of"] == "tensors"
    classifier = create_backbone("r18", width=0.25)
    assert cost["classifier"] == {
        "parameters": count_parameters(classifier),
        "flops": image_flops(classifier.eval(), 224, 224),
        "input_hw": [224, 224],
    }


def test_eval_backbone_gives_what_the_training_ended_with(weights, sample, tmp_path):
    flags = ("--data", sample / "objects", "--views", "1crop", "--json", tmp_path / "figures.json")
    done = run("eval_backbone", "--weights", weights["r18"], *flags)
    _, facts = load_weights(weights["r18"])
    figures = json.loads((tmp_path / "figures.json").read_text())[0]
    assert figures["top1"] == pytest.approx(facts["figures"]["top1"]) and "top-1" in done.out


def test_eval_det_keeps_results_of_another_protocol_out_of_the_run_directory(detectors, tmp_path):
    before = (detectors["r18"] / "predictions.json").read_bytes()
    done = run("eval_det", detectors["r18"], "--nms", 0.9, "--test-source", "sample/train", expect=2)
    assert "test.nms" in done.err and "test_source" in done.err and "--output" in done.err
    assert (detectors["r18"] / "predictions.json").read_bytes() == before
    assert "voc07" in run("eval_det", detectors["r18"], "--dataset", "voc7", "--output", tmp_path, expect=2).err


def test_eval_backbone_takes_another_size(weights, sample, tmp_path):
    flags = ("--data", sample / "objects", "--batch-size", 7, "--json", tmp_path / "figures.json")
    refused = run("eval_backbone", "--weights", weights["r18"], *flags, "--size", 64, expect=2)
    assert "input.size 64 is above input.resize 32, from which it is cropped at test" in refused.err
    run("eval_backbone", "--weights", weights["r18"], *flags, "--size", 64, "--resize", 72)
    assert json.loads((tmp_path / "figures.json").read_text())[0]["images"] == 20


def test_a_limit_is_said_in_the_facts_and_holds_for_the_norms_too(sample, tmp_path):
    tiny = (*TINY_BACKBONE, "--solver.iterations", 2, "--solver.batch-size", 8, "--workers", 0, "--limit", 16)
    run("train_backbone", *tiny, "--backbone", "r18", "--data", sample / "objects", "--output", tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert facts["training_data"]["images"] == 16 and facts["epochs"] == 1
    assert "recomputed over 16 training images" in (tmp_path / "run" / "log.txt").read_text()


def test_figures_of_two_processes_are_those_of_the_weights_that_they_saved(sample, tmp_path):
    tiny = (*TINY_BACKBONE, "--solver.iterations", 12, "--solver.batch-size", 4, "--solver.lr", 0.1, "--workers", 0)
    flags = ("--backbone", "r18", "--data", sample / "objects", "--recompute-norms", 0, "--device", "cpu")
    run_process("train_backbone", *tiny, *flags, "--gpus", 2, "--output", tmp_path)
    _, facts = load_weights(tmp_path / "model.safetensors")
    figures = tmp_path / "figures.json"
    run("eval_backbone", "--weights", tmp_path / "model.safetensors", "--data", sample / "objects", "--json", figures)
    written = json.loads(figures.read_text())[0]
    assert facts["figures"] == {name: pytest.approx(written[name]) for name in ("top1", "top5")}


def test_compare_reports_on_two_finished_runs(detectors, tmp_path):
    done = run("compare", detectors["plain18"], detectors["r18"], "--report", tmp_path)
    assert str(tmp_path / "report.html") in done.out
    assert {"report.html", "report.md", "report.json"} <= {path.name for path in tmp_path.iterdir()}


def test_compare_refuses_other_protocols_naming_the_field(detectors, detector_flags, tmp_path):
    run("train_det", *detector_flags("plain18"), "--output", tmp_path / "b", "--solver.lr", "0.01")
    done = run("compare", detectors["r18"], tmp_path / "b", "--report", tmp_path / "report", expect=1)
    assert "solver.lr" in done.err


def test_compare_shows_its_plan(sample, tmp_path):
    flags = ("--config", "configs/sample/demo.yaml", "--data", sample, "--output", tmp_path / "runs", "--dry-run")
    done = run("compare", *flags)
    assert done.out.count(" train-det ") == 2 and done.out.count(" train-backbone ") == 2
    assert not (tmp_path / "runs").exists()


def test_profile_counts_what_the_paper_counts():
    done = run("profile_model", "--backbone", "r18", "--stride-in", "1x1", "--repeats", 0)
    assert "11,689,512" in done.out and "1.81G" in done.out


@pytest.mark.parametrize("source", ["sample/train", "sample/val"])
def test_check_finds_no_fault_in_the_sample_set(sample, source):
    assert "no faults" in run("prepare_data", "check", "--data", sample, "--source", source).out
