"""The resource of deployments, and predictions."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pnc_client.http import Connected, Http, path_of
from pnc_client.modules import Module
from pnc_client.schemas import deployments as schemas
from pnc_client.schemas.canaries import Canary
from pnc_client.schemas.deployments import ImagePrediction, Prediction, Predictions, Replica, Revision

POLL_SECONDS = 0.2
BATCH, BATCH_BYTES = 64, 8 * 1024**2
"""Images, and bytes of images, in one request of `Deployments.predict_all`."""


class Deployment(schemas.Deployment, Connected):
    """A target that is served under a name."""

    @property
    def settled(self) -> bool:
        """Whether the serving process has loaded or refused the newest generation."""
        return self.observed.generation == self.generation

    def attach(self, module: Module | str) -> "Deployment":
        """Attach a module; see `Deployments.attach`."""
        return Deployments(self.http).attach(self.name, _id(module))

    def detach(self, module: Module | str) -> "Deployment":
        """Detach a module; see `Deployments.detach`."""
        return Deployments(self.http).detach(self.name, _id(module))

    def wait(self, timeout: float = 60.0) -> "Deployment":
        """Wait until the newest generation is served or refused; see `Deployments.wait`."""
        return Deployments(self.http).wait(self.name, timeout)

    def predict(self, image: bytes | Path, *, modules: Sequence[str] | None = None) -> Prediction:
        """Classify an image; see `Deployments.predict`."""
        return Deployments(self.http).predict(self.name, image, modules=modules)


class Deployments:
    """The resource `/v1/deployments`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, name: str, target: str) -> Deployment:
        """Serve a version under a name; repeating the call changes nothing."""
        return self._put(path_of("deployments", name), json={"target": target})

    def list(self) -> Iterator[Deployment]:
        """All deployments, newest first."""
        return self._http.pages(Deployment, "/v1/deployments")

    def get(self, name: str) -> Deployment:
        """One deployment, with its desired and its observed state."""
        return self._http.get(Deployment, path_of("deployments", name))

    def delete(self, name: str, *, if_match: int | None = None) -> None:
        """Delete a deployment; its target is no longer served. See `attach` for `if_match`."""
        self._http.delete(path_of("deployments", name), _condition(if_match))

    def attach(self, name: str, module_id: str, *, if_match: int | None = None) -> Deployment:
        """Attach a module; repeating the call changes nothing.

        Args:
            name: Name of the deployment.
            module_id: Id of the module.
            if_match: Expected generation; the call fails if the deployment has another. None: any generation.

        Raises:
            ApiError: the module does not fit the target, or the deployment has another generation.
            ServiceUnreachable: the service did not answer; the message says if the change may have been made.
        """
        return self._put(path_of("deployments", name, "modules", module_id), if_match=if_match)

    def detach(self, name: str, module_id: str, *, if_match: int | None = None) -> Deployment:
        """Detach a module; see `attach`."""
        path = path_of("deployments", name, "modules", module_id)
        return self._http.read(Deployment, self._http.request("DELETE", path, headers=_condition(if_match)))

    def set_modules(self, name: str, module_ids: Sequence[str], *, if_match: int | None = None) -> Deployment:
        """Set the attached modules to exactly these, in one revision."""
        path = path_of("deployments", name, "modules")
        return self._put(path, json={"modules": [*module_ids]}, if_match=if_match)

    def replicas(self, name: str) -> Iterator[Replica]:
        """The running serving processes, with the generation that each serves."""
        return self._http.pages(Replica, path_of("deployments", name, "replicas"))

    def revisions(self, name: str) -> Iterator[Revision]:
        """The deployment's revisions, newest first."""
        return self._http.pages(Revision, path_of("deployments", name, "revisions"))

    def rollback(self, name: str, generation: int, *, if_match: int | None = None) -> Deployment:
        """Return to the target and modules of an earlier generation; this creates a new generation."""
        path, headers = path_of("deployments", name, "rollback"), _condition(if_match)
        response = self._http.request("POST", path, json={"generation": generation}, headers=headers)
        return self._http.read(Deployment, response)

    def canary(self, name: str) -> Canary:
        """The canary of a deployment.

        Raises:
            ApiError: the deployment has no canary.
        """
        return self._http.get(Canary, path_of("deployments", name, "canary"))

    def put_canary(
        self, name: str, module_ids: Sequence[str], *, share: float, mode: str = "canary", if_match: int | None = None
    ) -> Deployment:
        """Start a canary or change it; repeating the call changes nothing.

        Args:
            name: Name of the deployment.
            module_ids: Ids of all modules of the canary; an empty list: the target alone.
            share: Share of the requests, 0 to 1.
            mode: `canary`: these modules answer the share of the requests. `shadow`: they only run on it.
            if_match: See `attach`.
        """
        body = {"modules": [*module_ids], "share": share, "mode": mode}
        return self._put(path_of("deployments", name, "canary"), json=body, if_match=if_match)

    def promote_canary(self, name: str, *, if_match: int | None = None) -> Deployment:
        """Attach exactly the modules of the canary, and end the canary, in one revision."""
        path = path_of("deployments", name, "canary", "promote")
        return self._http.read(Deployment, self._http.request("POST", path, headers=_condition(if_match)))

    def end_canary(self, name: str, *, if_match: int | None = None) -> Deployment:
        """End a canary; without a canary nothing changes."""
        path = path_of("deployments", name, "canary")
        return self._http.read(Deployment, self._http.request("DELETE", path, headers=_condition(if_match)))

    def wait(self, name: str, timeout: float = 60.0) -> Deployment:
        """Wait until the serving process has loaded or refused the newest generation.

        Raises:
            TimeoutError: the serving process has done neither within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not (deployment := self.get(name)).settled:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name}: expected generation {deployment.generation} within {timeout:g} s")
            self._http.sleep(POLL_SECONDS)
        return deployment

    def predict(
        self,
        name: str,
        image: bytes | Path,
        *,
        modules: Sequence[str] | None = None,
        generation: int | None = None,
        module_set: str | None = None,
        top: int | None = None,
    ) -> Prediction:
        """Classify an image.

        Args:
            name: Name of the deployment.
            image: An image file, or its bytes.
            modules: Ids of the modules to predict with; an empty list: the target alone; None: all attached modules.
            generation: An earlier generation, as long as the serving process keeps it; None: the newest.
            module_set: `main`: the attached modules; `canary`: those of the canary; None: drawn by the canary's share.
            top: Number of the most probable classes in the answer; None: all classes.

        Raises:
            ApiError: the bytes are not an image, or no serving process runs.
        """
        content = image.read_bytes() if isinstance(image, Path) else image
        path, headers = path_of("deployments", name, "predict"), {"Content-Type": _media_type(content)}
        params = _asked(modules, generation, module_set, top)
        response = self._http.request("POST", path, content=content, params=params, headers=headers)
        return self._http.read(Prediction, response)

    def predict_batch(
        self,
        name: str,
        images: Sequence[bytes | Path],
        *,
        modules: Sequence[str] | None = None,
        generation: int | None = None,
        module_set: str | None = None,
        top: int | None = None,
    ) -> Predictions:
        """Classify several images in one request; see `predict`, and `predict_all` for any number of images.

        Args:
            name: Name of the deployment.
            images: Image files, or their bytes; at most 256, and together at most the size that the service allows
                for a request (20 MiB unless its operator changed it).
            modules: As for `predict`.
            generation: As for `predict`.
            module_set: As for `predict`.
            top: As for `predict`.

        Raises:
            ApiError: the request is too large, or no serving process runs. A file that is no image is no error: its
                entry says why it was not classified.
        """
        files = []
        for image in images:
            content = image.read_bytes() if isinstance(image, Path) else image
            file = image.name if isinstance(image, Path) else "image"
            files.append(("images", (file, content, _media_type(content))))
        params = _asked(modules, generation, module_set, top)
        response = self._http.request(
            "POST", path_of("deployments", name, "predict", "batch"), files=files, params=params
        )
        return self._http.read(Predictions, response)

    def predict_all(
        self, name: str, images: Iterable[Path], *, modules: Sequence[str] | None = None, top: int | None = None
    ) -> Iterator[tuple[Path, ImagePrediction]]:
        """Classify any number of image files, some in each request.

        A deployment that changes meanwhile answers later requests with its new modules.

        Args:
            name: Name of the deployment.
            images: Image files, read when their request is sent.
            modules: As for `predict`.
            top: As for `predict`.

        Yields:
            Each file and its prediction, in the order of `images`.
        """
        for batch in _batches(images):
            answer = self.predict_batch(name, batch, modules=modules, top=top)
            yield from zip(batch, answer.images, strict=True)

    def _put(self, path: str, *, json: object = None, if_match: int | None = None) -> Deployment:
        response = self._http.request("PUT", path, json=json, headers=_condition(if_match))
        return self._http.read(Deployment, response)


def _batches(images: Iterable[Path]) -> Iterator[Sequence[Path]]:
    """Files for one request each: at most `BATCH` files and `BATCH_BYTES` bytes, or one larger file."""
    batch: list[Path] = []
    size = 0
    for image in images:
        own = image.stat().st_size
        if batch and (len(batch) == BATCH or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += own
    if batch:
        yield batch


def _asked(
    modules: Sequence[str] | None, generation: int | None, module_set: str | None, top: int | None
) -> dict[str, str | int | None]:
    """The query of a prediction."""
    chosen = None if modules is None else ",".join(modules)
    return {"modules": chosen, "generation": generation, "module_set": module_set, "top": top}


def _condition(if_match: int | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": f'"{if_match}"'}


def _media_type(content: bytes) -> str:
    if content.startswith(b"\x89PNG"):
        return "image/png"
    if content.startswith(b"\xff\xd8"):
        return "image/jpeg"
    return "image/webp" if content[8:12] == b"WEBP" else "application/octet-stream"


def _id(module: Module | str) -> str:
    return module if isinstance(module, str) else module.id
