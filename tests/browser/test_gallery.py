"""`pnc gallery` fills an empty zoo, and refuses any other zoo."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pnc_client import Client
from tests.integration.conftest import Start


def gallery(url: str, code: int) -> dict[str, object]:
    command = [sys.executable, "-m", "app.cli", "gallery", "--json", "--url", url]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == code, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


def test_an_empty_zoo_is_filled_once(start: Start, tmp_path: Path) -> None:
    service = start(tmp_path / "data")
    made = gallery(service.url, code=0)
    assert made["a_seven_is_seen_as"] == "7"
    with Client(service.url) as client:
        assert {model.name for model in client.models.list()} == set(made["models"])  # type: ignore[call-overload]
        assert all(model.aliases == {"production": 1} for model in client.models.list())
        assert client.deployments.get("digits").desired.modules == [made["module"]]
    assert "empty zoo" in str(gallery(service.url, code=1))
