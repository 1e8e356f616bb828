"""All cells of the example notebook run, and its objects are displayed as HTML."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.integration.conftest import Up
from tests.unit.docs.pages import ROOT

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(zmq|jupyter_client|nbclient|asyncio)")
def test_the_notebook(service: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PNC_URL": service.url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    subprocess.run(
        [sys.executable, str(ROOT / "examples" / "register_digits.py")],
        cwd=tmp_path, check=True, capture_output=True, timeout=200,
    )  # fmt: skip
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = "".join(
        output["data"].get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    )
    assert shown.count("<svg") == 1
    assert "Module mod_" in shown


def test_no_output_is_kept_in_the_repository() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
