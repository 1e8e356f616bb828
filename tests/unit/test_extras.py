"""Each extra brings all that its code imports: the developer's environment, which has everything, must not hide a gap.

The code of an extra is imported by a process that finds only what a fresh environment with that extra would have.
"""

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from app.cli.screen import what_to_install

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALL = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
CODE = {
    "": ("app.cli", "pnc_client"),
    "core": ("pnc_core", "app.sources", "app.local"),
    "hub": ("app.sources.from_hub", "app.sources.from_transformers", "app.sources.hub"),
    "timm": ("app.sources.from_timm",),
    "server": (
        *(
            "app.access",
            "app.api",
            "app.cleaning",
            "app.compositions",
            "app.datasets",
            "app.db",
            "app.deployments",
            "app.doctor",
            "app.errors",
            "app.imports",
            "app.jobs",
        ),
        *("app.lifecycle", "app.main", "app.models", "app.modules", "app.moving", "app.names", "app.process"),
        *("app.serving",),
        *("app.settings", "app.store", "app.tables", "app.up", "app.web", "app.webhooks", "app.zoo"),
        *("pnc_client.parquet", "app.local.checking", "app.local.cloning", "migrations", "workers"),
    ),
    "cluster": (
        "app.jobs.notifier",
        "app.jobs.wakeups",
        "app.store.bucket",
        "app.store.s3",
        "app.store.s3_inbox",
        "workers.main",
    ),
    "plots": ("app.plots",),
    "server,plots": ("app.evidence",),
    "demo": ("app.demo", "app.gallery", "app.promises"),
    "onnx": ("pnc_core.module.export",),
    "otel": ("app.process.tracing",),
}
FRONT = (
    *(
        "app.access",
        "app.api",
        "app.compositions",
        "app.datasets",
        "app.db",
        "app.deployments",
        "app.imports",
        "app.jobs",
        "app.lifecycle",
    ),
    *("app.main", "app.models", "app.modules", "app.store", "app.web", "app.webhooks", "app.zoo", "migrations"),
)
"""The code of `pnc api` and `pnc migrate`, for which the extra `api` is enough."""
"""Which extra a module belongs to; the longest name counts."""
NOT_HERE = {"mlflow"}
"""Packages that the developer's environment lacks; their imports are not checked."""
UNUSED = {"mpl_toolkits", "pylab"}
"""Modules beside the one that their package is named after."""
NEEDS_ITS_PLACE = {"migrations.env"}
"""Loaded by Alembic alone."""
BLOCKED = """
import importlib, json, sys
from importlib.machinery import PathFinder
given = json.load(sys.stdin)

class Present:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in given["missing"] else PathFinder.find_spec(name, path, target)

    find_distributions = staticmethod(PathFinder.find_distributions)

sys.meta_path[sys.meta_path.index(PathFinder)] = Present()
for name in given["modules"]:
    importlib.import_module(name)
exec(given["then"])
"""
THEN = {
    "server": "import uvicorn.protocols.http.httptools_impl, uvicorn.loops.uvloop, websockets",
    # What a worker meets first: the transport to its broker, a driver for its database, and the store.
    "cluster": "assert workers_main.app.connection().transport; import psycopg, boto3; boto3.client('s3', 'nowhere')",
    "demo": "import sklearn.datasets",
    "onnx": "import onnx, onnxruntime, onnxscript, torch.onnx",
    "otel": "import opentelemetry.sdk.trace, opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "origin": "import scipy.stats, app.local.origin",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def brought(extras: str) -> frozenset[str]:
    """Distributions that an installation with these extras, and nothing else, has."""
    waiting = [Requirement(text) for extra in ("", *extras.split(",")) for text in ALL[extra]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, chosen = normal(wanted.name), frozenset(wanted.extras)
        if (name, chosen) in seen:
            continue
        seen.add((name, chosen))
        if name == "pnc-zoo":
            waiting += [Requirement(text) for extra in chosen for text in ALL[extra]]
            continue
        needs = map(Requirement, metadata.requires(name) or ())
        waiting += [r for r in needs if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in ("", *chosen))]
    return frozenset(name for name, _ in seen)


@functools.cache
def owners() -> Mapping[str, set[str]]:
    """Distributions by the module that they bring."""
    return {module: set(map(normal, names)) for module, names in metadata.packages_distributions().items()}


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("app", "workers", "pnc_client", "pnc_core", "migrations"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def extras_of(module: str) -> str | None:
    fitting = [
        (len(name), extra) for extra, names in CODE.items() for name in names if f"{module}.".startswith(f"{name}.")
    ]
    return max(fitting)[1] if fitting else None


def belongs(module: str, extras: str) -> bool:
    if extras == "api":
        return any(f"{module}.".startswith(f"{name}.") for name in FRONT)
    return extras_of(module) == extras


def imported(path: Path) -> set[tuple[str, bool]]:
    """Third-party modules that a file imports, and whether as soon as it is loaded."""
    tree = ast.parse(path.read_text())
    inside = {
        id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
    }
    for_types = {id(n) for block in ast.walk(tree) if isinstance(block, ast.If) for n in _typing(block)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        found |= {(name.partition(".")[0], id(node) not in inside) for name in names}
    own = {"app", "workers", "pnc_client", "pnc_core", "migrations"}
    return {(name, early) for name, early in found if name not in own and name not in sys.stdlib_module_names}


def _typing(block: ast.If) -> Iterator[ast.AST]:
    """What only type checkers see."""
    if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
        for statement in block.body:
            yield from ast.walk(statement)


def test_every_module_belongs_to_an_extra() -> None:
    assert [module for module, _ in modules() if extras_of(module) is None] == ["app"]


@pytest.mark.parametrize("extras", CODE)
def test_what_the_code_of_an_extra_imports_comes_with_it(extras: str) -> None:
    """What only a command needs may be missing, if the command then names an extra that has it."""
    have, brings = brought(extras), owners()
    missing = []
    for module, path in modules():
        for name, early in imported(path) if extras_of(module) == extras else ():
            if name in NOT_HERE or brings.get(name, set()) & have:
                continue
            told = re.search(r"\[(.*)\]", what_to_install(ModuleNotFoundError(name=name)))
            if early or told is None or not brings.get(name, set()) & brought(told[1]):
                missing.append((module, name))
    assert missing == []


@pytest.mark.always
@pytest.mark.parametrize("extras", [*CODE, "origin", "api"])
def test_the_code_of_an_extra_loads_where_nothing_else_is_installed(extras: str, tmp_path: Path) -> None:
    have = brought(extras)
    missing = [module for module, names in owners().items() if not names & have and names != {"pnc-zoo"}]
    wanted = [module for module, _ in modules() if belongs(module, extras) and not module.endswith("__main__")]
    wanted = [module for module in wanted if module not in NEEDS_ITS_PLACE]
    assert wanted or extras in THEN
    given = {"missing": missing, "modules": wanted, "then": THEN.get(extras, "")}
    given["then"] = "workers_main = sys.modules.get('workers.main')\n" + str(given["then"])
    environment = {"PNC_BROKER_URL": "redis://127.0.0.1:1/0", "PNC_DATA_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", BLOCKED], input=json.dumps(given), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_hint_of_a_missing_package_names_an_extra_that_has_it() -> None:
    """For every package that an extra names, by each module that it brings."""
    wrong = []
    named = {normal(Requirement(text).name) for texts in PROJECT["optional-dependencies"].values() for text in texts}
    developers = {normal(Requirement(text).name) for text in ALL["dev"] + ALL["docs"]}
    for module, names in owners().items():
        if names & named - developers - {normal("pnc-zoo")} and module not in UNUSED and not module.startswith("_"):
            told = re.search(r"\[(.*)\]", what_to_install(ModuleNotFoundError(name=module)))
            if told is None or not names & brought(told[1]):
                wrong.append((module, names, told and told[1]))
    assert wrong == []


def test_a_gap_is_seen() -> None:
    assert "packaging" not in brought("") | brought("core")
    assert {"packaging", "redis", "celery"} <= brought("cluster")
