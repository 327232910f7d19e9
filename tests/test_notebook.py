"""The notebook of the documents, from its first cell to its last."""

import json
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[1]
NOTEBOOK = CLONE / "docs" / "notebooks" / "is_my_backbone_better.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells and all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow  # two and a half minutes of a core
def test_the_notebook_runs_and_ends_with_the_report(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in {"PYTHONPATH": str(CLONE), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3").execute(cwd=tmp_path)
    (shown,) = [cell.outputs[0] for cell in notebook.cells if "Markdown(Path" in cell.source]
    report = shown["data"]["text/markdown"]
    title, *lines = report.splitlines()
    assert title.startswith("# ") and "mine" in title
    (ap,) = [line for line in lines if line.startswith("| AP (IoU .50 to .95)")]
    assert len(ap.split("|")) == 7 and "## " not in report.removeprefix("# ")
