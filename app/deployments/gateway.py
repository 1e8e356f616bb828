"""The way to the serving process: predictions go through, changes are announced.

Serving polls the wanted state by itself; the announcement only makes it hurry
and brings its verdict back while the caller waits.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api.leaving import GONE, Gone, WhileThere
from app.api.paths import join
from app.settings import Settings

RETRY_SECONDS = 5
INTERNAL = "X-PNC-Internal"
"""Header with which the API proves that it has let somebody in."""
WORKSPACE = "X-PNC-Workspace"
"""Header that says whom; it counts only beside the proof. What has it is asked for somebody, never for the service."""
_QUERY = "%!$&'()*+,;=:@/?"
"""What stays as it is in a query; anything else, `#` too, is encoded."""
_SENT_ON = ("content-type", "content-encoding", "accept-encoding", "inference-header-content-length")
_PASSED_ON = ("content-type", "content-encoding", "inference-header-content-length", "retry-after")


@dataclass(frozen=True)
class Verdict:
    """What the serving process says to a new generation."""

    applied: bool
    """It serves it now; false: it could not be asked."""
    refusal: dict[str, Any] | None = None
    """Problem document, when it will not."""


class Unreachable(Exception):
    """The serving process does not answer."""


class Gateway:
    """Talks to the serving process.

    Args:
        settings: Where it listens and how long to wait.
        transport: In place of the network, for tests.
    """

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = settings.serving_url
        self._own = {INTERNAL: settings.internal_key} if settings.internal_key else {}
        self._url = httpx.URL(settings.serving_url) if settings.serving_url else None
        self._client = httpx.AsyncClient(
            timeout=settings.serving_timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),  # no request waits for another's
            transport=transport,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def forward(self, request: Request, *parts: str) -> Response:
        """Pass a request on, and its answer back, errors included.

        Args:
            request: Whose method, query and body are passed on as they are; its path never is.
            parts: Of the path to send it to, decoded.

        Raises:
            Unreachable: the serving process does not answer.
            Invalid: a part would lead elsewhere.
        """
        headers = {name: request.headers[name] for name in _SENT_ON if name in request.headers}
        headers["X-Request-ID"] = request.scope["state"]["request_id"]
        headers[WORKSPACE] = request.scope["state"]["caller"].workspace
        query: bytes = request.scope.get("query_string", b"")
        try:
            body = await request.body()
            async with WhileThere(request):  # the serving process notices a call that is broken off
                answer = await self._send(request.method, join(*parts), query, body, headers)
                async with self._reading(answer):
                    content = b"".join([part async for part in answer.aiter_raw()])
        except (ClientDisconnect, Gone):
            return Response(status_code=GONE)
        passed = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
        return Response(content, answer.status_code, passed)

    async def sync(self, deployment: str, generation: int) -> Verdict:
        """Announce a change of what is wanted, and ask what becomes of this generation.

        Args:
            deployment: Its name among those of all workspaces.
            generation: Of the change.
        """
        try:
            path, query = join("internal", "sync", *deployment.split("/")), f"generation={generation}".encode()
            answer = await self._send("POST", path, query, b"", {})
            async with self._reading(answer):
                await answer.aread()
        except Unreachable:
            return Verdict(applied=False)
        if answer.status_code in (409, 422):
            return Verdict(applied=False, refusal=_document(answer))
        return Verdict(applied=answer.status_code == 200)

    async def fetch(
        self,
        method: str,
        *parts: str,
        query: str = "",
        content: bytes = b"",
        media_type: str = "",
        workspace: str | None = None,
    ) -> tuple[int, bytes]:
        """Ask the serving process.

        Args:
            method: Of HTTP.
            parts: Of the path, decoded.
            query: Encoded.
            content: Body.
            media_type: Of the body.
            workspace: For which the service asks; None: for itself.

        Returns:
            Status and body of the answer; 503 and a problem when there is none.

        Raises:
            Invalid: a part would lead elsewhere.
        """
        headers = {WORKSPACE: workspace} if workspace is not None else {}
        headers |= {"Content-Type": media_type} if media_type else {}
        try:
            answer = await self._send(method, join(*parts), query.encode(), content, headers)
            async with self._reading(answer):
                return answer.status_code, await answer.aread()
        except Unreachable as error:
            return 503, json.dumps({"status": 503, "code": "serving_unreachable", "detail": str(error)}).encode()

    async def _send(
        self, method: str, path: str, query: bytes, content: bytes, headers: dict[str, str]
    ) -> httpx.Response:
        if self._url is None:
            raise Unreachable("expected PNC_SERVING_URL, got none; start the service with `pnc up`")
        target = self._url.path.rstrip("/") + path + ("?" + quote(query, safe=_QUERY) if query else "")
        url = self._url.copy_with(raw_path=target.encode("ascii"))
        try:
            request = self._client.build_request(
                method, url, content=content, headers=httpx.Headers({**headers, **self._own}, "latin-1")
            )
            return await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            detail = f"expected the serving process at {self.url}, got {type(error).__name__}; try again in a moment"
            raise Unreachable(detail) from None

    @asynccontextmanager
    async def _reading(self, answer: httpx.Response) -> AsyncIterator[None]:
        """Around the reading of an answer's body, which can break off after the head of the answer has come.

        Raises:
            Unreachable: it has, or the body is not what the head says.
        """
        try:
            yield
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Unreachable(
                f"expected the whole answer of the serving process at {self.url}, got {type(error).__name__}; "
                "a change may have been made: look at it, or send the same request again in a moment"
            ) from None
        finally:
            await answer.aclose()


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = json.loads(answer.content)
    except ValueError:
        document = None
    fallback = {"status": answer.status_code, "code": "refused", "detail": "the serving process refused the change"}
    return document if isinstance(document, dict) else fallback
