"""The commands in the README work as printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Up

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(name: str) -> str:
    found = re.search(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.fixture(scope="module")
def folder(service: Up, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after the command that precedes the walk-through."""
    folder = tmp_path_factory.mktemp("reader")
    run([sys.executable, str(ROOT / "examples" / "register_digits.py")], service, folder)
    return folder


def run(command: list[str], service: Up, folder: Path) -> str:
    environment = {**os.environ, "PNC_URL": service.url, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_curl_walk_through(service: Up, folder: Path) -> None:
    lines = block("walk").strip().splitlines()
    assert len(lines) == 10
    output = run(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], service, folder)
    documents = [
        json.loads(line)
        for line in re.findall(r"\{\"(?:id|deployment)\".*?\}(?=\{\"|$)", output.split("event: end")[1])
    ]
    prediction = next(d for d in documents if "classes" in d)
    assert prediction["classes"][0]["name"] == "7"
    assert '"state":"succeeded"' in output.replace(" ", "")
    assert (folder / "module.safetensors").stat().st_size > 10_000


def test_the_library_alone(service: Up, folder: Path) -> None:
    assert block("library") == (ROOT / "examples" / "clone_without_server.py").read_text().split('"""\n\n', 1)[1]
    output = run([sys.executable, str(ROOT / "examples" / "clone_without_server.py")], service, folder)
    assert "'7', '8', '9'" in output
    average = re.search(r"average=([0-9.]+)", output)
    assert average is not None
    assert float(average[1]) > 0.9


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_commands(service: Up, folder: Path) -> None:
    lines = f'pnc() {{ "{sys.executable}" -m app.cli "$@"; }}\n{block("commands")}'
    output = run(["bash", "-euo", "pipefail", "-c", lines], service, folder)
    assert "cut from source" in output
    assert "succeeded" in output
    assert "digits-low" in output


def test_the_python_client(service: Up, folder: Path) -> None:
    code = block("client").replace("http://127.0.0.1:8000", service.url)
    (folder / "with_a_server.py").write_text(code)
    output = run([sys.executable, "with_a_server.py"], service, folder)
    assert output.splitlines()[-1].startswith("100%")
    assert (folder / "module.safetensors").stat().st_size > 10_000
