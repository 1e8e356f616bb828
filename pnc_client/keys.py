"""Keys of the API, the workspace, the audit log, trusted public keys and signatures."""

import os
from collections.abc import Generator, Iterator, Sequence
from typing import Literal

import httpx

from pnc_client.http import Http, path_of
from pnc_client.schemas.keys import AuditEntry, Key, KeySecret, Workspace
from pnc_client.schemas.signatures import Signature, TrustedKey

VARIABLE = "PNC_KEY"
"""Environment variable whose key is used when no key is given."""


class Bearer(httpx.Auth):
    """Sends the key to the service only, never to its object store or to another server after a redirect.

    Args:
        key: The secret.
        base: The service's address.
    """

    def __init__(self, key: str, base: httpx.URL) -> None:
        self._key = key
        self._origin = _origin(base)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the Authorization header if the request goes to the service."""
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


class Keys:
    """The resources `/v1/keys`, `/v1/workspace` and `/v1/audit`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, name: str, scopes: Sequence[str], *, days: int | None = None) -> KeySecret:
        """Create a key of the caller's workspace; store its secret, because the service cannot show it again.

        Args:
            name: Name for people.
            scopes: `read`, `write`, `jobs`, `deploy`, `admin`.
            days: Days until the key expires; None: it does not expire.
        """
        return self._http.post(KeySecret, "/v1/keys", {"name": name, "scopes": list(scopes), "days": days})

    def list(self) -> Iterator[Key]:
        """All keys, newest first, including expired and revoked keys."""
        return self._http.pages(Key, "/v1/keys")

    def revoke(self, key_id: str) -> None:
        """Revoke a key; its next request is refused."""
        self._http.delete(path_of("keys", key_id))

    def workspace(self) -> Workspace:
        """The caller's workspace, with the scopes of the caller's key."""
        return self._http.get(Workspace, "/v1/workspace")

    def change_workspace(
        self, *, require_signature: bool | None = None, retention_days: int | Literal["off"] | None = None
    ) -> Workspace:
        """Change the caller's workspace.

        Args:
            require_signature: Whether deployments take only modules that a trusted key has signed; None: unchanged.
            retention_days: Days until archived resources are purged; `off`: never automatically; None: unchanged.
        """
        fields = {"require_signature": require_signature, "retention_days": retention_days}
        return self._http.patch(Workspace, "/v1/workspace", fields)

    def audit(self, *, key: str | None = None) -> Iterator[AuditEntry]:
        """The workspace's audit log, newest first; with `key` only the requests of that key."""
        return self._http.pages(AuditEntry, "/v1/audit", key=key)


class Signatures:
    """The resources `/v1/trusted-keys` and `/v1/modules/{module}/signature`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def trust(self, name: str, key: str) -> TrustedKey:
        """Trust the signatures of a public key."""
        return self._http.post(TrustedKey, "/v1/trusted-keys", {"name": name, "key": key})

    def trusted(self) -> Iterator[TrustedKey]:
        """The trusted public keys, newest first."""
        return self._http.pages(TrustedKey, "/v1/trusted-keys")

    def distrust(self, name: str) -> None:
        """Stop trusting a public key."""
        self._http.delete(path_of("trusted-keys", name))

    def put(self, module_id: str, text: str) -> Signature:
        """Store a signature of a module."""
        return self._http.put(Signature, path_of("modules", module_id, "signature"), {"signature": text})

    def get(self, module_id: str) -> Signature:
        """The signature of a module."""
        return self._http.get(Signature, path_of("modules", module_id, "signature"))


def bearer(key: str | None, base: httpx.URL) -> Bearer | None:
    """Authentication with the given key, or else with the key in PNC_KEY; None if there is no key."""
    secret = key or os.environ.get(VARIABLE, "").strip()
    return Bearer(secret, base) if secret else None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
