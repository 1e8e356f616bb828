"""What starts fast stays light: a fresh interpreter shows what an import loads."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "torchvision", "safetensors", "sqlalchemy", "fastapi", "pyarrow", "numpy", "matplotlib", "app.zoo"}
HEAVY |= {"opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter", "requests"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("pnc_core", set()),
        ("pnc_core.tensorfile", set()),
        ("app.cli", set()),
        ("app.client", set()),
        ("app.plots", {"matplotlib", "numpy"}),
        ("app.zoo.runs", {"sqlalchemy", "app.zoo"}),
        ("migrations", set()),
        ("workers.supervisor", {"sqlalchemy", "app.zoo"}),
        ("app.main", {"sqlalchemy", "fastapi", "pyarrow", "numpy", "app.zoo", "opentelemetry"}),  # FastAPI's own
    ],
)
def test_an_import_loads_no_more_than_it_needs(module: str, allowed: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= allowed


def test_the_front_end_with_its_pages_leaves_torch_and_pictures_unloaded(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from app.main import create_app; from app.zoo.settings import Settings;"
        f"create_app(Settings(data_dir=Path({str(tmp_path)!r}))); print('nicegui' in sys.modules,"
        "*sorted({'torch', 'torchvision', 'matplotlib', 'opentelemetry.exporter'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
