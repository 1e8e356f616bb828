"""The HTTP client of the serving process: it forwards predictions and announces changes.

The serving process polls the desired state by itself. An announcement makes it look at once, so that the caller can
wait for the result.
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
"""Header with the secret PNC_INTERNAL_KEY: it proves that the request comes from the API."""
WORKSPACE = "X-PNC-Workspace"
"""Header with the workspace of the authenticated caller; ignored without a valid `X-PNC-Internal` header.

A request that the service makes for itself has no such header."""
_QUERY = "%!$&'()*+,;=:@/?"
"""Characters that are not encoded in a query."""
_REQUEST_HEADERS = ("content-type", "content-encoding", "accept-encoding", "inference-header-content-length")
_ANSWER_HEADERS = ("content-type", "content-encoding", "inference-header-content-length", "retry-after")


@dataclass(frozen=True)
class Verdict:
    """The answer of the serving process to a new generation."""

    applied: bool
    """Whether it serves the generation now; False: it refused the generation, or did not answer in time."""
    refusal: dict[str, Any] | None = None
    """Problem document with the reason, if it refused the generation."""


class Unreachable(Exception):
    """The serving process does not answer."""


class Gateway:
    """Sends requests to the serving process.

    Args:
        settings: Settings with the serving process's URL, the timeout and the secret.
        transport: A transport for tests; None: the network.
    """

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = settings.serving_url
        self._own = {INTERNAL: settings.internal_key} if settings.internal_key else {}
        self._url = httpx.URL(settings.serving_url) if settings.serving_url else None
        self._client = httpx.AsyncClient(
            timeout=settings.serving_timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),  # never wait for a connection
            transport=transport,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def forward(self, request: Request, *parts: str) -> Response:
        """Forward a request, and return the answer of the serving process, including error answers.

        Args:
            request: Its method, query and body are forwarded unchanged; its path is not forwarded.
            parts: Segments of the path to send the request to, decoded.

        Raises:
            Unreachable: the serving process does not answer.
            Invalid: a segment would change the path, such as `..`.
        """
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        headers["X-Request-ID"] = request.scope["state"]["request_id"]
        headers[WORKSPACE] = request.scope["state"]["caller"].workspace
        query: bytes = request.scope.get("query_string", b"")
        try:
            body = await request.body()
            async with WhileThere(request):  # if the caller disconnects, the call to the serving process is cancelled
                answer = await self._send(request.method, join(*parts), query, body, headers)
                async with self._reading(answer):
                    content = b"".join([part async for part in answer.aiter_raw()])
        except (ClientDisconnect, Gone):
            return Response(status_code=GONE)
        kept = {name: answer.headers[name] for name in _ANSWER_HEADERS if name in answer.headers}
        return Response(content, answer.status_code, kept)

    async def sync(self, deployment: str, generation: int) -> Verdict:
        """Announce a new generation, and wait until the serving process serves or refuses it.

        Args:
            deployment: Name of the deployment, unique among all workspaces.
            generation: The new generation.
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
        """Send a request of the service's own to the serving process.

        Args:
            method: HTTP method.
            parts: Segments of the path, decoded.
            query: Query, encoded.
            content: Body.
            media_type: Media type of the body.
            workspace: Workspace for which the service asks; None: for the service itself.

        Returns:
            Status and body of the answer; 503 and a problem document if the serving process does not answer.

        Raises:
            Invalid: a segment would change the path, such as `..`.
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
        """Translate errors of reading an answer's body, and close the answer afterwards.

        Raises:
            Unreachable: the connection broke, or the body does not match its encoding.
        """
        try:
            yield
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Unreachable(
                f"expected the whole answer of the serving process at {self.url}, got {type(error).__name__}; "
                "a change may have been made: read the deployment, or send the same request again in a moment"
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
