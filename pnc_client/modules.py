"""Modules and their bundles."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pnc_client import pictures
from pnc_client.errors import DamagedDownload
from pnc_client.http import Connected, Http, checked, path_of
from pnc_client.schemas import modules as schemas
from pnc_client.schemas.purges import Purge
from pnc_client.schemas.shapes import ResponseBody
from pnc_client.uploads import Progress
from pnc_core.files import written_whole


class Module(schemas.Module, Connected):
    """What a job cloned."""

    def manifest(self) -> dict[str, Any]:
        """What its bundle says about itself."""
        return Modules(self.http).manifest(self.id)

    def download(
        self,
        path: Path | str | None = None,
        payload: str = "full",
        *,
        progress: Progress | None = None,
    ) -> Path:
        """Download a bundle; see `Modules.download`.

        Args:
            path: Where to put it; left out: `<id>.<payload>.safetensors` in the working directory.
            payload: `thin` or `full`.
            progress: Told the bytes that have come, and all bytes.
        """
        file = Path(path) if path is not None else Path(f"{self.id}.{payload}.safetensors")
        return Modules(self.http).download(self.id, payload, file, progress=progress)

    def _repr_html_(self) -> str:
        return pictures.module_card(self.model_dump(), self.manifest() if self._connection else None)


class _Described(ResponseBody):
    manifest: dict[str, Any]
    evidence: dict[str, Any] | None


class Modules:
    """The resource `/v1/modules`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def list(self, *, target_fingerprint: str | None = None, archived: bool = False) -> Iterator[Module]:
        """All modules, newest first, for one target's fingerprint or all."""
        return self._http.pages(Module, "/v1/modules", target_fingerprint=target_fingerprint, archived=archived)

    def get(self, module_id: str) -> Module:
        """One module."""
        return self._http.get(Module, path_of("modules", module_id))

    def archive(self, module_id: str) -> None:
        """Archive a module."""
        self._http.delete(path_of("modules", module_id))

    def change(self, module_id: str, *, archived: bool) -> Module:
        """Archive or restore a module."""
        return self._http.patch(Module, path_of("modules", module_id), {"archived": archived})

    def purge(self, module_id: str, *, dry_run: bool = False) -> Purge:
        """Remove an archived module for good; a dry run only tells what would go.

        Raises:
            ApiError: something stands in the way (`in_use`), and `errors` tells what.
        """
        return self._http.purge(path_of("modules", module_id), dry_run=dry_run)

    def manifest(self, module_id: str) -> dict[str, Any]:
        """What the module's bundle says about itself."""
        return self._described(module_id).manifest

    def evidence(self, module_id: str) -> dict[str, Any] | None:
        """What the module is worth on images that its job held out: confusion before and after, and similarity."""
        return self._described(module_id).evidence

    def download(self, module_id: str, payload: str, path: Path, *, progress: Progress | None = None) -> Path:
        """Download a bundle and check its digest; the file appears whole or not at all.

        Args:
            module_id: The module.
            payload: `thin` or `full`.
            path: Where to put it.
            progress: Told the bytes that have come, and all bytes.

        Raises:
            ApiError: there is no such module or payload.
            DamagedDownload: other bytes came than were announced.
            ServiceUnreachable: the service did not answer.
        """
        bundle = next((b for b in self.get(module_id).bundles if b.payload == payload), None)
        wanted, size = (bundle.digest, bundle.bytes) if bundle else (None, 0)
        with written_whole(path) as part:
            come = partial(_tell, progress, size)
            digest = self._http.repeat(lambda: self._fetch(module_id, payload, part, come))
            if digest != wanted:
                raise DamagedDownload(f"{module_id}: expected SHA-256 {wanted}, got {digest}; download it again")
        return path

    def _described(self, module_id: str) -> _Described:
        return self._http.get(_Described, path_of("modules", module_id, "manifest"))

    def _fetch(self, module_id: str, payload: str, part: Path, come: Callable[[int], None]) -> str:
        """From the service, or from its object store, to which it then leads."""
        hasher, client, url = hashlib.sha256(), self._http.client, path_of("modules", module_id, "bundle")
        answer = client.stream("GET", url, params={"payload": payload}, follow_redirects=True)
        with answer as response, part.open("wb") as file:
            for chunk in checked(response).iter_bytes():
                hasher.update(chunk)
                file.write(chunk)
                come(file.tell())
        return hasher.hexdigest()


def _tell(progress: Progress | None, size: int, come: int) -> None:
    if progress is not None:
        progress(come, size)
