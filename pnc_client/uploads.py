"""Send files: announced, streamed, gone on with after a break, checked by the service."""

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
"""Called with the bytes sent so far and all bytes."""
PAUSE_SECONDS = 0.5
"""Between two attempts to reach the object store, times their number."""
_CHUNK = 256 * 1024


class Uploads:
    """The resource `/v1/uploads`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def push(self, path: Path, progress: Progress | None = None, *, resume: str | None = None) -> Upload:
        """Send a file: through the service, or straight to its object store where it has one.

        Args:
            path: The file.
            progress: Told about every chunk.
            resume: Id of an upload of this very file that was broken off; only what is missing is sent.

        Raises:
            ApiError: the service refuses it.
            ServiceUnreachable: it did not answer.
            ValueError: `resume` is an upload of another file.
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
        """Forget an upload and what has arrived of it; a version or dataset that was made of it stays."""
        self._http.delete(path_of("uploads", upload_id))

    def _announced(self, size: int, digest: str, resume: str | None) -> Upload:
        if resume is None:
            return self._http.post(Upload, "/v1/uploads", {"bytes": size, "sha256": digest})
        upload = self.get(resume)
        if (upload.bytes, upload.digest) != (size, digest):
            raise ValueError(
                f"{resume}: expected the file with SHA-256 {upload.digest}, got {digest}; push it without `resume`"
            )
        return upload

    def _send(self, file: BinaryIO, upload: Upload, progress: Progress) -> None:
        """Send the bytes through the service, going on where it has them after a break."""
        offset: int | None = upload.received
        url, headers = path_of("uploads", upload.id, "content"), {"Content-Type": "application/octet-stream"}

        def send() -> None:
            nonlocal offset
            begin = self._received(upload.id) if offset is None else offset
            offset = None
            body = _chunks(file, begin, upload.bytes - begin, partial(_tell, progress, begin, upload.bytes))
            checked(self._http.client.put(url, content=body, params={"offset": begin}, headers=headers))

        self._http.repeat(send)

    def _received(self, upload_id: str) -> int:
        """Asked once: who sends is repeated as a whole."""
        answer = self._http.client.get(path_of("uploads", upload_id))
        return self._http.read(Upload, checked(answer)).received

    def _send_parts(self, file: BinaryIO, upload: Upload, progress: Progress) -> None:
        """Send what is missing to the object store; after a break, or when a URL has expired, ask what that is now."""
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
                    raise _store_away(error) from None
                self._http.sleep(PAUSE_SECONDS * failures)

    def _send_all(self, file: BinaryIO, upload: Upload, progress: Progress) -> None:
        parts = upload.parts or []
        arrived = upload.bytes - sum(part.bytes for part in parts)
        for part in parts:
            body = _chunks(file, part.offset, part.bytes, partial(_tell, progress, arrived, upload.bytes))
            checked(self._http.client.put(part.url, content=body, headers={"Content-Length": str(part.bytes)}))
            arrived += part.bytes


def _chunks(file: BinaryIO, offset: int, size: int, tell: Callable[[int], None]) -> Iterator[bytes]:
    """`size` bytes from `offset` on; `tell` is told how many of them are sent."""
    file.seek(offset)
    sent = 0
    while chunk := file.read(min(_CHUNK, size - sent)):
        yield chunk
        sent += len(chunk)
        tell(sent)


def _tell(progress: Progress, before: int, size: int, sent: int) -> None:
    progress(before + sent, size)


def _store_away(error: Exception) -> ClientError:
    if isinstance(error, ApiError):
        return error
    return ServiceUnreachable(f"expected the service's object store, got {error!r}; can it be reached from here?")


def _silent(_sent: int, _size: int) -> None:
    pass
