"""How many may listen, and what becomes of those that do not read."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete

from app.api import health
from app.api.health import Readiness
from app.jobs import events
from app.jobs import service as jobs
from app.jobs.streams import watching
from app.jobs.tables import EventRow
from app.zoo import Zoo
from tests.unit import seeds


@pytest.fixture
def job(zoo: Zoo) -> str:
    """A job that waits."""
    with zoo.database.write() as session:
        return seeds.queued(session, zoo).id


def _scope(job: str, host: str = "10.0.0.1") -> dict[str, Any]:
    path = f"/v1/cloning-jobs/{job}/events/stream"
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": (host, 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }


async def _never() -> Any:
    await anyio.sleep_forever()


@contextmanager
def _limited(app: FastAPI, total: int, own: int) -> Iterator[None]:
    app.state.watch._limits = watching.Limits(lambda: total, own)
    yield


class Listener:
    """A client that takes so many parts of an answer and reads no further."""

    def __init__(self, most: int = 10**6) -> None:
        self.parts: list[dict[str, Any]] = []
        self._most = most

    async def send(self, message: dict[str, Any]) -> None:
        self.parts.append(message)
        if len(self.parts) >= self._most:
            await anyio.sleep_forever()

    @property
    def status(self) -> int | None:
        return self.parts[0]["status"] if self.parts else None

    @property
    def text(self) -> str:
        return b"".join(part.get("body", b"") for part in self.parts).decode()


@pytest.mark.parametrize(
    ("total", "own", "setting"), [(9, 2, "PNC_MAX_STREAMS_PER_KEY"), (2, 9, "PNC_MAX_STREAMS and")]
)
def test_one_stream_too_many_is_refused_until_another_ends(
    app: FastAPI, job: str, total: int, own: int, setting: str
) -> None:
    async def main() -> None:
        with _limited(app, total, own):
            async with anyio.create_task_group() as listeners:
                for _ in range(2):
                    listeners.start_soon(app, _scope(job), _never, Listener().send)
                await anyio.sleep(0.5)
                late = Listener()
                await app(_scope(job), _never, late.send)
                assert late.status == 429
                assert setting in late.text
                assert (b"retry-after", b"5") in late.parts[0]["headers"]
                listeners.cancel_scope.cancel()
            with anyio.move_on_after(0.5):
                again = Listener()
                await app(_scope(job), _never, again.send)
            assert again.status == 200

    anyio.run(main)


def test_another_address_has_streams_of_its_own(app: FastAPI, job: str) -> None:
    async def main() -> None:
        with _limited(app, 9, 1):
            async with anyio.create_task_group() as listeners:
                listeners.start_soon(app, _scope(job), _never, Listener().send)
                await anyio.sleep(0.3)
                other = Listener()
                listeners.start_soon(app, _scope(job, "10.0.0.2"), _never, other.send)
                await anyio.sleep(0.5)
                assert other.status == 200
                listeners.cancel_scope.cancel()

    anyio.run(main)


@pytest.mark.always
def test_one_that_does_not_read_keeps_nothing_from_others(
    app: FastAPI, zoo: Zoo, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets what it missed once it reads again; meanwhile nothing is kept for it."""
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.02)
    more = 3 * watching.KEPT

    async def main() -> None:
        stuck, brisk = Listener(most=2), Listener()
        async with anyio.create_task_group() as listeners:
            for one in (stuck, brisk):
                listeners.start_soon(app, _scope(job), _never, one.send)
            await anyio.sleep(0.5)
            for _ in range(more):
                await anyio.to_thread.run_sync(_emit, zoo, job)
            with anyio.fail_after(20):
                while f"\nid: {more + 1}\n" not in brisk.text:
                    await anyio.sleep(0.05)
            assert brisk.text.count("id: ") == more + 1, "each once"
            assert len(stuck.parts) == 2
            (watched,) = app.state.watch._watched.values()
            assert len(watched.recent) <= watching.KEPT
            listeners.cancel_scope.cancel()
        assert app.state.watch._watched == {}

    anyio.run(main)


def _emit(zoo: Zoo, job: str) -> None:
    with zoo.database.write() as session:
        events.emit(session, jobs.get(session, job), "progress", "one more")


def test_streams_of_all_jobs_cost_one_look(app: FastAPI, zoo: Zoo, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    heads = events.heads

    def counted(session: Any, ids: Any) -> Any:
        looks.append(len(ids))
        return heads(session, ids)

    monkeypatch.setattr(events, "heads", counted)
    with zoo.database.write() as session:
        request = seeds.another_request(jobs.get(session, job).dataset_id)
        others = [jobs.submit(session, request).id for _ in range(20)]

    async def main() -> None:
        async with anyio.create_task_group() as listeners:
            for one in [job, *others] * 3:
                listeners.start_soon(app, _scope(one), _never, Listener().send)
            await anyio.sleep(2.0)
            looks.clear()
            await anyio.sleep(5 * watching.POLL_SECONDS)
            assert set(looks) == {21}
            assert len(looks) <= 6
            listeners.cancel_scope.cancel()

    anyio.run(main)


def test_health_needs_no_thread_of_the_pool(http: httpx.Client, app: FastAPI) -> None:
    """All threads of requests wait for something; health is answered."""
    release = threading.Event()

    async def main() -> None:
        async with anyio.create_task_group() as busy, httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            for _ in range(int(anyio.to_thread.current_default_thread_limiter().total_tokens)):
                busy.start_soon(anyio.to_thread.run_sync, release.wait)
            await anyio.sleep(0.1)
            with anyio.fail_after(10):
                assert (await client.get("http://localhost/healthz")).status_code == 200
                assert (await client.get("http://localhost/readyz")).status_code == 200
            release.set()

    anyio.run(main)


def test_a_flood_of_questions_is_one_look() -> None:
    looks: list[float] = []

    def load_view() -> None:
        looks.append(time.monotonic())
        time.sleep(0.2)

    async def main() -> None:
        asked = Readiness(load_view)
        async with anyio.create_task_group() as flood:
            for _ in range(500):
                flood.start_soon(asked.reason)
        assert await asked.reason() is None

    anyio.run(main)
    assert len(looks) == 1


def test_a_look_that_hangs_is_an_answer() -> None:
    release = threading.Event()

    async def main() -> None:
        asked = Readiness(lambda: None if release.wait(20) else "late", patience=0.1)
        assert "within 0.1 s" in str(await asked.reason())
        release.set()
        await anyio.sleep(0.2)
        assert await asked.reason() is None

    anyio.run(main)
    assert health.PATIENCE_SECONDS < 10


def test_a_stream_of_a_job_whose_events_are_deleted_ends(app: FastAPI, zoo: Zoo, job: str) -> None:
    with zoo.database.write() as session:
        jobs.cancel(session, job)
        session.execute(delete(EventRow))

    async def main() -> str:
        listener = Listener()
        with anyio.fail_after(20):
            await app(_scope(job), _never, listener.send)
        return listener.text

    assert anyio.run(main).startswith("event: end\n")
