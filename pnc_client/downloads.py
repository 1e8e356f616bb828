"""Downloads of immutable files, with a check of their digest."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pnc_client.errors import DamagedDownload
from pnc_client.http import Http, checked
from pnc_client.uploads import Progress
from pnc_core.files import written_whole


def download(
    http: Http,
    url: str,
    path: Path,
    *,
    name: str,
    digest: str | None,
    size: int,
    params: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a file from the service, or from the object store that the service redirects to.

    Args:
        http: Connection to the service.
        url: Path of the file.
        path: File to write; a failed download leaves no file.
        name: Name of the resource, for messages.
        digest: Announced SHA-256.
        size: Announced bytes.
        params: Query.
        progress: Called with the downloaded bytes and the total.

    Raises:
        ApiError: the service refuses the request.
        DamagedDownload: the bytes have another digest than the announced one.
        ServiceUnreachable: the service did not answer.
    """

    def fetch() -> str:
        hasher = hashlib.sha256()
        stream = http.client.stream("GET", url, params=params, follow_redirects=True)
        with stream as response, part.open("wb") as file:
            for chunk in checked(response).iter_bytes():
                hasher.update(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(file.tell(), size)
        return hasher.hexdigest()

    with written_whole(path) as part:
        found = http.repeat(fetch)
        if found != digest:
            raise DamagedDownload(f"{name}: expected SHA-256 {digest}, got {found}; download it again")
    return path
