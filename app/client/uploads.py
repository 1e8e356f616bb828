"""Send files: announced, streamed, gone on with after a break, checked by the service."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import httpx

from app.client.http import Http, checked, unreachable
from app.client.types import Upload

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and all bytes."""
_CHUNK = 256 * 1024


class Uploads:
    """The resource `/v1/uploads`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def push(self, path: Path, progress: Progress | None = None) -> Upload:
        """Send a file.

        Args:
            path: The file.
            progress: Told about every chunk.

        Raises:
            ApiError: the service refuses it.
            ServiceUnreachable: it did not answer.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
            upload = self._http.post(Upload, "/v1/uploads", {"bytes": size, "sha256": digest})
            self._send(file, upload, progress or _silent)
        return self._http.post(Upload, f"/v1/uploads/{upload.id}/complete")

    def get(self, upload_id: str) -> Upload:
        """One upload."""
        return self._http.get(Upload, f"/v1/uploads/{upload_id}")

    def _send(self, file: BinaryIO, upload: Upload, progress: Progress) -> None:
        """Send the bytes, going on where the service has them after a break."""
        offset = 0
        for attempt in range(self._http.attempts):
            try:
                body = _chunks(file, offset, upload.bytes, progress)
                headers = {"Content-Type": "application/octet-stream"}
                params = {"offset": offset}
                checked(self._http.client.put(upload.content_url, content=body, params=params, headers=headers))
                return
            except httpx.TransportError as error:
                if attempt + 1 == self._http.attempts:
                    raise unreachable(self._http.client, error) from None
                offset = self.get(upload.id).received


def _chunks(file: BinaryIO, offset: int, size: int, progress: Progress) -> Iterator[bytes]:
    file.seek(offset)
    while chunk := file.read(_CHUNK):
        yield chunk
        offset += len(chunk)
        progress(offset, size)


def _silent(_sent: int, _size: int) -> None:
    pass
