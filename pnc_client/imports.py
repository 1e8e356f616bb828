"""The resource of imports."""

from collections.abc import Iterator

from pnc_client.http import Connected, Http, path_of
from pnc_client.schemas import imports as schemas
from pnc_client.waiting import Progress, wait_for_end
from pnc_core.config import NetworkSpec

ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Import(schemas.Import, Connected):
    """A network that a worker fetches from its source and adds as a version."""

    def wait(self, progress: Progress | None = None, timeout: float = 3600.0) -> "Import":
        """Wait until the import ends; see `Imports.wait`."""
        return Imports(self.http).wait(self.id, progress, timeout)


class Imports:
    """The resource `/v1/imports`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(
        self, source: str, name: str = "", *, spec: NetworkSpec | None = None, licence: str = "", description: str = ""
    ) -> Import:
        """Submit an import, which a worker of the service runs.

        Args:
            source: `torchvision/NAME[@WEIGHTS]`, `timm/NAME[.TAG]`, `hf://OWNER/NAME[@REVISION]`,
                `mlflow://models/NAME/VERSION` or the URL of a file of weights.
            name: Name of the model; empty: the last part of the source.
            spec: Network of a bare file of weights (a URL, or MLflow).
            licence: Licence of the weights; empty: as the source states it.
            description: Description of a new model.

        Raises:
            ApiError: the source is not allowed; `errors` lists the faults.
        """
        body: dict[str, object] = {"source": source, "name": name, "licence": licence, "description": description}
        if spec is not None:
            body["spec"] = spec.to_dict()
        return self._http.post(Import, "/v1/models/import", body)

    def get(self, import_id: str) -> Import:
        """One import."""
        return self._http.get(Import, path_of("imports", import_id))

    def list(self) -> Iterator[Import]:
        """All imports, newest first."""
        return self._http.pages(Import, "/v1/imports")

    def cancel(self, import_id: str) -> Import:
        """Cancel an import; a running import ends as soon as its worker reads the request."""
        return self._http.post(Import, path_of("imports", import_id, "cancel"))

    def wait(self, import_id: str, progress: Progress | None = None, timeout: float = 3600.0) -> Import:
        """Wait until an import ends.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        return wait_for_end(self._http, lambda: self.get(import_id), ENDED, progress, timeout)
