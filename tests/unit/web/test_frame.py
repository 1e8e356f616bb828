"""What timers and handlers of a page raise is told to the visitor of that page."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from nicegui import Client, core, ui
from nicegui.page import page
from starlette.requests import Request

from app.access.keys import Caller
from app.db.tables import DEFAULT
from app.deployments import page as deployment
from app.deployments import service as deployments
from app.errors import Forbidden, Invalid, Unauthenticated
from app.web.forms import receiving
from app.web.frame import button, frame
from app.web.mount import site
from app.web.page_context import PageContext
from app.zoo import Zoo
from tests.unit import seeds

ENDED = Unauthenticated("expected a key in force, got one that has ended; sign in again")
REFUSED = Forbidden("expected a key with the scope 'deploy', got one without")
Build = Callable[[], Awaitable[Any]]


class Answering:
    """A serving process that always says the same."""

    def __init__(self, status: int, body: bytes) -> None:
        self.answer = status, body

    async def sync(self, deployment: str, generation: int) -> Any:
        raise AssertionError

    async def fetch(self, *_: object, **__: object) -> tuple[int, bytes]:
        return self.answer


def visit(monkeypatch: pytest.MonkeyPatch, build: Build, act: Callable[[Client], Awaitable[None]]) -> list[Any]:
    """Build a page that no browser is connected to, act on it; what would have been sent: kind and text."""

    async def run() -> list[Any]:
        monkeypatch.setattr(core, "loop", asyncio.get_running_loop())
        request = Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []})
        with Client(page(""), request=request) as client, frame(request, "Page"):
            await build()
        await act(client)
        for _ in range(2000):  # handlers that wait run as tasks of their own
            await asyncio.sleep(0.005)
            if client.outbox.messages:
                break
        sent = [(kind, data.get("message", data.get("path"))) for _, kind, data in client.outbox.messages]
        client.delete()
        return sent

    site()
    return anyio.run(run)


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        raise error

    return work


async def ring(client: Client) -> None:
    """Let the page's timers run once."""
    for timer in [element for element in client.elements.values() if isinstance(element, ui.timer)]:
        await timer._invoke_callback()


def clicking(text: str) -> Callable[[Client], Awaitable[None]]:
    async def click(client: Client) -> None:
        (found,) = [e for e in client.elements.values() if isinstance(e, ui.button) and e.text == text]
        client.handle_event({"id": found.id, "listener_id": next(iter(found._event_listeners)), "args": []})

    return click


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (REFUSED, "notify", str(REFUSED)),
        (ZeroDivisionError("secret"), "notify", "the service's log"),
        (ENDED, "open", "/sign-in"),
    ],
    ids=["refused", "unexpected", "ended"],
)
@pytest.mark.parametrize("by", ["timer", "button"])
def test_what_a_page_raises_reaches_its_visitor(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    kind: str,
    text: str,
    by: str,
) -> None:
    timers = []

    async def build() -> None:
        timers.append(ui.timer(60, raising(error) if by == "timer" else lambda: None, immediate=False))
        button("Go", on_click=raising(error))

    with caplog.at_level(logging.ERROR, "nicegui"):
        ((sent, said),) = visit(monkeypatch, build, ring if by == "timer" else clicking("Go"))
    assert (sent, text in said, "secret" in said) == (kind, True, False)
    assert timers[0].active == (error is not ENDED)
    assert bool(caplog.records) == isinstance(error, ZeroDivisionError)


def test_a_deployment_is_deleted_after_a_question_alone(monkeypatch: pytest.MonkeyPatch, zoo: Zoo) -> None:
    with zoo.database.write() as session:
        seeds.module(session, zoo)
        deployments.put(session, "digits", "low")

    context = PageContext(zoo, Answering(503, b""), Caller(DEFAULT, frozenset({"read"})))

    async def build() -> None:
        view = await context.read(lambda session: deployment.load_view(session, "digits"))
        await deployment._Live(context, "digits", view, "http://localhost").build()

    async def act(client: Client) -> None:
        await clicking("Stop serving …")(client)
        assert not client.outbox.messages
        await clicking("Stop for good")(client)

    ((kind, text),) = visit(monkeypatch, build, act)
    assert kind == "notify"
    assert "'deploy'" in text


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"\xff\xfe", b"[1]"])
def test_an_answer_that_is_no_json_object_becomes_a_problem(zoo: Zoo, body: bytes) -> None:
    context = PageContext(zoo, Answering(502, body))
    answer = anyio.run(functools.partial(context.classify, "digits", b"", "modules="))
    assert (answer["status"], answer["code"]) == (502, "bad_answer")
    assert "expected a JSON object" in answer["detail"]


@pytest.mark.parametrize("body", [b"[1]", b"", b"{", b"\xff\xfe"])
def test_an_outline_that_is_no_json_object_is_refused(body: bytes) -> None:
    class Dropped:
        def size(self) -> int:
            return len(body)

        async def read(self) -> bytes:
            return body

    with pytest.raises(Invalid, match="expected a JSON object"):
        anyio.run(receiving.document_of, Dropped())


def test_an_outline_of_too_many_bytes_is_refused_unread() -> None:
    class Dropped:
        def size(self) -> int:
            return receiving.MOST_DOCUMENT + 1

    with pytest.raises(Invalid, match="expected at most"):
        anyio.run(receiving.document_of, Dropped())
