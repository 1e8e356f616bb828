"""No request may block the event loop for long, because a blocked loop serves no other request.

Every step of the loop is measured in processor time of its thread, so that other load on the machine does not count.
"""

import asyncio
import gc
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn

from app.main import create_app
from app.settings import Settings
from pnc_client.schemas import models
from tests.services.processes import free_port
from tests.unit import seeds

pytestmark = pytest.mark.filterwarnings("ignore:.torch.distributed.reduce_op:FutureWarning")
"""NiceGUI inspects all modules at startup, including torch's deprecated names."""
MOST_SECONDS = 0.12
"""Limit of processor seconds per step; the slowest regular step takes a third of it."""
MOST_CLASSES = 20_000
BYTES = 4 * 1024**2 - 100
CARDS = {
    "emphasis": "*a" * 5000,
    "table": "|a|b|\n|-|-|\n" + "x\n" * 4900,
    "brackets": "[" * 10_000,
    "mixed": "*a**" * 1250 + "\n* a" * 1250,
}
BODIES: dict[str, bytes] = {
    "members": b"{" + b",".join(b'"m%d":1' % n for n in range(BYTES // 11)) + b"}",
    "numbers": b'{"clonable":[' + b"1," * (BYTES // 2 - 10) + b"1]}",
    "lists": b"[" + b"[]," * (BYTES // 3 - 10) + b"[]]",
    "nested": b"[" * BYTES,
    "digits": b"1" * BYTES,
    "text": b'{"name":"' + b"\\u0041" * (BYTES // 6 - 10) + b'"}',
    "mistakes": json.dumps({"name": "x", "clonable": [1] * 100_000, "classes": [1] * 100_000, "config": {}}).encode(),
    "small mistakes": json.dumps({f"m{n}": n for n in range(700)}).encode(),
}
PAGES = ["/", "/models/low", "/models/wide", "/datasets", "/jobs", "/modules", "/deployments", "/new?source=wide"]


class Steps:
    """Records the long steps of one thread's event loop."""

    def __init__(self) -> None:
        self.thread = 0
        self.long: list[tuple[float, str]] = []

    def timed(self, run: Callable[[Any], None]) -> Callable[[Any], None]:
        def running(handle: Any) -> None:
            if threading.get_ident() != self.thread:
                run(handle)
                return
            callback, began = handle._callback, time.thread_time()
            run(handle)
            took = time.thread_time() - began
            if took > MOST_SECONDS:
                self.long.append((took, repr(callback)))

        return running

    @contextmanager
    def none_is_long(self, what: str) -> Iterator[None]:
        """Record within a block."""
        self.long.clear()
        yield
        assert not self.long, f"{what}: {self.long[0][0]:.2f} s in {self.long[0][1]:.300}"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Steps, dict[str, Any]]]:
    """A client of a real server in a thread, the steps of its event loop, and its OpenAPI document."""
    folder, steps = tmp_path_factory.mktemp("loop"), Steps()
    _fill(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", steps.timed(asyncio.Handle._run))
        app, port = create_app(Settings(data_dir=folder)), free_port()
        server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, loop="asyncio", log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        steps.thread = thread.ident or 0
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.05)
        gc.freeze()
        gc.disable()  # the garbage collector may run in any step
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            for page in PAGES:  # templates and statements are compiled once
                assert client.get(page).status_code == 200, page
            yield client, steps, client.get("/openapi.json").json()
        gc.enable()
        gc.unfreeze()
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def _fill(folder: Path) -> None:
    zoo = seeds.new_zoo(folder)
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", value=1)
        seeds.version(session, zoo, "wide", tuple(f"class {n}" for n in range(MOST_CLASSES)), value=2)
        seeds.dataset(session, zoo)
    zoo.close()


Watched = tuple[httpx.Client, Steps, dict[str, Any]]


@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_drawn_elsewhere(watched: Watched, card: str) -> None:
    client, steps, _ = watched
    assert (
        client.patch("/v1/models/low", json={"description": CARDS[card][: models.MAX_DESCRIPTION]}).status_code == 200
    )
    with steps.none_is_long(card):
        assert client.get("/models/low").status_code == 200


@pytest.mark.parametrize("body", BODIES)
def test_no_body_holds_the_loop_on_any_route(watched: Watched, body: str) -> None:
    client, steps, document = watched
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "application/json" not in operation.get("requestBody", {}).get("content", {}):
                continue
            url = re.sub(r"\{(version|generation)\}", "1", path)
            url = re.sub(r"\{\w+\}", "low", url)
            with steps.none_is_long(f"{method} {path}"):
                headers = {"Content-Type": "application/json", "Idempotency-Key": "x"}
                answer = client.request(method, url, content=BODIES[body], headers=headers)
            assert answer.status_code in (400, 404, 409, 413, 422), answer.text[:500]
            assert len(answer.content) < 100_000


def test_no_page_holds_the_loop(watched: Watched) -> None:
    client, steps, _ = watched
    for page in [*PAGES, f"/compare?a=job_{'x' * 3000}&b=job_{'y' * 3000}", f"/?search={quote('% _ ' * 2000)}"]:
        with steps.none_is_long(page):
            assert client.get(page).status_code == 200


def test_no_form_holds_the_loop(watched: Watched) -> None:
    client, steps, _ = watched
    for form in (b"key=" + b"%41" * (BYTES // 3), b"a=1&" * (BYTES // 4), b"x" * BYTES):
        with steps.none_is_long("sign-in"):
            answer = client.post(
                "/sign-in", content=form, headers={"Content-Type": "application/x-www-form-urlencoded"}
            )
        assert answer.status_code == 422


def test_no_list_holds_the_loop(watched: Watched) -> None:
    client, steps, _ = watched
    for url in (
        "/v1/models?limit=100",
        "/v1/models/wide/versions?limit=100",
        "/openapi.json",
        f"/v1/jobs?after={'x' * 9000}",
    ):
        with steps.none_is_long(url):
            client.get(url)
    with steps.none_is_long("a wrong method"):
        assert client.put("/v1/models").status_code == 405
