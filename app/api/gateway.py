"""The way to the serving process: predictions go through, changes are announced.

Serving polls the wanted state by itself; the announcement only makes it hurry
and brings its verdict back while the caller waits.
"""

import json
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api.leaving import GONE, Gone, WhileThere
from app.zoo.settings import Settings
from app.zoo.tables import DEFAULT

RETRY_SECONDS = 5
INTERNAL = "X-PNC-Internal"
"""Header with which the API proves that it has let somebody in."""
WORKSPACE = "X-PNC-Workspace"
"""Header that says whom; it counts only beside the proof, or where there are no keys."""
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
        self._client = httpx.AsyncClient(
            base_url=settings.serving_url or "",
            timeout=settings.serving_timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),  # no request waits for another's
            transport=transport,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def forward(self, request: Request) -> Response:
        """Pass a request on as it is, and its answer back, errors included.

        Raises:
            Unreachable: the serving process does not answer.
        """
        headers = {name: request.headers[name] for name in _SENT_ON if name in request.headers}
        headers["X-Request-ID"] = request.scope["state"]["request_id"]
        headers[WORKSPACE] = request.scope["state"]["caller"].workspace
        raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
        path = raw.decode("ascii") + (f"?{request.url.query}" if request.url.query else "")
        try:
            body = await request.body()
            async with WhileThere(request):  # the serving process notices a call that is broken off
                answer = await self._send(request.method, path, body, headers)
                content = b"".join([part async for part in answer.aiter_raw()])
        except (ClientDisconnect, Gone):
            return Response(status_code=GONE)
        passed = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
        return Response(content, answer.status_code, passed)

    async def sync(self, deployment: str, generation: int) -> Verdict:
        """Announce a change of what is wanted, and ask what becomes of this generation."""
        try:
            answer = await self._send("POST", f"/internal/sync/{deployment}?generation={generation}", b"", {})
        except Unreachable:
            return Verdict(applied=False)
        await answer.aread()
        if answer.status_code in (409, 422):
            return Verdict(applied=False, refusal=_document(answer))
        return Verdict(applied=answer.status_code == 200)

    async def fetch(
        self, method: str, path: str, content: bytes = b"", media_type: str = "", workspace: str = DEFAULT
    ) -> tuple[int, bytes]:
        """Status and body of the serving process's answer; 503 and a problem when there is none."""
        headers = {WORKSPACE: workspace, **({"Content-Type": media_type} if media_type else {})}
        try:
            answer = await self._send(method, path, content, headers)
        except Unreachable as error:
            return 503, json.dumps({"status": 503, "code": "serving_unreachable", "detail": str(error)}).encode()
        return answer.status_code, await answer.aread()

    async def _send(self, method: str, path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        if self.url is None:
            raise Unreachable("expected PNC_SERVING_URL, got none; start the service with `pnc up`")
        try:
            request = self._client.build_request(
                method, path, content=content, headers=httpx.Headers({**headers, **self._own}, "latin-1")
            )
            return await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            detail = f"expected the serving process at {self.url}, got {type(error).__name__}; try again in a moment"
            raise Unreachable(detail) from None


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = json.loads(answer.content)
    except ValueError:
        document = None
    fallback = {"status": answer.status_code, "code": "refused", "detail": "the serving process refused the change"}
    return document if isinstance(document, dict) else fallback
