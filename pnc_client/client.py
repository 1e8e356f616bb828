"""The client: one object with an attribute for each resource."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from pnc_client.compositions import Compositions
from pnc_client.datasets import Datasets
from pnc_client.deployments import Deployments
from pnc_client.errors import ServiceUnreachable
from pnc_client.http import Http
from pnc_client.imports import Imports
from pnc_client.jobs import Jobs
from pnc_client.keys import Keys, Signatures, bearer
from pnc_client.models import Models
from pnc_client.modules import Modules
from pnc_client.schemas.shapes import ResponseBody
from pnc_client.uploads import Uploads
from pnc_client.webhooks import Webhooks

DEFAULT_URL = "http://127.0.0.1:8000"


class Health(ResponseBody):
    """Response of a health check."""

    status: str


class Client:
    """A client of a cloning service; use it in a `with` statement, or call `close`.

    Args:
        url: Address of the service.
        key: A key of the API; None: the key in PNC_KEY, or no key.
        timeout: Seconds to wait for a response.
        attempts: How often a request is sent at most.
        transport: Replaces the network in tests.
        sleep: Waits a number of seconds; tests pass a function that returns at once.

    Raises:
        ServiceUnreachable: `url` is not an HTTP address.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        auth = bearer(key, _address(url))
        self._client = httpx.Client(base_url=url, timeout=timeout, transport=transport, auth=auth)
        http = Http(self._client, attempts, sleep)
        self._http = http
        self.uploads = Uploads(http)
        self.models = Models(http)
        self.imports = Imports(http)
        self.datasets = Datasets(http)
        self.jobs = Jobs(http)
        self.modules = Modules(http)
        self.compositions = Compositions(http)
        self.deployments = Deployments(http)
        self.webhooks = Webhooks(http)
        self.keys = Keys(http)
        self.signatures = Signatures(http)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Address of the service."""
        return str(self._client.base_url)

    def alive(self) -> bool:
        """Whether the service's process answers.

        Raises:
            ServiceUnreachable: the service does not answer.
        """
        return self._http.get(Health, "/healthz").status == "ok"

    def ready(self) -> bool:
        """Whether the service's database and store are usable.

        Raises:
            ApiError: one of them is not usable; `detail` says why.
        """
        return self._http.get(Health, "/readyz").status == "ready"

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError("http:// or the host is missing")
    except (httpx.InvalidURL, ValueError) as error:
        raise ServiceUnreachable(
            f"expected an address such as {DEFAULT_URL}, got {url!r:.80} ({error}); write the address in that form"
        ) from None
    return address
