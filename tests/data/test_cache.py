"""Large JSON files are parsed once a machine; what is kept is the same to the bit, and never stale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from vertebra.data.datasets import cache, catalog
from vertebra.data.datasets.catalog import open_detection
from vertebra.data.datasets.records import DetectionDataset
from vertebra.data.datasets.strings import Strings
from vertebra.ground.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def parsed(monkeypatch, tmp_path: Path) -> list[Path]:
    """The files that were parsed; all are large, and what is kept is kept in tmp_path / kept."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "kept"))
    monkeypatch.setattr(cache, "SMALLEST", 0)
    files: list[Path] = []
    parse = catalog.parse_coco

    def counted(path, *places, **options):
        files.append(path)
        return parse(path, *places, **options)

    monkeypatch.setattr(catalog, "parse_coco", counted)
    return files


def assert_equal(one: DetectionDataset, other: DetectionDataset) -> None:
    for field in fields(DetectionDataset):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert type(a) is type(b), field.name
        if isinstance(a, Strings):
            assert all(map(np.array_equal, a.arrays, b.arrays)), field.name
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes() and a.shape == b.shape, field.name
        else:
            assert a == b, field.name
    assert one.fingerprint() == other.fingerprint() and one.coco_truth() == other.coco_truth()


@pytest.mark.parametrize("segmentations", [True, False])
@pytest.mark.parametrize("change", ["nothing", "no objects", "numbered anew"])
def test_what_is_kept_is_what_was_parsed_to_the_bit(parsed, coco_set, monkeypatch, segmentations, change):
    def write(value):
        if change == "no objects":
            value["annotations"] = []
        if change == "numbered anew":
            value["annotations"][0]["id"] = value["annotations"][1]["id"]

    path = coco_set(write)
    first, second = (open_detection(path.parent, f"json:{path}", segmentations=segmentations) for _ in range(2))
    assert len(parsed) == 1, "the second one is mapped"
    monkeypatch.setenv(cache.VARIABLE, "")
    plain = open_detection(path.parent, f"json:{path}", segmentations=segmentations)
    assert len(parsed) == 2
    for dataset in (first, second, second.subset([1, 0]).subset([1, 0])):
        assert_equal(replace(dataset, notes=plain.notes), plain)
    assert first.notes == second.notes == plain.notes
    assert second.labels_K.flags.writeable, "torch warns of others"
    assert (second.segmentations is not None) == (segmentations and change != "no objects")


def edit(path: Path, kept: Path) -> None:
    value = json.loads(path.read_text())
    value["annotations"][0]["bbox"][0] += 1
    size = path.stat().st_size
    path.write_text(json.dumps(value))
    assert abs(path.stat().st_size - size) < 1000
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def damage(path: Path, kept: Path) -> None:
    (file,) = kept.glob("*/bbox_xywh_K4.npy")
    file.write_bytes(file.read_bytes()[:-8])


def forget(path: Path, kept: Path) -> None:
    (file,) = kept.glob("*/starts.npy")
    file.unlink()


@pytest.mark.parametrize("change", [edit, damage, forget])
def test_what_is_stale_or_damaged_is_parsed_anew(parsed, coco_set, tmp_path, change):
    path = coco_set()
    before = open_detection(path.parent, f"json:{path}").fingerprint()
    change(path, tmp_path / "kept")
    after = open_detection(path.parent, f"json:{path}")
    assert len(parsed) == 2
    assert (after.fingerprint() == before) == (change is not edit)
    assert_equal(open_detection(path.parent, f"json:{path}"), after)
    assert len(parsed) == 2


def test_what_is_stale_goes_once_no_process_has_it_mapped(parsed, coco_set, tmp_path):
    path = coco_set()
    for left in (1, 2, 1):
        if left == 1:
            cache._USED.clear()
        open_detection(path.parent, f"json:{path}")
        assert sum(kept.is_dir() for kept in (tmp_path / "kept").iterdir()) == left
        edit(path, tmp_path)


@pytest.mark.parametrize("what", ["segmentations", "version", "images", "extras", "small"])
def test_what_else_the_result_depends_on_is_heeded(parsed, coco_set, monkeypatch, tmp_path, what):
    path = coco_set()
    dataset = open_detection(path.parent, f"json:{path}")
    options = {what: what == "extras"} if what in ("segmentations", "extras") else {}
    if what == "version":
        monkeypatch.setattr(cache, "__version__", "another")
    if what == "small":
        monkeypatch.setattr(cache, "SMALLEST", 1 << 30)
    if what == "images":
        for index in range(len(dataset)):
            dataset.path(index).rename(tmp_path / f"{index}.moved")
        with pytest.raises(DataError, match="its first image"):
            open_detection(path.parent, f"json:{path}")
    else:
        open_detection(path.parent, f"json:{path}", **options)
    assert len(parsed) == 2


@pytest.mark.parametrize("place", ["", "a file", "full"])
def test_without_a_place_it_is_just_parsed(parsed, coco_set, monkeypatch, tmp_path, place):
    path = coco_set()
    if place == "a file":
        (tmp_path / "kept").write_text("")
    if place == "full":
        monkeypatch.setattr(cache.np, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    if place == "":
        monkeypatch.setenv(cache.VARIABLE, "")
    for count in (1, 2):
        assert len(open_detection(path.parent, f"json:{path}")) == 2 and len(parsed) == count


PROGRAM = """
import sys, time
from vertebra.data.datasets import cache, catalog
from vertebra.engine import distributed
cache.SMALLEST = 0
parse = catalog.parse_coco
def counted(*arguments, **options):
    print("parsed", flush=True)
    time.sleep(1)
    return parse(*arguments, **options)
catalog.parse_coco = counted
with distributed.started("cpu") as world:
    dataset = catalog.open_detection(sys.argv[1], "json:ann.json")
    prints = world.gather_objects(dataset.fingerprint())
assert len(prints) == 2 and len(set(prints)) == 1
"""


def test_two_processes_parse_once(coco_set, tmp_path):
    path = coco_set()
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), cache.VARIABLE: str(tmp_path / "kept")}
    done = subprocess.run(
        [*command, str(tmp_path / "program.py"), str(path.parent)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("parsed") == 1
