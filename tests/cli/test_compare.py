"""A comparison as a user types it: the plan, wrong command lines, cells that fail, a sweep."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import run

TINY = (
    *("--width", "0.25", "--input.shorter-side", "96", "--input.test-shorter-side", "96", "--model.rois", "8"),
    *("--solver.iterations", "8", "--log-period", "1", "--checkpoint-period", "2", "--precision", "fp32"),
)
ON_CPU = ("--device", "cpu", "--workers", "0")
NO_WEIGHTS = ("--backbones", "plain18", "r18", "--weights", "plain18=none", "r18=none")


def test_the_plan_has_the_cells_the_commands_and_about_how_long_they_take(sample, tmp_path):
    flags = (*NO_WEIGHTS, "--data", sample, "--output", tmp_path / "runs", "--heads", "c4", "fpn", "--seeds", 2)
    shared = ("--gpus", 4, "--gpus-per-job", 2, "--device", "cpu", "--dry-run")
    done = run("compare", *flags, *shared, "--sweep", "solver.lr", "0.01", "0.02", "--", *TINY)
    assert "8 cells: 2 backbones x 2 heads x 2 seeds on sample; a sweep of 2 values of solver.lr" in done.out
    assert "2 jobs at a time, each in 2 processes." in done.out
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("plain18 ", "r18 "))]
    assert [row[:5] for row in rows] == [[name, "0", "of", "2", "finished,"] for name in ("plain18", "r18")]
    assert done.out.count(" train-det ") == 16 and done.out.count("--solver.lr CHOSEN --sweep ...") == 8
    assert (
        re.search(r"Time: about \d+ (s|min) for what is not finished", done.out)
        and "G a second, measured on this machine's CPU just now" in done.out
    )
    assert not (tmp_path / "runs").exists()


def test_the_plan_of_segmenters_has_their_commands_and_times(sample, tmp_path):
    flags = (*NO_WEIGHTS, "--data", sample, "--output", tmp_path / "runs", "--heads", "deeplabv3", "pyramid")
    tiny = ("--width", "0.25", "--solver.iterations", "8")
    done = run("compare", "--task", "seg", *flags, "--seeds", 2, "--device", "cpu", "--dry-run", "--", *tiny)
    assert "8 cells: 2 backbones x 2 heads x 2 seeds on sample" in done.out
    assert done.out.count(" train-seg ") == 8 and done.out.count(" --model.head pyramid ") == 4
    assert re.search(r"Time: about \d+ (s|min) for what is not finished", done.out)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name either finished run directories (or --predictions), or --backbones to run"),
        ((".", *NO_WEIGHTS), "name either finished run directories"),
        ((".", "--heads", "c4"), "--heads is for the --backbones of a matrix"),
        ((".", "--seeds", 3, "--data", "x", "--workers", 0), "--data, --seeds, --workers are for the --backbones of a"),
        ((".", "--", "--seed", 1), "what follows the -- is for the --backbones of a matrix"),
        ((*NO_WEIGHTS, "--data", ".", "--heads", "c5"), "there is no head 'c5'"),
        ((*NO_WEIGHTS, "--data", ".", "--heads", "c4", "--task", "seg"), "there is no head 'c4': it is one of fcn,"),
        ((".", "--task", "seg"), "--task is for the --backbones of a matrix"),
        ((*NO_WEIGHTS, "--weights", "r50=a.safetensors"), "one of the backbones plain18, r18"),
        ((*NO_WEIGHTS, "--gpus", 6, "--gpus-per-job", 4), "--gpus 6 is not a multiple of --gpus-per-job 4"),
        ((*NO_WEIGHTS,), "--data is missing"),
        ((*NO_WEIGHTS, "--data", "nowhere"), "--data nowhere is not a directory"),
        (("--backbones", "r18", "--data", "."), "r18 alone is compared with nothing"),
        (("--predictions", "a=nowhere.json"), "nowhere.json: there is no such file"),
        ((".", "--expect", "nowhere.yaml"), "nowhere.yaml: there is no such file"),
        ((".", "--images", "nowhere"), "--images nowhere is not a directory"),
        (("--predictions", f"a={__file__}"), "--truth is missing"),
        (("--predictions", "a=."), ". is a folder, not a file; of maps of segmenters say --task seg"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(arguments, sentence):
    assert sentence in run("compare", *arguments, expect=2).err


def test_a_cell_that_fails_is_reported_and_the_others_are_compared(detectors, weights, sample, tmp_path):
    """The first seed's cells are finished already, the second seed's train."""
    output = tmp_path / "runs"
    given = [f"{name}={weights[name]}" for name in ("plain18", "r18")]
    command = (
        *("--backbones", "plain18", "r18", "--data", sample, "--output", output, *ON_CPU, "--jobs", 2),
        *("--weights", *given, "--seeds", 2, "--", *TINY),
    )
    for name, finished in detectors.items():
        shutil.copytree(finished, output / f"{name}_seed0")
    stranger = output / "r18_seed1" / "stranger.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("not a run")
    failed = run("compare", *command, expect=1)
    assert "error: detector on r18, seed 1: ended with 1: error: " in failed.err and "r18_seed1.txt)" in failed.err
    assert "The report: " in failed.out
    assert "3 of 4 finished" in failed.out
    report = (output / "report" / "report.md").read_text()
    assert "r18" in report and "plain18" in report

    other = run("compare", *command, "--solver.lr", 0.5, expect=1)
    assert "plain18_seed0 holds a run of another recipe" in other.err and "solver.lr" in other.err


@pytest.mark.slow  # six trainings; its parts: tests/configs/test_matrix.py, test_hold_out.py
def test_a_sweep_tests_on_held_out_images_and_gives_every_seed_the_best(sample, tmp_path):
    output = tmp_path / "runs"
    flags = ("--data", sample, "--output", output, *ON_CPU, "--jobs", 2, "--sweep-share", 0.3)
    tiny = (*TINY, "--solver.iterations", 2)
    run("compare", *NO_WEIGHTS, *flags, "--sweep", "solver.lr", "0.001", "1e9", "--", *tiny)
    sweep = json.loads((output / "sweep.json").read_text())
    assert [choice["backbone"] for choice in sweep["choices"]] == ["plain18", "r18"]
    held_out = json.loads((output / "sweep" / "r18_0.001" / "truth.json").read_text())
    test_set = json.loads((output / "r18_seed0" / "truth.json").read_text())
    held_out, tested = ({image["id"] for image in truth["images"]} for truth in (held_out, test_set))
    assert held_out and not held_out & tested
    for choice in sweep["choices"]:
        run_dir = output / f"{choice['backbone']}_seed0"
        config = yaml.safe_load((run_dir / "config.yaml").read_text())
        assert config["solver"]["lr"] == float(choice["chosen"]) and config["validation"] == 0
        protocol = json.loads((run_dir / "provenance.json").read_text())["protocol"]
        assert "solver.lr" not in protocol
        assert protocol["sweep"] == "solver.lr: 0.001 1e9, best AP on 0.3 of the training images, seed 0"
    assert (output / "report" / "report.html").is_file()


def test_what_would_spoil_the_report_is_said_before_anything_is_trained(sample, tmp_path):
    command = (*NO_WEIGHTS, "--data", sample, "--output", tmp_path / "runs", *ON_CPU)
    (tmp_path / "found.json").write_text('[{"image_id": 999999, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]')
    (tmp_path / "expect.yaml").write_text("- side: r18\n  figure: APP\n  value: 3\n  tolerance: 1\n")
    (tmp_path / "truth.json").write_text('{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}')
    (tmp_path / "nothing.json").write_text("[]")
    for flags, sentence, code in (
        (("--predictions", f"other={tmp_path / 'found.json'}"), "image_id 999999 is not in the truth", 1),
        (("--predictions", f"r18={tmp_path / 'found.json'}"), "r18 is one of the --backbones; give it another name", 2),
        (("--expect", tmp_path / "expect.yaml"), "figure is 'APP'; did you mean AP", 1),
        (
            ("--predictions", f"other={tmp_path / 'nothing.json'}", "--truth", tmp_path / "truth.json"),
            "truth.json differ in their images",
            1,
        ),
    ):
        assert sentence in run("compare", *command, *flags, expect=code).err
    assert not (tmp_path / "runs").exists()


def test_two_matrices_do_not_share_an_output(sample, tmp_path):
    program = (
        "import sys; from pathlib import Path; from vertebra.engine.jobs import lock; "
        "lock.take(Path(sys.argv[1])); input()"
    )
    (tmp_path / "runs").mkdir()
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "runs")], stdin=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "runs" / ".lock").exists() or not (tmp_path / "runs" / ".lock").read_text():
            assert holder.poll() is None
        done = run("compare", *NO_WEIGHTS, "--data", sample, "--output", tmp_path / "runs", *ON_CPU, expect=2)
        assert f"is in use: process {holder.pid} runs trainings there" in done.err
    finally:
        holder.communicate("\n")


def test_help_teaches(tmp_path: Path):
    printed = run("compare", "--help").out
    assert "--heads c4 fpn" in printed and "--slurm partition=gpu" in printed
