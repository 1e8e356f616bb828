"""Send an immutable object with ETag, 304, byte range and digest (RFC 9110, RFC 9530)."""

import base64
import re
from collections.abc import Iterator
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from app.store.objects import Store, Stored, lost, read_chunks

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})\Z", re.IGNORECASE)
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file", "content": _BINARY},
    206: {"description": "The requested range", "content": _BINARY},
    307: {"description": "Location holds a presigned URL of the object store"},
    304: {"description": "If-None-Match names this file"},
}


def send(request: Request, store: Store, stored: Stored, filename: str) -> Response:
    """Answer with the object, a range of the object, 304, or a redirect to the object store.

    Raises:
        HTTPException: 416, the range lies outside the object.
        NotFound: the store has lost the object.
    """
    etag = f'"{stored.digest}"'
    headers = {
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(stored.digest)).decode()}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    part = _range(request, stored, etag)
    link = store.link(stored.key, filename) if request.method == "GET" else None
    if link is not None:
        return _redirect(store, stored, link)
    start, stop = part or (0, stored.bytes)
    headers["Content-Length"] = str(stop - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.bytes}"
    body = iter(()) if request.method == "HEAD" else _read(store, stored.key, start, stop)
    return StreamingResponse(body, 200 if part is None else 206, headers, "application/octet-stream")


def _redirect(store: Store, stored: Stored, link: str) -> Response:
    if store.size(stored.key) is None:
        raise lost(stored.key)
    return Response(status_code=307, headers={"Location": link, "Cache-Control": "no-store"})


def _matches(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or tags == ["*"]


def _range(request: Request, stored: Stored, etag: str) -> tuple[int, int] | None:
    """Start and end of the requested range; None: the whole object, also for invalid and multiple ranges (RFC 9110)."""
    match = _RANGE.match(request.headers.get("range", ""))
    if match is None or not any(match.groups()) or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(stored.bytes - int(last), 0)
    stop = min(int(last) + 1, stored.bytes) if first and last else stored.bytes
    if start >= stop:
        detail = f"expected a range within {stored.bytes} bytes, got {match[0]}"
        raise HTTPException(416, detail, {"Content-Range": f"bytes */{stored.bytes}"})
    return start, stop


def _read(store: Store, key: str, start: int, stop: int) -> Iterator[bytes]:
    file = store.open(key)  # opened here, so that an error is raised before the answer begins

    def chunks() -> Iterator[bytes]:
        with file:
            file.seek(start)
            yield from read_chunks(file, stop - start)

    return chunks()
