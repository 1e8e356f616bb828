"""Keys, the workspace that they belong to, and what was done with them."""

import os
from collections.abc import Generator, Iterator, Sequence
from typing import Literal

import httpx

from pnc_client.http import Http, path_of
from pnc_client.schemas.keys import AuditEntry, Key, NewKey, Workspace

VARIABLE = "PNC_KEY"
"""Environment variable whose key is used when none is given."""


class Bearer(httpx.Auth):
    """Sends the key to the service alone: neither to its object store nor to where a redirect leads.

    Args:
        key: The secret.
        base: The service's address.
    """

    def __init__(self, key: str, base: httpx.URL) -> None:
        self._key = key
        self._origin = _origin(base)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header, if the request goes to the service."""
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


class Keys:
    """The resources `/v1/keys`, `/v1/workspace` and `/v1/audit`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, name: str, scopes: Sequence[str], *, days: int | None = None) -> NewKey:
        """Make a key of one's own workspace; keep its secret, nobody can get it again."""
        body = {"name": name, "scopes": list(scopes), "days": days}
        return self._http.post(NewKey, "/v1/keys", {key: value for key, value in body.items() if value is not None})

    def list(self) -> Iterator[Key]:
        """All keys, newest first, those that have ended included."""
        return self._http.pages(Key, "/v1/keys")

    def revoke(self, key_id: str) -> None:
        """End a key at once."""
        self._http.delete(path_of("keys", key_id))

    def workspace(self) -> Workspace:
        """One's own workspace, and what one's key may do there."""
        return self._http.get(Workspace, "/v1/workspace")

    def change_workspace(
        self, *, require_signature: bool | None = None, retention_days: int | Literal["off"] | None = None
    ) -> Workspace:
        """Change what deployments of one's own workspace take, and after how many days what is archived is purged."""
        body = {"require_signature": require_signature, "retention_days": retention_days}
        changes = {key: value for key, value in body.items() if value is not None}
        answer = self._http.request("PATCH", "/v1/workspace", json=changes)
        return self._http.read(Workspace, answer)

    def audit(self, *, key: str | None = None) -> Iterator[AuditEntry]:
        """What was done in the workspace, newest first; with one key or all."""
        return self._http.pages(AuditEntry, "/v1/audit", key=key)


def bearer(key: str | None, base: httpx.URL) -> Bearer | None:
    """How requests prove who they are: with this key, else with the environment's, else not at all."""
    secret = key or os.environ.get(VARIABLE, "").strip()
    return Bearer(secret, base) if secret else None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
