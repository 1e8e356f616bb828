"""The resource of compositions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pnc_client import downloads
from pnc_client.http import Connected, Http, path_of
from pnc_client.schemas import compositions as schemas
from pnc_client.waiting import Progress, wait_for_end

ENDED = frozenset({"ready", "failed", "cancelled"})


class Composition(schemas.Composition, Connected):
    """Numbers that a set of modules needs together on one target."""

    def wait(self, progress: Progress | None = None, timeout: float = 3600.0) -> "Composition":
        """Wait until the composition ends; see `Compositions.wait`."""
        return Compositions(self.http).wait(self.id, progress, timeout)

    def download(self, path: Path) -> Path:
        """Download the file; see `Compositions.download`."""
        return Compositions(self.http).download(self.id, path)


class Compositions:
    """The resource `/v1/compositions`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(
        self,
        target: str,
        modules: Sequence[str],
        dataset: str,
        *,
        head: schemas.CommonHead = "affine",
        keep_anyway: bool = False,
    ) -> Composition:
        """Submit a composition, which a worker of the service fits.

        Args:
            target: Version: `name`, `name@3` or `name@alias`.
            modules: Ids of the modules, in any order.
            dataset: Id of a dataset with labelled images of the classes of the target and of every module.
            head: `affine`: scale and offset of each module. `joint` and `ridge`: also a linear correction of all
                logits.
            keep_anyway: Keep it although the modules without it are surely more accurate on the images.

        Raises:
            ApiError: the modules do not fit the target or each other, or the dataset lacks images.
        """
        body = {
            "target": target, "modules": [*modules], "dataset": dataset, "head": head, "keep_anyway": keep_anyway,
        }  # fmt: skip
        return self._http.post(Composition, "/v1/compositions", body)

    def get(self, composition_id: str) -> Composition:
        """One composition."""
        return self._http.get(Composition, path_of("compositions", composition_id))

    def list(self, *, module: str | None = None) -> Iterator[Composition]:
        """Compositions, newest first; with `module` only those with this module."""
        return self._http.pages(Composition, "/v1/compositions", module=module)

    def cancel(self, composition_id: str) -> Composition:
        """Cancel a composition; a running one ends as soon as its worker reads the request."""
        return self._http.post(Composition, path_of("compositions", composition_id, "cancel"))

    def delete(self, composition_id: str) -> None:
        """Delete a composition that has ended and that no deployment uses."""
        self._http.delete(path_of("compositions", composition_id))

    def download(self, composition_id: str, path: Path) -> Path:
        """Download a composition and check its digest; a failed download leaves no file.

        Args:
            composition_id: Id of the composition.
            path: File to write.

        Raises:
            ApiError: there is no such composition, or it is not ready.
            DamagedDownload: the downloaded bytes have another digest than the announced one.
        """
        found, where = self.get(composition_id), path_of("compositions", composition_id, "file")
        return downloads.download(
            self._http, where, path, name=composition_id, digest=found.digest, size=found.bytes or 0
        )

    def wait(self, composition_id: str, progress: Progress | None = None, timeout: float = 3600.0) -> Composition:
        """Wait until a composition ends.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        return wait_for_end(self._http, lambda: self.get(composition_id), ENDED, progress, timeout)
