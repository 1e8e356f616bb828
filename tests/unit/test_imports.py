"""What starts fast stays light: a fresh interpreter shows what an import loads."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

HEAVY = {"torch", "torchvision", "safetensors", "sqlalchemy", "fastapi", "pyarrow", "numpy", "matplotlib", "app.zoo"}
HEAVY |= {"opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter", "requests"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("pnc_core", set()),
        ("pnc_core.tensorfile", set()),
        ("app.cli", set()),
        ("pnc_client", set()),
        ("app.plots", {"matplotlib", "numpy"}),
        ("app.jobs.runs", {"sqlalchemy", "app.zoo"}),
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
        "import sys; from pathlib import Path; from app.main import create_app; from app.settings import Settings;"
        f"create_app(Settings(data_dir=Path({str(tmp_path)!r}))); print('nicegui' in sys.modules,"
        "*sorted({'torch', 'torchvision', 'matplotlib', 'opentelemetry.exporter'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


PRODUCT = ("app", "workers", "pnc_core", "migrations", "benchmarks")
ROOT = Path(__file__).parents[2]
ROOMS = (
    "access",
    "datasets",
    "db",
    "deployments",
    "imports",
    "jobs",
    "lifecycle",
    "models",
    "modules",
    "store",
    "webhooks",
)
FACES = {
    *(
        "routes",
        "page",
        "list_page",
        "card_page",
        "keys_page",
        "audit_page",
        "settings_page",
        "alias_panel",
        "snippets",
        "panel",
        "signature_routes",
        "canary_routes",
        "canary_panel",
        "tried",
        "history",
        "streams",
        "downloads",
    ),
    *("auth", "gateway", "inference", "load", "rollout", "accuracy", "matrices"),
}
"""Modules of a room that speak HTTP or HTML; all others are services, rules and tables."""
FRAMEWORKS = {"fastapi", "starlette", "nicegui", "uvicorn", "httpx", "markupsafe"}


@pytest.mark.timeout(120)
def test_no_module_imports_itself_through_others_not_even_for_types() -> None:
    graph = grimp.build_graph(*PRODUCT, exclude_type_checking_imports=False, cache_dir=None)
    order = TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_services_import_no_web_framework_and_no_routes_or_pages() -> None:
    faults = []
    for path in (path for room in ROOMS for path in sorted((ROOT / "app" / room).glob("*.py"))):
        if path.stem in FACES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                room_face = parts[:2] in [["app", room] for room in ROOMS] and parts[2:3] and parts[2] in FACES
                if parts[0] in FRAMEWORKS or parts[:2] in (["app", "api"], ["app", "web"]) or room_face:
                    faults.append(f"{path.relative_to(ROOT)} imports {name}")
    assert faults == []
