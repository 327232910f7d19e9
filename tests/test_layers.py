"""The house: imports point downward, the schema stays light, names do not shadow the standard library."""

import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent


def test_imports_point_downward():
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    # In a process of its own: it silences all loggers that exist when it starts.
    check = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=HOUSE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_tool_bears_a_standard_library_modules_name():
    assert not [tool.stem for tool in (HOUSE / "tools").glob("*.py") if tool.stem in sys.stdlib_module_names]


@pytest.mark.parametrize("room", ["detectors", "segmenters"])
def test_rooms_of_networks_stay_empty_packages(room):
    assert (HOUSE / room / "__init__.py").read_text() == ""
