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


def test_help_needs_no_torch_and_no_opencv():
    for tool in sorted((HOUSE / "tools").glob("*.py")):
        if "__main__" not in tool.read_text():
            continue  # a part of several tools
        probe = (
            "import sys, runpy; sys.argv = ['tool', '--help']\n"
            f"sys.path.insert(0, {str(HOUSE / 'tools')!r})\n"
            "try: runpy.run_path(%r, run_name='__main__')\n"
            "except SystemExit as done: assert not done.code, done.code\n"
            "heavy = {'torch', 'cv2', 'albumentations', 'matplotlib', 'pycocotools'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        ) % str(tool)
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=HOUSE)
        assert done.returncode == 0, f"{tool.name}: {done.stderr}"
        assert "--help" in done.stdout, tool.name


def test_no_tool_bears_a_standard_library_modules_name():
    assert not [tool.stem for tool in (HOUSE / "tools").glob("*.py") if tool.stem in sys.stdlib_module_names]


def test_detectors_package_stays_empty():
    assert (HOUSE / "detectors" / "__init__.py").read_text() == ""
