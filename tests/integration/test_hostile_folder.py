"""The service and the commands work in a folder whose files have the names of imported modules."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

import pytest
import safetensors.torch

from app.demo import DIGITS, Material, png, png_rows
from pnc_client import Client
from pnc_client.parquet import write_parquet
from tests.integration.conftest import QUICK, fill

PNC = str(Path(sys.executable).with_name("pnc"))
BROKEN = "raise SystemExit('imported from the folder that the service was started in')\n"
MODULES = (
    "app",
    "queue",
    "random",
    "resource",
    "sitecustomize",
    "socket",
    "torch",
    "usercustomize",
    "celeryconfig",
    "nicegui",
)
PACKAGES = ("migrations", "multiprocessing", "numpy", "pnc_core", "pyarrow", "sqlalchemy", "workers")
OTHERS = {
    ".env": "PNC_DATABASE_URL=nonsense\nPNC_THREADS=-1\n",
    "alembic.ini": "[alembic]\nscript_location = nowhere\n",
    "pyproject.toml": "[tool.alembic]\nscript_location = 'nowhere'\n[project\n",
}


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foreign project, whose files have names of our modules or of Python's."""
    folder = tmp_path_factory.mktemp("hostile")
    modules, packages = set(MODULES), set(PACKAGES)
    if request.param == "packages":
        modules, packages = modules - {"app"}, packages | {"app"}
    for name in modules:
        (folder / f"{name}.py").write_text(BROKEN)
    for name in packages:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(BROKEN)
    for name, text in OTHERS.items():
        (folder / name).write_text(text)
    return folder


def run(folder: Path, *words: object) -> str:
    done = subprocess.run([PNC, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def url(folder: Path, tmp_path: Path) -> Iterator[str]:
    """`pnc up`, started in that folder."""
    command = [PNC, "up", "--port", "0", "--data-dir", str(tmp_path / "data")]
    environment = {**os.environ, "PNC_THREADS": "1", "COLUMNS": "300"}
    with (
        (tmp_path / "stderr").open("w+") as said,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True) as up,
    ):
        yield _ready(up, said)
        up.terminate()
        assert up.wait(30) == 0


def _ready(up: subprocess.Popen[str], said: IO[str]) -> str:
    assert up.stdout is not None
    line = up.stdout.readline()
    said.seek(0)
    assert line.startswith("ready: "), said.read()
    return line.split()[1]


KINDS = "packages", "app.py"


@pytest.mark.parametrize("folder", [pytest.param(KINDS[0], marks=pytest.mark.always), KINDS[1]], indirect=True)
def test_a_service_does_a_job_and_answers(url: str, folder: Path, material: Material, tmp_path: Path) -> None:
    dataset = fill(url, material, tmp_path)  # one child process checks files, another one validates networks
    with Client(url) as client:
        job = client.jobs.wait(client.jobs.create("digits-low", "digits-high", dataset.id, QUICK).id)
        assert job.state == "succeeded", job.problem
        assert job.module is not None
        client.deployments.create("digits", "digits-low")
        client.deployments.attach("digits", job.module)
        # Another child process decodes the image.
        answer = client.deployments.predict("digits", png(material.test.images[0]))
        assert len(answer.classes) == 8
    assert "digits-low" in run(folder, "models", "list", "--url", url)


@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_commands_that_need_no_service_work(folder: Path, material: Material, tmp_path: Path) -> None:
    low, high = tmp_path / "low.safetensors", tmp_path / "high.safetensors"
    for path, (network, spec) in ((low, material.target), (high, material.source)):
        safetensors.torch.save_file(network.state_dict(), path)
        path.with_suffix(".json").write_text(json.dumps(asdict(spec)))
    write_parquet(tmp_path / "digits.parquet", png_rows(material.job), DIGITS)
    images, module = tmp_path / "digits.parquet", tmp_path / "module.safetensors"
    assert "up to date" in run(folder, "migrate", "--data-dir", tmp_path / "data")
    run(folder, "gc", "--data-dir", tmp_path / "data")
    run(folder, "clone", low, high, images, "-c", "7", "-c", "8", "--preset", "fast", "--out", module)
    assert "digest" in run(folder, "modules", "verify", module, "--source", high, "--target", low)
    given = ["--target", low, "--source", high, "--data", images, "--seeds", "0"]
    run(folder, "evidence", module, *given, "--out", tmp_path / "evidence")
    assert (tmp_path / "evidence" / "evidence.json").is_file()
