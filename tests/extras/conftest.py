"""Environments that hold one extra and nothing else, and the files that the tests give them."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.demo import DIGITS, png, prepare
from pnc_core.config import CloneConfig
from pnc_core.method.clone import clone
from tests.services.fixtures import (  # noqa: F401 - fixtures
    empty_postgres_url,
    postgres_service,
    postgres_template,
    redis_service,
    redis_url,
    services,
)

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints-cpu.txt"


@dataclass(frozen=True)
class Alone:
    """A virtual environment, and a folder to work in."""

    programs: Path
    folder: Path

    def run(self, program: str, *words: str | Path, code: int = 0, **variables: str) -> str:
        """Run a program of the environment; returns everything that it printed."""
        done = subprocess.run(
            [self.programs / program, *map(str, words)],
            cwd=self.folder, env=self.environment(**variables), text=True, timeout=400,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def python(self, script: str, *words: str | Path) -> str:
        """Run Python code."""
        return self.run("python", "-P", "-c", script, *words)

    def start(self, *words: str, **variables: str) -> "subprocess.Popen[str]":
        """Start `pnc` with these words; its output goes to a file `<first word>.log` of the folder."""
        with (self.folder / f"{words[0]}.log").open("w") as log:
            return subprocess.Popen(
                [self.programs / "pnc", *words],
                cwd=self.folder, env=self.environment(**variables), text=True, stdout=log, stderr=log,
            )  # fmt: skip

    def said(self, command: str) -> str:
        """Output of a started command so far."""
        return (self.folder / f"{command}.log").read_text()

    def environment(self, **variables: str) -> dict[str, str]:
        """Variables of the environment's programs: none of the developer's."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        data = str(self.folder / "data")
        own = {"PATH": f"{self.programs}:/usr/bin:/bin", "HOME": str(self.folder), "PNC_DATA_DIR": data}
        return {**kept, **own, "OMP_NUM_THREADS": "1", "PNC_LOG_LEVEL": "info", "COLUMNS": "300", **variables}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a wheel, as a user would install it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(pip, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Iterator[Callable[[str], Alone]]:
    """Makes an empty environment with one extra; it is removed after the test."""

    def install(extra: str) -> Alone:
        place, folder = tmp_path / "environment", tmp_path / "folder"
        folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        wanted = f"pnc-zoo[{extra}] @ {wheel.as_uri()}" if extra else f"pnc-zoo @ {wheel.as_uri()}"
        # The release of torch that the constraints name is a CPU build only where pip finds one.
        pip = [place / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        done = subprocess.run([*pip, "-c", CONSTRAINTS, wanted], text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return Alone(place / "bin", folder)

    yield install
    shutil.rmtree(tmp_path / "environment", ignore_errors=True)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks, a full and a thin bundle, and an image of a seven; made in the developer's environment."""
    import json

    import safetensors.torch

    folder = tmp_path_factory.mktemp("files")
    material = prepare(0, Console(file=io.StringIO()))
    for name, (network, spec) in {"digits-low": material.target, "digits-high": material.source}.items():
        safetensors.torch.save_file(network.state_dict(), folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(spec.to_dict()))
    config = CloneConfig(classes=("7", "8"), preset="fast", batch_size=64)
    bundle: Any = clone(material.target, material.source, material.job, config)
    bundle.write(folder / "full.safetensors")
    bundle.thin().write(folder / "thin.safetensors")
    for number, (image, label) in enumerate(zip(material.test.images, material.test.labels.tolist(), strict=True)):
        place = folder / "images" / DIGITS[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(png(image))
    (folder / "seven.png").write_bytes(png(material.test.only([DIGITS[7]]).images[0]))
    return folder
