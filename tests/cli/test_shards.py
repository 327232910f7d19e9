"""Shards from the command line: written, indexed, checked, and trained from."""

from pathlib import Path

from tests.cli.conftest import TINY_BACKBONE, run
from tests.data.writers import write_folders


def test_shards_are_written_checked_and_trained_from(tmp_path: Path):
    for split in ("train", "val"):
        write_folders(tmp_path / "folders", {"ant": 6, "bee": 6}, split)
    done = run("prepare_data", "shard", "--data", tmp_path / "folders", "--output", tmp_path / "shards")
    assert done.out.count("12 images of 2 classes") == 2
    done = run("prepare_data", "check", "--data", tmp_path / "shards")
    assert "train: no faults" in done.out and "val: no faults" in done.out
    small = (*TINY_BACKBONE, "--solver.iterations", 2, "--solver.batch-size", 4, "--workers", 1, "--backbone", "r18")
    run("train_backbone", *small, "--data", tmp_path / "shards", "--output", tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").is_file()

    (tmp_path / "shards" / "train.index.jsonl").unlink()
    done = run("train_backbone", *small, "--data", tmp_path / "shards", "--output", tmp_path / "other", expect=1)
    assert f"shard --index-only --data {tmp_path / 'shards'} --split train" in done.err
    run("prepare_data", "shard", "--index-only", "--data", tmp_path / "shards", "--split", "train")
    assert "no faults" in run("prepare_data", "check", "--data", tmp_path / "shards", "--source", "train").out


def test_what_is_missing_on_the_command_line_is_named(tmp_path: Path):
    write_folders(tmp_path, {"ant": 1})
    assert "--output is missing" in run("prepare_data", "shard", "--data", tmp_path, expect=2).err
    assert "needs --split" in run("prepare_data", "shard", "--index-only", "--data", tmp_path, expect=2).err
    written = ("shard", "--output", tmp_path / "shards", "--data", tmp_path)
    assert "--index-only takes" in run("prepare_data", *written, "--shards", "a.tar", expect=2).err
    (tmp_path / "scenes" / "annotations").mkdir(parents=True)
    (tmp_path / "scenes" / "annotations" / "instances_all.json").touch()
    nothing = ("shard", "--output", tmp_path / "shards", "--data", tmp_path / "scenes")
    assert "no train, val or test in it" in run("prepare_data", *nothing, expect=2).err


def test_test_images_of_other_classes_than_the_training_shards_are_refused(tmp_path: Path):
    write_folders(tmp_path / "folders", {"ant": 3, "bee": 3})
    run("prepare_data", "shard", "--data", tmp_path / "folders", "--output", tmp_path / "mixed")
    write_folders(tmp_path / "mixed", {"bee": 2}, "val")  # by itself, bee would be class 0
    flags = (*TINY_BACKBONE, "--backbone", "r18", "--data", tmp_path / "mixed", "--output", tmp_path / "run")
    assert "have different classes: ant are only in one of them" in run("train_backbone", *flags, expect=1).err
