"""The wheel: three import names, the recipes and templates inside, a command that works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vertebra import __version__

HOUSE = Path(__file__).resolve().parent.parent
PACKAGES = ("backbones", "detectors", "segmenters", "vertebra")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    (built,) = builders.WheelBuilder(str(HOUSE)).build(directory=str(tmp_path_factory.mktemp("wheel")))
    return Path(built)


def test_three_import_names_and_no_others(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"vertebra-{__version__}.dist-info"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= {*names}


def test_everything_but_python_is_inside_too(wheel):
    names = {*zipfile.ZipFile(wheel).namelist()}
    here = {path.relative_to(HOUSE) for package in PACKAGES for path in (HOUSE / package).rglob("*.*")}
    files = {path.as_posix() for path in here if "__pycache__" not in path.parts and (HOUSE / path).is_file()}
    recipes = {f"vertebra/{path.relative_to(HOUSE).as_posix()}" for path in (HOUSE / "configs").rglob("*.yaml")}
    assert {Path(name).suffix for name in files} >= {".py", ".j2", ".css", ".js"} and len(recipes) > 20
    assert files | recipes <= names


def test_installed_it_runs_from_another_folder(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("there is no pip here")
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def vertebra(*words: object) -> str:
        command = [str(site / "bin" / "vertebra"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [
        sys.executable,
        "-c",
        "import vertebra, backbones, detectors; print(vertebra.__file__, detectors.__path__[0])",
    ]
    places = subprocess.run(where, capture_output=True, text=True, env=environment, cwd=tmp_path).stdout.split()
    assert all(place.startswith(str(site)) for place in places), "not those of this clone"
    assert vertebra("--version") == f"vertebra {__version__}\n"
    vertebra("prepare-data", "sample", "--data", "SAMPLE", "--scenes", 4, 4, "--objects", 20, 20)
    plan = vertebra("compare", "--config", "sample/demo.yaml", "--data", "SAMPLE", "--device", "cpu", "--dry-run")
    assert "2 cells: 2 backbones x 1 head x 1 seed on sample; 2 pre-trainings" in plan
