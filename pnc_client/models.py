"""The resource of models and their versions."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pnc_client.downloads import download
from pnc_client.errors import ApiError, VersionRejected
from pnc_client.http import Connected, Http, path_of
from pnc_client.schemas import models as schemas
from pnc_client.schemas.models import Alias, ClassName, Model, Origin, SpecVerdict
from pnc_client.schemas.purges import Purge
from pnc_client.uploads import Progress, Uploads
from pnc_core.config import NetworkSpec
from pnc_core.errors import ConfigError
from pnc_core.networks.files import as_safetensors

POLL_SECONDS = 0.3


class Version(schemas.Version, Connected):
    """One immutable set of weights."""

    def wait(self, timeout: float = 300.0) -> "Version":
        """Wait until a worker has checked the version; see `Models.wait`."""
        return Models(self.http).wait(self.ref.partition("@")[0], self.number, timeout)


class Models:
    """The resource `/v1/models`."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._uploads = Uploads(http)

    def create(self, name: str, description: str = "") -> Model:
        """Register a model without versions."""
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
        """Change a model; fields that are None stay unchanged.

        Args:
            name: Name or id of the model.
            description: New model card in Markdown.
            archived: Archive or restore the model.
            clonable: Classes that jobs may clone from the model, or `all`.
        """
        fields = {"description": description, "archived": archived, "clonable": clonable}
        return self._http.patch(Model, path_of("models", name), fields)

    def archive(self, name: str) -> None:
        """Archive a model."""
        self._http.delete(path_of("models", name))

    def purge(self, name: str, *, dry_run: bool = False) -> Purge:
        """Delete an archived model with all its versions permanently; a dry run only returns the plan.

        Raises:
            ApiError: other resources use the model (`in_use`); `errors` lists them.
        """
        return self._http.purge(path_of("models", name), dry_run=dry_run)

    def push(
        self,
        name: str,
        spec: NetworkSpec,
        weights: Path,
        *,
        licence: str = "",
        description: str = "",
        origin: Origin | None = None,
        progress: Progress | None = None,
    ) -> Version:
        """Upload weights as the next version of a model; a new name registers a model.

        Args:
            name: Name of the model.
            spec: Spec of the network.
            weights: A file of weights: safetensors, or any checkpoint of torch, which is converted first; that needs
                torch on this machine.
            licence: Licence of the weights.
            description: Description of a new model.
            origin: Place that the weights were imported from.
            progress: Called after each uploaded chunk.

        Returns:
            The version in the status `validating`; see `wait`.

        Raises:
            TensorFileError: the file does not hold the weights of one network.
            ApiError: the service refuses the version.
            ConfigError: the service does not know the architecture; nothing was uploaded.
        """
        self.check(spec)
        with as_safetensors(weights) as file:
            self._ensure(name, description)
            upload = self._uploads.push(file, progress)
        body: dict[str, object] = {"upload": upload.id, "spec": spec.to_dict(), "licence": licence}
        if origin is not None:
            body["origin"] = origin.model_dump(exclude_none=True)
        return self._http.post(Version, path_of("models", name, "versions"), body)

    def check(self, spec: NetworkSpec) -> None:
        """Check a spec before its weights are uploaded.

        Raises:
            ConfigError: the service does not know the architecture; the message has similar names.
        """
        verdict = self._http.post(SpecVerdict, path_of("models", "validate"), {"spec": spec.to_dict()})
        if not verdict.valid:
            raise ConfigError("; ".join(problem.detail for problem in verdict.problems))

    def versions(self, name: str, *, archived: bool = False) -> Iterator[Version]:
        """All versions of a model, newest first."""
        return self._http.pages(Version, path_of("models", name, "versions"), archived=archived)

    def version(self, name: str, number: int) -> Version:
        """One version."""
        return self._http.get(Version, path_of("models", name, "versions", number))

    def find(self, ref: str) -> Version:
        """The version that `name` (its newest ready version), `name@3` or `name@alias` means.

        Raises:
            ApiError: there is no such model or version.
            ValueError: the model has no version, or no such alias.
        """
        name, at, which = ref.partition("@")
        if which.isascii() and which.isdigit():
            return self.version(name, int(which))
        if at:
            aliases = self.get(name).aliases
            if which not in aliases:
                raise ValueError(f"expected an alias of {name} ({', '.join(aliases) or 'it has none'}), got {which!r}")
            return self.version(name, aliases[which])
        newest: Version | None = None
        for version in self.versions(name):
            if version.status == "ready":
                return version
            newest = newest or version
        if newest is None:
            raise ValueError(f"expected {name} to have a version, got none; upload one with `pnc models push`")
        return newest

    def classes(self, name: str, number: int, search: str = "") -> Iterator[ClassName]:
        """Classes of a version in the order of its logits.

        Args:
            name: Name or id of the model.
            number: Number of the version.
            search: Words that the name or another name of a class must hold; `#12` finds the class 12.
        """
        path = path_of("models", name, "versions", number, "classes")
        return self._http.pages(ClassName, path, search=search)

    def archive_version(self, name: str, number: int) -> None:
        """Archive a version."""
        self._http.delete(path_of("models", name, "versions", number))

    def change_version(self, name: str, number: int, *, archived: bool) -> Version:
        """Archive or restore a version."""
        return self._http.patch(Version, path_of("models", name, "versions", number), {"archived": archived})

    def purge_version(self, name: str, number: int, *, dry_run: bool = False) -> Purge:
        """Delete an archived version permanently; see `purge`."""
        return self._http.purge(path_of("models", name, "versions", number), dry_run=dry_run)

    def wait(self, name: str, number: int, timeout: float = 300.0) -> Version:
        """Wait until a worker has checked a version.

        Raises:
            VersionRejected: the worker rejected the weights.
            TimeoutError: no worker has checked the version within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            version = self.version(name, number)
            if version.status == "rejected":
                raise VersionRejected(f"{version.ref}: {(version.problem or {}).get('detail', 'rejected')}")
            if version.status == "ready":
                return version
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{version.ref}: expected a worker's check within {timeout:g} s, got none; is a worker running?"
                )
            self._http.sleep(POLL_SECONDS)

    def check_on(self, name: str, number: int, dataset: str, timeout: float = 3600.0) -> Version:
        """Have a worker check a version on labelled images, and wait for the result in `check`.

        Args:
            name: Name or id of the model.
            number: Number of the version.
            dataset: Id of a dataset with images of the version's classes.
            timeout: Longest wait, in seconds.

        Raises:
            ApiError: the service refuses the check.
            TimeoutError: no worker has finished the check in time.
        """
        version = self._http.post(Version, path_of("models", name, "versions", number, "check"), {"dataset": dataset})
        deadline = time.monotonic() + timeout
        while version.checking == dataset:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{version.ref}: expected a worker's check within {timeout:g} s, got none; is a worker running?"
                )
            self._http.sleep(POLL_SECONDS)
            version = self.version(name, number)
        return version

    def download(self, ref: str, path: Path, *, progress: Progress | None = None) -> Path:
        """Download the weights of a version, a safetensors file, and check their digest.

        Args:
            ref: `name` (its newest ready version), `name@3` or `name@alias`.
            path: File to write; a failed download leaves no file.
            progress: Called with the downloaded bytes and the total.

        Raises:
            ApiError: there is no such model or version.
            DamagedDownload: the bytes have another digest than the announced one.
            ServiceUnreachable: the service did not answer.
        """
        version = self.find(ref)
        url = path_of("models", version.ref.partition("@")[0], "versions", version.number, "weights")
        return download(
            self._http, url, path, name=version.ref, digest=version.digest, size=version.bytes, progress=progress
        )

    def set_alias(self, name: str, alias: str, number: int) -> Alias:
        """Point an alias at a version."""
        return self._http.put(Alias, path_of("models", name, "aliases", alias), {"version": number})

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        self._http.delete(path_of("models", name, "aliases", alias))

    def _ensure(self, name: str, description: str) -> None:
        try:
            self.create(name, description)
        except ApiError as error:
            if error.code != "already_exists":
                raise
