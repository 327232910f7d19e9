"""The depth study as a user types it: a plan, a failed cell that loses nothing, the same command again, the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import run
from vertebra.cli.depth_study import names_of
from vertebra.recipes.schema_study import STUDIES, DepthRecipe, Net

TINY = ("--solver.iterations", 3, "--solver.batch-size", 8, "--log-period", 1, "--precision", "fp32")


def test_a_net_carries_options():
    assert Net.parse("r34:shortcut=A,width=0.5") == Net("r34", (("shortcut", "A"), ("width", "0.5")))
    assert Net.parse("torchvision:resnet50") == Net("torchvision:resnet50")
    assert Net.parse("timm:resnet50:width=2") == Net("timm:resnet50", (("width", "2"),))
    assert Net.parse("r34:shortcut=A,width=0.5").directory == "r34_shortcutA_width0.5"
    with pytest.raises(ValueError, match="shortcut, width, stride_in, config, not depth=3"):
        Net.parse("r34:depth=3")
    for nets in STUDIES.values():
        assert len({Net.parse(net).directory for net in nets}) == len(nets)


def test_a_net_named_twice_is_refused():
    with pytest.raises(ValueError, match="r18 is named twice"):
        DepthRecipe(nets=("r18", "r18"))


def test_the_plan_is_printed_seed_by_seed(tmp_path):
    nets = ("cifar_r20", "cifar_r110", "r34:shortcut=A")
    out = run("depth_study", "--dry-run", "--data", tmp_path, "--nets", *nets, "--seeds", 2, "--", *TINY).out
    assert [line.split(" -> ")[0] for line in out.splitlines() if line.startswith("[")] == [
        "[1/6] cifar_r20, seed 0",
        "[2/6] cifar_r110, seed 0",
        "[3/6] r34, seed 0",
        "[4/6] cifar_r20, seed 1",
        "[5/6] cifar_r110, seed 1",
        "[6/6] r34, seed 1",
    ]
    commands = [line for line in out.splitlines() if line.startswith("    ")]
    assert ["--solver.warmup-until-error 80" in command for command in commands] == [False, True, False] * 2
    assert ["--shortcut A" in command for command in commands] == [False, False, True] * 2
    assert all("--solver.iterations 3" in command and "--resume" in command for command in commands)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name either finished run directories, or the --nets"),
        (("--nets", "cifar_r20"), "--data is missing"),
        (("--nets", "cifar_r21", "--data", "."), "There is no cifar_r21"),
        (("--nets", "cifar_r20", "--data", ".", "--", "--seed", "3"), "--seed is the study's own flag"),
        (("--nets", "cifar_r20:shortcut=B", "--data", "."), "cifar_r20:shortcut=B: this net always has A; leave"),
        (("--nets", "r34", "r34:shortcut=B", "--data", "."), "r34_s0 and r34_shortcutB_s0 are one net"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(arguments, sentence):
    assert sentence in run("depth_study", *arguments, expect=2).err


def test_runs_of_one_name_are_measured_under_different_ones():
    """Each view of each run is a job, and jobs of one name would write to one console."""
    assert names_of([Path("A/r18_s0"), Path("A/r18_s1")]) == ["r18_s0", "r18_s1"]
    assert names_of([Path("A/r18_s0"), Path("B/r18_s0")]) == ["1_r18_s0", "2_r18_s0"]


def test_runs_are_read_before_anything_is_measured(tmp_path: Path):
    refused = run("depth_study", tmp_path / "nowhere", "--report", tmp_path / "report", expect=1)
    assert refused.err.startswith("error: ") and "is not a directory" in refused.err


def test_a_failed_cell_loses_nothing_and_the_same_command_goes_on(sample: Path, tmp_path: Path):
    output = tmp_path / "study"
    command = (
        *("--data", sample / "objects", "--nets", "cifar_plain8", "cifar_r8", "--output", output, "--workers", 0),
        *("--device", "cpu", "--jobs", 2, "--responses", 5, "--", *TINY),
    )
    stranger = output / "cifar_r8_s0" / "stranger.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("not a run")
    failed = run("depth_study", *command, expect=1)
    assert "cifar_r8_s0 ended with 1: error: " in failed.out
    assert "error: cifar_r8, seed 0: ended with 1: " in failed.err and "cifar_r8_s0.txt" in failed.err
    assert [net["label"] for net in json.loads((output / "report" / "report.json").read_text())["nets"]] == ["plain-8"]
    weights = output / "cifar_plain8_s0" / "model.safetensors"
    written = weights.stat().st_mtime_ns

    stranger.unlink()
    done = run("depth_study", *command)
    assert "The report: " in done.out
    assert weights.stat().st_mtime_ns == written
    report = json.loads((output / "report" / "report.json").read_text())
    assert [net["label"] for net in report["nets"]] == ["plain-8", "ResNet-8"]
    assert [len(net["deviations"]) for net in report["responses"]] == [7, 7]
    assert report["nets"][0]["parameters"] == report["nets"][1]["parameters"]  # shortcuts A have none

    runs = [output / "cifar_plain8_s0", output / "cifar_r8_s0"]
    run("depth_study", *runs, "--report", tmp_path / "report", "--device", "cpu")
    assert json.loads((tmp_path / "report" / "report.json").read_text())["tables"] == report["tables"]
