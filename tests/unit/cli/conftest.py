import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import pnc_client as package
from app.cli import app as pnc
from pnc_client import Client
from pnc_core.module.signing import new_key, write_key
from tests.unit import seeds
from tests.unit.client.describing import Described, described_by

Run = Callable[..., Result]
SEARCHED = pytest.mark.parametrize("searched", ["built in", pytest.param("everywhere", marks=pytest.mark.slow)])
"""For a test with a file that fits no network; see `few_candidates`."""


@pytest.fixture(autouse=True)
def few_candidates(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare files with the built-in networks alone, except in tests of all: with all others it takes a minute."""
    if "everywhere" not in request.node.name:
        for group in ("torchvision", "timm"):
            monkeypatch.setattr(f"pnc_core.graph.identify.{group}", lambda *facts: iter(()))


@pytest.fixture(scope="package")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The service's OpenAPI document."""
    return described_by(tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def described(document: dict[str, Any]) -> Described:
    """The service as that document describes it."""
    return Described(document)


@pytest.fixture
def run(described: Described, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command, in a folder with a file of weights, its spec and an image."""
    monkeypatch.setattr(package, "Client", functools.partial(Client, transport=described))
    monkeypatch.chdir(tmp_path)
    Path("weights.safetensors").write_bytes(seeds.tensors())
    spec = {"architecture": "plain", "classes": list(seeds.LOW), "input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}
    Path("weights.json").write_text(json.dumps(spec))
    Path("signer.key").write_bytes(write_key(new_key()))
    Path("image.png").write_bytes(b"\x89PNG")
    Path("data.parquet").write_bytes(b"test")
    return lambda *arguments: CliRunner().invoke(pnc, [*arguments])
