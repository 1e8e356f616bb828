"""A connection that fails when it is told to."""

from collections import deque
from collections.abc import Iterator

import httpx


class Breaking(httpx.BaseTransport):
    """Passes requests on; each planned fault spoils one of them, in order."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self.inner = inner
        self.plan: deque[str | httpx.Response] = deque()
        """`before`: lost on the way there; `after`: the answer is lost; `cut`: it ends early; or an answer instead."""
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        fault = self.plan.popleft() if self.plan else "none"
        if isinstance(fault, httpx.Response):
            request.read()
            return fault
        if fault == "before":
            raise httpx.ConnectError("nobody there", request=request)
        if fault == "half":
            return self._half(request)
        response = self.inner.handle_request(request)
        if fault == "after":
            raise httpx.ReadError("cut off", request=request)
        return _cut(response) if fault == "cut" else response

    def _half(self, request: httpx.Request) -> httpx.Response:
        """The service gets half of the body, the client an error."""
        content = request.read()
        shorter = httpx.Request(request.method, request.url, headers={"Host": "localhost"}, content=content[:100])
        self.inner.handle_request(shorter)
        raise httpx.WriteError("cut off", request=request)


class _Broken(httpx.SyncByteStream):
    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self.content
        raise httpx.ReadError("cut off")


def _cut(response: httpx.Response) -> httpx.Response:
    """The same answer, broken off behind its first few messages."""
    content = b"\n\n".join(response.read().split(b"\n\n")[:3]) + b"\n\nevent: progress\nda"
    headers = {"Content-Type": response.headers["content-type"]}
    return httpx.Response(response.status_code, headers=headers, stream=_Broken(content))
