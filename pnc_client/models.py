"""Models and versions."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pnc_client.bound import Bound
from pnc_client.errors import ApiError, VersionRejected
from pnc_client.http import Http, path_of
from pnc_client.purges import purge
from pnc_client.schemas import models as schemas
from pnc_client.schemas.models import Alias, Model
from pnc_client.schemas.purges import Purge
from pnc_client.uploads import Progress, Uploads
from pnc_core.config import NetworkSpec

POLL_SECONDS = 0.3


class Version(schemas.Version, Bound):
    """One immutable set of weights."""

    def wait(self, timeout: float = 300.0) -> "Version":
        """Wait until a worker has tried it; see `Models.wait`."""
        return Models(self.http).wait(self.ref.partition("@")[0], self.number, timeout)


class Models:
    """The resource `/v1/models`."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._uploads = Uploads(http)

    def create(self, name: str, description: str = "") -> Model:
        """Register a model, still without versions."""
        return self._http.post(Model, "/v1/models", {"name": name, "description": description})

    def list(self, *, archived: bool = False) -> Iterator[Model]:
        """All models, newest first."""
        return self._http.pages(Model, "/v1/models", archived=archived)

    def get(self, name: str) -> Model:
        """One model by name or id."""
        return self._http.get(Model, path_of("models", name))

    def change(
        self,
        name: str,
        *,
        description: str | None = None,
        archived: bool | None = None,
        clonable: Sequence[str] | None = None,
    ) -> Model:
        """Change a model's description, archive or restore it, or say which classes may be cloned: some, or `all`."""
        body = {"description": description, "archived": archived, "clonable": clonable}
        changes = {key: value for key, value in body.items() if value is not None}
        return self._http.read(Model, self._http.request("PATCH", path_of("models", name), json=changes))

    def archive(self, name: str) -> None:
        """Archive a model."""
        self._http.delete(path_of("models", name))

    def purge(self, name: str, *, dry_run: bool = False) -> Purge:
        """Remove an archived model with all its versions for good; a dry run only tells what would go.

        Raises:
            ApiError: something stands in the way (`in_use`), and `errors` tells what.
        """
        return purge(self._http, path_of("models", name), dry_run=dry_run)

    def push(
        self,
        name: str,
        spec: NetworkSpec,
        weights: Path,
        *,
        licence: str = "",
        description: str = "",
        progress: Progress | None = None,
    ) -> Version:
        """Send weights as the next version of a model, which is registered if need be.

        Args:
            name: The model.
            spec: How to rebuild the network.
            weights: A safetensors file.
            licence: Licence of the weights.
            description: Of the model, if it is new.
            progress: Told about every chunk.

        Returns:
            The version, still `validating`; see `wait`.

        Raises:
            ApiError: the service refuses it.
        """
        self._ensure(name, description)
        upload = self._uploads.push(weights, progress)
        body = {"upload": upload.id, "spec": spec.to_dict(), "licence": licence}
        return self._http.post(Version, path_of("models", name, "versions"), body)

    def versions(self, name: str, *, archived: bool = False) -> Iterator[Version]:
        """All versions of a model, newest first."""
        return self._http.pages(Version, path_of("models", name, "versions"), archived=archived)

    def version(self, name: str, number: int) -> Version:
        """One version."""
        return self._http.get(Version, path_of("models", name, "versions", number))

    def archive_version(self, name: str, number: int) -> None:
        """Archive a version."""
        self._http.delete(path_of("models", name, "versions", number))

    def change_version(self, name: str, number: int, *, archived: bool) -> Version:
        """Archive or restore a version."""
        answer = self._http.request("PATCH", path_of("models", name, "versions", number), json={"archived": archived})
        return self._http.read(Version, answer)

    def purge_version(self, name: str, number: int, *, dry_run: bool = False) -> Purge:
        """Remove an archived version for good; see `purge`."""
        return purge(self._http, path_of("models", name, "versions", number), dry_run=dry_run)

    def wait(self, name: str, number: int, timeout: float = 300.0) -> Version:
        """Wait until a worker has tried a version.

        Raises:
            VersionRejected: it cannot be used.
            TimeoutError: no worker has within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            version = self.version(name, number)
            if version.status == "rejected":
                raise VersionRejected(f"{version.ref}: {(version.problem or {}).get('detail', 'rejected')}")
            if version.status == "ready":
                return version
            if time.monotonic() > deadline:
                raise TimeoutError(f"{version.ref}: expected a worker to try it within {timeout:g} s; is one running?")
            self._http.sleep(POLL_SECONDS)

    def set_alias(self, name: str, alias: str, number: int) -> Alias:
        """Point an alias at a version."""
        answer = self._http.request("PUT", path_of("models", name, "aliases", alias), json={"version": number})
        return self._http.read(Alias, answer)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        self._http.delete(path_of("models", name, "aliases", alias))

    def _ensure(self, name: str, description: str) -> None:
        try:
            self.create(name, description)
        except ApiError as error:
            if error.code != "already_exists":
                raise
