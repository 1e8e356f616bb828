"""A restarted serving process and a second one give the same responses as the first."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.integration.conftest import wait_until
from tests.unit.serving import world
from tests.unit.serving.world import NAME, World


@dataclass
class Replica:
    """A running `pnc serve`."""

    process: subprocess.Popen[bytes]
    url: str

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"pnc serve ended with {self.process.returncode}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def answer(self, here: World) -> tuple[dict[str, str], bytes]:
        """The response for the same two images: provenance, and the bytes of the logits."""
        headers = {"Inference-Header-Content-Length": "0"}
        images = here.images(2).numpy().tobytes()
        found = httpx.post(f"{self.url}/v2/models/{NAME}/infer", content=images, headers=headers, trust_env=False)
        assert found.status_code == 200, found.text
        end = int(found.headers["Inference-Header-Content-Length"])
        return json.loads(found.content[:end])["parameters"], found.content[end:]


StartReplica = Callable[[], Replica]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    made = world.make(tmp_path)
    yield made
    made.zoo.close()


@pytest.fixture
def replica(here: World) -> Iterator[StartReplica]:
    running: list[Replica] = []

    def start() -> Replica:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
        # Answers are compared bit for bit. A module changes its engine once, seconds after it was attached first.
        own = {"PNC_THREADS": "1", "PNC_SERVING_ENGINE": "torch", "PNC_DATA_DIR": str(here.zoo.settings.data_dir)}
        environment = {**os.environ, **own}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        running.append(Replica(process, f"http://127.0.0.1:{port}"))
        wait_until(running[-1].is_ready, 90)
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()
        assert one.process.wait(30) in (0, -signal.SIGTERM, -signal.SIGKILL)


def test_a_restart_and_a_second_replica_serve_the_same(here: World, replica: StartReplica) -> None:
    here.want([here.modules[1], here.modules[0]])
    first = replica()
    wanted = first.answer(here)
    assert json.loads(wanted[0]["classes"]) == list("01234675")
    later = replica()
    assert later.answer(here) == wanted
    first.process.kill()
    first.process.wait()
    assert replica().answer(here) == wanted


def test_a_change_reaches_every_replica_before_who_waits_for_all_is_answered(
    here: World, replica: StartReplica
) -> None:
    first, second = replica(), replica()
    app = create_app(Settings(data_dir=here.zoo.settings.data_dir, serving_url=first.url, pages=False))
    with TestClient(app, base_url="http://localhost:8000") as http:
        for modules in ([here.modules[0]], [here.modules[2], here.modules[0]], []):
            answer = http.put(f"/v1/deployments/{NAME}/modules?wait=all", json={"modules": modules})
            assert answer.status_code == 200, answer.text
            found = [one.answer(here) for one in (first, second)]
            assert found[0] == found[1]
            assert found[0][0]["modules"] == ",".join(modules)
            assert found[0][0]["generation"] == str(answer.json()["generation"])
        said = http.get(f"/v1/deployments/{NAME}/replicas").json()["data"]
        assert [(one["generation"], one["problem"]) for one in said] == [(answer.json()["generation"], None)] * 2
        second.process.terminate()
        second.process.wait(30)
        assert len(http.get(f"/v1/deployments/{NAME}/replicas").json()["data"]) == 1
