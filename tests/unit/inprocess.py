"""The real application without a socket, and a stand-in for the serving process."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from unittest import mock

import httpx
from anyio.from_thread import start_blocking_portal
from fastapi import APIRouter, FastAPI
from sqlalchemy.orm import Session
from starlette.routing import BaseRoute

from app.deployments import desired, reports
from app.main import create_app
from app.settings import Settings
from app.zoo import Zoo
from tests.unit import seeds


class InProcess(httpx.BaseTransport):
    """Calls an ASGI application on an event loop of its own thread."""

    def __init__(self, app: FastAPI) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._inner = httpx.ASGITransport(app)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._portal.call(self._handle, request)

    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the application runs on."""

        async def running() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        return self._portal.call(running)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        copy = httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
        response = await self._inner.handle_async_request(copy)
        content = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers.raw, content=content)


def _unread(answer: httpx.Response) -> httpx.Response:
    """As it would come from the network: not read yet."""
    return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))


class FakeServing:
    """Stands in for the serving process: applies what is wanted, refuses it, or is away."""

    def __init__(self) -> None:
        self.zoo: Zoo | None = None
        self.refusal: dict[str, Any] | None = None
        self.away = False
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(lambda request: _unread(self._answer(request)))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused")
        self.requests.append(request)
        if request.url.path.startswith("/internal/sync/"):
            return self._sync(request.url.path.removeprefix("/internal/sync/"))
        if request.content != b"\x89PNG image":
            return httpx.Response(
                422,
                json={
                    "type": "urn:pnc:problem:invalid_image",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "code": "invalid_image",
                    "detail": "expected an image",
                    "request_id": "req_1",
                    "errors": [],
                },
                headers={"Content-Type": "application/problem+json"},
            )
        name = request.url.path.split("/")[3]
        classes = [{"name": "7", "probability": 0.75, "logit": 2.5}]
        modules = [{"id": "mod_1", "digest": "0" * 64}]
        served = {"deployment": name, "generation": 3, "target": "low@1", "target_fingerprint": "0" * 64}
        return httpx.Response(200, json={**served, "modules": modules, "classes": classes})

    def _wanted(self, session: Session) -> dict[str, int]:
        return {d.name: d.generation for d in desired.deployments(session)}

    def _sync(self, name: str) -> httpx.Response:
        assert self.zoo is not None
        refusal, self.refusal = self.refusal, None
        with self.zoo.database.write() as session:
            if refusal is not None:
                reports.refuse(session, name, self._wanted(session)[name], refusal)
            for deployment, generation in self._wanted(session).items():  # as the real one's poll does
                reports.observe(session, deployment, generation)
        if refusal is not None:
            return httpx.Response(refusal["status"], json=refusal)
        return httpx.Response(200, json={"deployment": name})


_include = FastAPI.include_router
_included: dict[int, BaseRoute] = {}  # by the id of a router, which is a module's and cannot be hashed


def _include_once(app: FastAPI, router: APIRouter) -> None:
    """The second application of a process takes the first one's routes: to make them takes a fifth of a second."""
    if id(router) in _included:
        app.router.routes.append(_included[id(router)])
    else:
        _include(app, router)
        _included[id(router)] = app.router.routes[-1]


@contextmanager
def running_app(settings: Settings, serving: FakeServing) -> Iterator[FastAPI]:
    """The application on a fresh, migrated zoo, beside a serving process that the test directs."""
    seeds.lay_database(settings.data_dir)
    with mock.patch.object(FastAPI, "include_router", _include_once):
        app = create_app(settings, serving_transport=serving.transport)
    serving.zoo = app.state.zoo
    app.state.readiness.fresh = 0.0  # a test that breaks something wants to hear of it at once
    yield app
    app.state.watch.close()
    app.state.zoo.close()
