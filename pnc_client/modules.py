"""The resource of modules and their bundles."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pnc_client import downloads, pictures
from pnc_client.http import Connected, Http, path_of
from pnc_client.schemas import modules as schemas
from pnc_client.schemas.purges import Purge
from pnc_client.schemas.shapes import ResponseBody
from pnc_client.uploads import Progress


class Module(schemas.Module, Connected):
    """The classes that a job cloned, as files for one target."""

    def manifest(self) -> dict[str, Any]:
        """The manifest of the module's bundle."""
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
            path: File to write; None: `<id>.<payload>.safetensors` in the working directory.
            payload: `thin` or `full`.
            progress: Called with the downloaded bytes and the total.
        """
        file = Path(path) if path is not None else Path(f"{self.id}.{payload}.safetensors")
        return Modules(self.http).download(self.id, payload, file, progress=progress)

    def _repr_html_(self) -> str:
        return pictures.module_card(self.model_dump(), self.manifest() if self._connection else None)


class _Manifest(ResponseBody):
    manifest: dict[str, Any]
    evidence: dict[str, Any] | None


class Modules:
    """The resource `/v1/modules`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def list(self, *, target_fingerprint: str | None = None, archived: bool = False) -> Iterator[Module]:
        """All modules, newest first; with `target_fingerprint` only modules for that target."""
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
        """Delete an archived module permanently; a dry run only returns the plan.

        Raises:
            ApiError: other resources use the module (`in_use`); `errors` lists them.
        """
        return self._http.purge(path_of("modules", module_id), dry_run=dry_run)

    def manifest(self, module_id: str) -> dict[str, Any]:
        """The manifest of the module's bundle."""
        return self._fetched_manifest(module_id).manifest

    def evidence(self, module_id: str) -> dict[str, Any] | None:
        """Accuracy, confusion and similarity on images that the job held out; None: the job measured none."""
        return self._fetched_manifest(module_id).evidence

    def download(self, module_id: str, payload: str, path: Path, *, progress: Progress | None = None) -> Path:
        """Download a bundle and check its digest; a failed download leaves no file.

        Args:
            module_id: Id of the module.
            payload: `thin` or `full`.
            path: File to write.
            progress: Called with the downloaded bytes and the total.

        Raises:
            ApiError: the module or the payload does not exist.
            DamagedDownload: the downloaded bytes have another digest than the announced one.
            ServiceUnreachable: the service did not answer.
        """
        bundle = next((b for b in self.get(module_id).bundles if b.payload == payload), None)
        expected, size = (bundle.digest, bundle.bytes) if bundle else (None, 0)
        return downloads.download(
            self._http, path_of("modules", module_id, "bundle"), path, name=module_id, digest=expected, size=size,
            params={"payload": payload}, progress=progress,
        )  # fmt: skip

    def _fetched_manifest(self, module_id: str) -> _Manifest:
        return self._http.get(_Manifest, path_of("modules", module_id, "manifest"))
