"""The resource of uploads: announce a file, send its bytes, and resume after a broken connection."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import httpx

from pnc_client.errors import ApiError, ClientError, ServiceUnreachable
from pnc_client.http import Http, checked, path_of
from pnc_client.schemas.uploads import Upload

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the total."""
PAUSE_SECONDS = 0.5
"""Seconds to wait after the first failed attempt to reach the object store; grows with each further failure."""
_CHUNK = 256 * 1024


class Uploads:
    """The resource `/v1/uploads`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def push(self, path: Path, progress: Progress | None = None, *, resume: str | None = None) -> Upload:
        """Upload a file through the service, or directly to the service's object store if it has one.

        Args:
            path: The file.
            progress: Called after each chunk.
            resume: Id of an unfinished upload of the same file; only the missing bytes are sent.

        Raises:
            ApiError: the service refuses the file.
            ServiceUnreachable: the service did not answer.
            ValueError: `resume` is the id of an upload of another file.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            upload = self._announced(path.stat().st_size, digest, resume)
            if upload.status == "complete":
                return upload
            send = self._send if upload.parts is None else self._send_parts
            send(file, upload, progress or _silent)
        return self._http.post(Upload, path_of("uploads", upload.id, "complete"))

    def get(self, upload_id: str) -> Upload:
        """One upload."""
        return self._http.get(Upload, path_of("uploads", upload_id))

    def delete(self, upload_id: str) -> None:
        """Delete an upload and its bytes; a version or dataset made from the upload is kept."""
        self._http.delete(path_of("uploads", upload_id))

    def _announced(self, size: int, digest: str, resume: str | None) -> Upload:
        if resume is None:
            return self._http.post(Upload, "/v1/uploads", {"bytes": size, "sha256": digest})
        upload = self.get(resume)
        if (upload.bytes, upload.digest) != (size, digest):
            raise ValueError(f"{resume}: expected the file with SHA-256 {upload.digest}, got {digest}; omit `resume`")
        return upload

    def _send(self, file: BinaryIO, upload: Upload, progress: Progress) -> None:
        """Send the bytes through the service; after a failure, continue from the bytes that have arrived."""
        offset: int | None = upload.received
        url, headers = path_of("uploads", upload.id, "content"), {"Content-Type": "application/octet-stream"}

        def send() -> None:
            nonlocal offset
            begin = self._received(upload.id) if offset is None else offset
            offset = None
            body = _chunks(file, begin, upload.bytes - begin, partial(_report, progress, begin, upload.bytes))
            checked(self._http.client.put(url, content=body, params={"offset": begin}, headers=headers))

        self._http.repeat(send)

    def _received(self, upload_id: str) -> int:
        """Bytes that have arrived; asked without retries, because the caller repeats the whole step."""
        response = self._http.client.get(path_of("uploads", upload_id))
        return self._http.read(Upload, checked(response)).received

    def _send_parts(self, file: BinaryIO, upload: Upload, progress: Progress) -> None:
        """Send the missing parts to the object store; after a failure or an expired URL, fetch the parts again."""
        failures = 0
        while upload.parts:
            missing = len(upload.parts)
            try:
                self._send_all(file, upload, progress)
                return
            except (httpx.TransportError, ApiError) as error:
                upload = self.get(upload.id)
                failures = 1 if len(upload.parts or []) < missing else failures + 1
                if failures == self._http.attempts:
                    raise _store_unreachable(error) from None
                self._http.sleep(PAUSE_SECONDS * failures)

    def _send_all(self, file: BinaryIO, upload: Upload, progress: Progress) -> None:
        parts = upload.parts or []
        arrived = upload.bytes - sum(part.bytes for part in parts)
        for part in parts:
            body = _chunks(file, part.offset, part.bytes, partial(_report, progress, arrived, upload.bytes))
            checked(self._http.client.put(part.url, content=body, headers={"Content-Length": str(part.bytes)}))
            arrived += part.bytes


def _chunks(file: BinaryIO, offset: int, size: int, report: Callable[[int], None]) -> Iterator[bytes]:
    """`size` bytes from `offset`; `report` is called with the number of bytes sent so far."""
    file.seek(offset)
    sent = 0
    while chunk := file.read(min(_CHUNK, size - sent)):
        yield chunk
        sent += len(chunk)
        report(sent)


def _report(progress: Progress, before: int, size: int, sent: int) -> None:
    progress(before + sent, size)


def _store_unreachable(error: Exception) -> ClientError:
    if isinstance(error, ApiError):
        return error
    return ServiceUnreachable(f"expected the service's object store, got {error!r}; can it be reached from here?")


def _silent(_sent: int, _size: int) -> None:
    pass
